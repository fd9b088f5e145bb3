"""Records brought into memory some batches before they are needed, so that nobody waits for a disk at a page fault.

In:  the shards of a split, record indices.  Out: nothing but pages in the kernel's cache, and a way to wait for them.
All of a batch is asked for at once (`posix_fadvise`), so a disk can sort and merge; then the last byte of each record
is read, which waits for the rest. Records that are in memory already cost one system call. No thread here holds the
interpreter's lock while it waits, and none touches the memory map. Where a file system or a shard does not play along,
or the limit of open files leaves no room for a second handle a shard, nothing is read ahead, and the page faults come
as they would have. No torch.
"""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from .extents import extents
from .open_files import make_room

THREADS = 2  # of waiting, not of work: each has a batch under way
CALM, _SAMPLE = 16, 8  # after so many batches that were there, one record in so many is asked about: a set in memory
_NOTHING = np.empty((0, 2), np.int64)
_IN_MEMORY_ONLY = getattr(os, "RWF_NOWAIT", 0)


class ReadAhead:
    """Reads records of one split ahead.

    Args:
        shards: the folders of the split's shards, in order, each with its number of records.
    """

    def __init__(self, shards: list[tuple[Path, int]], threads: int = THREADS):
        room = make_room(self, len(shards))
        self._shards = [_File(path / "data.mdb", records, room) for path, records in shards]
        self._ends = np.cumsum([records for _, records in shards])
        self._calm = 0  # batches on end that were in memory
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")
        self._closed = False

    def want(self, records: np.ndarray) -> Future:
        """Begin to bring records, int64 (n,), into memory.

        Returns:
            a future that is done when they are there, or cannot be: the number of those that were not there before.
        """
        return self._pool.submit(self._bring, records)

    def close(self) -> None:
        """Stop, and let go of the files."""
        self._closed = True
        finish(self._pool)
        for shard in self._shards:
            shard.close()

    def _bring(self, records: np.ndarray) -> int:
        absent = self._absent(records[:: _SAMPLE if self._calm > CALM else 1])
        if absent and self._calm > CALM:
            absent = self._absent(records)
        self._calm = 0 if absent else self._calm + 1
        for shard, offset, length in absent:
            shard.ask(offset, length)
        for shard, offset, length in absent:
            if self._closed:
                break
            shard.wait(offset, length)
        return len(absent)

    def _absent(self, records: np.ndarray) -> list[tuple["_File", int, int]]:
        """The records that are not in memory: their files, offsets and lengths in bytes."""
        absent = []
        for number, record in zip(np.searchsorted(self._ends, records, side="right"), records, strict=True):
            if self._closed:
                return []
            shard = self._shards[number]
            place = shard.place(record - self._ends[number] + shard.records)
            if place and not shard.holds(place[0]):
                absent.append((shard, *place))
        return absent


def finish(pool: ThreadPoolExecutor) -> None:
    """End a pool of threads and wait for them; not for oneself, since Python may collect a Stream in any thread."""
    pool.shutdown(wait=False, cancel_futures=True)
    for thread in list(pool._threads):
        if thread is not threading.current_thread():
            thread.join()


class _File:
    """One shard's file, opened at the first question, if it may be."""

    def __init__(self, path: Path, records: int, may_open: bool):
        self.records = records
        # Python may collect a lost stream, and so close this, in the very thread that is opening it.
        self._path, self._lock, self._handle = path, threading.RLock(), -1
        self._places: np.ndarray | None = None if may_open else _NOTHING

    def place(self, index: int) -> tuple[int, int] | None:
        """Offset and length of a record, where that is known."""
        with self._lock:
            if self._places is None:
                self._places = self._open()
        return tuple(self._places[index].tolist()) if index < len(self._places) else None

    def holds(self, offset: int) -> bool:
        """Whether a record's first byte is in memory. Asking may bring in its page: it is not the one to wait for."""
        if not _IN_MEMORY_ONLY:
            return False
        try:
            return os.preadv(self._handle, [bytearray(1)], offset, _IN_MEMORY_ONLY) == 1
        except OSError:  # it is not, or this file system cannot tell
            return False

    def ask(self, offset: int, length: int) -> None:
        with suppress(OSError):
            os.posix_fadvise(self._handle, offset, length, os.POSIX_FADV_WILLNEED)

    def wait(self, offset: int, length: int) -> None:
        with suppress(OSError):  # the page fault will tell
            os.pread(self._handle, 1, offset + length - 1)

    def close(self) -> None:
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
            self._handle, self._places = -1, _NOTHING

    def _open(self) -> np.ndarray:
        try:
            self._handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            # Records come in no order: what lies behind one is not wanted with it.
            os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_RANDOM)
            found = extents(self._handle)
        except OSError:
            return _NOTHING
        return found if len(found) == self.records else _NOTHING
