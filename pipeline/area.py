"""A window of a photo, shrunk by area averaging: the grid of cv2.INTER_AREA in a third of its time.

In:  uint8 pixels, the sides after shrinking, the window of those that is kept.  Out: uint8 pixels.  No files.

A new pixel is the mean of the rectangle of old ones that it covers. That mean is separable, and 2 to 4 rows make a
new one: two products of a sparse matrix with the pixels as float32, the picture being transposed in between. scipy's
inner loop adds a multiple of one row of pixels to another, which compilers vectorise; OpenCV's goes pixel by pixel.

Every number on the way is a whole multiple of a power of two and small enough for float32's 24 bits, so nothing is
ever rounded but where it says so: the bytes depend neither on the processor nor on any library's version.
"""

from functools import lru_cache

import cv2
import numpy as np
from scipy.sparse import csr_array

# The weights of a new row, and of a new column, are whole numbers with this sum; between the two, pixels are rounded
# to a whole number of LEVELths of a grey level. 255 * DOWN and 255 * LEVEL * ACROSS are both just below 2**24.
DOWN, LEVEL, ACROSS = 65536, 32, 2048
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
    first, last, across = _weights(pixels.shape[1], width, left, columns, ACROSS, 1 / (ACROSS * LEVEL))
    # At least one row; half as many bytes as the decoded photo in the worst case, a side of 8 pixels.
    at_once = max(1, STRIP_BYTES * height // (pixels.shape[0] * (last - first) * 12))
    out = np.empty((rows, columns, 3), np.uint8)
    for row in range(0, rows, at_once):
        count = min(at_once, rows - row)
        upper, lower, down = _weights(pixels.shape[0], height, top + row, count, DOWN, LEVEL / DOWN)
        strip = pixels[upper:lower, first:last].astype(np.float32)
        strip = down @ strip.reshape(lower - upper, -1)  # (count, old columns * 3)
        np.rint(strip, out=strip)  # halves to the even one
        strip = cv2.transpose(strip.reshape(count, -1, 3))  # (old columns, count, 3)
        strip = across @ strip.reshape(last - first, -1)  # (columns, count * 3), in grey levels
        strip += 0.5  # halves up
        cv2.transpose(strip.astype(np.uint8).reshape(columns, count, 3), out[row : row + count])
    return out


@lru_cache(1024)  # of about 10 kB; most of ImageNet's photos are 500 pixels wide or tall
def _weights(old: int, new: int, start: int, count: int, total: int, unit: float) -> tuple[int, int, csr_array]:
    """How new pixels `start` ... `start + count - 1` of `new` are mixed from `old` ones.

    Returns:
        first and end of the old pixels that take part, and the float32 (count, end - first) matrix: whole numbers
        times `unit`, each row's sum being `total` times `unit`.
    """
    # In units of 1/new of an old pixel, old pixel j covers [j * new, (j + 1) * new), new pixel k [k * old, ...).
    begin = np.arange(start, start + count, dtype=np.int64)[:, None] * old
    first = begin // new
    taps = int(((begin + old - 1) // new - first).max()) + 1
    borders = np.clip((first + np.arange(taps + 1)) * new - begin, 0, old)  # (count, taps + 1)
    # The borders are rounded, not the weights: so the sum is `total` and no weight is off by more than one.
    weights = np.diff((2 * total * borders + old) // (2 * old))
    kept = weights > 0
    places = (first + np.arange(taps))[kept]
    lowest, end = int(places.min()), int(places.max()) + 1
    ends = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    data = (weights[kept] * unit).astype(np.float32)
    return lowest, end, csr_array((data, places - lowest, ends), shape=(count, end - lowest))
