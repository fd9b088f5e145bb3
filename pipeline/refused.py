"""What the system refuses, by the name that people know: that which the file will have, not the one it has meanwhile.

In:  an OSError of whatever was done below a folder.  Out: a NotWrittenError; its remedy is said by `files.py`.
"""

import os
import re
from contextlib import contextmanager
from pathlib import Path

from .files import NotWrittenError

# `.NAME.part` of files, `.NAME.lmdb.0a1b2c3d.part` of shards; the latter may stand in the middle of a path.
_BESIDE = re.compile(r"(?<=/)\.([^/]+?)(?:\.[0-9a-f]{8})?\.part(?=[/:]|$)")


@contextmanager
def named(place: Path):
    """Have an error of the system name a file by its final name; the place, where the system names none.

    Raises:
        NotWrittenError: the block met an error of the system.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, (ConnectionError, TimeoutError, BlockingIOError)):
            raise  # a network's, a process's: not of a file
        # Of a rename the second name is the one that people know; what is done to a handle has none.
        name = error.filename2 or error.filename
        path = final_names(os.fsdecode(name)) if isinstance(name, (str, bytes)) else str(place)
        raise NotWrittenError(error.errno, error.strerror or str(error), path) from error


def final_names(text: str) -> str:
    """A path, or a message, with the names that files have while they are written replaced by those they will have."""
    return _BESIDE.sub(r"\1", text)
