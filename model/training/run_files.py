"""The files of a run: errors of writing, the lock of a run's folder, checks of what is read.

In:  a path, or the values read from it.  Out: nothing; or an error that names the file, and what to do.
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
    """Convert a system error in the block, which writes `file`, to an error that names it.

    Raises:
        TrainingError: the block raised an OSError, or torch's RuntimeError.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, NotWrittenError) else error
        number = getattr(error, "errno", None) or errno.ENOSPC  # torch reports a full disk as a RuntimeError
        saved = any(os.path.exists(folder / LAST) for folder in (file, file.parent, file.parent.parent))
        again = "continue with --resume from the last checkpoint" if saved else "run the same command again"
        raise TrainingError(f"{file}: cannot be written: {reason}", f"{remedy(number)}; then {again}") from error


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Create a run's folder if necessary, and lock it for this process until the block ends.

    Raises:
        UsageError, ShardError: see `locked`.
        TrainingError: the folder cannot be created or opened.
    """
    with ExitStack() as until:
        with write_errors(run):
            until.enter_context(locked(run))
        yield


def check_regular(path: Path) -> None:
    """Check that a path is not a pipe, which would block, nor a device, which may be endless.

    A missing file or a folder is accepted: opening it raises the right error.

    Raises:
        TrainingError: the path is a pipe, a device or a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise TrainingError(f"{path}: a pipe or a device, not a file", "name a regular file")


def check_finite(saved: Mapping[str, Any], file: Path) -> None:
    """Check that the weights, velocities and statistics of a checkpoint are finite.

    Raises:
        TrainingError: a tensor has other values; the message names it.
    """
    for part in ("model", "velocity", "stats"):
        for name, values in saved.get(part, {}).items():
            if isinstance(values, Tensor) and not _finite(values):
                raise TrainingError(f"{file}: {part}.{name} has values that are not finite", "use another checkpoint")


def check_classes_fit(classes: list, model: Mapping[str, Tensor]) -> None:
    """Check the number of classes before a net of that size is created.

    Raises:
        ValueError: there are more classes than any layer has outputs.
    """
    most = max((tensor.shape[0] for tensor in model.values() if tensor.ndim), default=0)
    if len(classes) > most:
        raise ValueError(f"{len(classes):,} classes, but no layer has more than {most:,} outputs")


def _finite(values: Tensor) -> bool:
    if not (values.is_floating_point() or values.is_complex()):
        return True
    # A view may be far larger than its storage (stride 0); its values are those of the storage.
    real = values.untyped_storage().nbytes() // values.element_size()
    if values.numel() > real:
        values = values.new_empty(0).set_(values.untyped_storage())
    return bool(torch.isfinite(values).all())
