"""The loaders for other loops: an epoch an iteration, resumed anywhere, shared by any number of ranks."""

import itertools

import numpy as np
import pytest
import stored
import torch
import torch.distributed
from alexnet_dali.pipeline import stats
from alexnet_dali.pipeline.batches import TestLoader, TrainLoader
from alexnet_dali.pipeline.errors import PlanError, StatsError, UsageError
from alexnet_dali.pipeline.loader import Light, train_stream
from alexnet_dali.pipeline.plan import Augmentation, Plan

CROP = Augmentation(crop=64)


def loader_of(shards, **options):
    """Four steps of 14 are an epoch of 60 records."""
    return TrainLoader(shards, 14, seed=3, augmentation=CROP, **options)


@pytest.fixture(scope="module")
def planned(shards):
    """The first three epochs, as train_stream gives them: epoch, step, images, labels."""
    plan = Plan(60, 14, 3, 256, CROP)
    with train_stream(shards, stats.load(shards), plan, light=Light("none"), mean="rgb") as stream:
        batches = list(itertools.islice(stream, 12))
    return {(b.plan.epoch, b.plan.step): (b.images, b.labels) for b in batches}


def same(batches, planned, places):
    batches = list(batches)
    assert len(batches) == len(places)
    for (images, labels), place in zip(batches, places, strict=True):
        assert torch.equal(labels, planned[place][1]) and torch.equal(images, planned[place][0]), place


def test_an_iteration_is_an_epoch_and_the_next_the_next(shards, planned):
    loader = loader_of(shards.root)
    assert len(loader) == 4
    stream = None
    for epoch in range(3):
        assert loader.state_dict() == {"epoch": epoch, "step": 0}
        same(loader, planned, [(epoch, step) for step in range(4)])
        assert stream in (None, loader._stream)  # it runs on behind the turn of the epoch
        stream = loader._stream


def test_pictures_are_pixels_less_the_mean(raw_shards):
    loader = TrainLoader(raw_shards, 60, augmentation=Augmentation(crop=256))
    (images, labels), *none = loader
    assert not none and images.dtype == torch.float32 and labels.dtype == torch.int64
    assert images.shape == (60, 3, 256, 256) and images.is_contiguous(memory_format=torch.channels_last)
    records = stored.records(raw_shards.root, "train")
    means = sorted(float(record.pixels.mean()) for record in records)
    given = sorted((images + torch.from_numpy(loader.stats.mean_rgb).float().view(3, 1, 1)).mean((1, 2, 3)).tolist())
    assert given == pytest.approx(means, rel=1e-4)


def test_any_epoch_may_be_set(shards, planned):
    loader = loader_of(shards)
    loader.set_epoch(2)
    same(loader, planned, [(2, step) for step in range(4)])
    loader.set_epoch(0)
    same(loader, planned, [(0, step) for step in range(4)])
    same(loader, planned, [(1, step) for step in range(4)])


def test_an_epoch_left_early_is_not_gone_on_with(shards, planned):
    loader = loader_of(shards)
    same(itertools.islice(loader, 2), planned, [(0, 0), (0, 1)])
    assert loader.state_dict() == {"epoch": 0, "step": 2}
    same(loader, planned, [(1, step) for step in range(4)])
    iter(loader), iter(loader)  # Lightning asks twice before it takes a batch: that is no epoch
    same(loader, planned, [(2, step) for step in range(4)])
    loader.set_epoch(1)
    same(itertools.islice(loader, 1), planned, [(1, 0)])
    loader.set_epoch(1)  # and an epoch that is asked for again begins again
    same(itertools.islice(loader, 2), planned, [(1, 0), (1, 1)])


@pytest.mark.parametrize("step", range(4))
def test_a_saved_place_is_gone_on_from_to_the_end_of_its_epoch(shards, planned, step):
    first = loader_of(shards)
    first.set_epoch(1)
    same(itertools.islice(first, step), planned, [(1, k) for k in range(step)])
    second = loader_of(shards)
    second.load_state_dict(first.state_dict())
    second.set_epoch(1)  # as `for epoch in range(1, epochs)` says again
    same(second, planned, [(1, k) for k in range(step, 4)])
    assert second.state_dict() == {"epoch": 2, "step": 0}
    same(itertools.islice(second, 1), planned, [(2, 0)])


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_each_batch(shards, planned, ranks):
    loaders = [loader_of(shards, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert [len(loader) for loader in loaders] == [4] * ranks
    for step, parts in enumerate(zip(*loaders, strict=True)):
        assert torch.equal(torch.cat([images for images, _ in parts]), planned[0, step][0])
        assert torch.equal(torch.cat([labels for _, labels in parts]), planned[0, step][1])


def test_torch_distributed_is_asked_when_an_epoch_begins(shards, planned, monkeypatch):
    loader, test = loader_of(shards), TestLoader(shards, batch_size=6, crop=64)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    images, labels = next(iter(loader))
    assert torch.equal(images, planned[0, 0][0][7:]) and torch.equal(labels, planned[0, 0][1][7:])
    expected = [record.label for record in stored.records(shards.root, "val")][10:]
    assert len(test) == 2 and torch.cat([labels for _, labels in test]).tolist() == expected


def test_two_iterations_at_once_are_refused(shards):
    loader = loader_of(shards)
    first = iter(loader)
    next(first)
    for end in (lambda: iter(loader), lambda: loader.set_epoch(5), loader.close):
        running = iter(loader)
        next(running)
        end()
        with pytest.raises(PlanError, match="this iteration is over"):
            next(running)
    with pytest.raises(PlanError, match="a loader for each loop"):
        next(first)
    assert len(list(loader)) == 4  # it may be used again after it was closed


def test_testing_meets_every_record_once_at_its_centre(raw_shards):
    records = stored.records(raw_shards.root, "val")
    loader = TestLoader(raw_shards, "val", 6)
    for _ in range(2):
        batches = list(loader)
        assert [len(labels) for _, labels in batches] == [6, 6, 6, 2] and len(loader) == 4
        assert torch.cat([labels for _, labels in batches]).tolist() == [record.label for record in records]
        images = torch.cat([images for images, _ in batches])
        assert images.shape == (20, 3, 224, 224)
        for image, record in zip(images, records, strict=True):
            expected = record.pixels[16:240, 16:240] - loader.stats.mean_rgb
            np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_testing_on_ranks_meets_every_record_once(shards, ranks):
    loaders = [TestLoader(shards, "val", 4, crop=32, rank=rank, ranks=ranks) for rank in range(ranks)]
    labels = [[labels for _, labels in loader] for loader in loaders]
    assert [len(each) for each in labels] == [len(loader) for loader in loaders]
    expected = [record.label for record in stored.records(shards.root, "val")]
    assert torch.cat([torch.cat(each) for each in labels]).tolist() == expected


@pytest.mark.parametrize(
    "make, kind, told",
    [
        (lambda root: TrainLoader(root, 0), PlanError, "a batch of 0"),
        (lambda root: TrainLoader(root, 8, rank=1), UsageError, "rank 1 of None ranks"),
        (lambda root: TrainLoader(root, 8, rank=2, ranks=2), PlanError, "rank 2 is not one of 2"),
        (
            lambda root: TrainLoader(root, 8, augmentation=Augmentation(crop=300)),
            PlanError,
            "does not fit into 256x256",
        ),
        (lambda root: TestLoader(root, "val", 0), PlanError, "a batch of 0"),
        (
            lambda root: TrainLoader(root, 14).load_state_dict({"epoch": 0, "step": 4}),
            PlanError,
            "epoch 0, step 4, of 4",
        ),
        (lambda root: TrainLoader(root, 14).set_epoch(-1), PlanError, "no epoch -1"),
        (lambda root: TrainLoader(root / "train"), UsageError, "no shard set there"),
    ],
)
def test_what_cannot_be_is_said_at_once(shards, make, kind, told):
    with pytest.raises(kind, match=told):
        make(shards.root)


def test_a_set_without_statistics_says_how_to_take_them(shards, tmp_path):
    (tmp_path / "dataset.json").write_bytes((shards.root / "dataset.json").read_bytes())
    for name in ("train", "val"):
        (tmp_path / name).symlink_to(shards.root / name)
    with pytest.raises(StatsError, match=f"alexnet-prep pca-stats --shards {tmp_path}"):
        TrainLoader(tmp_path)
