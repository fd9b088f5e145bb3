"""The programs of examples/ as people start them, and every block of docs/reuse.md, on a shard set."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import lightning
import pytest
import tiny
import torch
import torchvision
from alexnet_dali.pipeline.plan.plan import Augmentation
from alexnet_dali.pipeline.stream.loaders import EvalLoader, TrainLoader

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Eight photos to train on, three to test: four steps of two are an epoch."""
    return tiny.few_shards(tmp_path_factory.mktemp("few"), train=8)


@pytest.fixture(params=["here", pytest.param("as people start it", marks=pytest.mark.slow)])
def start(request, few, tmp_path, monkeypatch, capsys):
    """Start an example over the shard set in a folder of its own, in this process or in another; what it printed."""

    def here(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, str(few.root), "--batch-size", "2", *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    def apart(name, *arguments):
        command = [sys.executable, EXAMPLES / name, few.root, "--batch-size", "2", *map(str, arguments)]
        done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return here if request.param == "here" else apart


def steps(text):
    """Loss and place after each step."""
    return re.findall(r"loss (\d\.\d{4})  next (epoch \d, step \d)", text)


@pytest.mark.parametrize("name", ["plain_torch.py", pytest.param("with_accelerate.py", marks=pytest.mark.slow)])
def test_an_example_stopped_within_an_epoch_goes_on_to_the_same_losses(start, name):
    said = start(name, "--epochs", 2, "--steps", 5, "--state", "whole")
    whole = steps(said)
    assert ("val top-1 error" in said) == (name == "plain_torch.py")
    assert [place for _, place in whole[2:]] == [
        "epoch 0, step 3",
        "epoch 1, step 0",
        "epoch 1, step 1",
    ]
    parts = steps(start(name, "--steps", 3, "--state", "parts"))
    parts += steps(start(name, "--epochs", 2, "--steps", 2, "--state", "parts"))
    # As printed, in four digits, and before that bit for bit: the same batches with the same threads.
    assert parts == whole and len({loss for loss, _ in whole}) == 5


def test_the_lightning_example_stopped_within_an_epoch_goes_on_to_the_same_weights(start, tmp_path):
    def checkpoint(version):
        (path,) = (tmp_path / f"lightning_logs/version_{version}/checkpoints").glob("*.ckpt")
        return path

    assert "'val_top1_error'" in start("with_lightning.py", "--epochs", 2, "--steps", 5, "--save-every", 5)
    start("with_lightning.py", "--epochs", 2, "--steps", 3, "--save-every", 3)
    start("with_lightning.py", "--epochs", 2, "--steps", 5, "--save-every", 5, "--resume", checkpoint(1))
    whole, part, resumed = (torch.load(checkpoint(version), weights_only=False) for version in range(3))
    for saved, place in ((part, (0, 3)), (resumed, (1, 1))):
        (state,) = saved["loops"]["fit_loop"]["state_dict"]["combined_loader"]
        assert (state["epoch"], state["step"]) == place
    assert len(whole["state_dict"]) == 122
    # Bit for bit: the same batches with the same threads, seeded alike.
    assert all(torch.equal(whole["state_dict"][name], resumed["state_dict"][name]) for name in whole["state_dict"])


class Records(lightning.LightningModule):
    """Learns nothing, and remembers what it was given."""

    def __init__(self, loader):
        super().__init__()
        self.weight, self.loader, self.seen = torch.nn.Parameter(torch.zeros(1)), loader, []

    def training_step(self, batch, _):
        place = self.loader.state_dict()
        self.seen.append((self.current_epoch, place["epoch"], place["step"], batch[0].double().sum().item()))
        return 0 * self.weight.sum()

    def validation_step(self, batch, _, dataloader_idx=0):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    "limit, stop, saves, goes_on",
    [
        (1.0, {"max_epochs": 1}, {"every_n_epochs": 1}, 4),  # at an epoch's end
        (2, {"max_epochs": 1}, {"every_n_epochs": 1}, 2),  # at the end of an epoch that was cut short
        (1.0, {"max_steps": 3}, {"every_n_train_steps": 3}, 3),
        (1.0, {"max_steps": 6}, {"every_n_train_steps": 6}, 6),
    ],
    ids=["epoch", "short epoch", "within the first", "within the second"],
)
def test_lightning_goes_on_with_the_batches_that_were_next(few, tmp_path, limit, stop, saves, goes_on):
    def seen(folder, resume=None, **stop):
        loader = TrainLoader(few, 2, augmentation=Augmentation(crop=32), decode="threads", threads=1)
        keep = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path / folder, filename="kept", **saves)
        module = Records(loader)
        lightning.Trainer(
            **stop,
            limit_train_batches=limit,
            accelerator="cpu",
            logger=False,
            callbacks=[keep],
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, loader, ckpt_path=resume)
        return module.seen

    whole = seen("whole", max_epochs=3)
    assert len({batch for *_, batch in whole}) == len(whole) == (6 if limit == 2 else 12)
    assert seen("part", **stop) == whole[:goes_on]
    assert seen("resumed", tmp_path / "part" / "kept.ckpt", max_epochs=3) == whole[goes_on:]


def test_lightning_validates_with_either_loader(few):
    """It looks for a DataLoader's sampler and batch_sampler where it does."""
    train, val = (TrainLoader(few, 2, augmentation=Augmentation(crop=32), threads=1) for _ in range(2))
    module = Records(train)
    trainer = lightning.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(module, train, [val, EvalLoader(few, crop=32, threads=1)])
    assert len(module.seen) == 4


def test_examples_are_short():
    """Whoever copies one reads all of it. None may bear the name of a module that it imports."""
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 70, path
        assert path.stem not in sys.stdlib_module_names | {"lightning", "accelerate", "torch"}


class Module(lightning.LightningModule):
    """The reader's own."""

    def __init__(self):
        super().__init__()
        self.net = torchvision.models.mobilenet_v3_small(num_classes=4)
        self.seen = []

    def training_step(self, batch, _):
        self.seen.append(len(batch[1]))
        return torch.nn.functional.cross_entropy(self.net(batch[0] / 64), batch[1])

    def validation_step(self, batch, _):
        self.seen.append(-len(batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def blocks():
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "reuse.md").read_text(), re.S)


@pytest.mark.parametrize("net", ["mobilenet_v3_small", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_the_blocks_of_the_page_run_one_after_the_other(shards, tmp_path, monkeypatch, net):
    """In the first a net that takes less time, or the one that is there."""
    assert len(blocks()) == 9
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").symlink_to(shards.root)
    run = tmp_path / "run"
    assert tiny.trainer_of(shards, run, model="resnet18", crop=64, steps=1).train()
    names = {"module": Module(), "run": run}
    for number, block in enumerate(blocks()):
        with monkeypatch.context() as patch:
            if number == 0:
                patch.setattr(torchvision.models, "resnet18", getattr(torchvision.models, net))
            exec(compile(block, f"docs/reuse.md, block {number + 1}", "exec"), names)
        if "saved =" in block:
            assert names["saved"].items() <= names["loader"].state_dict().items()
        if 'mean="imagenet"' in block:
            check_normalised(names["images"], names["labels"], shards)
        if "ResizedCrop" in block and "resized" in names:
            assert names["images"].shape == (32, 3, 176, 176) and names["images"].abs().max() <= 2
        if "lightning" in block:
            assert names["module"].seen == [-20, 60, -20]  # Lightning looks at two batches of val before it begins
        if "accelerator" in block:
            assert type(names["loader"]).__name__ == "TrainLoader"
        if "dataset =" in block:
            images, labels = next(iter(names["batches"]))
            assert images.shape == (16, 3, 224, 224) and labels.shape == (16,)


def check_normalised(images, labels, shards):
    """Against torchvision's own: the whole set's mean and deviation over all pixels of random windows."""
    import stored
    from torchvision.transforms import v2

    normalise = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    whole = torch.stack([normalise(record.pixels) for record in stored.records(shards.root, "train")])
    assert images.shape == (60, 3, 224, 224) and len(labels) == 60
    for found, expected in ((images.mean((0, 2, 3)), whole.mean((0, 2, 3))), (images.std(), whole.std())):
        torch.testing.assert_close(found, expected, atol=0.03, rtol=0.03)
