"""Open a run and its shard set for a figure; the options that all figures of a run share.

In:  command-line values.  Out: a net in evaluation mode, its shard set, the classes' display names.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch

from ...model.weights.trained import Trained, load_trained
from ...pipeline.errors import UsageError
from ...pipeline.files import printable
from ...pipeline.shards.manifest import ShardSet, open_shard_set
from .. import options
from ..process import pick_device

# Imagenette names its folders by WordNet numbers and contains no file that translates them.
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
RUN = click.argument("run", type=options.PATH)
OUT = options.path("--out", help="Folder of the figures.  [default: RUN/figures]")
SPLIT = click.option("--split", default="val", show_default=True, help="Split to read.")


@dataclass(frozen=True)
class Opened:
    """A net and its shard set.

    Attributes:
        run: the folder or checkpoint file that the user named.
        trained: the checkpoint: net in evaluation mode on `device`, recipe, statistics, classes.
        shard_set: opened, and checked to fit the net.
        device: where the net is.
    """

    run: Path
    trained: Trained
    shard_set: ShardSet
    device: torch.device

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return run_folder(self.run)

    @property
    def names(self) -> list[str]:
        """The display name of each class."""
        return names_of(self.shard_set)


def open_run(run: Path, shards: Path | None, device: str = "auto", *, other_classes: bool = False) -> Opened:
    """Open a run's best checkpoint and its shard set.

    Args:
        shards: the shard set; None, the one the run was trained on.
        other_classes: accept a set of other classes than the net's, for features, which need none.
    Raises:
        UsageError, TrainingError: the checkpoint or the set is missing, or they do not fit.
    """
    trained = load_trained(run)
    shard_set = open_shard_set(shards_of(trained, shards))
    if not shard_set.classes:  # a set of unlabelled photos only: use the net's classes
        shard_set = replace(shard_set, classes=tuple(trained.classes))
    if other_classes:
        trained.check_size(shard_set)
    else:
        trained.check_set(shard_set)
    chosen = pick_device(device)
    trained.net.eval().to(chosen).to(memory_format=torch.channels_last)
    return Opened(run, trained, shard_set, chosen)


def shards_of(trained: Trained, shards: Path | None) -> Path:
    """Return the shard set's folder: as given, else the one the net was trained on.

    Raises:
        UsageError: the folder does not exist.
    """
    folder = shards or trained.shards
    if not folder.exists():
        raise UsageError(f"{trained.file}: its shard set {folder} does not exist", "name its folder with --shards")
    return folder


def run_folder(run: Path) -> Path:
    """Return the folder of a run that was named by its folder or by one of its checkpoints."""
    return run if run.is_dir() else run.parent


def folder_for(run: Path, out: Path | None) -> Path:
    """Return the folder for a run's figures: as given, else `figures` beside its checkpoints."""
    return out or run_folder(run) / "figures"


def names_of(shard_set: ShardSet) -> list[str]:
    """Return the display name of each class: the first of its words, Imagenette's name, or its folder's name."""
    words = {entry["name"]: entry.get("words", "") for entry in shard_set.manifest["classes"]}
    return [printable(short_name(words.get(name) or IMAGENETTE.get(name, name))) for name in shard_set.classes]


def short_name(words: str) -> str:
    """Return the first synonym: `tench` of `tench, Tinca tinca`."""
    return words.split(",")[0].strip()


def of_a_run(command: Callable) -> Callable:
    """Add the argument RUN and the options --out, --shards, --split and --device to a command."""
    for decorate in (options.device, SPLIT, options.run_shards, OUT, RUN):
        command = decorate(command)
    return command
