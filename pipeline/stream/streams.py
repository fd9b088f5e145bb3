"""Batches as torch tensors: what a training loop iterates over.

In:  a shard set, its statistics and a plan.  Out: Batch after Batch, each as planned, without a copy.

    with train_stream(shard_set, stats, plan) as stream:
        for batch in stream: ...            # epoch after epoch, without end
    with views_stream(shard_set, stats, "val", views=10) as stream:
        for batch in stream: ...            # every record once

make_stream.py describes the decoders among which `decode` chooses.
"""

import numpy as np
import torch

from ..errors import DeviceError, PlanError, StatsError
from ..plan.lighting import Lighting
from ..plan.plan import Plan
from ..plan.views import views_of
from ..shards.manifest import ShardSet
from ..shards.stats import Stats, mean_and_std
from ..workers import available_cores
from . import autotune
from .dali_ops import Pictures
from .inputs import TrainInputs, ViewInputs
from .make_stream import TrainStreams, ViewStreams
from .stream import Stream


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
        shard_set: opened by `open_shard_set`.
        stats: of the set; may be None where mean is `imagenet` and there is no lighting.
        plan: made with the records of the split `train` and the size of the set.
        epoch, step: of the first batch, from 0.
        light: the lighting noise and the gain.
        mean: `image`, the mean image's central window; `rgb`, one value a channel; `imagenet`, mean and standard
            deviation of torchvision's and timm's pretrained weights. `image` is not possible with resized crops.
        dtype: `float32`, `float16`, or `uint8`: pixels 0..255, cut and reflected, mean and lighting ignored.
        layout: memory layout of the pictures, `HWC`, which is channels_last, or `CHW`.
        device: where everything after decoding runs and the batches are.
        threads: of the CPU's part; 0, one for each core.
        decode: `fused`, `threads`, `dali`, or `auto`, see make_stream.py; the stream's `decode` says which,
            its `chosen` why. On the CPU all give the same pixels except for resized crops (decoder.py); on a GPU they
            differ by rounding, so resume with the decoder that the stream's `decode` named.
    Returns:
        an iterator of Batch, images (n, 3, crop, crop), RGB; close it, or use it in a `with`.
    Raises:
        ShardError: a record is damaged or missing, or there is no split `train`.
        StatsError: stats is None where it is needed.
        PlanError: the plan is of another set, or an option is unknown or impossible.
        StreamError: DALI is missing or fails.
        DeviceError: there is no such GPU.
        UsageError: unknown decoder, or `fused` is not possible.
    """
    device = _checked_device(device)
    autotune.check(decode)
    if stats is None and light.scale != "none":
        raise StatsError(
            "the lighting needs the statistics of the set", 'give load_stats(shard_set), or light=Lighting("none")'
        )
    split = shard_set.split("train")
    if (plan.records, plan.size) != (split.records, shard_set.size):
        raise PlanError(
            f"the plan is of {plan.records:,} records of size {plan.size}, "
            f"but {shard_set.root} has {split.records:,} of size {shard_set.size}",
            "make the Plan with the records of the split `train` and the size of the shard set",
        )
    resized = plan.augmentation.resized
    pictures = _pictures(shard_set, stats, plan.augmentation.crop, mean, resized=resized is not None)
    inputs = TrainInputs(pictures, stats, light, resized, values=dtype != "uint8")
    common = (shard_set, "train", inputs, device, threads or available_cores(), dtype, layout)
    return TrainStreams(*common, plan, (epoch, step)).open(decode)


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
    """Stream every record of a split once, as one or more windows of each picture; the last batch may be short.

    Args:
        shard_set: opened by `open_shard_set`.
        stats: of the set; may be None where mean is `imagenet`.
        split: `train`, `val` or `test`.
        views: windows of each picture: 1, the centre; 10, the paper's; others, see `views_of`.
        crop: side of the windows, pixels.
        resize: side that the central squares are resized to before views are cut, pixels; None, not resized. Not
            possible with `mean="image"`.
        batch_size: records in each of this process's batches.
        mean, dtype, layout, device, threads, decode: as for `train_stream`.
        rank, ranks: this process and the number of processes; each gets a contiguous share of the records.
    Returns:
        an iterator of Batch, images (n, views, 3, crop, crop), RGB; close it, or use it in a `with`.
    Raises:
        ShardError: a record is damaged or missing, or there is no such split.
        StatsError, StreamError, DeviceError, PlanError, UsageError: as `train_stream`.
    """
    device = _checked_device(device)
    autotune.check(decode)
    records = shard_set.split(split).records
    pictures = _pictures(shard_set, stats, crop, mean, resize)
    windows = views_of(views, pictures.side, crop)
    common = (shard_set, split, ViewInputs(pictures), device, threads or available_cores(), dtype, layout)
    return ViewStreams(*common, windows, (records, batch_size, rank, ranks)).open(decode)


def _pictures(
    shard_set: ShardSet, stats: Stats | None, crop: int, mean: str, resize: int | None = None, resized: bool = False
) -> Pictures:
    """Describe the stored pictures and what is subtracted from their windows."""
    subtrahend, std_rgb = mean_and_std(stats, mean, crop)
    mean_rgb, residual = subtrahend, None
    if mean == "image":
        if resized or resize is not None or crop > shard_set.size:
            raise PlanError(
                f"the mean image does not fit resized pictures or a crop of {crop} pixels",
                'choose mean="rgb" or "imagenet"',
            )
        mean_rgb, _ = mean_and_std(stats, "rgb", crop)
        residual = np.ascontiguousarray(subtrahend - mean_rgb, dtype=np.float32)
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


def _checked_device(device: str | torch.device) -> torch.device:
    device = torch.device(device)
    if device.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError("no usable GPU", "find the reason with alexnet-prep doctor, or use --device cpu")
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise DeviceError(f"no GPU {index}: this machine has {torch.cuda.device_count()}", "choose a smaller number")
    return torch.device("cuda", index)
