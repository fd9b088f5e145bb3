"""Checkpoint files: written atomically, checked when read, and loaded without running code from them.

In:  plain values and tensors.  Out: `last.pt` and `best.pt`; and back, checked.
With `weights_only=True` only tensors and plain values are unpickled, so a file from elsewhere cannot run code.
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

NAMES = ("best.pt", "last.pt")  # in a run's folder; the first that exists is used
FORMAT = "alexnet-dali checkpoint"
VERSION = 1
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # torch's words; tools/console.py reports it
OF_THE_FILE = (None, errno.EINVAL, errno.EISDIR)  # system errors that a damaged file causes; others come from the disk
PARTS: dict[str, type] = {  # entries that resuming requires
    **dict.fromkeys(("config", "recipe", "model", "velocity"), dict),
    **dict.fromkeys(("classes", "in_epoch", "window", "epoch_seconds"), list),
    **dict.fromkeys(("epoch", "step"), int),
    **{"shards": str, "best_error": float},
}
STATS = ("mean_image", "mean_rgb", "covariance", "eigenvalues", "eigenvectors")  # arrays of Stats, in its order


def save(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint atomically and durably; on failure the old file stays.

    Raises:
        TrainingError: the file cannot be written.
    """
    with write_errors(path):
        write_atomically(path, lambda file: torch.save({"format": FORMAT, "version": VERSION, **checkpoint}, file))


def load(path: Path) -> dict:
    """Read a checkpoint of alexnet-train; its tensors are on the CPU.

    Raises:
        UsageError: the file does not exist.
        TrainingError: the file is damaged, is not a checkpoint, has another version, or is a pipe or a device.
        MemoryError, RuntimeError: it does not fit into the free memory.
    """
    check_regular(path)
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such checkpoint", "name a folder that alexnet-train wrote, such as runs/source2012"
        ) from None
    except MemoryError:
        raise  # of this machine, not of the file
    except Exception as error:  # zipfile and torch raise many kinds for damaged files
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise
        if isinstance(error, OSError) and error.errno not in OF_THE_FILE:
            raise TrainingError(f"{path}: cannot be read: {error}", "check its permissions and the disk") from None
        raise TrainingError(
            f"{path}: damaged, or not a checkpoint ({type(error).__name__}: {' '.join(str(error).split())[:160]})",
            f"use another checkpoint of that run: {', '.join(_others(path)) or 'none found'}",
        ) from None
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise TrainingError(f"{path}: not a checkpoint of alexnet-train", "name a run's folder, or its .pt file")
    if checkpoint.get("version") != VERSION:
        raise TrainingError(
            f"{path}: version {checkpoint.get('version')}, this program reads version {VERSION}", "update alexnet-dali"
        )
    return checkpoint


def run_checkpoint(run: Path) -> Path:
    """Return the checkpoint to use: `run` if it is a file; of a folder `best.pt`, `last.pt` or an export's weights."""
    if run.is_dir():
        existing = (run / name for name in (*NAMES, "model.safetensors") if (run / name).exists())
        return next(existing, run / "last.pt")
    return run


@contextmanager
def fits_this_version(file: Path):
    """Convert errors in the block, which uses the values of a checkpoint, to one error that names the file.

    Raises:
        TrainingError: the values do not fit this version's net and run.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{file}: does not fit this net: {' '.join(str(error).split())[:200]}",
            "use the version of alexnet-dali that wrote it",
        ) from None


def check_run(saved: dict, file: Path) -> dict:
    """Check that a checkpoint has what resuming requires, by name and type; the values are checked where they are used.

    Returns:
        The checkpoint.
    Raises:
        TrainingError: an entry is missing, has another type, or is not finite.
    """
    with fits_this_version(file):
        for name, kind in PARTS.items():
            check_kind(name, saved[name], kind)
        for field in fields(Config):
            if field.name in saved["config"] or field.default is MISSING:
                check_kind(field.name, saved["config"][field.name], field.type)
        if min(saved["epoch"], saved["step"]) < 0 or [len(saved[name]) for name in ("in_epoch", "window")] != [4, 4]:
            raise ValueError("its position or its sums are invalid")
        if "processes" in saved["config"] and "parallel" not in saved["config"]:
            raise KeyError("parallel")
        torch.device(saved["config"]["device"])
        check_finite(saved, file)
    return saved


def check_kind(name: str, value: object, kind: object) -> None:
    """Check the type of a checkpoint's entry.

    Raises:
        TypeError: it is not `kind`; the message has the name.
    """
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):  # type: ignore[arg-type]
        raise TypeError(f"its {name} has type {type(value).__name__}")


def stats_to_save(stats: Stats) -> dict:
    """Return the statistics as a checkpoint stores them: a net is useless without the mean that it was trained with."""
    return {
        "images": stats.images,
        "fingerprint": stats.fingerprint,
        **{name: torch.from_numpy(np.ascontiguousarray(getattr(stats, name))) for name in STATS},
    }


def check_classes(classes: list[str], shard_set: ShardSet, file: Path) -> None:
    """Check that a shard set has the classes of a net, in their order.

    Args:
        file: of the net, for the message.
    Raises:
        TrainingError: the set has other classes.
    """
    if list(classes) != list(shard_set.classes):
        raise TrainingError(
            f"{file}: trained on {len(classes)} classes ({', '.join(map(str, classes[:3]))}, ...), but "
            f"{shard_set.root} has {len(shard_set.classes)} "
            f"({', '.join(shard_set.classes[:3])}, ...)",
            "use the shard set of the training, or one built from the same class folders",
        )


def hard_link(file: Path, other: Path) -> None:
    """Give a checkpoint a second name, atomically; the next save replaces one name and leaves the other's file.

    Raises:
        TrainingError: `other` cannot be written.
    """
    beside = other.with_name(f".{other.name}.part")
    with write_errors(other):
        beside.unlink(missing_ok=True)
        try:
            os.link(file, beside)
        except OSError:  # a file system without hard links: copy, durably
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
    """Verify the CRC-32 that torch.save writes for each part, which torch.load ignores (torch 2.14).

    Without this a flipped bit would be a wrong weight, without an error.
    """
    with zipfile.ZipFile(path) as archive:
        packed = next((part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED), None)
        if packed:  # torch does not compress; 200 kB can decompress to a gigabyte of memory
            raise zipfile.BadZipFile(f"{packed} is compressed, and was not written by torch.save")
        damaged = archive.testzip()
        # torch writes no attributes; if they mark a part as a folder, torch.load skips it without an error
        damaged = damaged or next((part.filename for part in archive.infolist() if part.external_attr), None)
    if damaged:
        raise zipfile.BadZipFile(f"{damaged} does not match its checksum")


def _others(path: Path) -> list[str]:
    return [str(other) for other in sorted(path.parent.glob("*.pt")) if other != path]
