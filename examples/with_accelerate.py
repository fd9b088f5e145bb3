"""Train torchvision's ResNet-18 on a shard set with Hugging Face Accelerate: pip install accelerate.

    accelerate launch examples/with_accelerate.py out --epochs 90 --batch-size 256

`accelerator.prepare` returns objects that are not DataLoaders unchanged: nothing is sharded or copied a second time.
The loader itself takes each process's share of the global batch, and its batches are on the device already. Because it
is registered for checkpointing, its position is saved and loaded with the rest.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from alexnet_dali.pipeline import TrainLoader
from torchvision.models import resnet18

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("shards", type=Path)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--batch-size", type=int, default=64, help="global: of all processes together")
parser.add_argument("--steps", type=int, default=0, help="stop after this many steps; 0: never")
parser.add_argument("--state", type=Path, help="folder to resume from, if it exists, and to save to")
options = parser.parse_args()

accelerator = Accelerator(cpu=not torch.cuda.is_available())
torch.manual_seed(0)
train = TrainLoader(options.shards, options.batch_size, device=accelerator.device)
scale = torch.from_numpy(train.stats.covariance.diagonal() ** -0.5).float().to(accelerator.device).view(3, 1, 1)
net = resnet18(num_classes=len(train.shard_set.classes))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1 * options.batch_size / 256, momentum=0.9, weight_decay=1e-4)
net, optimizer, train = accelerator.prepare(net, optimizer, train)
accelerator.register_for_checkpointing(train)
if options.state and options.state.exists():
    accelerator.load_state(options.state)

steps = 0
net.train()
while train.state_dict()["epoch"] < options.epochs and not (options.steps and steps == options.steps):
    for images, labels in train:  # the rest of an epoch
        loss = F.cross_entropy(net(images * scale), labels)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        place = train.state_dict()
        accelerator.print(f"loss {loss.item():.4f}  next epoch {place['epoch']}, step {place['step']}")
        if steps == options.steps:
            break
if options.state:
    accelerator.save_state(options.state)
accelerator.end_training()
