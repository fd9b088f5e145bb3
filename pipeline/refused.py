"""What the system refuses, by the name that people know: that which the file will have, not the one it has meanwhile.

In:  an OSError of whatever was done below a folder.  Out: a NotWrittenError; its remedy is said by `files.py`.
What lies elsewhere is only read: where that is forbidden, an error whose remedy is to be let read it.
"""

import errno
import os
import re
from contextlib import contextmanager
from pathlib import Path

from .errors import AlexnetError
from .files import NotWrittenError, remedy

# `.NAME.part` of files, `.NAME.lmdb.0a1b2c3d.part` of shards; the latter may stand in the middle of a path.
_BESIDE = re.compile(r"(?<=/)\.([^/]+?)(?:\.[0-9a-f]{8})?\.part(?=[/:]|$)")
_UNREADABLE = (errno.EACCES, errno.EPERM)


@contextmanager
def named(place: Path):
    """Have an error of the system name a file by its final name; the place, where the system names none.

    Raises:
        NotWrittenError: the block met an error of the system.
        AlexnetError: it may not read a file that lies elsewhere.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, (ConnectionError, TimeoutError, BlockingIOError)):
            raise  # a network's, a process's: not of a file
        # Of a rename the second name is the one that people know; what is done to a handle has none.
        name = error.filename2 or error.filename
        path = final_names(os.fsdecode(name)) if isinstance(name, (str, bytes)) else str(place)
        written = isinstance(error, NotWrittenError) or error.filename2  # a rename
        if error.errno in _UNREADABLE and not written and not _is_of(path, place):
            raise _not_read(error, path) from error
        raise NotWrittenError(error.errno, error.strerror or str(error), path) from error


@contextmanager
def reading(path: Path):
    """Have an error of the system name the file that a block reads; it names none once the file is open.

    Raises:
        AlexnetError: the block met an error of the system.
    """
    try:
        yield
    except OSError as error:
        raise _not_read(error, str(path)) from error


def _not_read(error: OSError, path: str) -> AlexnetError:
    what = "see that you may read it" if error.errno in _UNREADABLE else remedy(error.errno)
    return AlexnetError(f"{path}: {error.strerror or error}", f"{what}, then run the same command again")


def _is_of(path: str, place: Path) -> bool:
    """Whether a path is the place or below it; of a shard, whose receipt lies elsewhere in its set, of the set."""
    root = place.parents[1] if place.suffix == ".lmdb" and len(place.parents) > 1 else place
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))


def final_names(text: str) -> str:
    """A path, or a message, with the names that files have while they are written replaced by those they will have."""
    return _BESIDE.sub(r"\1", text)
