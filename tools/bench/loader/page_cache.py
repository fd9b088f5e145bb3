"""Files out of the page cache, and how fast the disk gives them back.

In:  paths.  Out: side effects on the page cache of those files alone; no rights are needed.
"""

import ctypes
import mmap
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BLOCK = 1 << 20  # bytes a read
READERS = 8


def drop(files: Sequence[Path]) -> float:
    """Drop the files from the page cache.

    Returns:
        The share that stayed, 0..1: pages that some process has mapped, or all of a file system in memory.
    """
    pages = stayed = 0
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # pages that wait to be written cannot be dropped
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            some, all_of_it = _cached(handle)
        finally:
            os.close(handle)
        stayed, pages = stayed + some, pages + all_of_it
    return stayed / pages if pages else 0.0


def sequential_rate(files: Sequence[Path], readers: int = READERS) -> float:
    """Read files from the first byte to the last, a MiB at a time, several files at once: bytes a second.

    Drop them first. One reader alone waits for each answer, and no disk is as slow as that.
    """
    began = time.perf_counter()
    with ThreadPoolExecutor(readers) as pool:
        read = sum(pool.map(_read, files))
    return read / (time.perf_counter() - began)


def _read(path: Path) -> int:
    block, read = bytearray(BLOCK), 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            read += count
    return read


def _cached(handle: int) -> tuple[int, int]:
    """How many of a file's pages lie in memory, and how many there are."""
    size = os.fstat(handle).st_size
    if not size:
        return 0, 0
    pages = -(-size // mmap.PAGESIZE)
    here = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(handle, size, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE) as mapped:
        start = ctypes.c_char.from_buffer(mapped)  # a private map, so that ctypes may have it; nothing is written
        try:
            if libc.mincore(ctypes.byref(start), ctypes.c_size_t(size), here):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            del start
    return sum(flags & 1 for flags in here), pages
