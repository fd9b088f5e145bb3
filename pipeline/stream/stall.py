"""The stall meter: the share of time that training waits for data.

In:  any iterable of batches, from this package or another.  Out: the same batches, and the seconds of waiting and work.
The clock starts before the fetch. One that starts when the batch has arrived, as in many training scripts, makes a
starving GPU look fast. The first fetch, which fills the pipeline, is measured separately as start-up.

Times are the host's, unless a GPU is given: there the host runs ahead and the GPU must not run out of work, so the
same spans are measured by events on the GPU. torch is imported only for that.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar


@dataclass(frozen=True)
class StageTimes:
    """Wall seconds spent waiting inside a stream's iterator, by stage.

    The four exclude each other, and their sum is the time inside `next(stream)` except its bookkeeping. Work that the
    stages do concurrently is not included: a stage that keeps up costs nothing.

    Attributes:
        disk_seconds: waiting for the read-ahead to bring a batch's records into memory; with `decode="dali"` also
            reading them.
        decode_seconds: waiting for the threads that read, decode and cut (raw shards: read and cut), on a GPU into
            page-locked memory, and with `decode="fused"` subtract the mean; 0 with `decode="dali"`.
        graph_seconds: waiting for DALI: crop, mirror and mean, with `decode="dali"` also decoding, and on a GPU
            queueing the pictures' transfer; 0 with `decode="fused"`.
        copy_seconds: handing the batch over: DALI's pictures as a tensor, without a copy; on a GPU also queueing the
            labels' transfer and an event after the pictures. Almost zero on the CPU.
        threads: number of threads for decoding, and for DALI.
    """

    disk_seconds: float = 0.0
    decode_seconds: float = 0.0
    graph_seconds: float = 0.0
    copy_seconds: float = 0.0
    threads: int = 0

    def __sub__(self, before: "StageTimes") -> "StageTimes":
        return StageTimes(
            self.disk_seconds - before.disk_seconds,
            self.decode_seconds - before.decode_seconds,
            self.graph_seconds - before.graph_seconds,
            self.copy_seconds - before.copy_seconds,
            self.threads,
        )


T = TypeVar("T")


@dataclass(frozen=True)
class Elapsed:
    """Seconds in two parts: waiting for data, and the rest."""

    waiting_seconds: float
    working_seconds: float

    def __add__(self, other: "Elapsed") -> "Elapsed":
        return Elapsed(self.waiting_seconds + other.waiting_seconds, self.working_seconds + other.working_seconds)

    def __sub__(self, before: "Elapsed") -> "Elapsed":
        return Elapsed(self.waiting_seconds - before.waiting_seconds, self.working_seconds - before.working_seconds)

    @property
    def seconds(self) -> float:
        """Total seconds."""
        return self.waiting_seconds + self.working_seconds

    @property
    def stall_percent(self) -> float:
        """Waiting in percent of the total, 0..100; 0 where nothing was measured."""
        return 100.0 * self.waiting_seconds / self.seconds if self.seconds > 0 else 0.0


WAITING, WORKING, NEITHER = Elapsed(1.0, 0.0), Elapsed(0.0, 1.0), Elapsed(0.0, 0.0)  # per second of a span


class StallMeter(Generic[T]):
    """Iterates over batches once and measures how long the loop waits for them.

    Args:
        batches: any iterable. If it has `stages()`, as streams do, the waiting is also reported by stage.
        clock: returns seconds.
        device: where the training runs. For a CUDA device (`cuda`, `cuda:1`, a torch.device) seconds are measured on
            the GPU; for any other, or None, on the host.
        began: the clock's time before `batches` was created, to include its creation in the start-up.
    Attributes:
        startup_seconds: until the first batch arrived, on the host: since `began`, or of that fetch alone.
        batches: number of batches fetched.
    Raises:
        Exception: whatever `batches` raises passes through.
    Example:
        meter = StallMeter(loader, device="cuda")
        for images, labels in meter:
            train_step(images, labels)
        print(f"{meter.total().stall_percent:.1f}% waiting for data")
    """

    def __init__(
        self,
        batches: Iterable[T],
        *,
        clock: Callable[[], float] = time.perf_counter,
        device: Any = None,
        began: float | None = None,
    ):
        self._began = began
        self._source, self._stages = iter(batches), getattr(batches, "stages", StageTimes)
        self._startup_stages = StageTimes()
        self.startup_seconds = 0.0
        self.batches = 0
        self._pauses = 0
        self._lap = Elapsed(0.0, 0.0)
        self._host = HostSpans(clock)
        self._spans = GpuSpans(cuda_marks(device)) if str(device).startswith("cuda") else self._host

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self._end_work()
        try:
            batch = next(self._source)
        except BaseException:
            self._end(NEITHER)  # the last batch was returned, or a failure: no step waited
            raise
        waited = self._end(WAITING if self.batches and not self._pauses else NEITHER)
        if not self.batches:
            self.startup_seconds = waited if self._began is None else self._host.last - self._began
            self._startup_stages = self._stages()
        self.batches += 1
        return batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Return a context that excludes the time inside, such as an evaluation."""
        self._end_work()
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            self._end(NEITHER)

    def total(self) -> Elapsed:
        """Return the seconds of waiting and work, without start-up and pauses; waits for a GPU's queued work."""
        self._end_work()
        return self._spans.total()

    def stages(self) -> StageTimes:
        """Return the host's waiting seconds by stage, without start-up; zeros where `batches` has no `stages`."""
        return self._stages() - self._startup_stages

    def lap(self) -> Elapsed:
        """Return the seconds of waiting and work since the previous call."""
        before, self._lap = self._lap, self.total()
        return self._lap - before

    def _end_work(self) -> None:
        self._end(WORKING if self.batches and not self._pauses else NEITHER)

    def _end(self, kind: Elapsed) -> float:
        if self._spans is not self._host:
            self._spans.end(kind)
        return self._host.end(kind)


class HostSpans:
    """Consecutive spans of time on the host; `last` is when the current one began."""

    def __init__(self, clock: Callable[[], float]):
        self._clock, self.last, self._sum = clock, clock(), Elapsed(0.0, 0.0)

    def end(self, kind: Elapsed) -> float:
        """End the current span, which was of this kind, and begin the next; return its seconds."""
        now = self._clock()
        seconds, self.last = now - self.last, now
        self._sum = _added(self._sum, kind, seconds)
        return seconds

    def total(self) -> Elapsed:
        """Return the sum of all ended spans."""
        return self._sum


class GpuSpans:
    """The same spans on a GPU, by events in its queue: an event completes when all work queued before it is done.

    So the span from the event before a fetch to the one after it is the time in which the GPU had no work: where the
    host is ahead, both complete at once, however long the host waited. Work that belongs to the batch, a copy or a
    decoding that the training's stream waits for, is inside the span too.

    Only `total` waits for the GPU. Otherwise a span is read once its events are complete, usually a step later.

    Args:
        mark: records an event in the GPU's queue and returns it, a `torch.cuda.Event` or an object with `query()`,
            `synchronize()` and `elapsed_time(later)`, in milliseconds.
    """

    def __init__(self, mark: Callable[[], Any]):
        self._mark, self._last, self._sum = mark, mark(), Elapsed(0.0, 0.0)
        self._ahead: deque[tuple[Elapsed, Any, Any]] = deque()

    def end(self, kind: Elapsed) -> None:
        """End the current span, which was of this kind, and begin the next."""
        now = self._mark()
        self._ahead.append((kind, self._last, now))
        self._last = now
        self._read()

    def total(self) -> Elapsed:
        """Return the sum of all ended spans."""
        # Even on an idle GPU an event is not complete in the call that records it, so without this wait each lap would
        # lack its last step. Callers have usually just read the loss, so the wait is short.
        self._last.synchronize()
        self._read()
        return self._sum

    def _read(self) -> None:
        while self._ahead:
            kind, first, last = self._ahead[0]
            if not (first.query() and last.query()):
                return
            self._ahead.popleft()
            self._sum = _added(self._sum, kind, first.elapsed_time(last) / 1000)


def cuda_marks(device: Any) -> Callable[[], Any]:
    """Return a function that records an event in the device's current stream."""
    import torch

    def mark() -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    return mark


def _added(total: Elapsed, kind: Elapsed, seconds: float) -> Elapsed:
    return Elapsed(
        total.waiting_seconds + kind.waiting_seconds * seconds, total.working_seconds + kind.working_seconds * seconds
    )
