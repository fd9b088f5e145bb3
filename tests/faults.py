"""Faults at the n-th thing that is done to files under a folder: it fails, or the process is killed there.

In:  a folder, n, an error.  Out: everything up to n as usual; n fails; what comes after does not, or does (`on=True`).
Seen are: open, each write and flush of an opened file, fsync, rename, link, mkdir, unlink; of this thread alone.
A write that fails has written half, as one that meets a full disk has.
"""

import builtins
import errno
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alexnet_dali.pipeline import stats
from alexnet_dali.pipeline.build import build
from alexnet_dali.pipeline.options import BuildOptions
from alexnet_dali.pipeline.shardset import ShardSet
from alexnet_dali.pipeline.sources import find_photos
from alexnet_dali.tools.sample_photos import make_photos

# A run of two steps, their evaluation and two saves, of a net of six megabytes: done a hundred times in a test.
SHORT = ("--epochs", "1", "--batch-size", "3", "--save-every", "1", "--log-every", "1", "--rate", "0.001")
SMALL = ("--model", "squeezenet1_1", "--crop", "48", "--device", "cpu", "--precision", "fp32", "--decode", "threads")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EINTR)
EVENTS = {"open": "open", "os.rename": "rename", "os.link": "link", "os.mkdir": "mkdir", "os.remove": "unlink"}


class Faults:
    """Makes the `at`-th operation under `root` fail while it is entered; 0, none.

    Args:
        error: number of the error; None, the process is killed.
        on: whether everything after it fails too, but unlinking: a disk that stays full.
        writes: how many writes of each opened file are seen; torch makes a hundred.
    Attributes:
        seen: what was done, `rename .last.pt.part` say, in order.
    """

    active: "Faults | None" = None
    hooked = False

    def __init__(self, root, at=0, error: int | None = errno.ENOSPC, *, on=False, writes=2):
        self.root, self.at, self.error, self.on, self.writes = str(root), at, error, on, writes
        self.seen: list[str] = []

    def __enter__(self):
        if not Faults.hooked:  # an audit hook stays for good
            sys.addaudithook(_audited)
            Faults.hooked = True
        self._before = builtins.open, os.fsync
        self._thread = threading.get_ident()
        builtins.open, os.fsync = self._open, self._fsync  # type: ignore[assignment]
        Faults.active = self
        return self

    def __exit__(self, *_):
        Faults.active = None
        builtins.open, os.fsync = self._before

    @property
    def met(self) -> bool:
        """Whether it came to the `at`-th."""
        return bool(self.at) and len(self.seen) >= self.at

    def at_work(self, what: str, path: object, before=lambda: None) -> None:
        """Count an operation, and fail where it is its turn; `before`, what is done of it even so."""
        if threading.get_ident() != self._thread or not isinstance(path, (str, bytes, os.PathLike)):
            return
        name = os.fsdecode(path)
        if name != self.root and not name.startswith(self.root + os.sep):
            return
        self.seen.append(f"{what} {Path(name).name}")
        if self.at and (len(self.seen) == self.at or (self.on and self.met and what != "unlink")):
            before()
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.error, os.strerror(self.error or 0))

    def _open(self, file, mode="r", *arguments, **keywords):
        opened = self._before[0](file, mode, *arguments, **keywords)
        return _Seen(self, opened, file) if set(mode) & set("wax+") else opened

    def _fsync(self, handle):
        number = handle if isinstance(handle, int) else handle.fileno()
        self.at_work("fsync", os.readlink(f"/proc/self/fd/{number}"))
        return self._before[1](handle)


class _Seen:
    """A file whose writes are counted."""

    def __init__(self, faults, file, path):
        self._faults, self._file, self._path, self._writes, self._whole = faults, file, path, 0, True

    def write(self, data):
        self._writes += 1
        if self._writes <= self._faults.writes:
            self._at_work("write", lambda: self._half(data))
        return self._file.write(data)

    def flush(self):
        self._at_work("flush")
        return self._file.flush()

    def _at_work(self, what, before=lambda: None):
        self._whole = False
        self._faults.at_work(what, self._path, before)
        self._whole = True

    def _half(self, data):
        self._file.write(data[: len(data) // 2] if hasattr(data, "__getitem__") else b"half")
        self._file.flush()

    def __enter__(self):
        self._file.__enter__()
        return self

    def close(self):
        """What was not written is tried again."""
        self._file.close()
        if self._faults.on and not self._whole:
            raise OSError(self._faults.error, os.strerror(self._faults.error))

    def __exit__(self, *_):
        self.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


def _audited(event, arguments):
    if Faults.active is not None and event in EVENTS:
        Faults.active.at_work(EVENTS[event], arguments[0])


def small_shards(folder: Path) -> ShardSet:
    """Six photos to train on and three to test, 64x64, four classes, with statistics."""
    make_photos(folder / "photos", train=6, val=3, classes=4, seed=2, side=(60, 90))
    with ThreadPoolExecutor(1) as executor:
        found = find_photos(folder / "photos", val_share=0.0)
        shard_set, _ = build(found, folder / "shards", BuildOptions(size=64), executor)
        stats.save(stats.measure(shard_set, executor), shard_set.root)
    return shard_set
