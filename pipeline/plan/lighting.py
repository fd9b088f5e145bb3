"""Lighting noise: the paper's colour offsets along the axes of the RGB covariance (section 4.1).

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
    """What happens to a training picture's values.

    Attributes:
        scale: `stddev`, `eigenvalue` or `none` (see lighting_offsets).
        divide: divide by 1.1 after the lighting, as the program did so that the scale stays near the test pictures';
            without lighting nothing is divided.
        until_epoch: from this epoch on neither happens (the program's diary); None, always.
    """

    scale: str = "stddev"
    divide: bool = True
    until_epoch: int | None = None

    def __post_init__(self):
        if self.scale not in LIGHTING_SCALES:
            raise StatsError(
                f"no lighting scale is called {self.scale!r}", f"choose one of {', '.join(LIGHTING_SCALES)}"
            )

    def at(self, epoch: int) -> tuple[str, float]:
        """The lighting's scale and the gain in an epoch."""
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
    """The RGB value added to every pixel of each picture (paper, section 4.1; docs/paper.md for what ran in 2012).

    `stddev`, what ran in 2012: 0.1 g times the square root of the eigenvalue of 0..255 pixels.
    `eigenvalue`, the text read on 0..1 pixels, as the community does: 0.1 g eigenvalue / 255.
    `none`: zero.

    Args:
        gaussians: (n, 3), N(0, 1), largest component first.
        stats: what `alexnet_dali.pipeline.load_stats` gives, or any other eigenbasis.
    Returns:
        float64 (n, 3), on pixels of 0..255.
    Raises:
        StatsError: no such scale.
    """
    if scale not in LIGHTING_SCALES:
        raise StatsError(f"no lighting scale is called {scale!r}", f"choose one of {', '.join(LIGHTING_SCALES)}")
    lengths = {"stddev": np.sqrt(stats.eigenvalues), "eigenvalue": stats.eigenvalues / 255.0, "none": np.zeros(3)}[
        scale
    ]
    return (LIGHTING_SHARE * gaussians.astype(np.float64) * lengths) @ stats.eigenvectors
