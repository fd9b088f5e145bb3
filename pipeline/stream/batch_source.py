"""Turns plans into arrays, some batches ahead: for DALI, which calls it for its next batch, or finished, for a Stream.

In:  plans, a RecordReader, and threads that read ahead and decode.
Out: lists of arrays, kept alive until DALI has read them, and a GPU too, which copies from page-locked pictures.

    read ahead    AHEAD batches: their records are being brought into memory
    decoded       DECODED batches, if threads decode: their records are being read, decoded and cut
    handed over   dali_graph.PREFETCH batches: DALI is processing them; finished pictures: one, the Stream's

A source holds no reference to its Stream, so a dropped Stream ends at once.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np

from ..errors import AlexnetError, StreamError
from ..plan.plan import BatchPlan
from .dali_ops import gpu_error
from .decoder import Decoder, Decoding, fault, picture_error
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
        decoding: in progress in the threads, or None.
        payloads: of its records, where no threads decode; or None.
        arrays: what DALI reads; kept here because DALI makes no copies.
        error: raised when the batch's turn comes.
    """

    def __init__(self, plan: BatchPlan | np.ndarray, reading: Future):
        self.plan, self.reading = plan, reading
        self.decoding: Decoding | None = None
        self.payloads: Payloads | None = None
        self.arrays: list | None = None
        self.error: Exception | None = None

    @property
    def records(self) -> np.ndarray:
        """int64 (n,), indices in the split."""
        return self.plan.records if isinstance(self.plan, BatchPlan) else self.plan

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,), -1 for none; once the batch was handed over."""
        read = self.decoding or self.payloads
        assert read is not None, "it was handed over"
        return read.labels


class BatchSource:
    """Returns the arrays of batch after batch; owns the threads that read ahead and decode.

    Args:
        feed: of the split; closed with the source.
        plans: the batches: BatchPlans, or record indices, int64 (n,).
        numbers: computes from a plan and its pictures' sides, int64 (n, 2), what is returned after the pictures.
        decoder: reads, decodes and cuts in threads; without it payloads are returned unchanged.
        clock: seconds.
    Attributes:
        disk_seconds, decode_seconds: time spent waiting here, see StageTimes.
    """

    def __init__(
        self,
        feed: RecordReader,
        plans: Iterator,
        numbers: Callable[[Any, np.ndarray], list],
        decoder: Decoder | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._feed, self._plans, self._numbers = feed, plans, numbers
        self._decoder, self._clock = decoder, clock
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
            # An error of the threads references a batch's memory through its frames. It says enough without.
            self._failure = error.with_traceback(None) if isinstance(error, AlexnetError) else error
            if job is not None:
                job.payloads = job.decoding = None
        # Raised outside the handler it references neither the other error nor, through its frames, a batch's memory.
        if self._failure is not None:
            raise self._failure
        if job is None:
            raise StopIteration
        return arrays

    def _arrays(self, job: BatchJob) -> list:
        """Wait for a batch's records and pictures; return them, and the numbers."""
        began = self._clock()
        job.reading.result()
        self.disk_seconds += self._clock() - began
        if self._decoder is None:
            began = self._clock()
            job.payloads = self._feed.read(job.records)
            self.disk_seconds += self._clock() - began
            job.arrays = [job.payloads.data, *self._numbers(job.plan, job.payloads.sides)]
            return job.arrays
        self._start(self._decoder, job)
        if job.error is not None:
            raise job.error
        assert job.decoding is not None, "it was started"
        began = self._clock()
        pictures = job.decoding.wait()
        self.decode_seconds += self._clock() - began
        arrays = [pictures, *self._numbers(job.plan, job.decoding.sides)]
        if self._decoder.finishing is None:  # finished pictures are the reader's alone
            job.arrays = arrays
        return arrays

    def used(self, wait: Callable[[], object] = lambda: None) -> BatchJob:
        """Return the batch that DALI has just returned; `wait` returns when its copies to a GPU are done."""
        job = self._handed.popleft()
        self._behind.append((job, wait))
        if len(self._behind) > _KEPT_BEHIND:
            self._release()
        return job

    def _release(self) -> None:
        """Give back the memory of the batch that was returned first."""
        job, wait = self._behind.popleft()
        if job.decoding:
            job.decoding.release(wait)
        elif job.payloads:
            self._feed.release(job.payloads, wait)

    def explained(self, error: Exception) -> Exception:
        """Convert DALI's error: name the damaged record where it can be found."""
        if self._failure is not None:
            return self._failure
        for job in self._handed:
            if job.payloads is None or not self._feed.encoded:
                continue
            for record, data, sides in zip(job.records.tolist(), job.payloads.data, job.payloads.sides, strict=True):
                if fault(data, *sides):
                    return picture_error(self._feed, record, data, *sides)
        text = " ".join(str(error).split())[:300]
        return gpu_error(error) or StreamError(f"DALI stopped: {text}", "alexnet-prep doctor")

    def close(self) -> None:
        """Stop the threads, wait for what a GPU still copies of the returned batches, close the files."""
        while self._behind:
            self._release()
        if self._decoder is not None:
            self._decoder.close()
        self._reader.close()
        self._ahead.clear()
        self._handed.clear()
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
        if self._decoder is None:
            return
        for job in list(self._ahead)[:DECODED]:
            if not job.reading.done():
                break
            self._start(self._decoder, job)

    def _start(self, decoder: Decoder, job: BatchJob) -> None:
        """Start to decode a batch; an error is kept until its turn comes."""
        if job.decoding is None and job.error is None:
            try:
                job.decoding = decoder.begin(job.plan)
            except Exception as error:
                job.error = error


def _ahead(records: int) -> int:
    """Number of batches of this many records that are read ahead."""
    return max(DECODED + 1, min(AHEAD, AHEAD_RECORDS // max(records, 1)))
