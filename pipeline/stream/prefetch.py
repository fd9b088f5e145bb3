"""Read-ahead: records are brought into memory some batches before they are needed.

In:  a RecordReader, record indices.  Out: pages in the kernel's cache, and a way to wait for them.
All records of a batch are requested at once (`posix_fadvise`), so a disk can sort and merge the requests; then the
last byte of each record is read, which waits for the rest. Records that are already in memory cost one system call.
Threads release Python's global lock while they wait. Where a file system does not support this or a shard is damaged,
nothing is read ahead, and the RecordReader waits or raises the error. No torch.
"""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from ..errors import ShardError
from ..shards.lmdb_shard import Shard
from .record_reader import RecordReader

THREADS = 2  # they wait rather than work: each has one batch in progress
CALM, _SAMPLE = 16, 8  # after CALM batches that were all in memory, only one record in _SAMPLE is checked
_IN_MEMORY_ONLY = getattr(os, "RWF_NOWAIT", 0)


class ReadAhead:
    """Reads records ahead in threads of its own."""

    def __init__(self, feed: RecordReader, threads: int = THREADS):
        self._feed = feed
        self._calm = 0  # consecutive batches that were in memory
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")
        self._closed = False

    def want(self, records: np.ndarray) -> Future:
        """Start to bring records, int64 (n,), into memory.

        Returns:
            a future that is done when they are in memory or cannot be read; its result is the number of records that
            were not in memory before, as far as the kernel knows.
        """
        return self._pool.submit(self._bring, records)

    def close(self) -> None:
        """Stop."""
        self._closed = True
        end_pool(self._pool)

    def _bring(self, records: np.ndarray) -> int:
        absent = self._absent(records[:: _SAMPLE if self._calm > CALM else 1])
        if absent and self._calm > CALM:
            absent = self._absent(records)
        self._calm = 0 if absent else self._calm + 1
        for shard, offset, length in absent:
            with suppress(OSError):
                os.posix_fadvise(shard.handle, offset, length, os.POSIX_FADV_WILLNEED)
        for shard, offset, length in absent:
            if self._closed:
                break
            _wait(shard, offset + length - 1)
        return len(absent)

    def _absent(self, records: np.ndarray) -> list[tuple[Shard, int, int]]:
        """List the records that are not in memory: their shards, offsets and lengths in bytes."""
        absent = []
        for record in records.tolist():
            if self._closed:
                return []
            number, index = self._feed.locate(record)
            with suppress(ShardError):  # RecordReader.read will raise it
                shard = self._feed.shard(number)
                offset, length = shard.places[index].tolist()
                if not _in_memory(shard, offset):
                    absent.append((shard, offset, length))
        return absent


def _in_memory(shard: Shard, offset: int) -> bool:
    """Whether a record's first byte is in memory. The check itself may load its page."""
    if not _IN_MEMORY_ONLY:
        return False
    try:
        return os.preadv(shard.handle, [bytearray(1)], offset, _IN_MEMORY_ONLY) == 1
    except OSError:  # it is not, or the file system does not support the check
        return False


def _wait(shard: Shard, offset: int) -> None:
    with suppress(OSError):  # RecordReader.read will raise it
        os.pread(shard.handle, 1, offset)


def end_pool(pool: ThreadPoolExecutor) -> None:
    """End a pool of threads and wait for all but the calling one: Python may collect a Stream in any thread."""
    pool.shutdown(wait=False, cancel_futures=True)
    for thread in list(pool._threads):
        if thread is not threading.current_thread():
            thread.join()
