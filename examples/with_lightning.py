"""Train torchvision's ResNet-18 on a shard set with Lightning: pip install lightning.

    python examples/with_lightning.py out --epochs 90 --batch-size 256

The loaders are not DataLoaders, so Lightning adds no sampler: on several GPUs each process takes its share of the
global batch by itself. Lightning saves the loader's position in its checkpoints, so that
`trainer.fit(..., ckpt_path="last.ckpt")` resumes in the middle of an epoch, or with the next one.
"""

import argparse

import lightning
import torch
import torch.nn.functional as F
from alexnet_dali.pipeline import EvalLoader, TrainLoader
from torchvision.models import resnet18


class Net(lightning.LightningModule):
    def __init__(self, classes, variances, rate):
        super().__init__()
        self.net, self.rate = resnet18(num_classes=classes), rate
        self.register_buffer("scale", torch.from_numpy(variances**-0.5).float().view(3, 1, 1), persistent=False)

    def training_step(self, batch, _):
        images, labels = batch
        loss = F.cross_entropy(self.net(images * self.scale), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, _):
        images, labels = batch
        wrong = self.net(images * self.scale).argmax(1) != labels
        self.log("val_top1_error", wrong.float().mean(), batch_size=len(labels), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9, weight_decay=1e-4)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=-1)
    parser.add_argument("--save-every", type=int, default=1000, help="steps between checkpoints")
    parser.add_argument("--resume", help="a Lightning checkpoint")
    options = parser.parse_args()
    lightning.seed_everything(0)
    keep = lightning.pytorch.callbacks.ModelCheckpoint(every_n_train_steps=options.save_every)
    trainer = lightning.Trainer(max_epochs=options.epochs, max_steps=options.steps, callbacks=[keep])
    device = "cuda" if trainer.strategy.root_device.type == "cuda" else "cpu"
    train = TrainLoader(options.shards, options.batch_size, device=device)
    val = EvalLoader(options.shards, device=device) if train.shard_set.has("val") else None
    net = Net(len(train.shard_set.classes), train.stats.covariance.diagonal(), 0.1 * options.batch_size / 256)
    trainer.fit(net, train, val, ckpt_path=options.resume)
    print({name: round(float(value), 4) for name, value in trainer.callback_metrics.items()})


if __name__ == "__main__":
    main()
