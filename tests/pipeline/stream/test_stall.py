"""The stall meter by a clock of our own: injected waits and work come out to the last digit."""

import inspect
import math
import re
import subprocess
import sys
import time
from collections import deque
from functools import partialmethod
from itertools import islice
from pathlib import Path

import pytest
import torch
from alexnet_dali.pipeline.plan.plan import Plan
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream import stall
from alexnet_dali.pipeline.stream.batch_source import BatchSource
from alexnet_dali.pipeline.stream.decoder import Decoder
from alexnet_dali.pipeline.stream.prefetch import ReadAhead
from alexnet_dali.pipeline.stream.record_reader import RecordReader
from alexnet_dali.pipeline.stream.stall import Elapsed, StallMeter
from alexnet_dali.pipeline.stream.stream import Stream
from alexnet_dali.pipeline.stream.streams import train_stream
from hypothesis import given
from hypothesis import strategies as st
from simulated import Clock, Gpu, Mark, expected_stall, idle_ticks, loader_ahead
from torch.utils.data import DataLoader


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
    assert meter.total() == Elapsed(6.0, 0.0)
    assert meter.total().stall_percent == 100.0


def test_the_first_fetch_is_start_up_and_nothing_else():
    clock = Clock()
    meter = StallMeter(loader(clock, [7.0]), clock=clock)
    clock.sleep(100.0)  # between making the meter and the first fetch: nobody waits, nobody works
    assert meter.total() == Elapsed(0.0, 0.0) and meter.total().stall_percent == 0.0
    assert next(meter) == 0
    assert meter.startup_seconds == 7.0 and meter.total() == Elapsed(0.0, 0.0)


def test_making_the_batches_is_start_up_where_the_meter_knows_when_it_began():
    clock = Clock()
    began = clock()
    clock.sleep(20.0)  # a rehearsal of two decoders, a graph
    batches = loader(clock, [7.0, 1.0])
    meter = StallMeter(batches, clock=clock, began=began)
    for _ in meter:
        clock.sleep(3.0)
    assert meter.startup_seconds == 27.0 and meter.total() == Elapsed(1.0, 6.0)


def test_total_counts_the_work_of_the_present_batch_so_far():
    clock = Clock()
    meter = StallMeter(loader(clock, [0.0, 1.0]), clock=clock)
    next(meter)
    for passed in (2.0, 4.0):
        clock.sleep(2.0)
        assert meter.total() == Elapsed(0.0, passed)
    next(meter)
    assert meter.total() == Elapsed(1.0, 4.0)


def test_laps_are_differences_of_totals():
    clock = Clock()
    meter = StallMeter(loader(clock, [5.0, 1.0, 2.0, 3.0]), clock=clock)
    laps = []
    for _ in meter:
        clock.sleep(1.0)
        laps.append(meter.lap())
    assert laps == [Elapsed(0.0, 1.0), Elapsed(1.0, 1.0), Elapsed(2.0, 1.0), Elapsed(3.0, 1.0)]
    assert [round(lap.stall_percent) for lap in laps] == [0, 50, 67, 75]
    assert meter.lap() == Elapsed(0.0, 0.0)
    assert meter.total() == Elapsed(6.0, 4.0)


def test_pauses_are_left_out():
    clock = Clock()
    meter = StallMeter(loader(clock, [0.0, 2.0]), clock=clock)
    next(meter)
    clock.sleep(3.0)
    with meter.paused():
        clock.sleep(50.0)
    clock.sleep(3.0)
    next(meter)
    assert meter.total() == Elapsed(2.0, 6.0)
    with pytest.raises(KeyError), meter.paused():
        clock.sleep(50.0)
        raise KeyError
    assert meter.total() == Elapsed(2.0, 6.0)


def test_the_total_can_be_asked_for_in_a_pause():
    clock = Clock()
    meter = StallMeter(loader(clock, [0.0, 2.0, 5.0, 1.0]), clock=clock)
    with meter.paused():
        clock.sleep(50.0)
        assert meter.total() == Elapsed(0.0, 0.0)
    next(meter)
    clock.sleep(3.0)
    with meter.paused():
        clock.sleep(50.0)
        assert meter.total() == Elapsed(0.0, 3.0)
        with meter.paused():  # an evaluation that saves, both of which pause
            clock.sleep(50.0)
        clock.sleep(50.0)
        assert meter.lap() == Elapsed(0.0, 3.0)
        next(meter)  # fetched to be looked at, not to be trained on
        clock.sleep(50.0)
    clock.sleep(4.0)
    next(meter)
    assert meter.total() == Elapsed(5.0, 7.0) and meter.batches == 3


def test_the_end_is_neither_batch_nor_waiting():
    clock = Clock()
    meter = StallMeter(loader(clock, [1.0, 1.0], at_end=30.0), clock=clock)
    assert list(meter) == [0, 1]
    for _ in range(2):  # a StopIteration that is asked for again is given again
        with pytest.raises(StopIteration):
            next(meter)
    assert meter.batches == 2 and meter.total() == Elapsed(1.0, 0.0)


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
    assert meter.batches == 1 and meter.total() == Elapsed(0.0, 0.0)


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
    assert meter.total() == Elapsed(2.0, 4.0)


# --- pipelines that work ahead: only what the step does not hide is a stall ------------------------------------------

TIMES = st.integers(0, 9)


@st.composite
def mixtures(draw):
    """Seconds of each stage for each batch, seconds of each step, batches ahead."""
    batches, stages = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    fetches = draw(st.lists(st.lists(TIMES, min_size=stages, max_size=stages), min_size=batches, max_size=batches))
    return fetches, draw(st.lists(TIMES, min_size=batches, max_size=batches)), draw(st.integers(0, 3))


@given(mixtures())
def test_every_mixture_is_reported_as_a_simulation_tick_by_tick_has_it(mixture):
    fetches, steps, ahead = mixture
    clock = Clock()
    meter = StallMeter(loader_ahead(clock, fetches, ahead), clock=clock)
    for k in meter:
        clock.sleep(steps[k])
    startup, waiting = idle_ticks(fetches, steps, ahead)
    assert meter.startup_seconds == startup
    assert meter.total() == Elapsed(waiting, sum(steps))


@given(mixtures(), st.data())
def test_laps_pauses_and_short_epochs_change_nothing(mixture, data):
    """Epochs that end early, each with a pause in which the loader goes on; laps at any moment add up to the total."""
    fetches, steps, ahead = mixture
    clock = Clock()
    meter = StallMeter(loader_ahead(clock, fetches, ahead), clock=clock)
    laps, working, done = Elapsed(0.0, 0.0), 0, 0
    while done < len(fetches):
        length = data.draw(st.integers(0, len(fetches) - done))
        for k in islice(meter, length):
            clock.sleep(steps[k])
            working += steps[k]
            if data.draw(st.booleans()):
                laps += meter.lap()
        done += max(length, 1)
        if not length:  # an epoch of one batch
            working += steps[next(meter)]
            clock.sleep(steps[done - 1])
        with meter.paused():
            clock.sleep(data.draw(TIMES))
    laps += meter.lap()
    assert laps == meter.total()
    assert meter.total().working_seconds == working
    # All seconds are one of four: start-up, waiting, working, pauses; so the waiting is right if the others are.
    unpaused = StallMeter(loader_ahead(clock := Clock(), fetches, ahead), clock=clock)
    for k in unpaused:
        clock.sleep(steps[k])
    assert meter.total().waiting_seconds <= unpaused.total().waiting_seconds  # a pause is time to work ahead


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("slow", ["disk", "decode", "step", "nothing"])
@pytest.mark.parametrize("delay", [0.1, 1.0, 10.0])
def test_an_injected_delay_is_reported_within_two_points(ahead, slow, delay):
    """Against the closed form of a steady pipeline; start-up and the last batches are no steady state."""
    seconds = {"disk": 3.0, "decode": 5.0, "step": 6.0}
    if slow != "nothing":
        seconds[slow] += delay
    clock = Clock()
    meter = StallMeter(loader_ahead(clock, [[seconds["disk"], seconds["decode"]]] * 200, ahead), clock=clock)
    for _ in meter:
        clock.sleep(seconds["step"])
    expected = expected_stall([seconds["disk"], seconds["decode"]], seconds["step"], ahead)
    assert meter.total().stall_percent == pytest.approx(expected, abs=2.0)
    if slow == "step" and ahead == 3:
        assert meter.total().stall_percent == 0.0


def test_the_injected_delays_are_not_all_hidden_or_all_seen():
    shares = {
        (ahead, disk): round(expected_stall([disk, 5.0], 6.0, ahead)) for ahead in (0, 1, 3) for disk in (3.0, 13.0)
    }
    assert shares == {(0, 3.0): 57, (0, 13.0): 75, (1, 3.0): 25, (1, 13.0): 67, (3, 3.0): 0, (3, 13.0): 54}


# --- a GPU, which the host runs ahead of -----------------------------------------------------------------------------


class Late(Gpu):
    """A GPU whose marks are passed as real ones are: never within the call that makes them, though it be idle.

    They are passed when the clock has gone on, by however little, or when the host waits for them.
    """

    seen = -math.inf  # up to here the host has waited

    def mark(self):
        mark = super().mark()
        mark.__class__, mark.card = LateMark, self
        return mark


class LateMark(Mark):
    def query(self):
        return self._clock() > self._at or self._at <= self.card.seen

    def synchronize(self):
        """Let the host wait until it has been passed."""
        self.card.waits += 1
        self._clock.now = max(self._clock.now, self._at)
        self.card.seen = max(self.card.seen, self._at)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of the simulation's own; the host's clock is its clock."""
    card = Late(Clock())
    monkeypatch.setattr(stall, "cuda_marks", lambda device: card.mark)
    return card


def test_on_a_gpu_a_wait_that_it_does_not_notice_is_no_stall(gpu):
    """The host queues a step in no time and waits for the next batch, while the GPU is still busy."""
    meter = StallMeter(loader(gpu.clock, [5.0] + [4.0] * 9), clock=gpu.clock, device="cuda")
    for _ in meter:
        gpu.queue(6.0)
    gpu.wait()
    assert meter.total() == Elapsed(0.0, 60.0)
    host = StallMeter(loader(gpu.clock, [5.0] + [4.0] * 9), clock=gpu.clock)
    assert list(host) and host.total().stall_percent == 100.0


def test_on_a_gpu_only_the_time_that_it_had_run_dry_is_a_stall(gpu):
    meter = StallMeter(loader(gpu.clock, [5.0] + [10.0] * 9), clock=gpu.clock, device=torch.device("cuda", 1))
    for _ in meter:
        gpu.queue(6.0)
    gpu.wait()
    assert meter.startup_seconds == 5.0
    assert meter.total() == Elapsed(9 * 4.0, 60.0)


def test_a_copy_that_the_step_waits_for_is_a_stall_though_the_host_has_gone_on(gpu):
    def copying():
        for _ in range(4):
            gpu.queue(2.0)  # on the training's stream, as the wait for a copy is
            yield

    meter = StallMeter(copying(), clock=gpu.clock, device="cuda")
    for _ in meter:
        gpu.queue(3.0)
        gpu.clock.sleep(0.5)
    gpu.wait()
    assert meter.total() == Elapsed(3 * 2.0, 4 * 3.0)


@given(st.lists(st.tuples(TIMES, TIMES, TIMES, TIMES, st.booleans()), min_size=1, max_size=15))
def test_every_mixture_on_a_gpu(steps):
    """Fetch, GPU's work, host's work, pause, lap or not. The oracle books two times: the host's, and when the GPU is
    done with what it has. A lap waits for the GPU, and lacks nothing of the steps up to it."""
    card = Late(Clock(0.0))
    host = done = waiting = working = 0.0
    laps = Elapsed(0.0, 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stall, "cuda_marks", lambda device: card.mark)
        meter = StallMeter(loader(card.clock, [each[0] for each in steps]), clock=card.clock, device="cuda")
    for batch, (fetch, work, hosts, pause, lap) in enumerate(steps):
        assert next(meter) == batch
        dry, host = max(done, host), host + fetch
        done = max(dry, host)
        waiting += done - dry if batch else 0.0
        card.queue(work)
        card.clock.sleep(hosts)
        began, host = done, host + hosts
        done = max(done + work, host)
        working += done - began
        if lap:
            laps += meter.lap()
            assert laps == Elapsed(waiting, working)
            host = done
        with meter.paused():
            card.clock.sleep(pause)
        host += pause
    card.wait()
    assert meter.total() == Elapsed(waiting, working)
    assert laps + meter.lap() == meter.total()


def test_the_gpu_is_waited_for_by_totals_alone_and_its_marks_do_not_pile_up(gpu):
    """Otherwise a mark is read when it has been passed, a step late, and then let go."""
    meter = StallMeter(loader(gpu.clock, [1.0] * 1000), clock=gpu.clock, device="cuda")
    for _ in meter:
        gpu.queue(0.5)
    assert gpu.waits == 0 and gpu.living() < 10
    assert meter.total() == Elapsed(999 * 0.5, 1000 * 0.5) and gpu.waits == 1


def test_each_lap_on_a_gpu_has_its_own_step(gpu):
    """As with --log-every 1: the loss is read, which leaves the GPU idle, and then the lap is taken."""
    meter = StallMeter(loader(gpu.clock, [5.0] + [1.0] * 9), clock=gpu.clock, device="cuda")
    laps = []
    for _ in meter:
        gpu.queue(3.0)
        gpu.wait()
        laps.append(meter.lap())
    assert laps == [Elapsed(0.0, 3.0)] + [Elapsed(1.0, 3.0)] * 9


def test_a_fetch_that_fails_on_a_gpu_is_not_counted(gpu):
    def broken():
        yield 1
        gpu.clock.sleep(9.0)
        raise OSError("disk")

    meter = StallMeter(broken(), clock=gpu.clock, device="cuda")
    next(meter)
    gpu.queue(2.0)
    gpu.wait()
    with pytest.raises(OSError, match="disk"):
        next(meter)
    assert meter.total() == Elapsed(0.0, 2.0)


def test_the_simulated_marks_are_what_torch_has():
    """Every method of a mark that the meter calls is one of torch.cuda.Event."""
    used = {name for name, _ in inspect.getmembers(LateMark, callable) if not name.startswith("_")}
    assert used == {"query", "synchronize", "elapsed_time"} and all(hasattr(torch.cuda.Event, name) for name in used)


def test_other_devices_have_no_marks(monkeypatch):
    monkeypatch.setattr(stall, "cuda_marks", None)
    for device in (None, "cpu", torch.device("cpu"), "mps"):
        assert list(StallMeter([1, 2], device=device)) == [1, 2]


def test_the_meter_needs_no_torch():
    code = (
        "import sys; from alexnet_dali.pipeline.stream.stall import StallMeter; list(StallMeter([1], device='cpu')); "
    )
    code += "assert not {'torch', 'nvidia.dali', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- in real time ----------------------------------------------------------------------------------------------------


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


def test_the_code_on_the_page_of_stalls(capsys):
    """A loader of somebody else's, in three lines; and the check by a loader that sleeps."""
    page = (Path(__file__).parents[3] / "docs" / "stalls.md").read_text()
    judge, check = re.findall(r"```python\n(.*?)```", page, re.S)
    trained: list = []
    names = {"loader": DataLoader(torch.arange(6), batch_size=2), "train": trained.append}
    exec(compile(judge, "stalls.md", "exec"), names)
    said = capsys.readouterr().out
    assert torch.cat(trained).tolist() == [0, 1, 2, 3, 4, 5]
    assert re.fullmatch(r"waited \d+\.\d% of the time, and 0\.\d s to begin\n", said)
    exec(compile(check, "stalls.md", "exec"), names)
    assert 15 < int(capsys.readouterr().out.rstrip("%\n")) < 60


def test_a_slow_disk_under_the_real_stream(shards, monkeypatch):
    """The feed sleeps: what of its sleep did not fall into a step is what the meter has to say, however far the
    stream works ahead. Decoding eight small photos adds a little, a busy machine more."""
    slept, stepped = [], []
    read = RecordReader.read

    def sleep(seconds, into):
        began = time.perf_counter()
        time.sleep(seconds)
        into.append((began, time.perf_counter()))

    def slow(feed, records):
        sleep(0.15, slept)
        return read(feed, records)

    monkeypatch.setattr(RecordReader, "read", slow)
    plan = Plan(shards.split("train").records, 8)
    with train_stream(shards, stats.load_stats(shards), plan, threads=2, decode="dali") as stream:
        meter = StallMeter(stream)
        next(meter)
        began = time.perf_counter()
        for _ in islice(meter, 12):
            sleep(0.1, stepped)
        total, ended = meter.total(), time.perf_counter()
    asleep = sum(max(0.0, min(end, ended) - max(start, began)) for start, end in slept)
    hidden = sum(
        max(0.0, min(end, other_end) - max(start, other)) for start, end in slept for other, other_end in stepped
    )
    seen = 100 * (asleep - hidden) / (ended - began)
    assert seen > 25  # 0.15 s of disk for 0.1 s of step: a third if all is hidden that can be
    assert seen - 2 <= total.stall_percent <= seen + 15


@pytest.mark.parametrize(
    "disk, decode, step",
    [
        (3, 5, 6),
        (12, 12, 11),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((15, 5, 10), (3, 15, 10), (15, 5, 20), (9, 9, 2))),
    ],
)
def test_a_slow_stage_under_the_real_stream(shards, monkeypatch, disk, decode, step):
    """One disk and one decoder that take seconds of the tests' clock for each batch, in order, behind the stream's own
    way of working ahead: however busy the machine, the share is that of the closed form."""
    clock = Clock()
    free = {"disk": 0.0, "decode": 0.0}

    class Slow:
        """A batch that the stage begins when it is asked for and free, and has done some seconds later."""

        def __init__(self, inner, stage, seconds):
            self.inner = inner
            self.at = free[stage] = max(free[stage], clock()) + seconds

        def done(self):
            return clock() >= self.at and self.result() is not None

        def result(self):
            clock.now = max(clock.now, self.at)
            return self.inner.result()

        def wait(self):
            clock.now = max(clock.now, self.at)
            return self.inner.wait()

        def __getattr__(self, name):
            return getattr(self.inner, name)

    want, begin = ReadAhead.want, Decoder.begin
    monkeypatch.setattr(ReadAhead, "want", lambda *given: Slow(want(*given), "disk", disk))
    monkeypatch.setattr(Decoder, "begin", lambda *given: Slow(begin(*given), "decode", decode))
    for owner in (Stream, BatchSource):
        monkeypatch.setattr(owner, "__init__", partialmethod(owner.__init__, clock=clock))
    plan = Plan(shards.split("train").records, 8)
    with train_stream(shards, stats.load_stats(shards), plan, threads=2, decode="threads") as stream:
        meter = StallMeter(stream, clock=clock)
        for _ in islice(meter, 150):
            clock.sleep(step)
        total, stages = meter.total(), meter.stages()
    assert total.working_seconds == 150 * step
    assert total.stall_percent == pytest.approx(expected_stall([disk, decode], step, 3), abs=2.0)
    assert stages.disk_seconds + stages.decode_seconds == pytest.approx(total.waiting_seconds)
