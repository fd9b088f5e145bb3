"""A run on disk: one file a checkpoint, old or new and never between, loaded without running anything from it.

In:  plain values and tensors.  Out: `last.pt` and `best.pt`, and back, checked.
`weights_only=True`: nothing is unpickled but tensors and plain values, so a stranger's file cannot run code.
"""

import errno
import os
import shutil
import zipfile
from contextlib import contextmanager
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ...pipeline.errors import TrainingError, UsageError
from ...pipeline.files import sync_folder, write_atomically
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ..recipes.config import Config
from .run_files import check_finite, check_regular, write_errors

NAMES = ("best.pt", "last.pt")  # in a run's folder; the first that is there is the one to use
FORMAT = "alexnet-dali checkpoint"
VERSION = 1
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # as torch has it; tools/console.py tells it
OF_THE_FILE = (None, errno.EINVAL, errno.EISDIR)  # errors of the system that a damaged file causes; others the disk
PARTS: dict[str, type] = {  # what going on takes of it
    **dict.fromkeys(("config", "recipe", "model", "velocity"), dict),
    **dict.fromkeys(("classes", "in_epoch", "window", "epoch_seconds"), list),
    **dict.fromkeys(("epoch", "step"), int),
    **{"shards": str, "best_error": float},
}
STATS = ("mean_image", "mean_rgb", "covariance", "eigenvalues", "eigenvectors")  # arrays of Stats, in its order


def save(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint atomically and durably; on failure the old one stays.

    Raises:
        TrainingError: it cannot be written.
    """
    with write_errors(path):
        write_atomically(path, lambda file: torch.save({"format": FORMAT, "version": VERSION, **checkpoint}, file))


def load(path: Path) -> dict:
    """Read a checkpoint and check that it is one of ours.

    Raises:
        UsageError: no such file.
        TrainingError: damaged, foreign, of another version, or no file but a pipe or a device.
        MemoryError, RuntimeError: it is larger than the memory that is left.
    """
    check_regular(path)
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such checkpoint", "name a folder that alexnet-train wrote, runs/source2012 say"
        ) from None
    except MemoryError:
        raise  # this machine's, and no fault of the file
    except Exception as error:  # zipfile and torch raise whatever they like at a damaged file
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise
        if isinstance(error, OSError) and error.errno not in OF_THE_FILE:
            raise TrainingError(
                f"{path}: cannot be read: {error}", "see that you may read it, and to its disk"
            ) from None
        raise TrainingError(
            f"{path}: damaged, or not a checkpoint ({type(error).__name__}: {' '.join(str(error).split())[:160]})",
            f"use another checkpoint of that run: {', '.join(_others(path)) or 'there is none'}",
        ) from None
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise TrainingError(f"{path}: not a checkpoint of alexnet-train", "name a run's folder, or its .pt file")
    if checkpoint.get("version") != VERSION:
        raise TrainingError(
            f"{path}: version {checkpoint.get('version')}, this program reads version {VERSION}", "update alexnet-dali"
        )
    return checkpoint


def run_checkpoint(run: Path) -> Path:
    """The file to use of a run: a file itself, or of a folder `best.pt`, else `last.pt`; of an export its weights."""
    if run.is_dir():
        there = (run / name for name in (*NAMES, "model.safetensors") if (run / name).exists())
        return next(there, run / "last.pt")
    return run


@contextmanager
def fits_this_version(file: Path):
    """Say so where what a checkpoint holds is not what this version's net and run are made of.

    Raises:
        TrainingError: it does not fit.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{file}: of another net: {' '.join(str(error).split())[:200]}",
            "use the version of alexnet-dali that wrote it",
        ) from None


def check_run(saved: dict, file: Path) -> dict:
    """Check that a checkpoint holds what a run needs to go on; what its values say is checked where they are used.

    Returns:
        The checkpoint.
    Raises:
        TrainingError: something is missing, or is of another type.
    """
    with fits_this_version(file):
        for name, kind in PARTS.items():
            check_kind(name, saved[name], kind)
        for field in fields(Config):
            if field.name in saved["config"] or field.default is MISSING:
                check_kind(field.name, saved["config"][field.name], field.type)
        if min(saved["epoch"], saved["step"]) < 0 or [len(saved[name]) for name in ("in_epoch", "window")] != [4, 4]:
            raise ValueError("its place or its sums are none")
        if "processes" in saved["config"] and "parallel" not in saved["config"]:
            raise KeyError("parallel")
        torch.device(saved["config"]["device"])
        check_finite(saved, file)
    return saved


def check_kind(name: str, value: object, kind: object) -> None:
    """Raise a TypeError where a value of a checkpoint is of another type than it was written with."""
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):  # type: ignore[arg-type]
        raise TypeError(f"its {name} is of type {type(value).__name__}")


def stats_to_save(stats: Stats) -> dict:
    """The statistics a net was trained with: without its mean, a net is worth nothing."""
    return {
        "images": stats.images,
        "fingerprint": stats.fingerprint,
        **{name: torch.from_numpy(np.ascontiguousarray(getattr(stats, name))) for name in STATS},
    }


def check_classes(classes: list[str], shard_set: ShardSet, file: Path) -> None:
    """Check that a net of these classes can look at a shard set.

    Raises:
        TrainingError: the set has others.
    """
    if list(classes) != list(shard_set.classes):
        raise TrainingError(
            f"{file}: trained on {len(classes)} classes ({', '.join(map(str, classes[:3]))}, ...), but "
            f"{shard_set.root} has {len(shard_set.classes)} "
            f"({', '.join(shard_set.classes[:3])}, ...)",
            "use the shard set it was trained on, or one built from the same class folders",
        )


def hard_link(file: Path, other: Path) -> None:
    """Make `other` another name of a checkpoint; the next save replaces one name and leaves the other's file alone.

    Raises:
        TrainingError: it cannot be written.
    """
    beside = other.with_name(f".{other.name}.part")
    with write_errors(other):
        beside.unlink(missing_ok=True)
        try:
            os.link(file, beside)
        except OSError:  # a file system without hard links: a copy, on the disk before it has the name
            with open(file, "rb") as saved:
                write_atomically(other, partial(shutil.copyfileobj, saved))
            return
        try:
            os.replace(beside, other)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync_folder(other.parent)


def _check_sums(path: Path) -> None:
    """Compare the file with the CRC-32 that torch.save wrote of each part: torch.load does not look at them.

    Without this a flipped bit is a wrong weight, and nobody is told (torch 2.14).
    """
    with zipfile.ZipFile(path) as archive:
        packed = next((part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED), None)
        if packed:  # torch packs nothing; 200 kB can unpack to a gigabyte of memory
            raise zipfile.BadZipFile(f"{packed} is compressed, and was not written by torch.save")
        damaged = archive.testzip()
        # torch writes no attributes; where they call a part a folder, it reads nothing of it and goes on
        damaged = damaged or next((part.filename for part in archive.infolist() if part.external_attr), None)
    if damaged:
        raise zipfile.BadZipFile(f"{damaged} is not what was written")


def _others(path: Path) -> list[str]:
    return [str(other) for other in sorted(path.parent.glob("*.pt")) if other != path]
