"""Batches as torch tensors: what a training loop iterates over.

In:  a shard set, its statistics and a plan.  Out: Batch after Batch, each as the plan says, without a copy.

    with train_stream(shard_set, stats, plan) as stream:
        for batch in stream: ...            # epoch after epoch, without end
    with views_stream(shard_set, stats, "val", views=10) as stream:
        for batch in stream: ...            # every record once
"""

from dataclasses import dataclass

import numpy as np
import torch

from . import graph
from .errors import DeviceError, PlanError, StatsError
from .feed import Feed, Payloads
from .graph import Pictures
from .plan import BatchPlan, Plan, evaluation_batches
from .shardset import ShardSet
from .stats import LIGHTING_SCALES, LIGHTING_SHARE, Stats, lighting_offsets
from .stream import Stream
from .workers import available_cores


@dataclass(frozen=True)
class Light:
    """What happens to a training picture's values.

    Attributes:
        scale: `stddev`, `eigenvalue` or `none` (see stats.lighting_offsets).
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


def train_stream(
    shard_set: ShardSet,
    stats: Stats,
    plan: Plan,
    *,
    epoch: int = 0,
    step: int = 0,
    light: Light = Light(),
    mean: str = "image",
    device: str | torch.device = "cpu",
    threads: int = 0,
) -> Stream:
    """Stream training batches from (epoch, step) on, without end.

    Args:
        mean: `image`, the mean image's central window; `rgb`, one value a channel.
        device: where decoding and everything after it runs, and the batches lie.
        threads: of the CPU's part, by default one a core.
    Raises:
        ShardError, StreamError, DeviceError, PlanError.
    """
    device = _checked_device(device)
    feed = Feed(shard_set, "train")
    if (plan.records, plan.size) != (len(feed), shard_set.size):
        raise PlanError(
            f"the plan is of {plan.records:,} records of size {plan.size}, "
            f"but {shard_set.root} has {len(feed):,} of size {shard_set.size}",
            "make the Plan with the records of the split `train` and the size of the shard set",
        )
    pictures = _pictures(shard_set, stats, plan.augmentation.crop, mean)
    far = max(plan.size - plan.augmentation.crop, 1)

    def inputs(batch: BatchPlan, payloads: Payloads) -> list[np.ndarray]:
        scale, gain = light.at(batch.epoch)
        means = (stats.mean_rgb - lighting_offsets(batch.gaussians, stats, scale)).astype(np.float32)
        return [
            *_corners(pictures, payloads),
            (batch.left / far).astype(np.float32),
            (batch.top / far).astype(np.float32),
            batch.flip.astype(np.int32),
            means,
            np.full((len(batch.records), 1, 1, 1), gain, np.float32),
        ]

    return Stream(
        feed,
        plan.batches(epoch, step),
        inputs,
        lambda source: graph.train_graph(
            source, pictures, min(plan.batch_size, plan.records), device.index, threads or available_cores()
        ),
        device,
    )


def views_stream(
    shard_set: ShardSet,
    stats: Stats,
    split: str,
    *,
    views: int = 1,
    crop: int = 224,
    batch_size: int = 128,
    mean: str = "image",
    device: str | torch.device = "cpu",
    threads: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> Stream:
    """Stream every record of a split once, as its centre view or its ten views; the last batch may be short.

    Raises:
        ShardError, StreamError, DeviceError, PlanError.
    """
    if views not in graph.VIEWS:
        raise PlanError(f"{views} views are not planned", "choose --views 1 or --views 10")
    device = _checked_device(device)
    feed = Feed(shard_set, split)
    windows = (graph.centre_view if views == 1 else graph.ten_views)(shard_set.size, crop)
    pictures = _pictures(shard_set, stats, crop, mean)
    return Stream(
        feed,
        evaluation_batches(len(feed), batch_size, rank, ranks),
        lambda _, payloads: _corners(pictures, payloads),
        lambda source: graph.views_graph(
            source, pictures, windows, batch_size, device.index, threads or available_cores()
        ),
        device,
    )


def _pictures(shard_set: ShardSet, stats: Stats, crop: int, mean: str) -> Pictures:
    if mean not in ("image", "rgb"):
        raise PlanError(f"no mean is called {mean!r}", "choose image or rgb")
    residual = None
    if mean == "image":
        edge = (shard_set.size - crop) // 2
        window = stats.mean_image[edge : edge + crop, edge : edge + crop]
        residual = np.ascontiguousarray(window - stats.mean_rgb, dtype=np.float32)
    return Pictures(
        shard_set.encoding == "jpeg", shard_set.size, shard_set.fit == "crop", crop, stats.mean_rgb, residual
    )


def _corners(pictures: Pictures, payloads: Payloads) -> list[np.ndarray]:
    """Top and left of the central squares, floored, where pictures are not square: [int32 (n, 2)] or []."""
    return [] if pictures.square else [((payloads.sides - pictures.size) // 2).astype(np.int32)]


def _checked_device(device: str | torch.device) -> torch.device:
    device = torch.device(device)
    if device.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError("no GPU is usable here", "see why with alexnet-prep doctor, or use --device cpu")
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise DeviceError(f"there is no GPU {index}, only {torch.cuda.device_count()}", "choose a smaller number")
    return torch.device("cuda", index)
