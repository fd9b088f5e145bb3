"""Lighting noise: colour offsets along the eigenvectors of the RGB covariance (paper, section 4.1).

In:  the plan's Gaussians, eigenvalues and eigenvectors.  Out: an RGB offset for each picture.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import StatsError

LIGHTING_SCALES = ("stddev", "eigenvalue", "none")
LIGHTING_SHARE = 0.1  # standard deviation of the paper's alpha; `--color-noise 0.1` of the program


@dataclass(frozen=True)
class Lighting:
    """Lighting noise and gain of training pictures.

    Attributes:
        scale: `stddev`, `eigenvalue` or `none`, see `lighting_offsets`.
        divide: divide by 1.1 after the lighting, as the program of 2012 did, which keeps the values' scale near that
            of test pictures; ignored where scale is `none`.
        until_epoch: first epoch without lighting and division (the program's training log); None, all have them.
    Raises:
        StatsError: unknown scale.
    """

    scale: str = "stddev"
    divide: bool = True
    until_epoch: int | None = None

    def __post_init__(self):
        if self.scale not in LIGHTING_SCALES:
            raise StatsError(f"unknown lighting scale {self.scale!r}", f"choose one of {', '.join(LIGHTING_SCALES)}")

    def at(self, epoch: int) -> tuple[str, float]:
        """Return the scale and the gain, a factor of pixel values, in an epoch."""
        if self.scale == "none" or (self.until_epoch is not None and epoch >= self.until_epoch):
            return "none", 1.0
        return self.scale, 1.0 / (1.0 + LIGHTING_SHARE) if self.divide else 1.0


class Eigenbasis(Protocol):
    """Eigenvalues (3,) and eigenvectors (3, 3), rows, largest first, of the RGB covariance; pixels of 0..255."""

    @property
    def eigenvalues(self) -> np.ndarray:
        """Variances along the axes, float64 (3,)."""

    @property
    def eigenvectors(self) -> np.ndarray:
        """Axes as rows, float64 (3, 3), RGB."""


def lighting_offsets(gaussians: np.ndarray, stats: Eigenbasis, scale: str = "stddev") -> np.ndarray:
    """Compute the RGB offset of each picture (paper, section 4.1; docs/paper.md for what ran in 2012).

    `stddev`, what ran in 2012: 0.1 g times the square root of the eigenvalue of 0..255 pixels.
    `eigenvalue`, the paper's text for 0..1 pixels, the usual reading: 0.1 g eigenvalue / 255.
    `none`: zero.

    Args:
        gaussians: (n, 3), N(0, 1), largest component first: a BatchPlan's.
        stats: eigenvalues and eigenvectors: Stats, or any object with these two.
        scale: `stddev`, `eigenvalue` or `none`.
    Returns:
        float64 (n, 3), RGB, to be added to pixels of 0..255.
    Raises:
        StatsError: unknown scale.
    """
    if scale not in LIGHTING_SCALES:
        raise StatsError(f"unknown lighting scale {scale!r}", f"choose one of {', '.join(LIGHTING_SCALES)}")
    lengths = {"stddev": np.sqrt(stats.eigenvalues), "eigenvalue": stats.eigenvalues / 255.0, "none": np.zeros(3)}[
        scale
    ]
    return (LIGHTING_SHARE * gaussians.astype(np.float64) * lengths) @ stats.eigenvectors
