"""What the tests of training share: a net with few hidden units, few photos, runs to compare bit by bit.

The convolutions are the real ones; fc6 and fc7 have 64 units in place of 4,096, so that a checkpoint is 25 MB
instead of 450 and a step is not spent on reading weights.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from alexnet_dali.model.nets import alexnet
from alexnet_dali.model.recipes.config import Config
from alexnet_dali.model.training import checkpoint, metrics
from alexnet_dali.model.training.trainer import Trainer
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.shards.manifest import ShardSet
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.stream.bottleneck import SHARES
from alexnet_dali.tools.prep.sample_photos import make_photos
from alexnet_dali.tools.process import keep_memory

HIDDEN = 64
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
CLOCKS = ("images_per_second", "stall_percent", *SHARES, "val_seconds")  # what two equal runs may differ in
# For a process of its own: shrinks the net before alexnet-train reads how large it is.
COMMAND = f"""
import alexnet_dali.model.nets.alexnet as alexnet
alexnet.HIDDEN = {HIDDEN}
from alexnet_dali.tools.train.cli import main
main()"""


def shrink(monkeypatch):
    """Make nets of few hidden units until the test ends."""
    monkeypatch.setattr(alexnet, "HIDDEN", HIDDEN)
    keep_memory()  # as the commands do: half of the time of a step


def few_shards(folder: Path, train=6, val=3) -> ShardSet:
    """Six photos to train on, three to test, four classes, with statistics; without val, none is held out."""
    make_photos(folder / "photos", train=train, val=val, classes=4, seed=2, side=(60, 90))
    with ThreadPoolExecutor(1) as executor:
        shard_set, _ = build_shards(
            find_photos(folder / "photos", val_share=0.0), folder / "shards", BuildOptions(), executor
        )
        stats.save_stats(stats.measure_stats(shard_set, executor), shard_set.root)
    return shard_set


def config(shard_set, **changes) -> Config:
    """A run over `few_shards`: 2 epochs of 3 steps."""
    options = {
        "shards": str(shard_set.root),
        "recipe": "source2012",
        "epochs": 2,
        "batch_size": 2,
        "rate": 0.001,
        "precision": "fp32",
        "device": "cpu",
        "log_every": 2,
    }
    return Config(**options | changes)


def trainer_of(shard_set, run: Path, *, resume=False, first=None, **changes) -> Trainer:
    """A trainer as alexnet-train makes it; `first`, the checkpoint whose weights it begins with."""
    run.mkdir(exist_ok=True)
    saved = checkpoint.load(run / "last.pt") if resume else None
    return Trainer(config(shard_set, **changes), shard_set, stats.load_stats(shard_set), run, saved, first)


def lines(run: Path) -> list[dict]:
    """The metrics without their clocks."""
    return [
        {name: value for name, value in line.items() if name not in CLOCKS}
        for line in metrics.read(run / "metrics.jsonl")
    ]


def assert_same_run(run: Path, other: Path):
    """Compare two runs' last checkpoints, bit by bit, and their metrics.

    They are equal by construction: the same batches, operations and number of threads, on one machine.
    """
    one, two = (checkpoint.load(each / "last.pt") for each in (run, other))
    for part in ("model", "velocity"):
        assert one[part].keys() == two[part].keys()
        unequal = [name for name in one[part] if not torch.equal(one[part][name], two[part][name])]
        assert not unequal, f"{part}: {unequal}"
    for name in ("epoch", "step", "steps_done", "schedule", "early_stop", "best_error", "in_epoch", "window"):
        assert one[name] == two[name], name
    assert lines(run) == lines(other)
