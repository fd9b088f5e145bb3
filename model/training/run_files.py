"""What a run writes is in its file, or it is said which file it is, why not, and what to do.

In:  a file or a folder, and a block that writes it.  Out: nothing; or a TrainingError in place of the system's error.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...pipeline.errors import TrainingError
from ...pipeline.files import NotWrittenError, locked, remedy

LAST = "last.pt"


@contextmanager
def write_errors(file: Path) -> Iterator[None]:
    """Say of a file that it cannot be written.

    Raises:
        TrainingError: the block met an error of the system.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        told = error.strerror if isinstance(error, NotWrittenError) else error
        number = getattr(error, "errno", None) or errno.ENOSPC  # torch reports a full disk as a RuntimeError
        begun = any(os.path.exists(folder / LAST) for folder in (file, file.parent, file.parent.parent))
        again = "go on with --resume from the last checkpoint" if begun else "run the same command again"
        raise TrainingError(f"{file}: cannot be written: {told}", f"{remedy(number)}; then {again}") from error


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Hold a run's folder for this process, made if need be.

    Raises:
        UsageError, ShardError: as `locked`.
        TrainingError: it cannot be made, or opened.
    """
    with ExitStack() as until:
        with write_errors(run):
            until.enter_context(locked(run))
        yield


# --- from model/training/sound.py


def check_regular(path: Path) -> None:
    """Check that a path is not a pipe, which would keep us waiting for ever, nor a device, which may never end.

    That there is nothing, or a folder, is left to who opens it.

    Raises:
        TrainingError: it is one.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise TrainingError(f"{path}: a pipe or a device, not a file", "name a file, or put one there")


def check_finite(saved: Mapping[str, Any], file: Path) -> None:
    """Check that the weights and statistics of a checkpoint are numbers: with others every answer is nonsense.

    Raises:
        TrainingError: one is not finite; by its name.
    """
    for part in ("model", "velocity", "stats"):
        for name, values in saved.get(part, {}).items():
            if isinstance(values, Tensor) and not _finite(values):
                raise TrainingError(f"{file}: {part}.{name} has values that are not finite", "use another checkpoint")


def check_classes_fit(classes: list, model: Mapping[str, Tensor]) -> None:
    """Raise a ValueError where a net would have more classes than any layer has outputs: before it is made so large."""
    most = max((tensor.shape[0] for tensor in model.values() if tensor.ndim), default=0)
    if len(classes) > most:
        raise ValueError(f"{len(classes):,} classes, but no layer has more than {most:,} outputs")


def _finite(values: Tensor) -> bool:
    if not (values.is_floating_point() or values.is_complex()):
        return True
    # A view may claim to be far larger than what it is a view of; its values are those there.
    real = values.untyped_storage().nbytes() // values.element_size()
    if values.numel() > real:
        values = values.new_empty(0).set_(values.untyped_storage())
    return bool(torch.isfinite(values).all())
