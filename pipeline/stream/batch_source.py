"""The callback that DALI calls for its next batch: it turns plans into arrays, some batches ahead.

In:  plans, a RecordReader, and threads that read ahead and decode.
Out: lists of arrays, kept alive until DALI has read them.

    read ahead    AHEAD batches: their records are being brought into memory
    decoded       DECODED batches, if threads decode: their windows are being cut
    handed over   dali_graph.PREFETCH batches: DALI is processing them

A source holds no reference to its Stream, so a dropped Stream ends at once.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import simplejpeg

from ..errors import StreamError
from ..plan.plan import BatchPlan
from .decoder import DecodeFault, Decoder, Decoding, Windows
from .prefetch import ReadAhead
from .record_reader import Payloads, RecordReader

AHEAD, AHEAD_RECORDS = 8, 2048  # batches, or records in them: either fills a disk's queue
DECODED = 2  # batches; at least these and the one to be handed over are read ahead
_KEPT_BEHIND = 2  # batches that DALI has returned and may still read


class BatchJob:
    """One batch, from its plan to DALI.

    Attributes:
        plan: a BatchPlan, or record indices, int64 (n,).
        reading: done when its records are in memory.
        started: its records were read, and if threads decode, they have begun.
        payloads: of its records, once started.
        decoding: in progress, or None.
        arrays: what DALI reads; kept here because DALI makes no copies.
        error: raised when the batch's turn comes.
    """

    payloads: Payloads

    def __init__(self, plan: BatchPlan | np.ndarray, reading: Future):
        self.plan, self.reading = plan, reading
        self.started = False
        self.decoding: Decoding | None = None
        self.arrays: list | None = None
        self.error: Exception | None = None

    @property
    def records(self) -> np.ndarray:
        """int64 (n,), indices in the split."""
        return self.plan.records if isinstance(self.plan, BatchPlan) else self.plan


class BatchSource:
    """The callback of a DALI pipeline; owns the threads that read ahead and decode.

    Args:
        feed: of the split; closed with the source.
        plans: the batches: BatchPlans, or record indices, int64 (n,).
        numbers: computes from a plan and its payloads what goes to DALI beside the pictures.
        decoder: cuts windows in threads; without it payloads go to DALI unchanged.
        windows: computes from a plan and its payloads the windows that `decoder` cuts.
        clock: seconds.
    Attributes:
        disk_seconds, decode_seconds: time spent waiting here, see StageTimes.
    """

    def __init__(
        self,
        feed: RecordReader,
        plans: Iterator,
        numbers: Callable[[Any, Payloads], list],
        decoder: Decoder | None = None,
        windows: Callable[[Any, Payloads], Windows] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._feed, self._plans, self._numbers = feed, plans, numbers
        self._decoder, self._windows, self._clock = decoder, windows, clock
        self._reader = ReadAhead(feed)
        self._ahead: deque[BatchJob] = deque()
        self._handed: deque[BatchJob] = deque()
        self._behind: deque[tuple[BatchJob, Callable[[], object]]] = deque()
        self._failure: Exception | None = None
        self.disk_seconds = self.decode_seconds = 0.0

    def __call__(self) -> list:
        """The arrays of the next batch."""
        job, arrays = None, []
        try:
            self._look_ahead()
            if self._ahead:
                job = self._ahead.popleft()
                arrays = self._arrays(job)
                self._handed.append(job)
                self._look_ahead()
        except Exception as error:  # kept, since DALI may raise another one
            self._failure = error
            if job is not None:
                self._failure = self._named(error, job)
                vars(job).pop("payloads", None)
                job.decoding = None
        # Raised outside the handler it references neither the other error nor, through its frames, a batch's memory.
        if self._failure is not None:
            raise self._failure
        if job is None:
            raise StopIteration
        return arrays

    def _arrays(self, job: BatchJob) -> list:
        """Wait for a batch's records and pictures; return what DALI reads."""
        began = self._clock()
        job.reading.result()
        self.disk_seconds += self._clock() - began
        self._start(job)
        if job.error is not None:
            raise job.error
        began = self._clock()
        pictures = job.decoding.wait() if job.decoding else job.payloads.data
        self.decode_seconds += self._clock() - began
        if job.decoding:
            self._feed.release(job.payloads)
        job.arrays = [pictures, *self._numbers(job.plan, job.payloads)]
        return job.arrays

    def used(self, wait: Callable[[], object] = lambda: None) -> BatchJob:
        """Return the batch that DALI has just returned; `wait` returns when its copies to a GPU are done."""
        job = self._handed.popleft()
        self._behind.append((job, wait))
        if len(self._behind) > _KEPT_BEHIND:
            old, done = self._behind.popleft()
            if old.decoding:
                old.decoding.release(done)
            else:
                self._feed.release(old.payloads, done)
        return job

    def explained(self, error: Exception) -> Exception:
        """Convert DALI's error: name the damaged record where it can be found."""
        if self._failure is not None:
            return self._failure
        for job in self._handed:
            for place in range(len(job.records) if self._decoder is None and self._feed.encoded else 0):
                if _fault(job.payloads, place):
                    return self._named(DecodeFault(place), job)
        return StreamError(f"DALI stopped: {' '.join(str(error).split())[:300]}", "alexnet-prep doctor")

    def close(self) -> None:
        """Stop the threads, then close the files."""
        if self._decoder is not None:
            self._decoder.close()
        self._reader.close()
        for jobs in (self._ahead, self._handed, self._behind):
            jobs.clear()
        self._feed.close()

    def _look_ahead(self) -> None:
        """Start what can be started without waiting."""
        while not self._ahead or len(self._ahead) < _ahead(len(self._ahead[0].records)):
            plan = next(self._plans, None)
            if plan is None:
                break
            job = BatchJob(plan, Future())
            job.reading = self._reader.want(job.records)
            self._ahead.append(job)
        for job in list(self._ahead)[: DECODED if self._decoder else 0]:
            if not job.reading.done():
                break
            self._start(job)

    def _start(self, job: BatchJob) -> None:
        """Read a batch's records and start to decode them; an error is kept until the batch's turn comes."""
        if job.started:
            return
        job.started, began = True, self._clock()
        try:
            job.payloads = self._feed.read(job.records)
            self.disk_seconds += self._clock() - began
            if self._decoder is not None and self._windows is not None:
                job.decoding = self._decoder.begin(job.payloads, self._windows(job.plan, job.payloads))
        except Exception as error:
            job.error = error

    def _named(self, error: Exception, job: BatchJob) -> Exception:
        """Replace the error of a picture that does not decode by one that names its record."""
        if not isinstance(error, DecodeFault):
            return error
        record = int(job.records[error.place])
        return StreamError(f"{self._feed.name(record)}: {_fault(job.payloads, error.place)}", self._feed.hint(record))


def _ahead(records: int) -> int:
    """Number of batches of this many records that are read ahead."""
    return max(DECODED + 1, min(AHEAD, AHEAD_RECORDS // max(records, 1)))


def _fault(payloads: Payloads, place: int) -> str:
    """Describe what is wrong with a JPEG file; empty where nothing is."""
    data, (height, width) = payloads.data[place], payloads.sides[place]
    try:
        rows, columns, *_ = simplejpeg.decode_jpeg_header(data)
        if (rows, columns) == (height, width):
            simplejpeg.decode_jpeg(data, colorspace="RGB")
            return ""
        return f"its JPEG is {columns}x{rows}, but its record says {width}x{height}"
    except ValueError:
        return "its JPEG does not decode"
