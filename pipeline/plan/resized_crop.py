"""Resized crops, as in modern recipes: a window of random area and aspect ratio, later resized to the crop's size.

In:  the plan's words, the pictures' sizes.  Out: windows in whole pixels. NumPy only; no files, no DALI, no torch.

Up to ten tries, of which the first that fits counts, as in torchvision's RandomResizedCrop; but each try has its own
word, so a place always takes the same number of words. No `exp`, `log` or power is used, because their last bit
depends on the library: float64's + - * / and sqrt are rounded the same everywhere, so that another language computes
the same windows, bit for bit (`docs/plan.md`).
"""

import math
from dataclasses import dataclass

import numpy as np

from ..errors import PlanError

TRIES = 10
RESIZED_WORDS = TRIES + 1  # of a group of places: one for each try, and one for the window's position

_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class ResizedCrop:
    """The distribution of resized crops; the defaults are torchvision's.

    Attributes:
        area: range of the window's share of the picture's area, 0..1, drawn uniformly.
        aspect: range of width / height, above 0, drawn uniformly in its logarithm.
    Raises:
        PlanError: a range is empty or out of bounds.
    """

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        if len(self.area) != 2 or not 0 < self.area[0] <= self.area[1] <= 1:
            raise PlanError(
                f"invalid range of a window's share of the area: {_range(self.area)}",
                "give two shares above 0 and up to 1, the smaller first",
            )
        if len(self.aspect) != 2 or not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise PlanError(
                f"invalid range of a window's aspect ratio: {_range(self.aspect)}",
                "give two ratios above 0, the smaller first",
            )


def resized_windows(
    draws: np.ndarray, heights: np.ndarray, widths: np.ndarray, crop: ResizedCrop
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute the windows in pictures of these sizes; where no try fits, the largest central one of allowed aspect.

    Args:
        draws: uint64 (n, 11), the `resized` of a BatchPlan.
        heights, widths: of the pictures, int64 (n,), pixels, 1 or more.
    Returns:
        left, top, width, height: int64 (n,), pixels, inside the picture.
    """
    heights, widths = np.asarray(heights, np.int64), np.asarray(widths, np.int64)
    width, height = _shapes(draws[:, :TRIES], heights[:, None], widths[:, None], crop)
    fits = (width >= 1) & (width <= widths[:, None]) & (height >= 1) & (height <= heights[:, None])
    found, first = fits.any(axis=1), (np.arange(len(draws)), fits.argmax(axis=1))
    most_width, most_height = _largest(heights, widths, crop)
    width = np.where(found, width[first], most_width).astype(np.int64)
    height = np.where(found, height[first], most_height).astype(np.int64)
    across, down = widths - width, heights - height
    left = ((draws[:, TRIES] >> _HALF) * (across + 1).astype(np.uint64)) >> _HALF
    top = ((draws[:, TRIES] & _LOW) * (down + 1).astype(np.uint64)) >> _HALF
    return (
        np.where(found, left.astype(np.int64), across // 2),
        np.where(found, top.astype(np.int64), down // 2),
        width,
        height,
    )


def _shapes(tries: np.ndarray, heights: np.ndarray, widths: np.ndarray, crop: ResizedCrop):
    """Width and height of every try, float64 (n, 10), rounded to whole pixels, halves to even."""
    (least, most), (narrow, wide) = crop.area, crop.aspect
    area = (least + (most - least) * ((tries >> _HALF) * 2.0**-32)) * (heights * widths)
    # narrow * (wide / narrow)^x for the binary fraction x of 32 bits: each root is the square root of the previous one.
    aspect, root = np.full(tries.shape, narrow, np.float64), wide / narrow
    for bit in range(31, -1, -1):
        root = np.sqrt(root)
        aspect *= np.where(tries >> np.uint64(bit) & np.uint64(1), root, 1.0)
    return np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))


def _largest(heights: np.ndarray, widths: np.ndarray, crop: ResizedCrop):
    """Width and height, float64 (n,), of the largest window whose aspect is allowed."""
    narrow, wide = crop.aspect
    aspect = widths / heights
    width = np.where(aspect > wide, np.maximum(np.rint(heights * wide), 1), widths)
    height = np.where(aspect < narrow, np.maximum(np.rint(widths / narrow), 1), heights)
    return width, height


def _range(pair) -> str:
    return " to ".join(f"{value:g}" for value in pair)
