"""The decoding threads' last step where no DALI graph follows: windows to the values that a net reads, in one pass.

In:  uint8 pixels of whole pictures, windows, means and gains.  Out: float32 or uint8 pictures, as DALI's graph computes
them (dali_ops.py): cut, reflected, ((pixels - residual) - mean) / std * gain.
A picture is finished while it is in the processor's cache, and written past it; DALI's graph would read and write each
once or twice more, from memory. `_finish.c` has the loops; where it was not compiled, DALI computes.
"""

import ctypes
from typing import Any

import numpy as np

from .. import compiled
from .dali_ops import Pictures

DTYPES = ("float32", "uint8")


def why_not_fused(on_cpu: bool, dtype: str = "float32", layout: str = "HWC", resized: bool = False) -> str:
    """Return why threads cannot finish training windows, so that a DALI graph is needed; empty where they can."""
    reasons = {
        "pictures are on a GPU": not on_cpu,
        "crops are resized": resized,
        f"pictures are {dtype}": dtype not in DTYPES,
        f"the layout is {layout}": layout != "HWC",
        "its compiled part is missing (alexnet-prep doctor)": _compiled is None,
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


class Finishing:
    """Finishes the pictures of one batch, in any number of threads.

    Args:
        pictures: what is subtracted from each window, and the divisor.
        numbers: mean less lighting, float32 (n, 3), grey levels, and gain, float32 (n, 1, 1, 1); [] for uint8.
        out: uint8 or float32 (n, crop, crop, 3), C-contiguous. Only its address is kept: the caller keeps the memory.
    """

    def __init__(self, pictures: Pictures, numbers: list[np.ndarray], out: np.ndarray):
        self._side, self._out, self._step = pictures.crop, out.ctypes.data, out.strides[0]
        self._residual, self._values, addresses = None, None, (0, 0)
        if numbers:
            mean, gain = numbers
            # As in the graph: the divisor is computed in float32, and DALI multiplies by its reciprocal.
            factor = np.float32(1) / (pictures.std_rgb.astype(np.float32) / gain.reshape(-1, 1))
            self._values = np.stack([mean, factor])  # (2, n, 3)
            self._residual = pictures.residual
            addresses = tuple(values.ctypes.data for values in self._values)
        self._residual_at = 0 if self._residual is None else self._residual.ctypes.data
        self._mean_at, self._factor_at = addresses

    def __call__(self, place: int, pixels: np.ndarray, left: int, top: int, flip: int) -> None:
        """Finish the picture at a place of the batch.

        Args:
            pixels: uint8 (H, W, 3), C-contiguous.
            left, top: of the window of crop x crop pixels.
            flip: 1 to reflect left and right after cutting.
        Raises:
            ValueError: the window is not inside the picture.
        """
        side, (height, width, channels) = self._side, pixels.shape
        if not (0 <= left <= width - side and 0 <= top <= height - side):
            raise ValueError(f"a {side}x{side} window at {left},{top} is not inside {width}x{height} pixels")
        stride, step = channels * width, 12 * place if self._mean_at else 0  # 12 bytes: three float32
        _compiled(
            pixels.ctypes.data + top * stride + channels * left,
            *(stride, side, flip),
            *(self._residual_at, self._mean_at + step, self._factor_at + step),
            self._out + self._step * place,
        )


def _load() -> Any:
    """Return the function of `_finish.c`; None where it was not compiled."""
    library = compiled.load(__package__, "_finish")
    if library is None:
        return None
    size, address = ctypes.c_int64, ctypes.c_void_p
    library.finish_window.argtypes = [address, size, size, size, address, address, address, address]
    library.finish_window.restype = None
    return library.finish_window


_compiled = _load()
COMPILED = _compiled is not None
