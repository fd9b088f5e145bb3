"""The DALI graphs: training windows, the centre view, the ten views (paper, section 4.1). One code for CPU and GPU.

In:  a callback that returns payloads and the plan's draws.  Out: a DALI pipeline of float32 pictures less the mean.
The graph decides nothing: window, reflection, light and gain of each picture come in as numbers.

    train   (pixels - (mean - light) - residual) * gain      n x 224 x 224 x 3
    views   (pixels - mean - residual) for each view         n x views x 224 x 224 x 3

`residual` is the mean image's central window less the mean RGB: the program of 2012 subtracts that window whatever
the crop and the reflection. The per-picture light costs nothing: crop_mirror_normalize takes it inside its mean.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .errors import DeviceError, PlanError, StreamError

VIEWS = (1, 10)
PREFETCH = 2  # batches ahead; 1 to 4 measured the same


@dataclass(frozen=True)
class Pictures:
    """What pictures come in and what of them goes out.

    Attributes:
        encoded: JPEG files come in; otherwise raw pixels.
        size: pixels of the short side.
        square: all pictures are size x size; otherwise their central square is cut first.
        crop: pixels of the window.
        mean_rgb: float (3,), 0..255.
        residual: float32 (crop, crop, 3) or None, subtracted from every window.
    """

    encoded: bool
    size: int
    square: bool
    crop: int
    mean_rgb: np.ndarray
    residual: np.ndarray | None


def ten_views(size: int = 256, crop: int = 224) -> np.ndarray:
    """List the test windows: four corners and the centre, each followed by its reflection.

    Returns:
        int64 (10, 3): left and top in pixels, 0..size-crop, and flip, 0 or 1.
    Raises:
        PlanError: the window is larger than the picture.
    """
    if not 1 <= crop <= size:
        raise PlanError(
            f"a {crop}x{crop} window does not fit into {size}x{size} pictures",
            f"build the shards with --size {crop + 32} or more",
        )
    far = size - crop
    middle = far // 2  # an odd margin leaves the extra pixel right and below, as the offline crop does
    windows = [(0, 0), (far, 0), (0, far), (far, far), (middle, middle)]
    return np.array([(left, top, flip) for left, top in windows for flip in (0, 1)], dtype=np.int64)


def centre_view(size: int = 256, crop: int = 224) -> np.ndarray:
    """The central window alone: int64 (1, 3), as `ten_views`."""
    return ten_views(size, crop)[8:9]


def train_graph(source: Callable, pictures: Pictures, batch_size: int, device_id: int | None, threads: int):
    """Build the graph of training windows.

    Args:
        source: returns for a batch: payloads, [corners int32 (n, 2), top and left of the central square, where
            pictures are not square,] left and top float32 (n,) as shares of size - crop, flip int32 (n,),
            mean float32 (n, 3) and gain float32 (n, 1, 1, 1); raises StopIteration at the end.
        device_id: a GPU, or None for the CPU.
        threads: of the CPU's part.
    Returns:
        A built `nvidia.dali.Pipeline` whose one output is float32 (n, crop, crop, 3).
    Raises:
        StreamError: DALI is missing or refuses.
        DeviceError: there is no such GPU.
    """
    fn, types = _dali()
    inputs = _inputs(types, pictures) + [
        (types.FLOAT, 0),
        (types.FLOAT, 0),
        (types.INT32, 0),
        (types.FLOAT, 1),
        (types.FLOAT, 3),
    ]

    def graph():
        data, *corners, left, top, flip, mean, gain = _source(fn, source, inputs)
        squares = _squares(fn, types, data, corners, pictures, device_id)
        window = fn.crop_mirror_normalize(
            squares,
            mean=mean,
            std=[1.0] * 3,
            mirror=flip,
            crop_pos_x=left,
            crop_pos_y=top,
            **_window_options(types, pictures),
        )
        return _less_residual(types, window, pictures, device_id) * (gain.gpu() if device_id is not None else gain)

    return _built(graph, batch_size, device_id, threads)


def views_graph(
    source: Callable, pictures: Pictures, views: np.ndarray, batch_size: int, device_id: int | None, threads: int
):
    """Build the graph of test views: each picture is decoded once and cut as often as there are views.

    Args:
        source: as for `train_graph`, returning payloads [and corners] alone.
        views: int64 (views, 3), from `ten_views` or `centre_view`.
    Returns:
        A built pipeline whose one output is float32 (n, views, crop, crop, 3).
    Raises:
        StreamError, DeviceError: as `train_graph`.
    """
    fn, types = _dali()
    far = max(pictures.size - pictures.crop, 1)

    def graph():
        data, *corners = _source(fn, source, _inputs(types, pictures))
        squares = _squares(fn, types, data, corners, pictures, device_id)
        windows = [
            _less_residual(
                types,
                fn.crop_mirror_normalize(
                    squares,
                    mean=pictures.mean_rgb.tolist(),
                    std=[1.0] * 3,
                    mirror=flip,
                    crop_pos_x=left / far,
                    crop_pos_y=top / far,
                    **_window_options(types, pictures),
                ),
                pictures,
                device_id,
            )
            for left, top, flip in views.tolist()
        ]
        return fn.stack(*windows)

    return _built(graph, batch_size, device_id, threads)


def _source(fn, source: Callable, inputs: list):
    # no_copy: DALI reads the memory map itself; the loader keeps every array alive until its batch has been used.
    return fn.external_source(
        source=source,
        num_outputs=len(inputs),
        batch=True,
        no_copy=True,
        dtype=[dtype for dtype, _ in inputs],
        ndim=[ndim for _, ndim in inputs],
    )


def _inputs(types, pictures: Pictures) -> list:
    corners = [] if pictures.square else [(types.INT32, 1)]
    return [(types.UINT8, 1 if pictures.encoded else 3), *corners]


def _squares(fn, types, data, corners: list, pictures: Pictures, device_id: int | None):
    """Decoded pictures, cut to size x size."""
    if pictures.encoded:
        # adjust_orientation would turn pictures by a tag; without fancy upsampling a GPU's pixels differ from a CPU's.
        on_gpu = {"device": "mixed", "jpeg_fancy_upsampling": True, "affine": False}
        options = {"device": "cpu"} if device_id is None else on_gpu
        data = fn.decoders.image(data, output_type=types.RGB, adjust_orientation=False, **options)
    elif device_id is not None:
        data = data.gpu()
    if corners:
        data = fn.slice(data, start=corners[0], shape=[pictures.size, pictures.size], axes=(0, 1))
    return data


def _window_options(types, pictures: Pictures) -> dict:
    # HWC out: permuted, it is what torch calls channels_last, which its convolutions prefer.
    return {"crop": (pictures.crop, pictures.crop), "dtype": types.FLOAT, "output_layout": "HWC"}


def _less_residual(types, window, pictures: Pictures, device_id: int | None):
    if pictures.residual is None:
        return window
    return window - types.Constant(pictures.residual, device="cpu" if device_id is None else "gpu")


def _built(graph: Callable, batch_size: int, device_id: int | None, threads: int):
    from nvidia.dali import pipeline_def

    try:
        # set_affinity would pile several processes of one container on the same cores.
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
                "see what is wrong with alexnet-prep doctor, or train with --device cpu",
            ) from error
        raise StreamError(f"DALI cannot build the pipeline: {text[:300]}", "alexnet-prep doctor") from error


def _dali():
    try:
        from nvidia.dali import fn, types
    except ImportError as error:
        raise StreamError(
            f"NVIDIA DALI cannot be imported: {error}", "pip install nvidia-dali-cuda120, then alexnet-prep doctor"
        ) from error
    return fn, types
