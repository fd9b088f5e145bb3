"""The numbers that enter the DALI graph with each batch: windows, reflections, lighting and gain.

In:  a plan and the pictures' sizes.  Out: NumPy arrays, for DALI or for the threads that cut.  No DALI, no torch.

TrainInputs and ViewInputs have the same methods:

    whole     what DALI gets beside whole pictures, which it cuts itself
    cut       what DALI gets beside windows that threads have cut, or what finishes these
    windows   what the threads cut, for a part of a batch
    side      of the squares that the threads cut, pixels
"""

from dataclasses import dataclass

import numpy as np

from ..plan.lighting import Lighting, lighting_offsets
from ..plan.plan import BatchPlan
from ..plan.resized_crop import ResizedCrop, resized_windows
from ..shards.stats import Stats
from .dali_ops import Pictures
from .decoder import Windows


@dataclass(frozen=True)
class TrainInputs:
    """The numbers of training batches.

    Attributes:
        pictures: what enters and leaves the graph.
        stats: for the lighting; None without lighting.
        light: the lighting.
        resized: how windows that will be resized are drawn, or None.
        values: whether lighting and gain apply; they do not to uint8 pixels.
    """

    pictures: Pictures
    stats: Stats | None
    light: Lighting
    resized: ResizedCrop | None
    values: bool

    @property
    def side(self) -> int:
        """The crop's."""
        return self.pictures.crop

    def whole(self, batch: BatchPlan, sides: np.ndarray) -> list[np.ndarray]:
        """The inputs of `train_graph` after the payloads: windows, flip int32 (n,), then `cut`'s.

        Args:
            sides: of the whole pictures, int64 (n, 2), height and width, pixels.
        """
        flip = batch.flip.astype(np.int32)
        if self.resized:
            left, top, width, height = self._drawn(batch, sides)
            places = [np.stack(pair, axis=1).astype(np.int32) for pair in ((top, left), (height, width))]
        else:
            places = _corners(self.pictures, sides)
            places += [(offset / self.pictures.far).astype(np.float32) for offset in (batch.left, batch.top)]
        return [*places, flip, *self.cut(batch)]

    def cut(self, batch: BatchPlan) -> list[np.ndarray]:
        """Mean less lighting, float32 (n, 3), grey levels 0..255, and gain, float32 (n, 1, 1, 1); [] for uint8."""
        if not self.values:
            return []
        scale, gain = self.light.at(batch.epoch)
        means = np.tile(self.pictures.mean_rgb, (len(batch.records), 1))
        if scale != "none":
            assert self.stats is not None, "train_stream checks this"
            means = means - lighting_offsets(batch.gaussians, self.stats, scale)
        return [means.astype(np.float32), np.full((len(batch.records), 1, 1, 1), gain, np.float32)]

    def windows(self, batch: BatchPlan, sides: np.ndarray) -> Windows:
        """The planned windows, in pixels of the whole picture."""
        crop = self.pictures.crop
        if self.resized:
            return Windows(*self._drawn(batch, sides), batch.flip)
        (left, top), side = _squares(self.pictures, sides), np.full(len(batch.records), crop)
        return Windows(left + batch.left, top + batch.top, side, side, batch.flip)

    def _drawn(self, batch: BatchPlan, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Left, top, width, height of windows that will be resized, int64 (n,), pixels."""
        assert self.resized is not None and batch.resized is not None, "the plan and the inputs agree"
        heights, widths = sides.T
        return resized_windows(batch.resized, heights, widths, self.resized)


@dataclass(frozen=True)
class ViewInputs:
    """The numbers of evaluation batches: the graph cuts all views from central squares, so squares are all it needs."""

    pictures: Pictures

    @property
    def side(self) -> int:
        """The stored pictures' short side."""
        return self.pictures.size

    def whole(self, records: np.ndarray, sides: np.ndarray) -> list[np.ndarray]:
        """The inputs of `views_graph` after the payloads: corners of the squares, where pictures are not square."""
        return _corners(self.pictures, sides)

    def cut(self, records: np.ndarray) -> list[np.ndarray]:
        """Nothing: squares need no further numbers."""
        return []

    def windows(self, records: np.ndarray, sides: np.ndarray) -> Windows:
        """The central squares."""
        side = np.full(len(sides), self.pictures.size)
        left, top = _squares(self.pictures, sides)
        return Windows(left, top, side, side, np.zeros(len(side), np.uint8))


def _corners(pictures: Pictures, sides: np.ndarray) -> list[np.ndarray]:
    """Top and left of the central squares, floored: [int32 (n, 2)], pixels, or [] where pictures are square."""
    return [] if pictures.square else [((sides - pictures.size) // 2).astype(np.int32)]


def _squares(pictures: Pictures, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and top of the central squares, floored: int64 (n,), pixels."""
    top, left = ((sides - pictures.size) // 2).T
    return left, top
