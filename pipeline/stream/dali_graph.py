"""The DALI graphs: training windows, resized crops, evaluation views (paper, section 4.1). Same code for CPU and GPU.

In:  a callback that returns payloads and the plan's draws.  Out: a DALI pipeline with one output, the pictures.
The graph draws nothing: window, reflection, lighting and gain of each picture are inputs.

    train   (pixels - (mean - light) - residual) / std * gain       n x crop x crop x 3
    views   (pixels - mean - residual) / std for each view          n x views x crop x crop x 3

`residual` is the mean image's central window less the mean RGB: the program of 2012 subtracts that window whatever
the crop and the reflection. A picture's lighting is part of its mean input, its gain part of its standard deviation.
With dtype uint8 pixels are returned unchanged.

Resizing uses DALI's linear filter with antialiasing: a triangle whose half width is the distance between new pixels,
or one old pixel where that is larger; edge pixels are repeated beyond the edge; the result is rounded to whole grey
levels. Pillow and torchvision have the same filter but truncate it at the edge, so only the outermost pixels differ.
"""

from collections.abc import Callable

import numpy as np

from ..errors import DeviceError, StreamError
from .dali_ops import Operators, Pictures

PREFETCH = 2  # batches ahead; 1 to 4 are equally fast


def train_graph(
    source: Callable,
    pictures: Pictures,
    batch_size: int,
    device_id: int | None,
    threads: int,
    *,
    resized: bool = False,
    cut: bool = False,
    page_locked: bool = False,
    dtype: str = "float32",
    layout: str = "HWC",
):
    """Build the graph of training windows.

    Args:
        source: returns for each batch, in this order: payloads; windows; flip int32 (n,); and unless `dtype` is
            uint8, mean float32 (n, 3) and gain float32 (n, 1, 1, 1). Raises StopIteration at the end.
            Windows are [corners int32 (n, 2), top and left of the central square, where pictures are not square,]
            left and top float32 (n,) as fractions of `pictures.far`. For resized crops they are corners int32 (n, 2),
            top and left, and extents int32 (n, 2), height and width, in pixels of the whole picture.
        pictures: what enters and leaves the graph.
        batch_size: the largest n.
        device_id: a GPU, or None for the CPU.
        threads: of the CPU's part.
        resized: windows have any extent and are resized to crop x crop.
        cut: payloads are windows that are already cut and reflected, uint8 (crop, crop, 3); `source` returns neither
            windows nor flip.
        page_locked: payloads are one array in page-locked memory, which the GPU reads until the batch's output is
            complete; otherwise DALI copies them there first.
        dtype: `float32`, `float16`, or `uint8`: unchanged pixels, cut and reflected.
        layout: memory layout, `HWC` or `CHW`.
    Returns:
        A built `nvidia.dali.Pipeline` with one output, (n, crop, crop, 3) or (n, 3, crop, crop), RGB.
    Raises:
        StreamError: DALI is missing or fails.
        DeviceError: there is no such GPU.
        PlanError: unknown dtype or layout.
    """
    make = Operators(pictures, device_id, dtype, layout)
    corner = [] if pictures.square else ["corner"]
    places = [] if cut else ["corner", "extent", "flip"] if resized else [*corner, "left", "top", "flip"]
    values = [] if dtype == "uint8" else ["mean", "gain"]

    def graph():
        data, *numbers = make.sourced(source, [*places, *values], page_locked)
        pixels, mean_gain = make.decoded(data), numbers[len(places) :]
        if cut:
            return make.finished(pixels, None, *mean_gain)
        *where, flip = numbers[: len(places)]
        if resized:
            pixels, place = make.resized(make.cut(pixels, *where), pictures.crop), {}
        else:
            *corners, left, top = where
            pixels, place = make.square(pixels, corners), {"crop_pos_x": left, "crop_pos_y": top}
        return make.finished(pixels, flip, *mean_gain, **place)

    return _built(graph, batch_size, device_id, threads)


def views_graph(
    source: Callable,
    pictures: Pictures,
    views: np.ndarray,
    batch_size: int,
    device_id: int | None,
    threads: int,
    *,
    page_locked: bool = False,
    dtype: str = "float32",
    layout: str = "HWC",
):
    """Build the graph of evaluation views: each picture is decoded once and cut once for each view.

    Args:
        source: as for `train_graph`, but returns only payloads [and corners of the central squares].
        views: int64 (views, 3), from `views_of` for pictures of `pictures.side`.
        pictures, batch_size, device_id, threads, page_locked, dtype, layout: as for `train_graph`.
    Returns:
        A built pipeline with one output, (n, views, crop, crop, 3) or (n, views, 3, crop, crop), RGB.
    Raises:
        StreamError, DeviceError, PlanError: as `train_graph`.
    """
    make = Operators(pictures, device_id, dtype, layout)

    def graph():
        data, *corners = make.sourced(source, [] if pictures.square else ["corner"], page_locked)
        pixels = make.square(make.decoded(data), corners)
        windows = [
            make.window(pixels, flip, crop_pos_x=left / pictures.far, crop_pos_y=top / pictures.far)
            for left, top, flip in views.tolist()
        ]
        stacked = make.stacked(windows)
        return make.less_residual(stacked) if make.subtracts else stacked

    return _built(graph, batch_size, device_id, threads)


def _built(graph: Callable, batch_size: int, device_id: int | None, threads: int):
    from nvidia.dali import pipeline_def

    try:
        # set_affinity would bind several processes of one container to the same cores.
        pipeline = pipeline_def(
            batch_size=batch_size,
            device_id=device_id,  # type: ignore[arg-type]  # None is the CPU
            num_threads=threads,
            prefetch_queue_depth=PREFETCH,
            set_affinity=False,
        )(graph)()
        pipeline.build()
        return pipeline
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if device_id is not None and any(word in text for word in ("CUDA", "cuda", "driver", "nvml")):
            raise DeviceError(
                f"DALI cannot use GPU {device_id}: {text[:300]}",
                "find the reason with alexnet-prep doctor, or train with --device cpu",
            ) from error
        raise StreamError(f"DALI cannot build the pipeline: {text[:300]}", "alexnet-prep doctor") from error
