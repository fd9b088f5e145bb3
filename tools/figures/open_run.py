"""A run and its shard set, opened for a figure; the options that all figures of a run share.

In:  what the user typed.  Out: a net ready to look at photos, its set, names of classes for people.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch

from ...model.training import checkpoint as checkpoints
from ...model.weights.trained import Trained, load_trained
from ...pipeline.errors import UsageError
from ...pipeline.files import printable
from ...pipeline.shards.manifest import ShardSet, open_shard_set
from ..process import pick_device

# Imagenette's folders are called by WordNet's numbers, and nothing in it says what they mean.
IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
FOLDER = click.Path(path_type=Path)
RUN = click.argument("run", type=FOLDER)
OUT = click.option("--out", type=FOLDER, help="Folder of the figures.  [default: RUN/figures]")
SHARDS = click.option("--shards", type=FOLDER, help="The shard set.  [default: the one trained on]")
SPLIT = click.option("--split", default="val", show_default=True, help="Which split's photos.")
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)


@dataclass(frozen=True)
class Opened:
    """A net and the photos that it looks at.

    Attributes:
        run: the folder, or the file, that was named.
        trained: the checkpoint: net in evaluation mode on `device`, recipe, statistics, classes.
        shard_set: opened and checked against the net.
        device: where the net is.
    """

    run: Path
    trained: Trained
    shard_set: ShardSet
    device: torch.device

    @property
    def names(self) -> list[str]:
        """A name for people of each class."""
        return names_of(self.shard_set)


def open_run(run: Path, shards: Path | None, device: str = "auto") -> Opened:
    """Open a run's best checkpoint and its shard set.

    Raises:
        UsageError, TrainingError: there is none, or they do not fit.
    """
    trained = load_trained(checkpoints.run_checkpoint(run))
    where = shards or trained.shards
    if not where.exists():
        raise UsageError(f"{trained.file}: its shard set {where} is gone", "say where it is with --shards")
    shard_set = open_shard_set(where)
    if not shard_set.classes:  # of photos without labels alone: the net's will do
        shard_set = replace(shard_set, classes=tuple(trained.classes))
    trained.check_set(shard_set)
    chosen = pick_device(device)
    trained.net.eval().to(chosen).to(memory_format=torch.channels_last)
    return Opened(run, trained, shard_set, chosen)


def folder_for(run: Path, out: Path | None) -> Path:
    """Where a run's figures go: as asked, else beside its checkpoints."""
    return out or (run if run.is_dir() else run.parent) / "figures"


def names_of(shard_set: ShardSet) -> list[str]:
    """A name for people of each class: the first of its words, or Imagenette's, else its folder's name."""
    words = {entry["name"]: entry.get("words", "") for entry in shard_set.manifest["classes"]}
    return [printable(short_name(words.get(name) or IMAGENETTE.get(name, name))) for name in shard_set.classes]


def short_name(words: str) -> str:
    """`tench, Tinca tinca` is a tench."""
    return words.split(",")[0].strip()


def of_a_run(command: Callable) -> Callable:
    """Give a command the argument RUN and the options --out, --shards, --split and --device."""
    for decorate in (DEVICE, SPLIT, SHARDS, OUT, RUN):
        command = decorate(command)
    return command
