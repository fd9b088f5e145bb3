"""The stall meter: how much of the time goes into waiting for data.

In:  any iterable of batches, ours or a rival's.  Out: the same batches, and two clocks beside them.
The clock starts before the fetch. One that starts when the batch has arrived, as in many a training script, makes a
starving GPU look fast. The first fetch, which builds and fills the pipeline, is counted apart as start-up.

The clocks are the host's. On a GPU a wait of the host is a stall only where the GPU had run dry, so there the share
is an upper bound.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class StallMeter(Generic[T]):
    """Iterates over batches and measures.

    Args:
        batches: any iterable.
        startup: count the first fetch as start-up; otherwise it is waiting like the others.
        clock: seconds.

    Attributes:
        startup_seconds: the first fetch.
        waiting_seconds: all later fetches together.
        working_seconds: between a batch's arrival and the next fetch.
        batches: fetched so far.
    """

    def __init__(self, batches: Iterable[T], *, startup: bool = True, clock: Callable[[], float] = time.perf_counter):
        self._batches, self._startup, self._clock = batches, startup, clock
        self._arrived = 0.0
        self.startup_seconds = self.waiting_seconds = self.working_seconds = 0.0
        self.batches = 0

    def __iter__(self) -> Iterator[T]:
        iterator = iter(self._batches)
        left = self._clock()
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._arrived = self._clock()
            if self.batches or not self._startup:
                self.waiting_seconds += self._arrived - left
            else:
                self.startup_seconds = self._arrived - left
            self.batches += 1
            yield batch
            left = self._clock()
            self.working_seconds += left - self._arrived

    def working_now(self) -> float:
        """`working_seconds` and what has passed since the present batch arrived."""
        return self.working_seconds + self._clock() - self._arrived

    @property
    def seconds(self) -> float:
        """Waiting and working together."""
        return self.waiting_seconds + self.working_seconds

    @property
    def percent(self) -> float:
        """Share of waiting in all time but the start-up, 0..100."""
        return stall_percent(self.waiting_seconds, self.working_seconds)


def stall_percent(waiting_seconds: float, working_seconds: float) -> float:
    """Share of waiting, 0..100; 0 where nothing was measured."""
    total = waiting_seconds + working_seconds
    return 100.0 * waiting_seconds / total if total > 0 else 0.0
