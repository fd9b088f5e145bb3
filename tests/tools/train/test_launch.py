"""How many processes, which way, and what they must have in common; which errors are a missing process."""

from dataclasses import replace

import pytest
import tiny
import torch
from alexnet_dali.model.recipes.schedules import EarlyStop
from alexnet_dali.model.training.distributed import Team
from alexnet_dali.pipeline.errors import UsageError
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.tools.train.configure import choose_parallelism, world_size
from alexnet_dali.tools.train.run import facts
from alexnet_dali.tools.train.run_summary import _missing_classes

CPU = torch.device("cpu")


def shared(processes=None, parallel=None, saved=None, model="alexnet", recipe="source2012"):
    return tuple(choose_parallelism(saved, processes, parallel, CPU, model, recipe).values())


def saved(processes, parallel):
    return {"config": {"processes": processes, "parallel": parallel, "model": "alexnet", "recipe": "source2012"}}


@pytest.mark.parametrize(
    "asked, found",
    [
        ({}, (1, "alone")),
        ({"processes": 2}, (2, "columns")),
        ({"parallel": "columns"}, (2, "columns")),
        ({"processes": 3}, (3, "data")),
        ({"processes": 2, "recipe": "one-gpu"}, (2, "data")),
        ({"processes": 2, "model": "resnet18"}, (2, "data")),
        ({"saved": saved(1, "alone")}, (1, "alone")),
        ({"saved": saved(2, "data")}, (2, "data")),
        ({"saved": saved(2, "data"), "processes": 3}, (3, "data")),
        ({"saved": saved(3, "data"), "processes": 2}, (2, "columns")),
        ({"saved": saved(2, "columns"), "processes": 1}, (1, "alone")),
    ],
    ids=str,
)
def test_as_asked_as_it_was_or_as_the_paper(monkeypatch, asked, found):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert shared(**asked) == found


@pytest.mark.parametrize(
    "outside, asked, words",
    [
        ("", {"processes": 1, "parallel": "data"}, "--parallel data needs several processes"),
        ("", {"processes": 3, "parallel": "columns"}, "--parallel columns requires 2 processes, not 3"),
        ("1", {"processes": 2}, "--processes 2, but WORLD_SIZE says that 1 were started from outside"),
        ("4", {"processes": 2}, "--processes 2, but WORLD_SIZE says that 4 were started from outside"),
        ("many", {}, "WORLD_SIZE is 'many', not a number"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(monkeypatch, outside, asked, words):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if outside:
        monkeypatch.setenv("WORLD_SIZE", outside)
    with pytest.raises(UsageError, match=words):
        shared(**asked)


def test_torchruns_number_holds(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert world_size() == 4 and shared() == (4, "data")


def test_checkpoints_are_told_apart_by_their_weights(tmp_path):
    shard_set = tiny.few_shards(tmp_path)
    config = tiny.config(shard_set)

    def of(**changes):
        checkpoint = {"steps_done": 3, "model": {"conv1.weight": torch.ones(2, 3)}, **changes}
        return facts(config, shard_set, stats.load_stats(shard_set), checkpoint, None)

    assert of() == of() and of()["--device"] == "cpu"
    assert of(steps_done=4)["step of last.pt"] != of()["step of last.pt"]
    other = of(model={"conv1.weight": torch.ones(2, 3).index_fill(0, torch.tensor([1]), 2.0)})
    assert [name for name in of() if of()[name] != other[name]] == ["weights of last.pt"]


def test_an_error_of_its_own_is_nobodys_absence():
    error = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert Team(0, 2, 0, 2).diagnose(error) is error
    assert Team().diagnose(RuntimeError("Connection closed by peer")).args == ("Connection closed by peer",)


def test_an_early_stop_is_over_and_says_so():
    stop = EarlyStop(2)
    for error in (0.5, 0.6, 0.5):
        assert not stop.now
        stop.observe(error)
    assert stop.now and stop.waited == 2


def test_a_class_without_photos_to_train_on_is_said(tmp_path):
    shard_set = tiny.few_shards(tmp_path)
    assert _missing_classes(shard_set) == []
    (said,) = _missing_classes(replace(shard_set, classes=(*shard_set.classes, *(f"n{k}" for k in range(1, 7)))))
    assert said == ("warning: 6 classes have no training photos and will never be predicted: n1, n2, n3, n4, n5, ...")
