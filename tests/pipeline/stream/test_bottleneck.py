"""The verdict by table, and by a simulated pipeline that is slowed in one stage: that stage is named."""

import re
from itertools import product

import click
import pytest
from alexnet_dali.pipeline.stream.bottleneck import HOST, STAGES, Bottleneck, stage_percentages, verdict
from alexnet_dali.pipeline.stream.stall import Elapsed, StageTimes, StallMeter
from alexnet_dali.tools.prep.cli import prep
from alexnet_dali.tools.train.cli import train
from hypothesis import given
from hypothesis import strategies as st
from simulated import Clock, loader_ahead


@pytest.mark.parametrize(
    "waiting, stages, on_gpu, stage, figures",
    [
        (10, StageTimes(8, 1, 0.5, 0, 2), False, "disk", "disk 8.0%, decode 1.0%, graph 0.5%, copy 0.0%, host 0.5%"),
        (10, StageTimes(1, 8, 0.5, 0, 2), False, "decode", "disk 1.0%, decode 8.0%, graph 0.5%, copy 0.0%, host 0.5%"),
        (10, StageTimes(1, 0, 8, 0, 2), False, "graph", "disk 1.0%, decode 0.0%, graph 8.0%, copy 0.0%, host 1.0%"),
        (10, StageTimes(1, 0, 1, 8, 2), False, "copy", "disk 1.0%, decode 0.0%, graph 1.0%, copy 8.0%, host 0.0%"),
        (10, StageTimes(2, 2, 1, 0, 2), False, HOST, "disk 2.0%, decode 2.0%, graph 1.0%, copy 0.0%, host 5.0%"),
        (10, StageTimes(), False, HOST, "disk 0.0%, decode 0.0%, graph 0.0%, copy 0.0%, host 10.0%"),
        # by a GPU's time: what the host did not wait for is the batch's way onto the GPU
        (10, StageTimes(1, 2, 1, 0, 2), True, "copy", "disk 1.0%, decode 2.0%, graph 1.0%, copy 6.0% of the time"),
        # and the host waits where the GPU is busy
        (10, StageTimes(1, 30, 1, 0, 2), True, "decode", "disk 1.0%, decode 30.0%, graph 1.0%, copy 0.0% of the time"),
        (0, StageTimes(0, 0, 0, 0, 2), False, "", ""),
        (0, StageTimes(1, 30, 1, 0, 2), True, "", ""),  # all of it hidden behind the GPU's work
    ],
)
def test_the_stage_that_most_of_the_waiting_is_for_is_named(waiting, stages, on_gpu, stage, figures):
    found = verdict(Elapsed(waiting, 100 - waiting), stages, 4, on_gpu=on_gpu)
    assert found.stage == stage and figures in found.sentence
    if stage:
        assert found.sentence.startswith(f"{stage} is the bottleneck: most of the waiting is for ") and found.remedy
    else:
        assert found == Bottleneck("", "nothing waits for data", "")


@pytest.mark.parametrize(
    "stages, cores, remedy",
    [
        (StageTimes(9, 0, 0, 0, 2), 2, "alexnet-prep stage"),
        (StageTimes(0, 9, 0, 0, 2), 8, "2, on 8 cores"),
        (StageTimes(0, 9, 0, 0, 8), 8, "--encoding raw"),
        (StageTimes(0, 9, 0, 0, 8), 8, "--quality"),
        (StageTimes(0, 0, 9, 0, 2), 8, "2, on 8 cores"),
        (StageTimes(0, 0, 9, 0, 2), 2, "2 now"),
        (StageTimes(0, 0, 0, 9, 2), 2, "--batch-size"),
        (StageTimes(0, 0, 0, 0, 2), 2, "2 cores"),
        (StageTimes(0, 0, 0, 0, 1), 1, "1 core"),
    ],
)
def test_the_remedy_fits_the_stage_and_the_machine(stages, cores, remedy):
    assert remedy in verdict(Elapsed(10.0, 90.0), stages, cores).remedy


@pytest.mark.parametrize("threads, cores", [(2, 2), (2, 8)])
@pytest.mark.parametrize("stage", range(4))
def test_nobody_is_told_to_use_what_he_uses(stage, threads, cores):
    """Raw shards and JPEG shards; raw ones are not decoded."""
    stages = StageTimes(*(9.0 if k == stage else 0.0 for k in range(4)), threads)
    raw = verdict(Elapsed(10.0, 90.0), stages, cores, encoded=False)
    assert not re.search(r"--encoding raw|raw shards, if|--quality|need no decoding", raw.remedy)
    if STAGES[stage] == "decode":
        assert "threads that cut raw pictures" in raw.sentence and "decod" not in raw.remedy
        assert "more cores: all 2 cut already" in raw.remedy if threads == cores else "cut with more" in raw.remedy
    jpeg = verdict(Elapsed(10.0, 90.0), stages, cores)
    assert "JPEG shards, a seventh" not in jpeg.remedy and "cut" not in jpeg.remedy


def test_options_and_commands_of_the_remedies_exist():
    build = prep.get_command(click.Context(prep), "build-lmdb")
    stage = prep.get_command(click.Context(prep), "stage")
    options = {name for command in (train, build, stage) for parameter in command.params for name in parameter.opts}
    for seconds, encoded in product(([9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0], [0, 0, 0, 9], [0] * 4), (True, False)):
        for threads, cores in ((1, 8), (8, 8), (1, 1)):
            text = verdict(Elapsed(10.0, 90.0), StageTimes(*seconds, threads), cores, encoded=encoded).remedy
            assert set(re.findall(r"--[a-z-]+", text)) <= options
            assert all(prep.get_command(click.Context(prep), name) for name in re.findall(r"alexnet-prep (\S+)", text))


def test_shares_are_of_all_seconds():
    assert stage_percentages(Elapsed(30.0, 170.0), StageTimes(2.0, 10.0, 16.0, 1.0, 2)) == {
        "disk_percent": 1.0,
        "decode_percent": 5.0,
        "graph_percent": 8.0,
        "copy_percent": 0.5,
    }
    assert set(stage_percentages(Elapsed(0.0, 0.0), StageTimes()).values()) == {0.0}


# --- the meter, the stages and the verdict together ------------------------------------------------------------------


class Slowed:
    """A simulated stream: disk, decode, graph and copy of so many seconds, and what it waited for."""

    def __init__(self, clock, seconds, ahead, batches=100):
        self._waits = [0.0] * 4
        self._batches = loader_ahead(clock, [seconds] * batches, ahead, self._waits)

    def __iter__(self):
        return self._batches

    def stages(self):
        return StageTimes(*self._waits, 2)


def measured(seconds, step, ahead):
    """The meter after a training whose steps take so long, with a pause in the middle."""
    clock = Clock()
    meter = StallMeter(Slowed(clock, seconds, ahead), clock=clock)
    for k in meter:
        clock.sleep(step)
        if k == 50:
            with meter.paused():
                clock.sleep(100.0)
    return meter


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("slow", range(4), ids=STAGES)
def test_the_slowed_stage_is_named(slow, ahead):
    seconds = [1.0] * 4
    seconds[slow] = 9.0
    meter = measured(seconds, 2.0, ahead)
    assert verdict(meter.total(), meter.stages(), 2).stage == STAGES[slow]


@given(st.lists(st.integers(0, 9), min_size=4, max_size=4), st.integers(1, 9), st.integers(0, 3))
def test_the_parts_add_up_to_the_stall(seconds, step, ahead):
    """What the reader waits for is all of its waiting: nothing is left for the host, the start-up is in neither."""
    meter = measured([float(each) for each in seconds], float(step), ahead)
    assert sum(stage_percentages(meter.total(), meter.stages()).values()) == pytest.approx(meter.total().stall_percent)
    assert meter.startup_seconds == sum(seconds)
    found = verdict(meter.total(), meter.stages(), 2)
    assert found.stage in STAGES if meter.total().waiting_seconds else not found.stage


def test_batches_that_do_not_say_what_they_wait_for():
    clock = Clock()
    meter = StallMeter(loader_ahead(clock, [[1.0]] * 9, 0), clock=clock)
    for _ in meter:
        clock.sleep(1.0)
    assert meter.stages() == StageTimes() and verdict(meter.total(), meter.stages(), 2).stage == HOST
