"""Vectors of the last hidden layer: of a split and of single pictures, of our net and of others."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from alexnet_dali.model.analysis import features
from alexnet_dali.model.nets.factory import NormalizedNet
from alexnet_dali.model.weights.trained import load_trained
from alexnet_dali.pipeline.errors import TrainingError, UsageError
from alexnet_dali.pipeline.stream.dataset import ShardDataset
from torch import nn

pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def trained(shards, small_nets, tmp_path_factory):
    """A run of two steps on 60 photos of 4 classes."""
    run = tmp_path_factory.mktemp("run")
    tiny.trainer_of(shards, run / "run", batch_size=8, steps=2, rate=0.002).train()
    return load_trained(run / "run" / "last.pt")


def by_hand(trained, shard_set, split):
    """Pillow's pixels, the mean taken off in float64, our layers as they are named in the paper."""
    net, crop, rows = trained.net.eval(), trained.recipe.crop, []
    edge = (256 - crop) // 2
    for picture, _ in ShardDataset(shard_set, split):
        pixels = np.asarray(picture)[edge : edge + crop, edge : edge + crop]
        mean = {
            "image": trained.stats.mean_image[edge : edge + crop, edge : edge + crop],
            "rgb": trained.stats.mean_rgb,
        }[trained.recipe.mean]
        x = torch.from_numpy((pixels - mean).astype(np.float32).transpose(2, 0, 1)[None].copy())
        with torch.no_grad():
            x = net.convolutions(x).flatten(1)
            rows.append(torch.relu(net.fc7(torch.relu(net.fc6(x))))[0].numpy())
    return np.array(rows)


@pytest.mark.parametrize("mean", ["image", pytest.param("rgb", marks=pytest.mark.slow)])
def test_a_split_in_the_order_of_its_records(trained, shards, mean, monkeypatch):
    monkeypatch.setattr(features, "PICTURES_AT_ONCE", 9)
    trained = replace(trained, recipe=replace(trained.recipe, mean=mean))
    batches = list(features.of_split(trained, shards, "train"))
    assert [len(batch.records) for batch in batches] == [9] * 6 + [6]
    assert np.concatenate([batch.records for batch in batches]).tolist() == list(range(60))
    labels = np.concatenate([batch.labels for batch in batches])
    assert labels.tolist() == ShardDataset(shards, "train").targets
    vectors = np.concatenate([batch.vectors for batch in batches])
    assert vectors.dtype == np.float32 and vectors.shape == (60, tiny.HIDDEN)
    expected = by_hand(trained, shards, "train")
    assert np.ptp(expected, axis=0).max() > 0.1, "photos differ"
    np.testing.assert_allclose(vectors, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mean", ["image", "rgb", "imagenet"])
def test_single_pictures_agree_with_the_stream(trained, shards, mean):
    trained = replace(trained, recipe=replace(trained.recipe, mean=mean))
    pictures = [np.asarray(picture) for picture, _ in ShardDataset(shards, "val")]
    (batch,) = features.of_split(trained, shards, "val")
    vectors = features.of_pictures(trained, pictures)
    np.testing.assert_allclose(vectors, batch.vectors, rtol=1e-3, atol=1e-3)
    assert np.ptp(vectors, axis=0).max() > 1e-3


def test_only_the_first(trained, shards, monkeypatch):
    monkeypatch.setattr(features, "PICTURES_AT_ONCE", 8)
    batches = list(features.of_split(trained, shards, "train", first=11))
    assert [len(batch.vectors) for batch in batches] == [8, 3]
    assert [len(one) for batch in batches for one in batch] == [8] * 3 + [3] * 3


def test_the_net_is_left_as_it_was(trained, shards):
    trained.net.train()
    assert len(list(features.of_split(trained, shards, "val"))) == 1 and trained.net.training
    trained.net.eval()
    features.of_pictures(trained, [np.zeros((256, 256, 3), np.uint8)])
    assert not trained.net.training


def test_of_a_short_side_set_the_central_square_counts(trained, short_side_shards):
    (batch,) = features.of_split(trained, short_side_shards, "val")
    pictures = [np.asarray(picture) for picture, _ in ShardDataset(short_side_shards, "val")]
    assert any(picture.shape[0] != picture.shape[1] for picture in pictures)
    np.testing.assert_allclose(features.of_pictures(trained, pictures), batch.vectors, rtol=1e-3, atol=1e-3)


class Named(nn.Module):
    """A net that runs its layers in another order than it names them, with linear ones inside."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 4)
        self.drop = nn.Dropout(0.9)
        self.body = nn.Linear(3, 5)

    def forward(self, x):
        return self.head(self.drop(self.body(x.mean(dim=(2, 3))).relu()))


class Convolutional(nn.Module):
    """A net whose logits come from no linear layer, though it has one."""

    def __init__(self):
        super().__init__()
        self.squeeze, self.last = nn.Linear(3, 3), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.last(x * self.squeeze(x.mean(dim=(2, 3))).sigmoid()[..., None, None]).mean(dim=(2, 3))


def test_of_other_nets_what_the_last_linear_layer_sees():
    net = NormalizedNet(Named(), torch.tensor([2.0, 4.0, 8.0]))
    x = torch.randn(6, 3, 8, 8)
    with features.last_hidden(net) as look:
        vectors = look(x)
    means = (x / torch.tensor([2.0, 4, 8]).view(3, 1, 1)).mean(dim=(2, 3))
    torch.testing.assert_close(vectors, net.net.body(means).relu())
    assert not any(layer._forward_pre_hooks for layer in net.modules()) and net.training


def test_a_net_without_a_last_linear_layer():
    net = NormalizedNet(Convolutional(), torch.ones(3))
    with (
        pytest.raises(UsageError, match="Convolutional has no linear layer that gives its 4 logits"),
        features.last_hidden(net) as look,
    ):
        look(torch.zeros(1, 3, 4, 4))
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_a_net_that_says_no_numbers(trained, shards):
    broken = load_trained(trained.file)
    with torch.no_grad():
        broken.net.fc7.bias[3] = float("nan")
    with pytest.raises(TrainingError, match="activations are not finite"):
        list(features.of_split(broken, shards, "val"))
