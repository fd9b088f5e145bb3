"""Records to windows: a pool of threads reads, decodes with libjpeg-turbo and cuts, ahead of what comes next.

In:  plans of batches.  Out: the pictures of each batch in one reused buffer, labels and sides.
Two last steps. Before a DALI graph, windows are cut and reflected, uint8, and the buffer is used again when DALI has
read it. Without one, pictures are finished (finish.py), and the buffer is used again when nothing references the array
any more. Reading, libjpeg-turbo, OpenCV and the compiled parts release Python's global lock, so threads suffice; some
pictures at a time, so that bytes and pixels stay in the processor's cache from one step to the next.
"""

import math
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import simplejpeg

from ..errors import AlexnetError, StreamError
from ..plan.plan import BatchPlan
from ..shards.datum import CHANNELS
from .buffers import Buffers
from .finish import Finishing
from .prefetch import end_pool
from .record_reader import Payloads, RecordReader

_TASKS = 4  # at least, for each thread and batch, so that threads finish together
_PICTURES = 16  # at most, in a task, whose own cost is that of a raw picture: with 8, raw shards are a tenth slower
SPARE = 4  # buffers of finished batches kept for reuse: a stream takes and returns one at a time


@dataclass(frozen=True)
class Windows:
    """The window of each picture; one of another size than the output's is resized.

    Attributes:
        left, top, width, height: int64 (n,), pixels, inside the picture.
        flip: (n,), 1 to reflect left and right after cutting.
    """

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray
    flip: np.ndarray


class Decoder:
    """A pool of threads, and the buffers that it fills.

    Args:
        feed: reads the records; not closed here.
        windows: computes the windows from (a part of) a plan and its pictures' sides, int64 (n, 2), height and width.
        side: of the output, side x side pixels.
        threads: number of threads.
        pinned: use page-locked buffers.
        finishing: makes a batch's last step from its plan and its array (n, side, side, 3); None: windows are only cut.
        dtype: of that array; without a last step it is uint8.
    """

    def __init__(
        self,
        feed: RecordReader,
        windows: Callable[[Any, np.ndarray], Windows],
        side: int,
        threads: int,
        *,
        pinned: bool = False,
        finishing: Callable[[Any, np.ndarray], Finishing] | None = None,
        dtype: str = "uint8",
    ):
        self.feed, self.windows, self.finishing = feed, windows, finishing
        self.side, self.dtype = side, np.dtype(dtype if finishing else np.uint8)
        self.buffers = Buffers(pinned, SPARE if finishing else None)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def begin(self, plan: BatchPlan | np.ndarray) -> "Decoding":
        """Start to read, decode and cut a batch: a plan, or record indices, int64 (n,)."""
        job = Decoding(self, plan)
        count = len(job.labels)
        each = min(_PICTURES, -(-count // (self._threads * _TASKS)))
        for first in range(0, count, each):
            job.tasks.append(self._pool.submit(job.fill, range(first, min(first + each, count))))
        return job

    def close(self) -> None:
        """Stop, and wait for the pictures in progress."""
        end_pool(self._pool)
        self.buffers.close()


class Decoding:
    """A batch in progress. Release it when its pictures have been read.

    Attributes:
        labels: int64 (n,), -1 for none; and
        sides: int64 (n, 2), height and width of the whole pictures in pixels: both once it was waited for.
        tasks: submitted to the threads.
    """

    def __init__(self, owner: Decoder, plan: BatchPlan | np.ndarray):
        self._owner, self._plan = owner, plan
        self._records = plan.records if isinstance(plan, BatchPlan) else plan
        count = len(self._records)
        self.labels, self.sides = np.empty(count, np.int64), np.empty((count, 2), np.int64)
        self.tasks: list[Future] = []
        shape = (count, owner.side, owner.side, CHANNELS)
        size = math.prod(shape) * owner.dtype.itemsize
        buffer = owner.buffers.take(size)
        # One array: DALI and a GPU's copy engine take it in one piece.
        self._pictures: Any = buffer[:size].view(owner.dtype).reshape(shape)
        self._finishing, self._buffer = None, buffer if owner.finishing is None else None
        if owner.finishing is not None:
            # Every tensor and view of the pictures references this array.
            weakref.finalize(self._pictures, owner.buffers.give, buffer).atexit = False
            self._finishing = owner.finishing(plan, self._pictures)

    def wait(self) -> np.ndarray:
        """Wait for the pictures, (n, side, side, 3), and hand them over.

        Raises:
            ShardError: a record is missing or damaged, or a shard was changed in place.
            StreamError: a picture does not decode. Of several damaged records the batch's first is named.
        """
        tasks, self.tasks = self.tasks[::-1], []
        while tasks:  # a raised error must not be reachable from its own frames, or they would keep the batch alive
            tasks.pop().result()
        pictures, self._pictures = self._pictures, None
        return pictures

    def release(self, wait: Callable[[], object] = lambda: None) -> None:
        """Give the buffer back, unless its array does; `wait` returns once nothing reads it any more."""
        if self._buffer is not None:
            self._owner.buffers.give(self._buffer, wait)

    def fill(self, places: range) -> None:
        """Read, decode and cut some pictures."""
        try:
            return self._fill(places)
        except AlexnetError:
            if len(places) == 1:
                raise
        for place in places:  # the first damaged one is the error
            self._fill(range(place, place + 1))

    def _fill(self, places: range) -> None:
        feed, part = self._owner.feed, slice(places.start, places.stop)
        payloads = feed.read(self._records[part])
        try:
            self.labels[part], self.sides[part] = payloads.labels, payloads.sides
            self._cut(places, payloads, self._owner.windows(part_of(self._plan, part), payloads.sides))
        finally:
            feed.release(payloads)

    def _cut(self, places: range, payloads: Payloads, windows: Windows) -> None:
        encoded, finishing = self._owner.feed.encoded, self._finishing
        # Python numbers: indexing arrays would cost as much as the rest of the loop.
        numbers = (windows.left, windows.top, windows.width, windows.height, windows.flip)
        wanted = zip(*(array.tolist() for array in numbers), strict=True)
        for place, data, (rows, columns), (left, top, width, height, flip) in zip(
            places, payloads.data, payloads.sides.tolist(), wanted, strict=True
        ):
            pixels, out = data, self._pictures[place]
            whole = encoded and not (finishing or flip) and (height, width) == (rows, columns) == out.shape[:2]
            if encoded:
                pixels = self._decoded(place, data, rows, columns, out if whole else None)
            if finishing:
                finishing(place, pixels, left, top, flip)
            elif not whole:
                cut(pixels, left, top, width, height, flip, out)

    def _decoded(self, place: int, data: np.ndarray, rows: int, columns: int, out: np.ndarray | None) -> np.ndarray:
        """Decode a picture into `out`, which has exactly this size, or into this thread's memory."""
        pixels = None
        try:
            buffer = _scratch(rows * columns * CHANNELS) if out is None else out
            pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=buffer)
        except ValueError:
            pass
        if pixels is None or pixels.shape[:2] != (rows, columns):
            raise picture_error(self._owner.feed, int(self._records[place]), data, rows, columns)
        return pixels


def part_of(plan: BatchPlan | np.ndarray, part: slice) -> BatchPlan | np.ndarray:
    """Return the plan of some consecutive records of a batch; views, without copies."""
    if not isinstance(plan, BatchPlan):
        return plan[part]
    arrays: dict[str, Any] = {name: value[part] for name, value in vars(plan).items() if isinstance(value, np.ndarray)}
    return replace(plan, start=plan.start + part.start, **arrays)


def picture_error(feed: RecordReader, record: int, data: np.ndarray, rows: int, columns: int) -> StreamError:
    """Return the error that names the record of a JPEG that does not decode to its size."""
    what = fault(data, rows, columns) or "its JPEG does not decode"
    return StreamError(f"{feed.name(record)}: {what}", feed.hint(record))


def fault(data: np.ndarray, rows: int, columns: int) -> str:
    """Describe what is wrong with a JPEG file; empty where nothing is."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if (height, width) == (rows, columns):
            simplejpeg.decode_jpeg(data, colorspace="RGB")
            return ""
        return f"its JPEG is {width}x{height}, but its record says {columns}x{rows}"
    except ValueError:
        return "its JPEG does not decode"


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
