"""The stall meter: how much of the time goes into waiting for data.

In:  any iterable of batches, ours or a rival's.  Out: the same batches, and two clocks beside them.
The clock starts before the fetch. One that starts when the batch has arrived, as in many a training script, makes a
starving GPU look fast. The first fetch, which fills the pipeline, is counted apart as start-up.

The clocks are the host's. On a GPU a wait of the host is a stall only where the GPU had run dry, so there the share
is an upper bound.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Lap:
    """A span of time in two parts: waiting for data, and the rest."""

    waiting_seconds: float
    working_seconds: float

    def __add__(self, other: "Lap") -> "Lap":
        return Lap(self.waiting_seconds + other.waiting_seconds, self.working_seconds + other.working_seconds)

    def __sub__(self, before: "Lap") -> "Lap":
        return Lap(self.waiting_seconds - before.waiting_seconds, self.working_seconds - before.working_seconds)

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.waiting_seconds + self.working_seconds

    @property
    def stall_percent(self) -> float:
        """Share of waiting, 0..100; 0 where nothing was measured."""
        return 100.0 * self.waiting_seconds / self.seconds if self.seconds > 0 else 0.0


class StallMeter(Generic[T]):
    """Iterates over batches once and measures.

    Args:
        batches: any iterable.
        clock: seconds.

    Attributes:
        startup_seconds: the first fetch.
        batches: fetched so far.
    """

    def __init__(self, batches: Iterable[T], *, clock: Callable[[], float] = time.perf_counter):
        self._source, self._clock = iter(batches), clock
        self.startup_seconds = 0.0
        self.batches = 0
        self._waiting = self._working = 0.0
        self._mark = clock()  # when the present batch was asked for, or arrived
        self._lap = Lap(0.0, 0.0)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self._count_work()
        try:
            batch = next(self._source)
        finally:
            waited = -self._mark + self._tick()
        if self.batches:
            self._waiting += waited
        else:
            self.startup_seconds = waited
        self.batches += 1
        return batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside, an evaluation say."""
        self._count_work()
        try:
            yield
        finally:
            self._tick()

    def total(self) -> Lap:
        """All seconds but the start-up and the pauses."""
        self._count_work()
        return Lap(self._waiting, self._working)

    def lap(self) -> Lap:
        """The seconds since the last lap."""
        before, self._lap = self._lap, self.total()
        return self._lap - before

    def _count_work(self) -> None:
        began = self._mark
        now = self._tick()
        if self.batches:
            self._working += now - began

    def _tick(self) -> float:
        self._mark = self._clock()
        return self._mark
