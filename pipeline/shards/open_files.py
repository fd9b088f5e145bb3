"""The process's limit of open files: raised as far as the shards need it.

In:  an owner that will open files, and their number.  Out: whether the limit suffices.
"""

import errno
import os
import resource
import threading
import weakref
from contextlib import suppress

from ..errors import ShardError

SPARE_FILES = 64  # beside those that are open and those that are announced


class OpenFilesError(ShardError):
    """A shard could not be opened because too many files are open; the shard itself may be intact."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(
            message, hint or "raise the limit of open files (ulimit -n), or build with more --shard-records"
        )


_announced: "weakref.WeakKeyDictionary[object, int]" = weakref.WeakKeyDictionary()
_counting = threading.Lock()


def make_room(owner: object, files: int) -> bool:
    """Raise this process's limit of open files if open and announced files would exceed it.

    Args:
        owner: what will open the files; they count as long as it exists.
        files: their number.
    Returns:
        Whether the limit suffices now; it does not where the hard limit, which only root can raise, is too low.
    """
    with _counting:
        _announced[owner] = files
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            opened = len(os.listdir("/dev/fd"))
        except OSError:  # no descriptor is left for this either
            opened = soft
        wanted = opened + sum(_announced.values()) + SPARE_FILES  # announced files that are open count twice: harmless
        if soft == resource.RLIM_INFINITY or wanted <= soft:
            return True
        allowed = wanted if hard == resource.RLIM_INFINITY else max(soft, min(wanted, hard))
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
        return wanted <= soft


def too_many(error: Exception) -> bool:
    """Whether an error is due to the process's or the machine's limit of open files; LMDB reports that in words."""
    if isinstance(error, OSError):
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return any(os.strerror(number) in str(error) for number in (errno.EMFILE, errno.ENFILE))
