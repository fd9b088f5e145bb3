"""Every knob of the two recipes of 2012, as docs/paper.md has it; and what distinguishes each of the others."""

import json
from dataclasses import replace

import pytest
import tiny
from alexnet_dali.model.nets.alexnet import CONV1_EDGE, AlexNet, NetOptions
from alexnet_dali.model.nets.lrn import AcrossMaps, WithinMap
from alexnet_dali.model.recipes.diaries import DIARIES
from alexnet_dali.model.recipes.recipe import RECIPES, Recipe, paper, recipe, source2012
from alexnet_dali.model.recipes.schedules import OneCycle, Plateau, Steps
from alexnet_dali.pipeline.errors import UsageError
from alexnet_dali.pipeline.plan.plan import Augmentation
from alexnet_dali.pipeline.plan.resized_crop import ResizedCrop

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
    assert all(RECIPES[name]().name == name for name in RECIPES)
    assert len({RECIPES[name]().summary for name in RECIPES}) == len(RECIPES)


# What each recipe has otherwise than source2012, name and words left out: the net's options, then the rest.
DIFFERENCES: dict[str, tuple[dict, dict]] = {
    "source2012": ({}, {}),
    "paper": (
        {"pool_before_relu": False, "lrn_scale": 1e-4, "within_map": False, "deep_std": 0.01},
        {
            "shared": 1,
            "lighting": "eigenvalue",
            "divide": False,
            "decay_biases": True,
            "schedule": "plateau",
            "epochs": 90,
        },
    ),
    "one-gpu": ({"columns": 1}, {"diary": "145-half", "epochs": 96}),
    "six-conv": ({"conv6": True}, {}),
    "six-conv-2009": (
        {"conv6": True},
        {
            "diary_after": "146-2009",
            "takes": ("conv1", "conv2", "conv3", "conv4", "conv5"),
        },
    ),
    "six-conv-2011": (
        {"conv6": True, "low": 2048},
        {
            "diary_after": "146-2011",
            "takes": ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6"),
        },
    ),
    "no-lrn": ({"norm": "none", "within_map": False}, {"diary": "148", "epochs": 97}),
    "pool-2x2": ({"pool": 2}, {"diary": "147", "epochs": 90}),
    "no-talk": ({"talk": False}, {"diary": "150", "epochs": 92}),
    "no-lighting": ({}, {"lighting": "none", "divide": False}),
    "no-dropout": ({"dropout": False}, {}),
    "no-crops": ({}, {"random_crop": False}),
    "tanh": ({"activation": "tanh"}, {}),
    "modern": (
        {"norm": "batch", "within_map": False, "pool_before_relu": False, "init": "kaiming"},
        {
            "shared": 1,
            "lighting": "eigenvalue",
            "divide": False,
            "mean": "rgb",
            "schedule": "one-cycle",
            "rate": 0.01,
            "precision": "bf16",
            "epochs": 90,
        },
    ),
    "torchvision": (
        {"pool_before_relu": False, "within_map": False},
        {
            "shared": 1,
            "mean": "rgb",
            "lighting": "none",
            "divide": False,
            "resized": True,
            "decay": 1e-4,
            "decay_biases": True,
            "schedule": "steps",
            "batch_size": 256,
            "epochs": 90,
        },
    ),
}


SCHEDULES_OF_NOW = {"paper": Plateau(patience=5), "modern": OneCycle(), "torchvision": Steps()}


def test_all_recipes_are_in_the_table():
    assert list(RECIPES) == list(DIFFERENCES)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_recipe_states_its_difference_only(name):
    base, ours = source2012(), recipe(name)
    net, rest = DIFFERENCES[name]
    assert replace(base.net, **net) == ours.net and all(getattr(base.net, knob) != net[knob] for knob in net)
    words = {"name": ours.name, "summary": ours.summary, "published": ours.published}
    assert replace(base, net=ours.net, **words, **rest) == ours
    assert all(getattr(base, knob) != rest[knob] for knob in rest)


def test_what_the_authors_reached_is_told_of_each_net_alone():
    """40.7 / 18.2 is source2012's; a recipe that says nothing must not inherit it."""
    told = {name: recipe(name).published for name in RECIPES if recipe(name).published}
    assert len(set(told.values())) == len(told) - 1  # no dropout and no crops: "substantial overfitting", both
    assert not {"paper", "six-conv-2011", "tanh", "modern", "torchvision"} & set(told)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_recipe_runs_as_long_as_its_diary(name):
    ours = recipe(name)
    schedule = ours.rates(ours.epochs)
    if ours.schedule == "diary":
        assert schedule == DIARIES[ours.diary] and ours.epochs == DIARIES[ours.diary].epochs
    else:
        assert schedule == SCHEDULES_OF_NOW[name] and ours.epochs == 90


def test_each_run_has_a_plateau_of_its_own():
    one = paper().rates(90)
    assert isinstance(one, Plateau)
    one.observe(0.5)
    assert paper().rates(90) == Plateau()


@pytest.mark.parametrize(
    "name, diary, epochs",
    [
        ("six-conv", "146-2012", 54),
        ("source2012", "146-2012", 54),
        ("six-conv-2009", "146-2009", 7),
        ("six-conv-2011", "146-2011", 9),
    ],
)
def test_with_weights_of_another_run_it_goes_slower(name, diary, epochs):
    ours = recipe(name)
    assert ours.with_weights() == replace(ours, diary=diary, epochs=epochs)
    assert ours.with_weights().rates(90) == DIARIES[diary]


@pytest.mark.parametrize("name", ["paper", "modern", "torchvision"])
def test_a_schedule_without_a_diary_is_the_same_with_weights(name):
    assert recipe(name).with_weights() == recipe(name)


@pytest.mark.parametrize(
    "name, first, last, until",
    [
        ("one-gpu", ("stddev", 1 / 1.1), ("none", 1.0), 66),
        ("no-lrn", ("stddev", 1 / 1.1), ("none", 1.0), 69),
        ("no-talk", ("stddev", 1 / 1.1), ("none", 1.0), 66),
        ("pool-2x2", ("stddev", 1 / 1.1), ("stddev", 1 / 1.1), None),
        ("no-lighting", ("none", 1.0), ("none", 1.0), 67),
        ("modern", ("eigenvalue", 1.0), ("eigenvalue", 1.0), None),
        ("torchvision", ("none", 1.0), ("none", 1.0), None),
    ],
)
def test_the_lighting_of_the_others(name, first, last, until):
    ours = recipe(name)
    light = ours.light(ours.epochs)
    assert (light.at(0), light.at(ours.epochs - 1), light.until_epoch) == (first, last, until)


def test_no_crops_is_the_central_window():
    assert not recipe("no-crops").augmentation.random_crop


def test_the_reference_of_torchvision_resizes_its_windows():
    assert recipe("torchvision").augmentation == Augmentation(
        resized=ResizedCrop(area=(0.08, 1.0), aspect=(3 / 4, 4 / 3))
    )
    assert [name for name in RECIPES if recipe(name).augmentation.resized] == ["torchvision"]


def test_a_net_of_every_recipe_can_be_made(monkeypatch):
    tiny.shrink(monkeypatch)
    for name in RECIPES:
        net = AlexNet(4, recipe(name).net)
        assert net.options == NetOptions(**recipe(name).described()["net"]), name


def test_described_is_plain_json():
    described = json.loads(json.dumps(source2012().described()))
    assert described == source2012().described()
    assert described["net"]["deep_std"] == 0.03 and described["shared"] == 32


def test_an_unknown_recipe_is_named_with_the_known_ones():
    with pytest.raises(UsageError) as caught:
        recipe("caffe")
    assert caught.value.message == "unknown recipe 'caffe'"
    assert caught.value.hint == f"choose one of {', '.join(RECIPES)}"
    assert caught.value.hint.startswith("choose one of source2012, paper, one-gpu, six-conv")


@pytest.mark.parametrize(
    "change, text",
    [
        ({"schedule": "cosine"}, "recipe mine: schedule cosine or lighting stddev is not among"),
        ({"lighting": "sun"}, "recipe mine: schedule diary or lighting sun is not among"),
        ({"batch_size": 0}, "recipe mine: batch 0, epochs 91, decay 0.0005"),
        ({"epochs": 0}, "recipe mine: batch 128, epochs 0, decay 0.0005"),
        ({"decay": -1.0}, "recipe mine: batch 128, epochs 91, decay -1.0"),
    ],
)
def test_a_recipe_checks_itself(change, text):
    with pytest.raises(UsageError) as caught:
        Recipe("mine", "", **change)
    assert text in caught.value.message
