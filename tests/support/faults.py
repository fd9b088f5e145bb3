"""Faults at the n-th thing that is done to files under a folder: it fails, or the process is killed there.

In:  a folder, n, an error.  Out: everything up to n as usual; n fails; what comes after does not, or does (`on=True`).
Seen are: open, to write and to read, each write and flush of an opened file, fsync, syncfs, rename, link, mkdir, unlink
and rmdir, and what LMDB does; of this thread alone. A write that fails has written half, as one on a full disk has.
"""

import builtins
import ctypes
import errno
import io
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import lmdb
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.shards import export_shard, stats
from alexnet_dali.pipeline.shards.manifest import ShardSet
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.tools.prep.sample_photos import make_photos

# A run of two steps, their evaluation and two saves, of a net of six megabytes: done a hundred times in a test.
SHORT = ("--epochs", "1", "--batch-size", "3", "--save-every", "1", "--log-every", "1", "--rate", "0.001")
SMALL = ("--model", "squeezenet1_1", "--crop", "48", "--device", "cpu", "--precision", "fp32", "--decode", "threads")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EINTR)
EVENTS = {
    "open": "open",
    "os.rename": "rename",
    "os.link": "link",
    "os.mkdir": "mkdir",
    "os.remove": "unlink",
    "os.rmdir": "rmdir",
}
IN_FOLDER = {"os.mkdir": 2, "os.remove": 1, "os.rmdir": 1}  # which argument says in which folder, of names without one
REMOVALS = ("unlink", "rmdir")
_LMDB_ERRORS = {errno.ENOSPC: lmdb.DiskError, errno.EACCES: lmdb.ReadonlyError}  # of others the base class


def doubling(count: int) -> list[int]:
    """1, 2, 4, 8, ... and the last of so many: a small case of all of them."""
    return sorted({1 << k for k in range(count.bit_length())} | {count})


class Faults:
    """Makes the `at`-th operation under `root` fail while it is entered; 0, none.

    Args:
        error: number of the error; or an exception, KeyboardInterrupt say; None, the process is killed.
        on: whether everything after it fails too, but unlinking: a disk that stays full.
        writes: how many writes of each opened file are seen; torch makes a hundred.
        sync: whether what is to be synced is; else it is only seen. Of thousands of runs each waits for the disk.
    Attributes:
        seen: what was done, `rename .last.pt.part` say, in order.
    """

    active: "Faults | None" = None
    hooked = False

    def __init__(
        self,
        root,
        at=0,
        error: int | type[BaseException] | None = errno.ENOSPC,
        *,
        on: bool = False,
        writes: int = 2,
        sync: bool = True,
    ):
        self.root, self.at, self.error, self.on, self.writes, self.sync = str(root), at, error, on, writes, sync
        self.seen: list[str] = []

    def __enter__(self):
        if not Faults.hooked:  # an audit hook stays for good
            sys.addaudithook(_audited)
            Faults.hooked = True
        ours = [
            (builtins, "open", self._open),
            (io, "open", self._open),  # pathlib's
            (os, "fsync", self._fsync),
            (os, "pwrite", self._pwrite),
            (lmdb, "open", self._lmdb),
            (export_shard, "ctypes", SimpleNamespace(CDLL=self._libc, get_errno=lambda: self.error)),
        ]
        self._before = {(owner, name): getattr(owner, name) for owner, name, _ in ours}
        self._thread = threading.get_ident()
        for owner, name, function in ours:
            setattr(owner, name, function)
        Faults.active = self
        return self

    def __exit__(self, *_):
        Faults.active = None
        for (owner, name), before in self._before.items():
            setattr(owner, name, before)

    @property
    def met(self) -> bool:
        """Whether it came to the `at`-th."""
        return bool(self.at) and len(self.seen) >= self.at

    def at_work(self, what: str, path: object, before=lambda: None, *, other=None, lmdb_s=False) -> None:
        """Count an operation, and fail where it is its turn.

        Args:
            before: what is done of it even so.
            other: the second path of a rename.
            lmdb_s: whether it is LMDB's, which has errors of its own.
        """
        if threading.get_ident() != self._thread or not isinstance(path, (str, bytes, os.PathLike)):
            return
        name = os.fsdecode(path)
        if name != self.root and not name.startswith(self.root + os.sep):
            return
        self.seen.append(f"{what} {Path(name).name}")
        if self.at and (len(self.seen) == self.at or (self.on and self.met and what not in REMOVALS)):
            before()
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            if isinstance(self.error, type):
                raise self.error
            if lmdb_s:
                raise _LMDB_ERRORS.get(self.error, lmdb.Error)(f"mdb_{what}: {os.strerror(self.error or 0)}")
            if what in ("write", "flush", "fsync", "pwrite"):  # these know handles, no names
                raise OSError(self.error, os.strerror(self.error or 0))
            raise OSError(self.error, os.strerror(self.error or 0), name, None, other)

    def _open(self, file, mode="r", *arguments, **keywords):
        opened = self._before[builtins, "open"](file, mode, *arguments, **keywords)
        return _Seen(self, opened, file) if set(mode) & set("wax+") else opened

    def _fsync(self, handle):
        self.at_work("fsync", _name_of(handle if isinstance(handle, int) else handle.fileno()))
        return self._before[os, "fsync"](handle) if self.sync else None

    def _pwrite(self, handle, data, offset):
        real = self._before[os, "pwrite"]
        self.at_work("pwrite", _name_of(handle), lambda: real(handle, data[: len(data) // 2], offset))
        return real(handle, data, offset)

    def _libc(self, *arguments, **keywords):
        """The C library, of which only syncfs is asked for."""
        real = ctypes.CDLL(*arguments, **keywords)

        def syncfs(handle):
            try:
                self.at_work("syncfs", _name_of(handle))
            except OSError:
                return -1
            return real.syncfs(handle) if self.sync else 0

        return SimpleNamespace(syncfs=syncfs)

    def _lmdb(self, path, **keywords):
        self.at_work("open", path, lmdb_s=True)
        return _SeenLmdb(self, self._before[lmdb, "open"](path, **keywords), path)


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


class _SeenLmdb:
    """An environment, or a transaction of it, whose writing is counted."""

    def __init__(self, faults, real, path):
        self._faults, self._real, self._path = faults, real, path

    def begin(self, *arguments, **keywords):
        return _SeenLmdb(self._faults, self._real.begin(*arguments, **keywords), self._path)

    def put(self, *arguments, **keywords):
        self._faults.at_work("put", self._path, lmdb_s=True)
        return self._real.put(*arguments, **keywords)

    def commit(self):
        self._faults.at_work("commit", self._path, lmdb_s=True)
        self._real.commit()

    def sync(self, *arguments):
        self._faults.at_work("sync", self._path, lmdb_s=True)
        if self._faults.sync:
            self._real.sync(*arguments)

    def __enter__(self):
        self._real.__enter__()
        return self

    def __exit__(self, *raised):
        return self._real.__exit__(*raised)

    def __getattr__(self, name):
        return getattr(self._real, name)


def _name_of(handle: int) -> str:
    return os.readlink(f"/proc/self/fd/{handle}")


def _audited(event, arguments):
    if Faults.active is None or event not in EVENTS:
        return
    path, place = arguments[0], IN_FOLDER.get(event)
    if place is not None and arguments[place] >= 0:  # as shutil.rmtree has it
        path = os.path.join(_name_of(arguments[place]), os.fsdecode(path))
    kind = EVENTS[event]
    if event == "open" and not arguments[2] & (
        os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY
    ):  # a folder is opened to sync it
        kind = "read"
    Faults.active.at_work(kind, path, other=arguments[1] if event in ("os.rename", "os.link") else None)


def small_shards(folder: Path) -> ShardSet:
    """Six photos to train on and three to test, 64x64, four classes, with statistics."""
    make_photos(folder / "photos", train=6, val=3, classes=4, seed=2, side=(60, 90))
    with ThreadPoolExecutor(1) as executor:
        found = find_photos(folder / "photos", val_share=0.0)
        shard_set, _ = build_shards(found, folder / "shards", BuildOptions(size=64), executor)
        stats.save_stats(stats.measure_stats(shard_set, executor), shard_set.root)
    return shard_set
