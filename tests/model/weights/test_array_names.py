"""Prefixes that wrappers leave in the names of arrays: which are removed, what is said, what is left alone."""

from pathlib import Path

import pytest
from alexnet_dali.model.weights.array_names import plain_names
from alexnet_dali.pipeline.errors import TrainingError

KNOWN = {"features.0.weight", "features.3.bias", "classifier.6.bias"}
FILE = Path("weights.npz")


def read_as(*names):
    arrays, notes = plain_names({name: name for name in names}, KNOWN.__contains__, FILE)
    return arrays, " ".join(notes)


@pytest.mark.parametrize(
    "wrapped, said",
    [
        ("{}", ""),
        ("module.{}", "without 'module.'"),
        ("_orig_mod.{}", "without '_orig_mod.'"),
        ("_orig_mod.module.{}", "without '_orig_mod.module.'"),
        ("model.{}", "without 'model.'"),
        ("state_dict.model.module.{}", "without 'state_dict.model.module.'"),
    ],
)
def test_a_common_prefix_is_removed_and_said(wrapped, said):
    arrays, note = read_as(*(wrapped.format(name) for name in sorted(KNOWN)))
    assert arrays == {name: wrapped.format(name) for name in KNOWN}
    assert note == (f"the arrays' names are read {said}" if said else "")


def test_a_wrapper_around_a_part():
    arrays, note = read_as("features.module.0.weight", "features.module.3.bias", "classifier.6.bias")
    assert arrays.keys() == KNOWN and note == "the arrays' names are read 'features.module.' as 'features.'"
    arrays, note = read_as("model.features.module.0.weight", "model.classifier.6.bias")
    assert arrays.keys() < KNOWN and "'model.features.module.' as 'features.', without 'model.'" in note


def test_many_wrappers_are_not_all_listed():
    known = {f"layer{k}.weight" for k in range(9)}
    _, notes = plain_names({name.replace(".", ".module."): 0 for name in sorted(known)}, known.__contains__, FILE)
    assert notes[0].count(" as ") == 3 and notes[0].endswith(", and 6 other prefixes")


@pytest.mark.parametrize(
    "names",
    [
        ("model.features.0.weight", "loss.weight"),  # not common to all
        ("features.0.weight", "other.features.3.bias"),
        ("net.a.weight", "net.b.weight"),  # another net
        ("module.a.weight",),
    ],
)
def test_other_names_are_left_alone(names):
    assert read_as(*names) == ({name: name for name in names}, "")


def test_two_arrays_of_one_name_are_an_error():
    with pytest.raises(TrainingError) as caught:
        read_as("features.0.weight", "module.features.0.weight")
    assert caught.value.message == (
        "weights.npz: has features.0.weight twice, as features.0.weight and as module.features.0.weight"
    )
