"""Memory that is kept and used over and over, a batch of pictures in each piece.

In:  how many bytes a batch needs.  Out: uint8 arrays that nobody else holds; page-locked where a GPU will read them.
Fresh memory would cost more than what is written into it: a page fault for every 4 KiB.
"""

from collections import deque
from collections.abc import Callable

import numpy as np


class Buffers:
    """Lends buffers and takes them back.

    Args:
        pinned: page-locked, for copies to a GPU that nobody waits for. Untested: written without one.
    Attributes:
        made: buffers so far. They grow to the largest batch, and their number to the most that were out at once.
    """

    def __init__(self, pinned: bool = False):
        self._pinned = pinned
        self._free: deque[tuple[np.ndarray, Callable[[], object]]] = deque()
        self.made = 0

    def take(self, size: int) -> np.ndarray:
        """A buffer of at least `size` bytes, uint8 (bytes,), once whoever used it last is done."""
        if not self._free:
            self.made += 1
            return self._new(size)
        buffer, wait = self._free.popleft()  # the one that was given back first
        wait()
        return buffer if len(buffer) >= size else self._new(size)

    def give(self, buffer: np.ndarray, wait: Callable[[], object] = lambda: None) -> None:
        """Take a buffer back; `wait` returns once nothing reads it any more, a copy to a GPU say."""
        self._free.append((buffer, wait))

    def _new(self, size: int) -> np.ndarray:
        if not self._pinned:
            return np.empty(size, np.uint8)
        import torch

        return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()  # which keeps the tensor
