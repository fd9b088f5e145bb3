"""What a run writes is in its file, or it is said which file it is, why not, and what to do.

In:  a file or a folder, and a block that writes it.  Out: nothing; or a TrainingError in place of the system's error.
"""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..pipeline.errors import TrainingError
from ..pipeline.files import locked

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)  # None: torch reports a full disk as a RuntimeError


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Say of a file that it cannot be written.

    Raises:
        TrainingError: the block met an error of the system.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        first = "see that you may write there" if number in FORBIDDEN else "see to the disk"
        raise TrainingError(
            f"{file}: cannot be written: {error}",
            f"{'make room' if number in FULL else first}; then go on with --resume from the last checkpoint",
        ) from error


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
