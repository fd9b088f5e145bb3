"""alexnet-train --max-stall as people type it: what it takes, when it fails, what it says and leaves behind."""

import dataclasses
import time
from types import SimpleNamespace

import click
import pytest
import tiny
import torch
from alexnet_dali.model.training import checkpoint, metrics
from alexnet_dali.model.training.trainer import Trainer
from alexnet_dali.pipeline.errors import TrainingError
from alexnet_dali.pipeline.stream import bottleneck
from alexnet_dali.pipeline.stream.record_reader import RecordReader
from alexnet_dali.pipeline.stream.stall import Elapsed, StageTimes
from alexnet_dali.tools import console
from alexnet_dali.tools.train.cli import Percent, train
from alexnet_dali.tools.train.progress import check_stall

# DALI decodes: then records are looked up before it gets them, and a slow disk shows in every batch.
SHORT = (
    "--decode",
    "dali",
    "--device",
    "cpu",
    "--epochs",
    2,
    "--batch-size",
    2,
    "--log-every",
    2,
)  # of three steps each


@pytest.fixture(scope="module", autouse=True)
def small():
    """Steps that take no time, so that no slowness of the machine can hide the slowness of a disk."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink(patch)
        patch.setattr(Trainer, "_update", lambda *_: (torch.tensor(1.0), torch.tensor(0)))
        yield


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return tiny.few_shards(tmp_path_factory.mktemp("few"))


@pytest.fixture
def slow_disk(monkeypatch):
    """Every look at the shards takes longer than a step."""
    read = RecordReader.read

    def slow(feed, records):
        time.sleep(0.1)
        return read(feed, records)

    monkeypatch.setattr(RecordReader, "read", slow)


@pytest.fixture
def run_train(capfd):
    """Run alexnet-train to its exit: its code, and what it said on both outputs."""

    def run(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            console.run(train, [str(argument) for argument in arguments])
        said = capfd.readouterr()
        return left.value.code, said.out, said.err

    return run


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 1.0), ("1", 1.0), ("0.5%", 0.5), (" 2.5 % ", 2.5), ("0", 0.0), ("100%", 100.0)]
)
def test_percentages(text, share):
    assert Percent().convert(text, None, None) == share


@pytest.mark.parametrize("text", ["", "%", "one", "1%%", "-1", "100.1%", "nan", "inf", "1/2"])
def test_no_percentages(text, run_train):
    with pytest.raises(click.BadParameter, match=r"is not a percentage such as 1%|is not between 0% and 100%"):
        Percent().convert(text, None, None)


def test_a_wrong_percentage_is_told_before_anything_begins(few, tmp_path, run_train):
    code, out, err = run_train("--shards", few.root, "--run", tmp_path / "run", "--max-stall", "much", *SHORT)
    assert (code, out) == (2, "") and "--max-stall" in err and "'much' is not a percentage such as 1% or 0.5%" in err
    assert not (tmp_path / "run").exists()


def test_a_run_that_waits_too_long_fails_at_its_end(few, tmp_path, run_train, slow_disk):
    """All that an undisturbed run leaves is there; the code and two lines are the difference."""
    run = tmp_path / "run"
    code, out, err = run_train("--shards", few.root, "--run", run, "--max-stall", "5%", *SHORT)
    assert code == 1
    said, hint = err.splitlines()
    assert (
        said.startswith("error: stalled ")
        and "% of the time, more than --max-stall 5%: disk is the bottleneck: " in said
    )
    assert hint.startswith("  try: alexnet-prep stage ")
    assert out.splitlines()[-1] == f"last checkpoint {run / 'last.pt'}, best {run / 'best.pt'}"
    assert checkpoint.load(run / "last.pt")["steps_done"] == 6
    assert "max_stall" not in checkpoint.load(run / "last.pt")["config"]  # of this call, not of the run
    lines = metrics.read(run / "metrics.jsonl")
    assert [line["kind"] for line in lines] == ["step", "epoch", "step", "step", "epoch"]
    for line in lines:
        assert set(bottleneck.SHARES) <= line.keys()
        assert line["disk_percent"] > 20
        assert sum(line[name] for name in bottleneck.SHARES) == pytest.approx(line["stall_percent"], abs=5)


def test_the_remedy_is_for_the_run_s_own_shards(few):
    """Decoding is the bottleneck: with raw shards the remedy is not to build them."""

    def told(encoding):
        spent = SimpleNamespace(total=lambda: Elapsed(10.0, 90.0), stages=lambda: StageTimes(0.0, 9.0, 0.0, 0.0, 64))
        shard_set = dataclasses.replace(few, encoding=encoding)
        trainer = SimpleNamespace(meter=spent, device=torch.device("cpu"), shard_set=shard_set)
        with pytest.raises(TrainingError, match="decode is the bottleneck") as caught:
            check_stall(trainer, 5.0)
        return caught.value.hint

    assert "build-lmdb --encoding raw" in told("jpeg")
    assert "--encoding raw" not in told("raw") and told("raw").startswith("more cores: ")


@pytest.mark.parametrize("limit", ["100%", None])
def test_within_the_limit_or_without_one_it_is_no_failure(few, tmp_path, run_train, slow_disk, limit):
    options = ("--max-stall", limit) if limit else ()
    code, _, err = run_train("--shards", few.root, "--run", tmp_path / "run", *options, *SHORT, "--steps", 3)
    assert (code, err) == (0, "")


def test_the_start_up_and_the_evaluation_are_no_stall(few, tmp_path, run_train, slow_disk):
    """Each waits for the disk; the one step between them has been waited for in the start-up."""
    options = ("--device", "cpu", "--epochs", 1, "--batch-size", 6, "--max-stall", "0%")
    code, out, err = run_train("--shards", few.root, "--run", tmp_path / "run", *options)
    assert (code, err) == (0, "") and "stalled 0.00% of the time (start-up " in out


def test_nothing_to_do_is_no_failure(few, tmp_path, run_train, slow_disk):
    run = tmp_path / "run"
    assert run_train("--shards", few.root, "--run", run, *SHORT)[0] == 0
    code, out, err = run_train("--run", run, "--resume", "--max-stall", "0%")
    assert (code, err) == (0, "") and "all 6 steps are done" in out


def test_a_limit_may_be_given_when_a_run_goes_on(few, tmp_path, run_train, slow_disk):
    """It judges the steps of that call alone."""
    run = tmp_path / "run"
    assert run_train("--shards", few.root, "--run", run, *SHORT, "--steps", 2)[0] == 0
    code, _, err = run_train("--run", run, "--resume", "--epochs", 2, "--max-stall", "0.5")
    assert code == 1 and "more than --max-stall 0.5%" in err
    assert checkpoint.load(run / "last.pt")["steps_done"] == 6


def test_a_stopped_run_ends_with_its_signal_s_code(few, tmp_path, run_train, slow_disk, monkeypatch):
    """It is not at its end, and will go on."""
    monkeypatch.setattr("alexnet_dali.tools.process.Stop.__call__", lambda stop: setattr(stop, "signal", 15) or True)
    code, _, err = run_train("--shards", few.root, "--run", tmp_path / "run", "--max-stall", "0%", *SHORT)
    assert code == 143 and "stopped and saved after step 1" in err and "max-stall" not in err
