"""What a run writes is in its file, or it is said which file it is, why not, and what to do.

In:  a file or a folder, and a block that writes it.  Out: nothing; or a TrainingError in place of the system's error.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ...pipeline.errors import TrainingError
from ...pipeline.files import NotWrittenError, locked, remedy

LAST = "last.pt"


@contextmanager
def writing(file: Path) -> Iterator[None]:
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
def held(run: Path) -> Iterator[None]:
    """Hold a run's folder for this process, made if need be.

    Raises:
        UsageError, ShardError: as `locked`.
        TrainingError: it cannot be made, or opened.
    """
    with ExitStack() as until:
        with writing(run):
            until.enter_context(locked(run))
        yield
