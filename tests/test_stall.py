"""The stall meter by a clock of our own: injected waits and work come out to the last digit."""

import time
from collections import deque

import pytest
from alexnet_dali.pipeline.stall import Lap, StallMeter


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def loader(clock, waits, at_end=0.0):
    """Batches 0, 1, 2, ..., each after its wait; then the end, after a wait of its own."""
    for number, seconds in enumerate(waits):
        clock.sleep(seconds)
        yield number
    clock.sleep(at_end)


def test_waits_and_work_give_the_exact_share():
    clock = Clock()
    meter = StallMeter(loader(clock, [10.0, 1.0, 2.0, 5.0]), clock=clock)
    seen = []
    for batch in meter:
        seen.append(batch)
        clock.sleep(4.0 if batch < 3 else 12.0)
    total = meter.total()
    assert seen == [0, 1, 2, 3] and meter.batches == 4
    assert meter.startup_seconds == 10.0
    assert (total.waiting_seconds, total.working_seconds, total.seconds) == (8.0, 24.0, 32.0)
    assert total.stall_percent == 25.0


def test_the_clock_starts_before_the_fetch():
    # The work is done at once; all the time is spent in the loader, so the training is stalled throughout.
    clock = Clock()
    meter = StallMeter(loader(clock, [0.0, 3.0, 3.0]), clock=clock)
    assert list(meter) == [0, 1, 2]
    assert meter.total() == Lap(6.0, 0.0)
    assert meter.total().stall_percent == 100.0


def test_the_first_fetch_is_start_up_and_nothing_else():
    clock = Clock()
    meter = StallMeter(loader(clock, [7.0]), clock=clock)
    clock.sleep(100.0)  # between making the meter and the first fetch: nobody waits, nobody works
    assert meter.total() == Lap(0.0, 0.0) and meter.total().stall_percent == 0.0
    assert next(meter) == 0
    assert meter.startup_seconds == 7.0 and meter.total() == Lap(0.0, 0.0)


def test_total_counts_the_work_of_the_present_batch_so_far():
    clock = Clock()
    meter = StallMeter(loader(clock, [0.0, 1.0]), clock=clock)
    next(meter)
    for passed in (2.0, 4.0):
        clock.sleep(2.0)
        assert meter.total() == Lap(0.0, passed)
    next(meter)
    assert meter.total() == Lap(1.0, 4.0)


def test_laps_are_differences_of_totals():
    clock = Clock()
    meter = StallMeter(loader(clock, [5.0, 1.0, 2.0, 3.0]), clock=clock)
    laps = []
    for _ in meter:
        clock.sleep(1.0)
        laps.append(meter.lap())
    assert laps == [Lap(0.0, 1.0), Lap(1.0, 1.0), Lap(2.0, 1.0), Lap(3.0, 1.0)]
    assert [round(lap.stall_percent) for lap in laps] == [0, 50, 67, 75]
    assert meter.lap() == Lap(0.0, 0.0)
    assert meter.total() == Lap(6.0, 4.0)


def test_pauses_are_left_out():
    clock = Clock()
    meter = StallMeter(loader(clock, [0.0, 2.0]), clock=clock)
    next(meter)
    clock.sleep(3.0)
    with meter.paused():
        clock.sleep(50.0)
    clock.sleep(3.0)
    next(meter)
    assert meter.total() == Lap(2.0, 6.0)
    with pytest.raises(KeyError), meter.paused():
        clock.sleep(50.0)
        raise KeyError
    assert meter.total() == Lap(2.0, 6.0)


def test_the_end_is_neither_batch_nor_waiting():
    clock = Clock()
    meter = StallMeter(loader(clock, [1.0, 1.0], at_end=30.0), clock=clock)
    assert list(meter) == [0, 1]
    for _ in range(2):  # a StopIteration that is asked for again is given again
        with pytest.raises(StopIteration):
            next(meter)
    assert meter.batches == 2 and meter.total() == Lap(1.0, 0.0)


def test_a_failing_loader_s_error_comes_through():
    def broken():
        yield 1
        clock.sleep(9.0)
        raise OSError("disk")

    clock = Clock()
    meter = StallMeter(broken(), clock=clock)
    next(meter)
    with pytest.raises(OSError, match="disk"):
        next(meter)
    assert meter.batches == 1 and meter.total() == Lap(0.0, 0.0)


@pytest.mark.parametrize("batches", [[1, 2], (1, 2), range(1, 3), deque([1, 2]), {1: "a", 2: "b"}])
def test_any_iterable_will_do(batches):
    meter = StallMeter(batches)
    assert list(meter) == [1, 2] and meter.batches == 2


def test_an_empty_loader_measures_nothing():
    meter = StallMeter(())
    assert list(meter) == [] and meter.batches == 0 and meter.startup_seconds == 0.0
    assert meter.total().stall_percent == 0.0


def test_the_meter_is_met_once_and_can_be_left_and_taken_up():
    clock = Clock()
    meter = StallMeter(loader(clock, [0.0, 1.0, 1.0]), clock=clock)
    for _ in meter:
        clock.sleep(2.0)
        break
    clock.sleep(2.0)  # still working on the first batch
    assert list(meter) == [1, 2]
    assert meter.total() == Lap(2.0, 4.0)


def test_on_the_machine_s_clock():
    def slow():
        while True:
            time.sleep(0.02)
            yield

    meter = StallMeter(slow())
    began = time.perf_counter()
    for _ in range(6):
        next(meter)
        time.sleep(0.01)
    total, elapsed = meter.total(), time.perf_counter() - began
    assert meter.startup_seconds >= 0.02 and total.waiting_seconds >= 0.1 and total.working_seconds >= 0.06
    # Nothing is lost between the clocks: start-up, waiting and work are all the time there was.
    assert meter.startup_seconds + total.seconds == pytest.approx(elapsed, rel=0.1)
