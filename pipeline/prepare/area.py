"""A window of a photo, shrunk by area averaging: the grid of cv2.INTER_AREA in a fraction of its time.

In:  uint8 pixels, the sides after shrinking, the window of those that is kept.  Out: uint8 pixels.  No files.

A new pixel is the mean of the rectangle of old ones that it covers. That mean is separable, and 2 to 4 rows make a
new one: rows are mixed first, then columns, and only those that are kept. Every number on the way is whole and small
enough, so nothing is ever rounded but where it says so: the bytes depend neither on the processor nor on any library's
version. `_area.c` has the inner loops; where it was not compiled, two products of sparse matrices with the pixels as
float32 give the same bytes at half the speed: whole multiples of powers of two below 2**24, so no less exact.
"""

import ctypes
import importlib.util
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# The weights of a new row, and of a new column, are whole numbers with this sum; between the two, pixels are rounded
# to a whole number of LEVELths of a grey level. 255 * DOWN and 255 * LEVEL * ACROSS are both just below 2**24.
DOWN, LEVEL, ACROSS = 65536, 32, 2048  # _area.c has them as shifts
STRIP_BYTES = 1 << 21  # of float32 pixels at a time: a photo of 500x375 is one strip


def shrink(pixels: np.ndarray, height: int, width: int, window: tuple[int, int, int, int]) -> np.ndarray:
    """Shrink to `height` by `width` by area averaging, but only the window that is kept.

    Args:
        pixels: uint8 (at least `height`, at least `width`, 3).
        height, width: pixels of the whole shrunk picture.
        window: top, left, height, width in the shrunk picture.
    Returns:
        uint8 (window height, window width, 3) contiguous; at most one level from cv2.resize and the same crop.
    """
    top, left, rows, columns = window
    across = _mix(pixels.shape[1], width, left, columns, ACROSS)
    if _compiled is None:
        return _with_matrices(pixels, height, top, rows, across)
    return _with_loops(pixels, _mix(pixels.shape[0], height, top, rows, DOWN), across)


@dataclass(frozen=True)
class _Mix:
    """How new pixels are mixed of old ones, along one side.

    Attributes:
        first, end: the old pixels that take part.
        firsts: int64 (n,), the first old pixel of each new one, counted from `first`.
        weights: int32 (n, taps), of each old pixel from `firsts` on; whole numbers of the same sum in each row, zero
            where there is no old pixel.
    """

    first: int
    end: int
    firsts: np.ndarray
    weights: np.ndarray

    @cached_property
    def rows_in_c(self) -> tuple[int, int, int, int]:
        """n, taps, and the addresses of firsts and weights."""
        return *self.weights.shape, self.firsts.ctypes.data, self.weights.ctypes.data

    @cached_property
    def columns_in_c(self) -> tuple[int, int, int, int]:
        """n, pairs of taps, and the addresses of firsts and of the weights as int16 (n, pairs, 2)."""
        return len(self.firsts), self._in_pairs.shape[1] // 2, self.firsts.ctypes.data, self._in_pairs.ctypes.data

    @cached_property
    def _in_pairs(self) -> np.ndarray:
        return np.pad(self.weights, ((0, 0), (0, self.weights.shape[1] % 2))).astype(np.int16)

    def matrix(self, unit: float) -> "csr_array":
        """The float32 (n, end - first) matrix of the weights, each times `unit`."""
        from scipy.sparse import csr_array  # a third of a worker's start, and rarely needed

        kept = self.weights > 0
        places = (self.firsts[:, None] + np.arange(self.weights.shape[1]))[kept]
        ends = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
        data = (self.weights[kept] * unit).astype(np.float32)
        return csr_array((data, places, ends), shape=(len(self.firsts), self.end - self.first))


@lru_cache(1024)  # of about 10 kB; most of ImageNet's photos are 500 pixels wide or tall
def _mix(old: int, new: int, start: int, count: int, total: int) -> _Mix:
    """How new pixels `start` ... `start + count - 1` of `new` are mixed of `old` ones; weights have the sum `total`."""
    # In units of 1/new of an old pixel, old pixel j covers [j * new, (j + 1) * new), new pixel k [k * old, ...).
    begin = np.arange(start, start + count, dtype=np.int64)[:, None] * old
    first = begin // new
    taps = int(((begin + old - 1) // new - first).max()) + 1
    borders = np.clip((first + np.arange(taps + 1)) * new - begin, 0, old)  # (count, taps + 1)
    # The borders are rounded, not the weights: so the sum is `total` and no weight is off by more than one.
    weights = np.diff((2 * total * borders + old) // (2 * old)).astype(np.int32)
    ends = first[:, 0] + taps - (weights[:, ::-1] > 0).argmax(axis=1)
    lowest = int(first.min())
    return _Mix(lowest, int(ends.max()), first[:, 0] - lowest, weights)


def _with_loops(pixels: np.ndarray, down: _Mix, across: _Mix) -> np.ndarray:
    if pixels.strides[1:] != (3, 1):
        pixels = np.ascontiguousarray(pixels)
    out = np.empty((len(down.firsts), len(across.firsts), 3), np.uint8)
    corner = pixels.ctypes.data + down.first * pixels.strides[0] + 3 * across.first
    width, last_row = across.end - across.first, down.end - down.first - 1
    if _compiled(corner, pixels.strides[0], width, last_row, *down.rows_in_c, *across.columns_in_c, out.ctypes.data):
        raise MemoryError(f"no memory for {width} columns of pixels")
    return out


def _with_matrices(pixels: np.ndarray, height: int, top: int, rows: int, across: _Mix) -> np.ndarray:
    columns, width = len(across.firsts), across.end - across.first
    mix_columns = across.matrix(1 / (ACROSS * LEVEL))
    # At least one row; half as many bytes as the decoded photo in the worst case, a side of 8 pixels.
    at_once = max(1, STRIP_BYTES * height // (pixels.shape[0] * width * 12))
    out = np.empty((rows, columns, 3), np.uint8)
    for row in range(0, rows, at_once):
        count = min(at_once, rows - row)
        down = _mix(pixels.shape[0], height, top + row, count, DOWN)
        strip = pixels[down.first : down.end, across.first : across.end].astype(np.float32)
        strip = down.matrix(LEVEL / DOWN) @ strip.reshape(down.end - down.first, -1)  # (count, width * 3)
        np.rint(strip, out=strip)  # halves to the even one
        strip = cv2.transpose(strip.reshape(count, -1, 3))  # (width, count, 3)
        strip = mix_columns @ strip.reshape(width, -1)  # (columns, count * 3), in grey levels
        strip += 0.5  # halves up
        cv2.transpose(strip.astype(np.uint8).reshape(columns, count, 3), out[row : row + count])
    return out


def _load() -> Any:
    """The function of `_area.c`, or None where it was not compiled."""
    found = importlib.util.find_spec("._area", __package__)
    if found is None or found.origin is None:
        return None
    try:
        function = ctypes.CDLL(found.origin).shrink_window
    except (OSError, AttributeError):  # compiled for another kind of machine
        return None
    size, address = ctypes.c_int64, ctypes.c_void_p
    side = (size, size, address, address)
    function.argtypes = [address, size, size, size, *side, *side, address]
    return function


_compiled = _load()
COMPILED = _compiled is not None
