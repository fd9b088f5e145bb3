"""Batches as torch tensors: what a training loop iterates over.

In:  a shard set, its statistics and a plan.  Out: Batch after Batch, each as the plan says, without a copy.

    with train_stream(shard_set, stats, plan) as stream:
        for batch in stream: ...            # epoch after epoch, without end
    with views_stream(shard_set, stats, "val", views=10) as stream:
        for batch in stream: ...            # every record once

Two ways in, one graph behind. `decode="dali"`: DALI gets the records, and on a GPU decodes there. `decode="threads"`:
a pool of threads decodes and cuts into kept buffers, and DALI gets windows. `auto` measures which is faster here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..errors import DeviceError, PlanError, StatsError
from ..plan.lighting import Lighting
from ..plan.plan import Plan, evaluation_batches
from ..shards.manifest import ShardSet
from ..shards.stats import Stats
from ..workers import available_cores
from . import autotune, dali_graph
from .batch_source import BatchSource
from .dali_graph import Pictures
from .decoder import Decoder
from .inputs import TrainInputs, corners, square_windows
from .record_reader import RecordReader
from .stream import Stream

MEANS = ("image", "rgb", "imagenet")
IMAGENET_MEAN = 255 * np.array([0.485, 0.456, 0.406])
IMAGENET_STD = 255 * np.array([0.229, 0.224, 0.225])
_GIVE_STATS = "give stats.load(shard_set),"


def train_stream(
    shard_set: ShardSet,
    stats: Stats | None,
    plan: Plan,
    *,
    epoch: int = 0,
    step: int = 0,
    light: Lighting = Lighting(),
    mean: str = "image",
    dtype: str = "float32",
    layout: str = "HWC",
    device: str | torch.device = "cpu",
    threads: int = 0,
    decode: str = "auto",
) -> Stream:
    """Stream training batches from (epoch, step) on, without end.

    Args:
        stats: of the set; None will do where the mean is `imagenet` and there is no light.
        mean: `image`, the mean image's central window; `rgb`, one value a channel, that of the training photos;
            `imagenet`, the mean and the deviations of torchvision's and timm's pretrained weights. Resized crops have
            no mean image.
        dtype: `float32`, `float16`, or `uint8`: the pixels as they are, cut and reflected.
        layout: of the pictures' memory, `HWC`, which is channels_last, or `CHW`.
        device: where everything after decoding runs, and the batches lie.
        threads: of the CPU's part, by default one a core.
        decode: `threads`, `dali`, or `auto`, see the module; the stream says which in `decode` and why in `chosen`.
            On the CPU the pixels are the same but for resized crops (cut.py); on a GPU they differ by rounding, so
            resume with what `decode` said.
    Raises:
        ShardError, StatsError, StreamError, DeviceError, PlanError, UsageError.
    """
    device = _checked_device(device)
    autotune.check(decode)
    if stats is None and light.scale != "none":
        raise StatsError("the lighting needs the statistics of the set", f'{_GIVE_STATS} or light=Lighting("none")')
    split = RecordReader(shard_set, "train").split
    if (plan.records, plan.size) != (split.records, shard_set.size):
        raise PlanError(
            f"the plan is of {plan.records:,} records of size {plan.size}, "
            f"but {shard_set.root} has {split.records:,} of size {shard_set.size}",
            "make the Plan with the records of the split `train` and the size of the shard set",
        )
    resized = plan.augmentation.resized
    pictures = _pictures(shard_set, stats, plan.augmentation.crop, mean, resized=resized is not None)
    inputs = TrainInputs(pictures, stats, light, resized, values=dtype != "uint8")

    def make_graph(source: Callable, threads: int, incoming: Pictures, **options):
        size = min(plan.batch_size, plan.records)
        return dali_graph.train_graph(
            source, incoming, size, device.index, threads, dtype=dtype, layout=layout, **options
        )

    return _stream(
        shard_set,
        "train",
        lambda: plan.batches(epoch, step),
        {
            "dali": _Way(pictures, inputs.whole, options={"resized": resized is not None}),
            "threads": _Way(_decoded(pictures), inputs.cut, inputs.windows, {"cut": True}),
        },
        make_graph,
        device,
        layout,
        threads,
        "threads" if decode == "auto" and resized and device.type == "cpu" else decode,
    )


def views_stream(
    shard_set: ShardSet,
    stats: Stats | None,
    split: str,
    *,
    views: int = 1,
    crop: int = 224,
    resize: int | None = None,
    batch_size: int = 128,
    mean: str = "image",
    dtype: str = "float32",
    layout: str = "HWC",
    device: str | torch.device = "cpu",
    threads: int = 0,
    decode: str = "auto",
    rank: int = 0,
    ranks: int = 1,
) -> Stream:
    """Stream every record of a split once, as its centre view, its ten, or others; the last batch may be short.

    Args:
        stats: as for `train_stream`.
        views: how many, see views.py.
        resize: pixels that the central squares are resized to before views are cut; None, not at all. With it there
            is no `mean="image"`.
        mean, dtype, layout, device, threads, decode: as for `train_stream`.
    Raises:
        ShardError, StatsError, StreamError, DeviceError, PlanError, UsageError.
    """
    device = _checked_device(device)
    autotune.check(decode)
    records = shard_set.split(split).records
    pictures = _pictures(shard_set, stats, crop, mean, resize)
    windows = dali_graph.views_of(views, pictures.side, crop)

    def make_graph(source: Callable, threads: int, incoming: Pictures):
        return dali_graph.views_graph(
            source, incoming, windows, batch_size, device.index, threads, dtype=dtype, layout=layout
        )

    return _stream(
        shard_set,
        split,
        lambda: evaluation_batches(records, batch_size, rank, ranks),
        {
            "dali": _Way(pictures, lambda _, payloads: corners(pictures, payloads)),
            "threads": _Way(_decoded(pictures), lambda *_: [], lambda _, payloads: square_windows(pictures, payloads)),
        },
        make_graph,
        device,
        layout,
        threads,
        decode,
    )


@dataclass(frozen=True)
class _Way:
    """One way of decoding.

    Attributes:
        incoming: pictures as DALI gets them.
        numbers: what DALI gets beside them, see Source.
        windows: what threads cut, or None where DALI gets the records.
        options: of the graph.
    """

    incoming: Pictures
    numbers: Callable
    windows: Callable | None = None
    options: dict = field(default_factory=dict)


def _stream(
    shard_set: ShardSet,
    split: str,
    plans: Callable[[], Iterator],
    ways: dict[str, _Way],
    make_graph: Callable,
    device: torch.device,
    layout: str,
    threads: int,
    decode: str,
) -> Stream:
    """A stream in one of the ways, or in the faster one."""
    threads = threads or available_cores()

    def make(decode: str, chosen: str = "") -> Stream:
        way, feed = ways[decode], RecordReader(shard_set, split)
        decoder = Decoder(feed.encoded, threads, pinned=device.type == "cuda") if way.windows else None
        return Stream(
            BatchSource(feed, plans(), way.numbers, decoder, way.windows),
            lambda source: make_graph(source, threads, way.incoming, **way.options),
            device,
            layout=layout,
            threads=threads,
            decode=decode,
            chosen=chosen,
        )

    if decode != "auto":
        return make(decode)
    key = (shard_set.root, shard_set.encoding, device, threads)
    records = (getattr(plan, "records", plan) for plan in plans())
    return make(*autotune.pick_decoder(make, key, RecordReader(shard_set, split), records))


def _pictures(
    shard_set: ShardSet, stats: Stats | None, crop: int, mean: str, resize: int | None = None, resized: bool = False
) -> Pictures:
    if mean not in MEANS:
        raise PlanError(f"no mean is called {mean!r}", f"choose one of {', '.join(MEANS)}")
    mean_rgb, std_rgb, residual = IMAGENET_MEAN, IMAGENET_STD, None
    if mean != "imagenet":
        if stats is None:
            raise StatsError(f"the mean {mean!r} needs the statistics of the set", f'{_GIVE_STATS} or mean="imagenet"')
        mean_rgb, std_rgb = stats.mean_rgb, np.ones(3)
    if stats is not None and mean == "image":
        if resized or resize is not None or crop > shard_set.size:
            raise PlanError(
                f"the mean image has no window of a resized picture, or of {crop}", 'choose mean="rgb" or "imagenet"'
            )
        edge = (shard_set.size - crop) // 2
        window = stats.mean_image[edge : edge + crop, edge : edge + crop]
        residual = np.ascontiguousarray(window - stats.mean_rgb, dtype=np.float32)
    return Pictures(
        shard_set.encoding == "jpeg",
        shard_set.size,
        shard_set.fit == "crop",
        crop,
        mean_rgb,
        residual,
        std_rgb,
        resize=resize,
    )


def _decoded(pictures: Pictures) -> Pictures:
    """The same pictures as threads hand them over: pixels, cut."""
    return replace(pictures, encoded=False, square=True)


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
