"""The two known failures: a loss that is no number, a loss stuck at ln(classes)."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from alexnet_dali.model.nets.alexnet import AlexNet
from alexnet_dali.model.nets.factory import NormalizedNet
from alexnet_dali.model.training.divergence import NEAR, DivergenceMonitor, dead_share, photos_of
from alexnet_dali.pipeline.errors import TrainingError
from alexnet_dali.pipeline.stream.stream import Batch


@pytest.mark.parametrize("loss, said", [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_loss_that_is_no_number_ends_the_run(loss, said):
    with pytest.raises(TrainingError) as caught:
        DivergenceMonitor(1000).check(loss, 21, 40)
    assert caught.value.message == f"the loss is {said} between steps 21 and 40"
    assert "smaller --rate" in caught.value.hint and "checkpoint" in caught.value.hint


def test_any_number_is_a_loss():
    for loss in (0.0, 1e30, -1.0):
        DivergenceMonitor(10).check(loss, 1, 2)


def test_stuck_is_said_once_after_patience():
    watch = DivergenceMonitor(10)
    said = [step for step in range(20, 1000, 20) if watch.stuck(math.log(10) + 0.01 * (-1) ** (step // 20), step)]
    assert said == [120]  # the first line at ln(10) is step 20's; a hundred steps later it is said


def test_many_classes_have_more_patience():
    """A net of 1,000 classes may stay at ln(1000) for 2,000 steps before it begins to learn."""
    watch = DivergenceMonitor(1000)
    assert [step for step in range(0, 4000, 100) if watch.stuck(math.log(1000), step)] == [2000]


@pytest.mark.parametrize("away", [1.01 * NEAR, -1.01 * NEAR])
def test_a_loss_that_moves_starts_the_wait_anew(away):
    watch = DivergenceMonitor(10)
    chance = math.log(10)
    assert not any(watch.stuck(chance, step) for step in (0, 50, 90))
    assert not watch.stuck(chance + away, 95)
    assert not any(watch.stuck(chance, step) for step in (100, 150, 199))
    assert watch.stuck(chance, 200)


@pytest.fixture
def net(monkeypatch):
    tiny.shrink(monkeypatch)
    return AlexNet(4, seed=1)


def kill(net, units):
    """Make units of the last hidden layer answer below zero to anything."""
    with torch.no_grad():
        net.fc7.weight[:units] = 0
        net.fc7.bias[:units] = -1


PICTURES = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 60


def test_the_share_of_dead_units(net):
    assert dead_share(net, PICTURES) == 0.0
    kill(net, 48)
    net.train()
    assert dead_share(net, PICTURES) == 0.75
    assert net.training
    net.eval()
    assert dead_share(net, PICTURES) == 0.75 and not net.training


def test_a_unit_that_answers_to_one_picture_lives(net):
    """Dead is below zero for every picture of the batch."""
    with torch.no_grad():
        activity = torch.relu(net.fc6(net.convolutions(PICTURES).flatten(1)))
        direction = activity[0] - activity[1]
        net.fc7.weight.copy_(direction.expand(64, -1))
        net.fc7.bias.fill_(float(-(activity @ direction).mean()))
    assert dead_share(net, PICTURES) == 0.0
    assert dead_share(net, PICTURES[:1]) == 0.0 and dead_share(net, PICTURES[1:]) == 1.0


def test_a_dead_net_is_told_to_begin_again(net):
    kill(net, 60)
    text = DivergenceMonitor(4).stuck_message(net, PICTURES, 0.01, 120)
    assert text.startswith("the loss has stayed at ln(classes) = 1.386 for 100 steps, until step 120")
    assert "94% of the last hidden layer's units are dead" in text
    assert "start again with a smaller --rate than 0.01 (the rate depends on the number of classes" in text


def test_other_nets_are_told_of_the_rate_alone():
    """A net without ReLU has no dead units, and the paper says nothing of it."""
    net = NormalizedNet(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.GELU(), torch.nn.Linear(12, 4)), torch.ones(3))
    text = DivergenceMonitor(4).stuck_message(net, torch.full((2, 3, 2, 2), -60.0), 0.1, 120)
    assert text.startswith("the loss has stayed at ln(classes) = 1.386 for 100 steps, until step 120")
    assert text.endswith("start again with a smaller --rate than 0.1.")
    assert "dead" not in text and "paper" not in text


def test_a_living_net_may_still_begin_to_learn(net):
    text = DivergenceMonitor(4).stuck_message(net, PICTURES, 0.01, 120)
    assert "0% of the last hidden layer's units are dead" in text
    assert text.endswith("It may still start to learn.") and "--rate" not in text


@pytest.mark.parametrize(("whole", "whose"), [(3, "its photos"), (6, "the photos of this process")])
def test_of_a_step_that_is_shared_a_process_speaks_of_its_own_photos(shards, whole, whose):
    """The photo to blame may be another process's, so these must not be called all of the step's."""
    images, plan = torch.zeros(3, 3, 8, 8), SimpleNamespace(start=0, step=0, batch_size=whole)
    batch = Batch(images, torch.zeros(3, dtype=torch.int64), False, np.arange(3), plan)
    assert photos_of(batch, shards).startswith(f"; {whose} are all finite numbers: ")
    images[1, 2, 3, 4] = math.nan
    assert photos_of(batch, shards).startswith(f"; {whose} are not finite numbers: ")
    assert photos_of(batch, shards).endswith(", record 1") and ";" not in photos_of(batch, shards)[1:]
