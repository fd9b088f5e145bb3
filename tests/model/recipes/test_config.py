"""A run's configuration: what it refuses, and what --resume may change."""

import json
from dataclasses import fields

import pytest
from alexnet_dali.model.recipes.config import CHANGEABLE, Config, option, resumed
from alexnet_dali.model.recipes.recipe import RECIPES
from alexnet_dali.pipeline.errors import UsageError

GOOD = {
    "shards": "out",
    "recipe": "source2012",
    "epochs": 91,
    "batch_size": 128,
    "rate": 0.01,
    "precision": "fp32",
    "device": "cpu",
}


@pytest.mark.parametrize(
    "change, message, hint",
    [
        ({"recipe": "caffe"}, "unknown recipe 'caffe'", f"choose one of {', '.join(RECIPES)}"),
        ({"epochs": 0}, "--epochs 0 is less than 1", ""),
        ({"batch_size": 0}, "--batch-size 0 is less than 1", ""),
        ({"log_every": 0}, "--log-every 0 is less than 1", ""),
        ({"save_every": 0}, "--save-every 0 is less than 1", ""),
        ({"processes": 0}, "--processes 0 is less than 1", ""),
        ({"save_every": -3}, "--save-every -3 is less than 1", ""),
        ({"crop": 0}, "--crop 0 is less than 1", ""),
        ({"steps": -1}, "--steps -1, --seed 0: out of range", ""),
        ({"seed": -1}, "--steps 0, --seed -1: out of range", ""),
        ({"seed": 1 << 63}, f"--steps 0, --seed {1 << 63}: out of range", ""),
        ({"rate": 0.0}, "--rate 0.0 is not between 0 and 100", "the paper's is 0.01 for 1,000 classes"),
        ({"rate": -0.01}, "--rate -0.01 is not between 0 and 100", "the paper's is 0.01 for 1,000 classes"),
        ({"rate": 100.0}, "--rate 100.0 is not between 0 and 100", "the paper's is 0.01 for 1,000 classes"),
        ({"rate": float("nan")}, "--rate nan is not between 0 and 100", "the paper's is 0.01 for 1,000 classes"),
        ({"precision": "fp8"}, "--precision fp8 is not one of fp32, tf32, bf16", ""),
        ({"precision": "tf32"}, "--precision tf32 needs a GPU", "on the CPU choose fp32 or bf16"),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_by_name(change, message, hint):
    with pytest.raises(UsageError) as caught:
        Config(**GOOD | change)
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == (message, hint, 2)


@pytest.mark.parametrize(
    "change",
    [{"seed": (1 << 63) - 1}, {"steps": 1}, {"rate": 99.0}, {"precision": "tf32", "device": "cuda"}, {"batch_size": 1}],
    ids=str,
)
def test_the_ends_of_the_ranges_are_allowed(change):
    assert Config(**GOOD | change).described() == Config(**GOOD).described() | change


def test_described_is_plain_json_and_makes_the_same_run():
    config = Config(**GOOD, steps=7)
    assert Config(**json.loads(json.dumps(config.described()))) == config


@pytest.mark.parametrize(
    "asked",
    [
        {"shards": "elsewhere"},
        {"epochs": 100},
        {"steps": 5},
        {"log_every": 1},
        {"save_every": 1},
        {"device": "cuda"},
        {"decode": "threads"},
        {"processes": 2, "parallel": "columns"},
        {"early_stop": 3},
    ],
    ids=str,
)
def test_resume_may_change(asked):
    assert resumed(Config(**GOOD).described(), asked) == Config(**GOOD | asked)


@pytest.mark.parametrize(
    "asked, told",
    [
        ({"rate": 0.1}, "--rate was 0.01, not 0.1"),
        ({"recipe": "paper"}, "--recipe was source2012, not paper"),
        ({"batch_size": 64}, "--batch-size was 128, not 64"),
        ({"precision": "bf16"}, "--precision was fp32, not bf16"),
        ({"model": "resnet18"}, "--model was alexnet, not resnet18"),
        ({"crop": 192}, "--crop was 224, not 192"),
        ({"seed": 3}, "--seed was 0, not 3"),
        ({"init_from": "runs/a/best.pt"}, "--init-from was none, not runs/a/best.pt"),
        ({"seed": 3, "rate": 0.1, "steps": 9}, "--seed was 0, not 3; --rate was 0.01, not 0.1"),
    ],
    ids=str,
)
def test_resume_refuses_by_name(asked, told):
    with pytest.raises(UsageError) as caught:
        resumed(Config(**GOOD).described(), asked)
    assert caught.value.message == f"--resume cannot change these options of the run: {told}"
    assert caught.value.hint == "omit them, or start a new run with another --run"


def test_every_field_may_change_or_may_not():
    """A new field has to be put on one side: this list is written by hand."""
    fixed = {"recipe", "batch_size", "rate", "precision", "seed", "model", "crop", "init_from", "schedule"}
    assert {field.name for field in fields(Config)} == fixed | set(CHANGEABLE) and not fixed & set(CHANGEABLE)


def test_the_same_value_again_is_no_change():
    assert resumed(Config(**GOOD).described(), {"rate": 0.01, "seed": 0, "epochs": 91}) == Config(**GOOD)


def test_a_changed_value_is_checked_like_a_new_one():
    with pytest.raises(UsageError, match="--epochs 0 is less than 1"):
        resumed(Config(**GOOD).described(), {"epochs": 0})


def test_fields_that_this_version_does_not_know_are_left_out():
    assert resumed(Config(**GOOD).described() | {"from_the_future": 1}, {}) == Config(**GOOD)


def test_a_gpus_run_goes_on_without_a_gpu():
    saved = Config(**GOOD | {"precision": "tf32", "device": "cuda"}).described()
    assert resumed(saved, {"device": "cpu"}) == Config(**GOOD)


def test_options_are_named_as_typed():
    assert option("batch_size") == "--batch-size"
