"""Shrink a window of a photo by area averaging: the grid of cv2.INTER_AREA in a fraction of its time.

In:  uint8 pixels, the sides after shrinking, the window of those that is kept.  Out: uint8 pixels.  No files.

A new pixel is the mean of the rectangle of old pixels that it covers. The mean is separable, and a new row depends on
2 to 4 old rows: rows are mixed first, then columns, and only those in the window. All arithmetic is on integers below
2**24 with two defined roundings, so the bytes depend neither on the processor nor on the version of a library.
`_area.c` has the inner loops; where it was not compiled, NumPy computes the same integers, and preparing
a photo takes 1.8 times as long.
"""

import ctypes
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np

from .. import compiled

# The integer weights of a new row sum to DOWN, those of a new column to ACROSS; in between, pixels are rounded to
# 1/LEVEL of a grey level. 255 * DOWN and 255 * LEVEL * ACROSS are both just below 2**24.
DOWN, LEVEL, ACROSS = 65536, 32, 2048  # shifts in _area.c and _with_numpy
STRIP_BYTES = 1 << 17  # of int32 pixels at a time: larger arrays cost page faults in each call


def shrink(pixels: np.ndarray, height: int, width: int, window: tuple[int, int, int, int]) -> np.ndarray:
    """Shrink to `height` by `width` by area averaging and return a window of the result.

    Args:
        pixels: uint8 (at least `height`, at least `width`, 3).
        height, width: pixels of the whole shrunk picture.
        window: top, left, height, width in the shrunk picture.
    Returns:
        uint8 (window height, window width, 3) contiguous; at most one level from cv2.resize and the same crop.
    """
    top, left, rows, columns = window
    down = _mix(pixels.shape[0], height, top, rows, DOWN)
    across = _mix(pixels.shape[1], width, left, columns, ACROSS)
    return _with_numpy(pixels, down, across) if _compiled is None else _with_loops(pixels, down, across)


@dataclass(frozen=True)
class _Mix:
    """The weights of old pixels in new ones, along one side.

    Attributes:
        first, end: the range of old pixels that have weight.
        firsts: int64 (n,), the first old pixel of each new one, counted from `first`, ascending.
        weights: int32 (n, taps), of each old pixel from `firsts` on; integers with the same sum in each row, zero
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


@lru_cache(1024)  # of about 10 kB; most of ImageNet's photos are 500 pixels wide or tall
def _mix(old: int, new: int, start: int, count: int, total: int) -> _Mix:
    """Compute the weights of `old` pixels in the `count` of `new` pixels from `start` on; each one's sum is `total`."""
    # In units of 1/new of an old pixel, old pixel j covers [j * new, (j + 1) * new), new pixel k [k * old, ...).
    begin = np.arange(start, start + count, dtype=np.int64)[:, None] * old
    first = begin // new
    taps = int(((begin + old - 1) // new - first).max()) + 1
    borders = np.clip((first + np.arange(taps + 1)) * new - begin, 0, old)  # (count, taps + 1)
    # Rounding the borders instead of the weights keeps the sum at `total` and each weight within one.
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
        raise MemoryError(f"out of memory for {width} columns of pixels")
    return out


def _with_numpy(pixels: np.ndarray, down: _Mix, across: _Mix) -> np.ndarray:
    rows, columns, width = len(down.firsts), len(across.firsts), across.end - across.first
    at_once = max(1, STRIP_BYTES * rows // ((down.end - down.first) * width * 12))
    out = np.empty((rows, columns, 3), np.uint8)
    for row in range(0, rows, at_once):
        firsts, weights = down.firsts[row : row + at_once], down.weights[row : row + at_once]
        begin, end = down.first + firsts[0], min(down.end, down.first + firsts[-1] + weights.shape[1])
        strip: np.ndarray = pixels[begin:end, across.first : across.end].astype(np.int32)
        strip = _mix_rows(strip.reshape(end - begin, width * 3), firsts - firsts[0], weights)
        strip += 1023 + (strip >> 11 & 1)  # to 1/LEVEL of a grey level, halves to even
        strip >>= 11
        strip = cv2.transpose(strip.reshape(-1, width, 3)).reshape(width, -1)
        strip = _mix_rows(strip, across.firsts, across.weights)
        strip += 32768  # to a grey level, halves up
        strip >>= 16
        cv2.transpose(strip.astype(np.uint8).reshape(columns, -1, 3), out[row : row + at_once])
    return out


def _mix_rows(old: np.ndarray, firsts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums of int32 rows (old, n): row k of the result begins at old row firsts[k] with weights[k]."""
    sums = np.zeros((len(firsts), old.shape[1]), np.int32)
    for tap in range(weights.shape[1]):
        rows = old.take(firsts + tap, axis=0, mode="clip")  # rows beyond the last have no weight
        rows *= weights[:, tap, None]
        sums += rows
    return sums


def _load() -> Any:
    """Return the function of `_area.c`; None where it was not compiled."""
    library = compiled.load(__package__, "_area")
    if library is None:
        return None
    size, address = ctypes.c_int64, ctypes.c_void_p
    side = (size, size, address, address)
    library.shrink_window.argtypes = [address, size, size, size, *side, *side, address]
    return library.shrink_window


_compiled = _load()
COMPILED = _compiled is not None
