"""Every knob of both recipes, as docs/paper.md has it."""

import json
from dataclasses import replace

import pytest
import tiny
from alexnet_dali.model.alexnet import CONV1_EDGE, AlexNet
from alexnet_dali.model.lrn import AcrossMaps, WithinMap
from alexnet_dali.model.recipes import RECIPES, Recipe, paper, recipe, source2012
from alexnet_dali.pipeline.errors import UsageError

# knob, how to read it off a recipe, paper, source2012
KNOBS = [
    ("layer 1 pools before its ReLU", lambda r: r.net.pool_before_relu, False, True),
    ("scale of the sum of squares", lambda r: r.net.lrn_scale, 1e-4, 1e-4 / 5),
    ("second normalisation of layer 2", lambda r: r.net.within_map, False, True),
    ("std of conv3-5", lambda r: r.net.deep_std, 0.01, 0.03),
    ("decay of weights", lambda r: r.decay, 0.0005, 0.0005),
    ("decay of biases", lambda r: r.decay_biases, True, False),
    ("schedule", lambda r: r.schedule, "plateau", "diary"),
    ("epochs", lambda r: r.epochs, 90, 91),
    ("batch", lambda r: r.batch_size, 128, 128),
    ("crop", lambda r: r.augmentation.crop, 224, 224),
    ("crops are drawn", lambda r: r.augmentation.random_crop, True, True),
    ("places that share crop and flip", lambda r: r.augmentation.shared, 1, 32),
    ("mean", lambda r: r.mean, "image", "image"),
    ("lighting", lambda r: r.light(91).scale, "eigenvalue", "stddev"),
    ("division by 1.1", lambda r: r.light(91).divide, False, True),
    ("lighting off from epoch", lambda r: r.light(91).until_epoch, None, 67),
    ("lighting off from epoch, of 182", lambda r: r.light(182).until_epoch, None, 134),
    ("light and gain at first", lambda r: r.light(91).at(0), ("eigenvalue", 1.0), ("stddev", 1 / 1.1)),
    ("light and gain in epoch 66", lambda r: r.light(91).at(66), ("eigenvalue", 1.0), ("stddev", 1 / 1.1)),
    ("light and gain in epoch 67", lambda r: r.light(91).at(67), ("eigenvalue", 1.0), ("none", 1.0)),
]


@pytest.mark.parametrize("read, text, program", [knob[1:] for knob in KNOBS], ids=[knob[0] for knob in KNOBS])
def test_knob(read, text, program):
    assert (read(recipe("paper")), read(recipe("source2012"))) == (text, program)


@pytest.mark.parametrize("name, scale, within", [("source2012", 2e-5, True), ("paper", 1e-4, False)])
def test_the_net_of_a_recipe_has_its_norms(monkeypatch, name, scale, within):
    """Both: conv1's edge of three below and right; k = 2, five maps, inside a column."""
    tiny.shrink(monkeypatch)
    net = AlexNet(4, recipe(name).net)
    assert CONV1_EDGE == 3 and net.conv1.padding == (0, 0)
    assert isinstance(net.norm, AcrossMaps)
    assert (net.norm.scale, net.norm.size, net.norm.constant, net.norm.columns) == (scale, 5, 2.0, 2)
    assert isinstance(net.norm_within, WithinMap) is within
    if within:
        assert (net.norm_within.scale, net.norm_within.size, net.norm_within.constant) == (0.001 / 25, 5, 1.0)


def test_paper_states_its_difference_only():
    assert replace(source2012(), **{name: getattr(paper(), name) for name in paper().described()}) == paper()
    assert list(RECIPES) == ["source2012", "paper"] and all(RECIPES[name]().name == name for name in RECIPES)
    assert all(RECIPES[name]().summary for name in RECIPES)


def test_described_is_plain_json():
    described = json.loads(json.dumps(source2012().described()))
    assert described == source2012().described()
    assert described["net"]["deep_std"] == 0.03 and described["shared"] == 32


def test_an_unknown_recipe_is_named_with_the_known_ones():
    with pytest.raises(UsageError) as caught:
        recipe("caffe")
    assert caught.value.message == "no recipe is called 'caffe'"
    assert caught.value.hint == "choose one of source2012, paper"


@pytest.mark.parametrize(
    "change, text",
    [
        ({"schedule": "cosine"}, "recipe mine: schedule cosine, lighting stddev: not among"),
        ({"lighting": "sun"}, "recipe mine: schedule diary, lighting sun: not among"),
        ({"batch_size": 0}, "recipe mine: batch 0, epochs 91, decay 0.0005"),
        ({"epochs": 0}, "recipe mine: batch 128, epochs 0, decay 0.0005"),
        ({"decay": -1.0}, "recipe mine: batch 128, epochs 91, decay -1.0"),
    ],
)
def test_a_recipe_checks_itself(change, text):
    with pytest.raises(UsageError) as caught:
        Recipe("mine", "", **change)
    assert text in caught.value.message
