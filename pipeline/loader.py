"""Batches as torch tensors: what a training loop iterates over.

In:  a shard set, its statistics and a plan.  Out: Batch after Batch, each as the plan says, without a copy.

    with train_stream(shard_set, stats, plan) as stream:
        for batch in stream: ...            # epoch after epoch, without end
    with views_stream(shard_set, stats, "val", views=10) as stream:
        for batch in stream: ...            # every record once
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch

from . import graph
from .errors import DeviceError, PlanError, StatsError, StreamError
from .feed import Feed, Payloads
from .graph import Pictures
from .plan import BatchPlan, Plan, evaluation_batches
from .shardset import ShardSet
from .stats import LIGHTING_SCALES, LIGHTING_SHARE, Stats, lighting_offsets
from .workers import available_cores

# Arrays of a batch live from the feed until DALI can no longer read them: the batches ahead and two behind.
_KEPT_BEHIND = 2


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


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        images: float32 (n, 3, crop, crop), or (n, views, 3, crop, crop); pixels of 0..255 less the mean, RGB, in
            channels_last memory, on the stream's device.
        labels: int64 (n,), on the same device.
        unlabelled: some label is -1, for none.
        records: int64 (n,), NumPy: indices in the split.
        plan: the BatchPlan of a training batch, None in a pass over views.
    """

    images: torch.Tensor
    labels: torch.Tensor
    unlabelled: bool
    records: np.ndarray
    plan: BatchPlan | None


class Stream:
    """Runs a DALI pipeline and gives its batches. Close it, or use it in a `with`, when done; dropping it will do too.

    Batches stay valid after later ones were fetched and after closing.
    """

    def __init__(self, feed: Feed, plans: Iterator, inputs: Callable, make_graph: Callable, device: torch.device):
        self._source, self._device = _Source(feed, plans, inputs), device
        self._pipeline = make_graph(self._source)
        # The pipeline's threads read the memory map, so they must stop before it closes. Of objects that are lost in
        # a reference cycle Python ends the shards as readily first; this callback is run before any of them.
        self._stop = weakref.finalize(self, _stop, self._pipeline, self._source)
        self._failure: Exception | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._failure is not None:  # DALI would go on with the batch after, under this one's labels
            raise self._failure
        if not self._stop.alive:
            raise StopIteration
        try:
            outputs = self._pipeline.run(self._cuda_stream())
        except StopIteration:
            raise
        except Exception as error:
            self._failure = self._source.explained(error)
            self.close()
            if self._failure is error:
                raise
            raise self._failure from error
        plan, payloads = self._source.used()
        images = torch.from_dlpack(outputs[0].as_tensor())
        labels = torch.from_numpy(payloads.labels)
        if self._device.type == "cuda":
            labels = labels.pin_memory().to(self._device, non_blocking=True)
        # (n, [views,] height, width, 3) in memory, seen as (n, [views,] 3, height, width): channels_last.
        images = images.movedim(-1, -3)
        return Batch(
            images,
            labels,
            bool((payloads.labels < 0).any()),
            _records(plan),
            plan if isinstance(plan, BatchPlan) else None,
        )

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stop the pipeline, then let go of the memory map that it reads from."""
        self._stop()

    def _cuda_stream(self):
        return torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None


def _stop(pipeline, source: "_Source") -> None:
    pipeline.__del__()  # stops its threads, whoever else may hold it; there is no public name for that
    source.close()


class _Source:
    """What DALI calls for its next batch. It knows no Stream, so a dropped Stream ends at once."""

    def __init__(self, feed: Feed, plans: Iterator, inputs: Callable):
        self._feed, self._plans, self._inputs = feed, plans, inputs
        self._ahead: deque = deque()
        self._behind: deque = deque(maxlen=_KEPT_BEHIND)
        self._failure: Exception | None = None

    def __call__(self) -> list:
        plan = next(self._plans)
        try:
            payloads = self._feed.read(_records(plan))
            inputs = self._inputs(plan, payloads)
        except Exception as error:
            self._failure = error  # DALI would wrap it in text
            raise
        self._ahead.append((plan, payloads, inputs))
        return [payloads.data, *inputs]

    def used(self) -> tuple[BatchPlan | np.ndarray, Payloads]:
        """The plan and the payloads of the batch that DALI has just given."""
        plan, payloads, inputs = self._ahead.popleft()
        self._behind.append((payloads, inputs))
        return plan, payloads

    def explained(self, error: Exception) -> Exception:
        """What went wrong, in people's words: which record, where we can find that out."""
        if self._failure is not None:
            return self._failure
        for plan, payloads, _ in self._ahead:
            for record, data in zip(_records(plan).tolist(), payloads.data, strict=True):
                fault = _fault(data, self._feed.size) if self._feed.encoded else ""
                if fault:
                    return StreamError(
                        f"{self._feed.name(record)}: {fault}",
                        "remove that shard's folder and run its alexnet-prep build-lmdb command again",
                    )
        return StreamError(f"DALI stopped: {' '.join(str(error).split())[:300]}", "alexnet-prep doctor")

    def close(self) -> None:
        """Let go of the memory map."""
        self._ahead.clear()
        self._behind.clear()
        self._feed.close()


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


def _records(plan: BatchPlan | np.ndarray) -> np.ndarray:
    return plan.records if isinstance(plan, BatchPlan) else plan


def _fault(data: np.ndarray, size: int) -> str:
    """What is wrong with a JPEG file of a set whose short side is `size`, or nothing."""
    try:
        height, width, _ = simplejpeg.decode_jpeg(data, colorspace="RGB").shape
    except ValueError:
        return "its JPEG does not decode"
    return "" if min(height, width) == size else f"its JPEG is {width}x{height}, in a set of size {size}"
