"""The steps of the DALI graphs: decode, cut, resize, subtract, divide. dali_graph.py chains them.

In:  a description of the pictures, and a device.  Out: DALI nodes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DeviceError, PlanError, StreamError

DTYPES = ("float32", "float16", "uint8")
# The share of a batch that a GPU's JPEG engine decodes, if it has one. With 1, all that it can decode, and CUDA the
# rest, such as progressive files: so a picture's pixels never depend on its place in a batch, as with DALI's 0.65.
JPEG_ENGINE = 1.0
LAYOUTS = ("HWC", "CHW")  # of the memory; HWC, permuted, is torch's channels_last, the faster one for convolutions

_NUMBERS = {  # dtype and number of dimensions of each input beside the picture
    "corner": ("INT32", 1),  # top and left
    "extent": ("INT32", 1),  # height and width
    "left": ("FLOAT", 0),
    "top": ("FLOAT", 0),
    "flip": ("INT32", 0),
    "mean": ("FLOAT", 1),
    "gain": ("FLOAT", 3),
}


@dataclass(frozen=True)
class Pictures:
    """The pictures that enter the graph, and what happens to them.

    Attributes:
        encoded: JPEG files enter; otherwise raw pixels.
        size: short side, pixels.
        square: all pictures are size x size; otherwise their central square is cut first. Resized crops are cut from
            the whole picture.
        crop: side of the windows, pixels.
        mean_rgb: float (3,), subtracted, grey levels 0..255.
        residual: float32 (crop, crop, 3), grey levels, subtracted from every window besides; or None.
        std_rgb: float (3,), grey levels: the divisor after subtraction.
        resize: side that squares are resized to before windows are cut, pixels, or None. Not for resized crops.
    """

    encoded: bool
    size: int
    square: bool
    crop: int
    mean_rgb: np.ndarray
    residual: np.ndarray | None
    std_rgb: np.ndarray = field(default_factory=lambda: np.ones(3))
    resize: int | None = None

    @property
    def side(self) -> int:
        """Side of the square that windows are cut from, pixels."""
        return self.resize or self.size

    @property
    def far(self) -> int:
        """Largest offset of a window, pixels; at least 1, because it is a divisor."""
        return max(self.side - self.crop, 1)


class Operators:
    """DALI's operators with the options that these pictures need, on one device.

    Args:
        device_id: a GPU, or None for the CPU.
        dtype: `float32`, `float16` or `uint8`.
        layout: memory layout, `HWC` or `CHW`.
    Raises:
        StreamError: DALI cannot be imported.
        PlanError: unknown dtype or layout.
    """

    def __init__(self, pictures: Pictures, device_id: int | None, dtype: str, layout: str):
        for what, value, known in (("dtype", dtype, DTYPES), ("layout", layout, LAYOUTS)):
            if value not in known:
                raise PlanError(f"unknown {what} of pictures {value!r}", f"choose one of {', '.join(known)}")
        try:
            from nvidia.dali import fn, tensors, types
        except ImportError as error:
            raise StreamError(
                f"NVIDIA DALI cannot be imported: {error}", "pip install nvidia-dali-cuda120, then alexnet-prep doctor"
            ) from error
        self.pictures, self.dtype = pictures, dtype
        self._fn: Any = fn
        self._types: Any = types  # its constants come from a library that mypy does not see
        self._batch: Any = tensors.TensorListCPU
        self._layout, self._on_gpu = layout, device_id is not None

    def sourced(self, source: Callable, numbers: list[str], page_locked: bool = False):
        """Declare the inputs: payloads, in page-locked memory or not, and numbers by name, see `_NUMBERS`."""
        inputs = [("UINT8", 1 if self.pictures.encoded else 3), *(_NUMBERS[name] for name in numbers)]
        # no_copy: DALI reads the source's arrays; the source keeps them alive until the batch has been used.
        return self._fn.external_source(
            source=(lambda: self._page_locked(*source())) if page_locked else source,
            num_outputs=len(inputs),
            batch=True,
            no_copy=True,
            dtype=[getattr(self._types, dtype) for dtype, _ in inputs],
            ndim=[ndim for _, ndim in inputs],
        )

    def _page_locked(self, pictures: np.ndarray, *numbers: np.ndarray) -> list:
        """Say of what the source returned that the pictures' memory is page-locked; NumPy does not know."""
        return [self._batch(pictures, is_pinned=True), *numbers]

    def decoded(self, data):
        """Decode payloads to pixels, uint8 HWC, on the device."""
        if not self.pictures.encoded:
            return data.gpu() if self._on_gpu else data
        # adjust_orientation would rotate by a tag; without fancy upsampling the pixels of GPU and CPU would differ.
        on_gpu = {"device": "mixed", "jpeg_fancy_upsampling": True, "affine": False, "hw_decoder_load": JPEG_ENGINE}
        options = on_gpu if self._on_gpu else {"device": "cpu"}
        return self._fn.decoders.image(data, output_type=self._types.RGB, adjust_orientation=False, **options)

    def cut(self, pixels, corners, extents):
        """Cut a window of each picture: corners are top and left, extents height and width, pixels."""
        return self._fn.slice(pixels, start=corners, shape=extents, axes=(0, 1))

    def square(self, pixels, corners: list):
        """Cut, and resize if needed, the squares that windows are cut from."""
        pictures = self.pictures
        if corners:
            pixels = self.cut(pixels, corners[0], [pictures.size, pictures.size])
        return self.resized(pixels, pictures.resize) if pictures.resize not in (None, pictures.size) else pixels

    def resized(self, pixels, side: int):
        """Resize pixels to side x side, uint8."""
        return self._fn.resize(
            pixels, size=[side, side], interp_type=self._types.INTERP_LINEAR, antialias=True, dtype=self._types.UINT8
        )

    def window(self, pixels, flip, mean=None, gain=None, **place):
        """Cut at `place` (or take all), reflect, and compute (pixels - mean) / std * gain unless dtype is uint8."""
        values = {}
        if self.dtype != "uint8":
            std = self.pictures.std_rgb.tolist()
            if gain is not None:
                std = self._types.Constant(np.array(std, np.float32)) / self._fn.reshape(gain, shape=[1])
            values = {"mean": self.pictures.mean_rgb.tolist() if mean is None else mean, "std": std}
        if place:
            place["crop"] = (self.pictures.crop, self.pictures.crop)
        return self._fn.crop_mirror_normalize(
            pixels, mirror=flip, dtype=self._dtype(), output_layout=self._layout, **place, **values
        )

    def finished(self, pixels, flip, mean=None, gain=None, **place):
        """Complete training windows: reflect, subtract, divide. Without flip they are already cut and reflected."""
        if self._on_gpu:
            flip = 0 if flip is None else flip
            if not self.subtracts:
                return self.window(pixels, flip, mean, gain, **place)
            return self.less_residual(self.window(pixels, flip, mean, **place), gain)
        pixels = self._cut_out(pixels, flip, place)
        return pixels if self.dtype == "uint8" else self._by_rows(pixels, mean, gain)

    def _cut_out(self, pixels, flip, place: dict):
        """Cut and reflect windows, uint8, always into new memory, because the input's memory is reused."""
        fn, crop = self._fn, self.pictures.crop
        if flip is not None:
            place = {**place, "crop": (crop, crop)} if place else {}
            return fn.crop_mirror_normalize(
                pixels, mirror=flip, dtype=self._types.UINT8, output_layout=self._layout, **place
            )
        if self._layout == "CHW":
            return fn.transpose(fn.reshape(pixels, layout="HWC"), perm=[2, 0, 1])
        return fn.copy(pixels) if self.dtype == "uint8" else pixels

    def _by_rows(self, pixels, mean, gain):
        """Compute (pixels - residual - mean) / std * gain on the CPU, a row of a picture, or a channel, at a time.

        `normalize` processes whole rows with vector instructions: 30 us a picture, where crop_mirror_normalize, which
        processes single values, takes 100 to 140. So in HWC layout the mean is repeated along a row.
        """
        fn, constant, crop = self._fn, self._types.Constant, self.pictures.crop
        rows, times = ([crop, crop * 3], crop) if self._layout == "HWC" else ([3, crop * crop], 1)
        values = fn.reshape(pixels, shape=rows)
        residual = self.pictures.residual
        if residual is not None:
            residual = residual if self._layout == "HWC" else np.ascontiguousarray(residual.transpose(2, 0, 1))
            values = fn.normalize(values, mean=constant(residual.reshape(rows)), stddev=1.0)
        shape = [1, crop * 3] if self._layout == "HWC" else [3, 1]
        zeros, std = np.zeros((times, 3), np.float32), np.tile(self.pictures.std_rgb, (times, 1)).astype(np.float32)
        divisor = constant(std) / fn.reshape(gain, shape=[1])
        values = fn.normalize(
            values, mean=fn.reshape(constant(zeros) + mean, shape=shape), stddev=fn.reshape(divisor, shape=shape)
        )
        values = fn.reshape(values, shape=[crop, crop, 3] if self._layout == "HWC" else [3, crop, crop])
        values = fn.reshape(values, layout=self._layout)
        return fn.cast(values, dtype=self._types.FLOAT16) if self.dtype == "float16" else values

    def stacked(self, windows: list):
        """Stack the views of each picture."""
        return self._fn.stack(*windows)

    def less_residual(self, windows, gain=None):
        """Compute (windows - residual / std) * gain."""
        residual = (self.pictures.residual / self.pictures.std_rgb).astype(np.float32)
        if self._layout == "CHW":
            residual = np.ascontiguousarray(residual.transpose(2, 0, 1))
        windows = windows - self._types.Constant(residual, device="gpu" if self._on_gpu else "cpu")
        if gain is not None:
            windows = windows * (gain.gpu() if self._on_gpu else gain)
        return self._fn.cast(windows, dtype=self._types.FLOAT16) if self.dtype == "float16" else windows

    @property
    def subtracts(self) -> bool:
        """Whether a residual is subtracted."""
        return self.pictures.residual is not None and self.dtype != "uint8"

    def _dtype(self):
        types = self._types
        if self.dtype == "uint8":
            return types.UINT8
        return types.FLOAT if self.dtype == "float32" or self.subtracts else types.FLOAT16


def gpu_error(error: BaseException) -> DeviceError | None:
    """Convert an error of CUDA, raised by torch or by DALI, to one sentence; None for any other error."""
    text = " ".join(str(error).split())
    if not isinstance(error, RuntimeError) or not any(word in text for word in ("CUDA", "cudaError")):
        return None
    full = "out of memory" in text or "cudaErrorMemoryAllocation" in text
    hint = "a smaller batch size" if full else "find the reason with alexnet-prep doctor; saved checkpoints are kept"
    return DeviceError(f"the GPU failed: {text[:300]}", hint)
