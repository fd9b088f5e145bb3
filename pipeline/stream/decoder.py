"""Payloads to windows, by a pool of threads with libjpeg-turbo, ahead of DALI.

In:  payloads, JPEG files or raw pixels, and a window of each.  Out: uint8 pixels in kept buffers, cut and reflected.
libjpeg-turbo and OpenCV leave the interpreter's lock alone while they work, so threads are enough. A picture is cut
while it is still in the processor's cache; DALI then has nothing left to do but arithmetic.
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

_TASKS = 4  # of a batch for each thread: few, since each costs some microseconds; enough to end together


@dataclass(frozen=True)
class Windows:
    """What is cut out of each picture, and how large it comes out.

    Attributes:
        left, top, width, height: int64 (n,), pixels, inside the picture.
        flip: (n,), 1 to mirror left and right after cutting.
        side: pixels of what comes out, side x side; a window of other sides is resized.
    """

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray
    flip: np.ndarray
    side: int


class DecodeFault(Exception):  # noqa: N818, a record's fault
    """A picture does not decode, or to other sides than its record says; `place` is its place in the batch."""

    def __init__(self, place: int):
        super().__init__(place)
        self.place = place


class Decoder:
    """A pool of threads, and the buffers that it fills.

    Args:
        encoded: payloads are JPEG files; otherwise pixels.
        threads: of the pool.
        pinned: buffers are page-locked.
    """

    def __init__(self, encoded: bool, threads: int, pinned: bool = False):
        self.buffers = Buffers(pinned)
        self._encoded, self._threads = encoded, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def begin(self, payloads: Payloads, windows: Windows) -> "Decoding":
        """Begin a batch."""
        job = Decoding(self._encoded, payloads, windows, self.buffers)
        each = -(-len(payloads.data) // (self._threads * _TASKS))
        for first in range(0, len(payloads.data), each):
            job.tasks.append(self._pool.submit(job.fill, range(first, min(first + each, len(payloads.data)))))
        return job

    def close(self) -> None:
        """Stop, and wait for the pictures under way."""
        finish(self._pool)


class Decoding:
    """A batch under way. Release it when its pictures have been read.

    Attributes:
        tasks: what the threads still have to do.
    """

    def __init__(self, encoded: bool, payloads: Payloads, windows: Windows, buffers: Buffers):
        self._encoded, self._payloads, self._windows = encoded, payloads, windows
        self._buffers = buffers
        self.tasks: list[Future] = []
        shape = (len(payloads.data), windows.side, windows.side, CHANNELS)
        self._buffer = buffers.take(math.prod(shape))
        # One array: DALI takes it at once, and so does a GPU's copy engine.
        self._pictures = self._buffer[: math.prod(shape)].reshape(shape)

    def wait(self) -> np.ndarray:
        """The windows, uint8 (n, side, side, 3), once all are there.

        Raises:
            DecodeFault: the first that is damaged.
        """
        tasks, self.tasks = self.tasks[::-1], []
        while tasks:  # a fault must not be found from its own frames, or they would keep the batch
            tasks.pop().result()
        return self._pictures

    def release(self, wait: Callable[[], object] = lambda: None) -> None:
        """Give the buffer back; `wait` returns once nothing reads it any more."""
        self._buffers.give(self._buffer, wait)

    def fill(self, places: range) -> None:
        """Decode and cut some pictures."""
        payloads, windows, part = self._payloads, self._windows, slice(places.start, places.stop)
        # Plain numbers: each look into an array would cost as much as the rest of the loop's Python.
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
    """A picture's pixels in `out`, which has room for just these sides."""
    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=out)
    except ValueError:
        raise DecodeFault(place) from None
    if pixels.shape[:2] != (rows, columns):
        raise DecodeFault(place)
    return pixels


_own = threading.local()


def _scratch(size: int) -> np.ndarray:
    """This thread's own memory for a whole picture: small enough to stay in the processor's cache."""
    scratch = getattr(_own, "scratch", None)
    if scratch is None or len(scratch) < size:
        scratch = _own.scratch = np.empty(size, np.uint8)
    return scratch[:size]


# --- from pipeline/stream/cut.py


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
