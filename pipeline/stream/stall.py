"""The stall meter: how much of the time goes into waiting for data.

In:  any iterable of batches, ours or a rival's.  Out: the same batches, and two clocks beside them.
The clock starts before the fetch. One that starts when the batch has arrived, as in many a training script, makes a
starving GPU look fast. The first fetch, which fills the pipeline, is counted apart as start-up.

The clocks are the host's, unless a GPU is named: there the host runs ahead, and it is the GPU that must not run dry,
so the same spans are taken on the GPU's own time. torch is imported for that alone.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar


@dataclass(frozen=True)
class StageTimes:
    """Wall seconds that whoever iterates over the stream spent inside it, by what it was waiting for.

    The four exclude each other, and their sum is the time inside `next(stream)` but for its bookkeeping. What the
    stages do meanwhile, behind the reader's back, is not in them: a stage that keeps up costs nothing.

    Attributes:
        disk_seconds: waiting for the read-ahead to bring a batch's records into memory, and looking them up.
        decode_seconds: waiting for the threads that decode and cut, of raw shards that cut, on a GPU into page-locked
            memory; 0 with `decode="dali"`.
        graph_seconds: waiting for DALI: crop, mirror and means, with `decode="dali"` decoding too, and on a GPU
            queueing the pictures' transfer.
        copy_seconds: handing the batch over: DALI's pictures as a tensor, without a copy; on a GPU also queueing the
            labels' transfer and an event behind the pictures, the host's part of both. On the CPU next to nothing.
        threads: of decoding and of DALI, each.
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
    """A span of time in two parts: waiting for data, and the rest."""

    waiting_seconds: float
    working_seconds: float

    def __add__(self, other: "Elapsed") -> "Elapsed":
        return Elapsed(self.waiting_seconds + other.waiting_seconds, self.working_seconds + other.working_seconds)

    def __sub__(self, before: "Elapsed") -> "Elapsed":
        return Elapsed(self.waiting_seconds - before.waiting_seconds, self.working_seconds - before.working_seconds)

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.waiting_seconds + self.working_seconds

    @property
    def stall_percent(self) -> float:
        """Share of waiting, 0..100; 0 where nothing was measured."""
        return 100.0 * self.waiting_seconds / self.seconds if self.seconds > 0 else 0.0


WAITING, WORKING, NEITHER = Elapsed(1.0, 0.0), Elapsed(0.0, 1.0), Elapsed(0.0, 0.0)  # what one second of a span is


class StallMeter(Generic[T]):
    """Iterates over batches once and measures.

    Args:
        batches: any iterable. One that has `stages()`, as our streams do, is asked what it waits for.
        clock: seconds.
        device: where the training runs. For a CUDA device (`cuda`, `cuda:1`, a torch.device) the seconds are the
            GPU's; for any other, or None, the host's.
        began: what the clock said before the batches were made, if making them is to count as start-up.

    Attributes:
        startup_seconds: until the first batch was there, by the host's clock: from `began` on, or of that fetch alone.
        batches: fetched so far.
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
            self._end(NEITHER)  # the end of the batches, or a failure: no step was kept waiting
            raise
        waited = self._end(WAITING if self.batches and not self._pauses else NEITHER)
        if not self.batches:
            self.startup_seconds = waited if self._began is None else self._host.last - self._began
            self._startup_stages = self._stages()
        self.batches += 1
        return batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside, an evaluation say."""
        self._end_work()
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            self._end(NEITHER)

    def total(self) -> Elapsed:
        """All seconds but the start-up and the pauses; waits until a GPU has done what it has been given."""
        self._end_work()
        return self._spans.total()

    def stages(self) -> StageTimes:
        """What the host waited for, in seconds, start-up left out; zeros of batches that do not say."""
        return self._stages() - self._startup_stages

    def lap(self) -> Elapsed:
        """The seconds since the last lap."""
        before, self._lap = self._lap, self.total()
        return self._lap - before

    def _end_work(self) -> None:
        self._end(WORKING if self.batches and not self._pauses else NEITHER)

    def _end(self, kind: Elapsed) -> float:
        if self._spans is not self._host:
            self._spans.end(kind)
        return self._host.end(kind)


class HostSpans:
    """Spans of time by a clock, one after the other; `last` is when the present one began."""

    def __init__(self, clock: Callable[[], float]):
        self._clock, self.last, self._sum = clock, clock(), Elapsed(0.0, 0.0)

    def end(self, kind: Elapsed) -> float:
        """End the present span and begin the next: it was of this kind, and so many seconds."""
        now = self._clock()
        seconds, self.last = now - self.last, now
        self._sum = _added(self._sum, kind, seconds)
        return seconds

    def total(self) -> Elapsed:
        """All that has ended."""
        return self._sum


class GpuSpans:
    """The same spans as a GPU sees them: it passes each mark when all work from before it is done.

    So the span from the mark before a fetch to the one after it is the time in which the GPU had run dry: where the
    host is ahead, the GPU passes both at once, however long the host waited. Work that the batch itself brings with
    it, a copy or a decoding that the training's stream waits for, lies inside the span too.

    Only a total waits for the GPU. Otherwise a span is read once its marks have been passed, in general a step later.

    Args:
        mark: puts a mark into the GPU's queue and returns it, a `torch.cuda.Event` or the like: `query()`, whether
            it has been passed, `synchronize()`, which waits until it is, and `elapsed_time(later)`, in milliseconds.
    """

    def __init__(self, mark: Callable[[], Any]):
        self._mark, self._last, self._sum = mark, mark(), Elapsed(0.0, 0.0)
        self._ahead: deque[tuple[Elapsed, Any, Any]] = deque()

    def end(self, kind: Elapsed) -> None:
        """Mark the end of the present span, which was of this kind, and the beginning of the next."""
        now = self._mark()
        self._ahead.append((kind, self._last, now))
        self._last = now
        self._read()

    def total(self) -> Elapsed:
        """All that has ended."""
        # A mark is not passed in the call that makes it, even by an idle GPU: each lap would lack its own last step.
        # Who asks for a total has as a rule just read the loss, so there is little to wait for.
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
    """A function that records an event in the queue in which the device's work stands."""
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
