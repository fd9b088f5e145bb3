"""What goes into the graph of a batch: windows, reflections, light and gain as numbers.

In:  a plan and the payloads' sides.  Out: NumPy arrays, for DALI or for the threads that cut.  No DALI, no torch.
"""

from dataclasses import dataclass

import numpy as np

from ..plan.lighting import Lighting, lighting_offsets
from ..plan.plan import BatchPlan
from ..plan.resized_crop import ResizedCrop, resized_windows
from ..shards.stats import Stats
from .dali_ops import Pictures
from .decoder import Windows
from .record_reader import Payloads


@dataclass(frozen=True)
class TrainInputs:
    """The numbers of training batches.

    Attributes:
        pictures: what they are cut from, and to.
        stats: of the lighting; None where there is none.
        resized: how windows are drawn that are to be resized, or None.
        values: whether light and gain are asked for, which whole grey levels know nothing of.
    """

    pictures: Pictures
    stats: Stats | None
    light: Lighting
    resized: ResizedCrop | None
    values: bool

    def whole(self, batch: BatchPlan, payloads: Payloads) -> list[np.ndarray]:
        """What DALI wants that cuts windows itself."""
        flip = batch.flip.astype(np.int32)
        if self.resized:
            left, top, width, height = self._drawn(batch, payloads)
            places = [np.stack(pair, axis=1).astype(np.int32) for pair in ((top, left), (height, width))]
        else:
            places = corners(self.pictures, payloads)
            places += [(offset / self.pictures.far).astype(np.float32) for offset in (batch.left, batch.top)]
        return [*places, flip, *self.cut(batch, payloads)]

    def cut(self, batch: BatchPlan, payloads: Payloads) -> list[np.ndarray]:
        """What DALI wants that gets windows: mean float32 (n, 3), less the light, and gain float32 (n, 1, 1, 1)."""
        if not self.values:
            return []
        scale, gain = self.light.at(batch.epoch)
        means = np.tile(self.pictures.mean_rgb, (len(batch.records), 1))
        if scale != "none":
            assert self.stats is not None, "given where there is light"
            means = means - lighting_offsets(batch.gaussians, self.stats, scale)
        return [means.astype(np.float32), np.full((len(batch.records), 1, 1, 1), gain, np.float32)]

    def windows(self, batch: BatchPlan, payloads: Payloads) -> Windows:
        """What threads cut."""
        crop = self.pictures.crop
        if self.resized:
            return Windows(*self._drawn(batch, payloads), batch.flip, crop)
        (left, top), side = squares(self.pictures, payloads), np.full(len(batch.records), crop)
        return Windows(left + batch.left, top + batch.top, side, side, batch.flip, crop)

    def _drawn(self, batch: BatchPlan, payloads: Payloads) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Left, top, width, height of windows that are to be resized."""
        assert self.resized is not None and batch.resized is not None, "drawn where they are wanted"
        heights, widths = payloads.sides.T
        return resized_windows(batch.resized, heights, widths, self.resized)


def corners(pictures: Pictures, payloads: Payloads) -> list[np.ndarray]:
    """Top and left of the central squares, floored, where pictures are not square: [int32 (n, 2)] or []."""
    return [] if pictures.square else [((payloads.sides - pictures.size) // 2).astype(np.int32)]


def squares(pictures: Pictures, payloads: Payloads) -> tuple[np.ndarray, np.ndarray]:
    """Left and top of the central squares, int64 (n,), pixels."""
    top, left = ((payloads.sides - pictures.size) // 2).T
    return left, top


def square_windows(pictures: Pictures, payloads: Payloads) -> Windows:
    """The central squares themselves, which test views are cut from later."""
    count = len(payloads.sides)
    side = np.full(count, pictures.size)
    return Windows(*squares(pictures, payloads), side, side, np.zeros(count, np.uint8), pictures.size)
