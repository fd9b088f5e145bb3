"""Payloads to windows: a pool of threads decodes with libjpeg-turbo and cuts, ahead of DALI.

In:  payloads, JPEG files or raw pixels, and a window of each.  Out: uint8 pixels in reused buffers, cut and reflected.
libjpeg-turbo and OpenCV release Python's global lock, so threads suffice. A picture is cut while it is still in the
processor's cache; only arithmetic is left for DALI.
"""

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from ..shards.datum import CHANNELS
from .prefetch import finish
from .record_reader import Buffers, Payloads

_TASKS = 4  # for each thread and batch: few, because each costs microseconds; enough that threads finish together


@dataclass(frozen=True)
class Windows:
    """The window of each picture, and the output's size.

    Attributes:
        left, top, width, height: int64 (n,), pixels, inside the picture.
        flip: (n,), 1 to reflect left and right after cutting.
        side: of the output, side x side pixels; a window of another size is resized.
    """

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray
    flip: np.ndarray
    side: int


class DecodeFault(Exception):  # noqa: N818, a record's fault
    """A picture does not decode, or not to the size in its record; `place` is its index in the batch."""

    def __init__(self, place: int):
        super().__init__(place)
        self.place = place


class Decoder:
    """A pool of threads, and the buffers that it fills.

    Args:
        encoded: payloads are JPEG files; otherwise raw pixels.
        threads: number of threads.
        pinned: use page-locked buffers.
    """

    def __init__(self, encoded: bool, threads: int, pinned: bool = False):
        self.buffers = Buffers(pinned)
        self._encoded, self._threads = encoded, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def begin(self, payloads: Payloads, windows: Windows) -> "Decoding":
        """Start to decode and cut a batch."""
        job = Decoding(self._encoded, payloads, windows, self.buffers)
        each = -(-len(payloads.data) // (self._threads * _TASKS))
        for first in range(0, len(payloads.data), each):
            job.tasks.append(self._pool.submit(job.fill, range(first, min(first + each, len(payloads.data)))))
        return job

    def close(self) -> None:
        """Stop, and wait for the pictures in progress."""
        finish(self._pool)


class Decoding:
    """A batch in progress. Release it when its pictures have been read.

    Attributes:
        tasks: submitted to the threads.
    """

    def __init__(self, encoded: bool, payloads: Payloads, windows: Windows, buffers: Buffers):
        self._encoded, self._payloads, self._windows = encoded, payloads, windows
        self._buffers = buffers
        self.tasks: list[Future] = []
        shape = (len(payloads.data), windows.side, windows.side, CHANNELS)
        self._buffer = buffers.take(math.prod(shape))
        # One array: DALI and a GPU's copy engine take it in one piece.
        self._pictures = self._buffer[: math.prod(shape)].reshape(shape)

    def wait(self) -> np.ndarray:
        """Wait for the windows, uint8 (n, side, side, 3).

        Raises:
            DecodeFault: of the first damaged picture.
        """
        tasks, self.tasks = self.tasks[::-1], []
        while tasks:  # a raised fault must not be reachable from its own frames, or they would keep the batch alive
            tasks.pop().result()
        return self._pictures

    def release(self, wait: Callable[[], object] = lambda: None) -> None:
        """Give the buffer back; `wait` returns once nothing reads it any more."""
        self._buffers.give(self._buffer, wait)

    def fill(self, places: range) -> None:
        """Decode and cut some pictures."""
        payloads, windows, part = self._payloads, self._windows, slice(places.start, places.stop)
        # Python numbers: indexing arrays would cost as much as the rest of the loop.
        numbers = (windows.left, windows.top, windows.width, windows.height, windows.flip)
        wanted = zip(*(array[part].tolist() for array in numbers), strict=True)
        for place, (rows, columns), (left, top, width, height, flip) in zip(
            places, payloads.sides[part].tolist(), wanted, strict=True
        ):
            pixels, out = payloads.data[place], self._pictures[place]
            if self._encoded:
                whole = (height, width) == (rows, columns) == out.shape[:2] and not flip
                pixels = _decoded(place, pixels, rows, columns, out if whole else _scratch(rows * columns * CHANNELS))
                if whole:
                    continue
            cut(pixels, left, top, width, height, flip, out)


def _decoded(place: int, data: np.ndarray, rows: int, columns: int, out: np.ndarray) -> np.ndarray:
    """Decode a picture into `out`, which has exactly this size."""
    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=out)
    except ValueError:
        raise DecodeFault(place) from None
    if pixels.shape[:2] != (rows, columns):
        raise DecodeFault(place)
    return pixels


_own = threading.local()


def _scratch(size: int) -> np.ndarray:
    """Return this thread's memory for a whole picture, small enough to stay in the processor's cache."""
    scratch = getattr(_own, "scratch", None)
    if scratch is None or len(scratch) < size:
        scratch = _own.scratch = np.empty(size, np.uint8)
    return scratch[:size]


def cut(pixels: np.ndarray, left: int, top: int, width: int, height: int, flip: int, out: np.ndarray) -> None:
    """Cut a window, resize it to the size of `out` if it differs, reflect it left and right if `flip` is not 0.

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
    import torch  # here, because most crops do not need it

    # OpenCV has no linear filter with antialiasing; torch's takes a seventh of the time of DALI's. from_numpy requires
    # writable memory, hence the copy; without the view's batch stride torch would process planes, three times as slow.
    nchw = torch.from_numpy(window.copy()).view(1, *window.shape).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(nchw, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
