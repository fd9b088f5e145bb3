"""The settings and options that several commands share, each written once.

In:  nothing.  Out: decorators for click commands. Imports neither torch nor DALI, so that `--help` is fast.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Any], Any]

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}  # of each command
PATH = click.Path(path_type=Path)

version = click.version_option(package_name="alexnet-dali")


def path(*names: str, help: str, **settings: Any) -> Decorator:
    """Return an option whose value is a `Path`: a file or a folder, existing or not."""
    return click.option(*names, type=PATH, help=help, **settings)


def shards(help: str = "The shard set.") -> Decorator:
    """Return `--shards`, a shard set's folder; the default is the one that `build-lmdb` writes."""
    return path("--shards", default="out", show_default=True, help=help)


def workers(kind: str = "Processes") -> Decorator:
    """Return `--workers`, a number of processes or threads."""
    return click.option("--workers", type=click.IntRange(1), help=f"{kind}.  [default: one per core]")


def seed(help: str) -> Decorator:
    """Return `--seed`, 0 or more."""
    return click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help=help)


def precision() -> Decorator:
    """Return `--precision`, None where it was not given."""
    from ..model.recipes.config import PRECISIONS  # needs NumPy, and alexnet-prep doctor works without it

    help = "Number format of the arithmetic.  [default: fp32 on the CPU, tf32 on a GPU]"
    return click.option("--precision", type=click.Choice(PRECISIONS), help=help)


def json_file(help: str = "Also write the results to this JSON file.") -> Decorator:
    """Return `--json FILE`, given to the command as `json_file`."""
    return path("--json", "json_file", help=help)


force = click.option("--force", is_flag=True, help="Overwrite an existing output file of any kind.")
run_shards = path("--shards", help="The shard set.  [default: the one the run was trained on]")
index_folder = path("--index", "index_folder", help="The index.  [default: RUN/index]")
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto: the GPU if there is one.",
)
repeats = click.option(
    "--repeats", type=click.IntRange(1), default=3, show_default=True, help="Measured rounds after the warm-up."
)
batch_size = click.option(
    "--batch-size", type=click.IntRange(1), default=128, show_default=True, help="Images per batch."
)
