"""One window of one picture, on one CPU core: cut, resized where it must be, reflected; into a place of a batch.

In:  uint8 pixels and the plan's window.  Out: uint8 pixels. What the DALI graph does on a GPU, for threads that decode
on a CPU: both calls let go of the interpreter's lock, and are faster there than DALI's operators (docs/benchmarks.md).

A plain crop has the graph's very pixels. A resized one has torchvision's and, within one grey level, Pillow's: the
filter is the graph's, but cut off at the edge instead of repeating it, and rounded between rows and columns too.
"""

import cv2
import numpy as np


def cut(pixels: np.ndarray, left: int, top: int, width: int, height: int, flip: int, out: np.ndarray) -> None:
    """Cut a window, resize it to the sides of `out` where its own differ, mirror it where `flip` is not 0.

    Args:
        pixels: uint8 (H, W, 3), only read.
        left, top, width, height: the window, pixels, inside the picture.
        out: uint8 (h, w, 3), C-contiguous, written.
    """
    window = pixels[top : top + height, left : left + width]
    if window.shape != out.shape:
        window = _resized(window, out.shape[0], out.shape[1])
    if flip:
        cv2.flip(window, 1, dst=out)
    else:
        np.copyto(out, window)


def _resized(window: np.ndarray, height: int, width: int) -> np.ndarray:
    import torch  # here, since most crops do without

    # OpenCV has no linear filter with antialiasing; torch's takes a seventh of the time of DALI's. It wants memory that
    # may be written, so a copy; and a batch axis with a stride of its own, or it makes planes, three times as slow.
    nchw = torch.from_numpy(window.copy()).view(1, *window.shape).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(nchw, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
