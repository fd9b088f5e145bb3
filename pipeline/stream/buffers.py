"""A pool of reusable buffers: memory that is filled again costs no page faults.

In:  sizes.  Out: uint8 arrays, for any thread. NumPy only, unless they are page-locked.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress

import numpy as np

_LINE = 64  # bytes of a cache line: buffers begin with one, since half lines cost a quarter of the time of `_finish.c`


class Buffers:
    """A pool of reusable buffers.

    Without locks, because Python may collect the owner of a buffer, which returns it, in the middle of `take`.

    Args:
        pinned: page-locked, for asynchronous copies to a GPU.
        spare: number of free buffers that are kept for reuse; others are dropped. None: all.
    Attributes:
        made: number of buffers created. Their size grows to the largest batch, their number to the most in use at once.
    """

    def __init__(self, pinned: bool = False, spare: int | None = None):
        self._pinned, self._spare = pinned, spare
        self._free: deque[tuple[np.ndarray, Callable[[], object]]] = deque()
        self.made = 0

    def take(self, size: int) -> np.ndarray:
        """Take a buffer of at least `size` bytes, uint8 (bytes,); waits until its last reader is done."""
        try:
            buffer, wait = self._free.popleft()  # the one that was returned first
        except IndexError:
            self.made += 1
            return self._new(size)
        wait()
        return buffer if len(buffer) >= size else self._new(size)

    def give(self, buffer: np.ndarray, wait: Callable[[], object] = lambda: None) -> None:
        """Return a buffer; `wait` returns once nothing reads it any more, such as a copy to a GPU."""
        if self._spare is None or len(self._free) < self._spare:
            self._free.append((buffer, wait))

    def close(self) -> None:
        """Wait for the last readers, then drop the free buffers, and those that are returned from now on."""
        self._spare = 0
        with suppress(RuntimeError):  # of a GPU that has failed, and reads nothing any more
            while self._free:
                self._free.popleft()[1]()
        self._free.clear()

    def _new(self, size: int) -> np.ndarray:
        if not self._pinned:
            whole = np.empty(size + _LINE, np.uint8)
            return whole[-whole.ctypes.data % _LINE :][:size]
        import torch

        return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()  # keeps a reference to the tensor
