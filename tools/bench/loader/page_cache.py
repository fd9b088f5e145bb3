"""Drop files from the page cache, and measure the disk's read rate.

In:  paths.  Out: side effects on the page cache of these files only; no privileges are needed.
"""

import ctypes
import mmap
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BLOCK = 1 << 20  # bytes per read
READERS = 8


def drop(files: Sequence[Path]) -> float:
    """Drop the files from the page cache.

    Returns:
        The share of pages that stayed, 0..1: those that a process has mapped, or all in an in-memory file system.
    """
    pages = stayed = 0
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # dirty pages cannot be dropped
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            cached, total = _cached(handle)
        finally:
            os.close(handle)
        stayed, pages = stayed + cached, pages + total
    return stayed / pages if pages else 0.0


def sequential_rate(files: Sequence[Path], readers: int = READERS) -> float:
    """Read files sequentially, several at once, and return bytes per second. Drop them first.

    Several readers, because one waits for each block and does not use the disk's full rate.
    """
    started = time.perf_counter()
    with ThreadPoolExecutor(readers) as pool:
        read = sum(pool.map(_read, files))
    return read / (time.perf_counter() - started)


def _read(path: Path) -> int:
    block, read = bytearray(BLOCK), 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            read += count
    return read


def _cached(handle: int) -> tuple[int, int]:
    """Return the number of a file's pages in memory, and of all its pages."""
    size = os.fstat(handle).st_size
    if not size:
        return 0, 0
    pages = -(-size // mmap.PAGESIZE)
    resident = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(handle, size, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE) as mapped:
        start = ctypes.c_char.from_buffer(mapped)  # ctypes needs a writable map; nothing is written
        try:
            if libc.mincore(ctypes.byref(start), ctypes.c_size_t(size), resident):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            del start
    return sum(flags & 1 for flags in resident), pages
