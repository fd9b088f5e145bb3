"""How many files this process may hold open: raised as far as the shards need it, or said to be too few.

In:  who will open files, and how many.  Out: whether there is room.
"""

import errno
import os
import resource
import threading
import weakref
from contextlib import suppress

from ..errors import ShardError

SPARE_FILES = 64  # that a process may open beside those it has open and those that are to come


class OpenFilesError(ShardError):
    """A shard could not be opened because of how many files are open, which says nothing about the shard."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(
            message, hint or "raise the limit of open files (ulimit -n), or build with more --shard-records"
        )


_to_come: "weakref.WeakKeyDictionary[object, int]" = weakref.WeakKeyDictionary()
_counting = threading.Lock()


def make_room(owner: object, files: int) -> bool:
    """Raise this process's limit of open files, where what is open and what is to come would not fit under it.

    Args:
        owner: who will open them, as long as it lives.
        files: how many.
    Returns:
        Whether there is room now; there is not where the hard limit, which only root may raise, is too low.
    """
    with _counting:
        _to_come[owner] = files
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            present = len(os.listdir("/dev/fd"))
        except OSError:  # no handle is left for this either
            present = soft
        wanted = present + sum(_to_come.values()) + SPARE_FILES  # what is open of it already counts twice: no harm
        if soft == resource.RLIM_INFINITY or wanted <= soft:
            return True
        allowed = wanted if hard == resource.RLIM_INFINITY else max(soft, min(wanted, hard))
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
        return wanted <= soft


def too_many(error: Exception) -> bool:
    """Whether a limit of open files, the process's or the machine's, is what was met; LMDB tells that in words."""
    if isinstance(error, OSError):
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return any(os.strerror(number) in str(error) for number in (errno.EMFILE, errno.ENFILE))
