"""The loaders for other loops: an epoch an iteration, resumed anywhere, shared by any number of ranks."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import stored
import tiny
import torch
import torch.distributed
from alexnet_dali.pipeline.errors import PlanError, StatsError, UsageError
from alexnet_dali.pipeline.plan.lighting import Lighting
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream import finish
from alexnet_dali.pipeline.stream.loaders import EvalLoader, TrainLoader
from alexnet_dali.pipeline.stream.streams import train_stream, views_stream

CROP = Augmentation(crop=64)


def loader_of(shards, **options):
    """Four steps of 14 are an epoch of 60 records."""
    return TrainLoader(shards, 14, seed=3, augmentation=CROP, **options)


def place(loader):
    """Epoch and step of the batch that comes next."""
    state = loader.state_dict()
    return state["epoch"], state["step"]


@pytest.fixture(scope="module")
def planned(shards):
    """The first three epochs, as train_stream gives them: epoch, step, images, labels."""
    plan = Plan(60, 14, 3, 256, CROP)
    with train_stream(shards, stats.load_stats(shards), plan, light=Lighting("none"), mean="rgb") as stream:
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
        assert place(loader) == (epoch, 0)
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
    assert place(loader) == (0, 2)
    same(loader, planned, [(1, step) for step in range(4)])
    iter(loader), iter(loader)  # Lightning asks twice before it takes a batch: that is no epoch
    same(loader, planned, [(2, step) for step in range(4)])
    loader.set_epoch(1)
    same(itertools.islice(loader, 1), planned, [(1, 0)])
    loader.set_epoch(1)  # and an epoch that is asked for again begins again
    same(itertools.islice(loader, 2), planned, [(1, 0), (1, 1)])


def test_an_epoch_may_be_set_where_a_dataloader_has_it_and_after_its_iteration_was_begun(shards, planned):
    loader = loader_of(shards)
    iteration = iter(loader)
    loader.sampler.set_epoch(1)  # as Lightning does: iter() comes first
    same(iteration, planned, [(1, step) for step in range(4)])
    iteration = iter(loader)
    next(iteration)
    loader.sampler.set_epoch(1)  # what has given batches of another epoch is over
    with pytest.raises(PlanError, match="this iteration has ended"):
        next(iteration)


@pytest.mark.parametrize("step", range(4))
def test_a_saved_place_is_gone_on_from_to_the_end_of_its_epoch(shards, planned, step):
    first = loader_of(shards)
    first.set_epoch(1)
    same(itertools.islice(first, step), planned, [(1, k) for k in range(step)])
    second = loader_of(shards)
    second.load_state_dict(first.state_dict())
    second.set_epoch(1)  # as `for epoch in range(1, epochs)` says again
    same(second, planned, [(1, k) for k in range(step, 4)])
    assert place(second) == (2, 0)
    same(itertools.islice(second, 1), planned, [(2, 0)])


def test_a_state_says_what_it_is_a_place_in(shards, planned):
    loader = loader_of(shards, decode="threads")
    state = loader.state_dict()
    fingerprint = shards.split("train").fingerprint()
    assert state == {
        "epoch": 0,
        "step": 0,
        "seed": 3,
        "batch_size": 14,
        "fingerprint": fingerprint,
        "decode": "threads",
    }
    assert json.loads(json.dumps(state)) == state
    automatic = loader_of(shards)
    assert automatic.state_dict()["decode"] == "auto"
    next(iter(automatic))
    assert automatic.state_dict()["decode"] == automatic._stream.decode != "auto"
    old = loader_of(shards)
    old.load_state_dict({"epoch": 1, "step": 2})  # of before states said so
    same(old, planned, [(1, 2), (1, 3)])


@pytest.mark.parametrize(
    "name, other, hint",
    [
        ("seed", 4, "give seed=4"),
        ("batch_size", 15, "give batch_size=15"),
        ("fingerprint", "of another", "open the shard set of the state"),
        ("decode", "dali", "give decode='dali'"),
    ],
)
def test_a_state_of_something_else_is_refused_by_name(shards, name, other, hint):
    loader = loader_of(shards, decode="threads")
    state = {**loader.state_dict(), "epoch": 1, "step": 2}
    with pytest.raises(PlanError) as caught:
        loader.load_state_dict({**state, name: other})
    assert caught.value.message.startswith(f"the state has {name} {other}, the loader {state[name]}")
    assert caught.value.hint == hint and place(loader) == (0, 0)


@pytest.mark.parametrize("began", [False, True])
def test_decode_auto_goes_on_as_the_state_was_decoded(shards, planned, began):
    for way in ("fused", "threads", "dali"):
        loader = loader_of(shards)
        if began:
            same(itertools.islice(loader, 1), planned, [(0, 0)])
        loader.load_state_dict({"epoch": 0, "step": 1, "decode": way})
        same(itertools.islice(loader, 1), planned, [(0, 1)])
        assert loader._stream.decode == loader.state_dict()["decode"] == way
        loader.load_state_dict({"epoch": 0, "step": 1, "decode": "dali"})  # it was asked for auto, not for that way


def test_a_state_of_fused_goes_on_where_fused_is_not_possible_and_says_so(shards, planned, monkeypatch):
    loader = loader_of(shards)
    next(iter(loader))
    state = loader.state_dict()
    assert state["decode"] == "fused"
    monkeypatch.setattr(finish, "_compiled", None)
    other = loader_of(shards)
    with pytest.warns(UserWarning, match="the state was decoded by fused, which is not possible: its compiled part is"):
        other.load_state_dict(state)
    same(itertools.islice(other, 1), planned, [(0, 1)])
    assert other.state_dict()["decode"] == "threads"


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_each_batch(shards, planned, ranks):
    loaders = [loader_of(shards, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert [len(loader) for loader in loaders] == [4] * ranks
    for step, parts in enumerate(zip(*loaders, strict=True)):
        assert torch.equal(torch.cat([images for images, _ in parts]), planned[0, step][0])
        assert torch.equal(torch.cat([labels for _, labels in parts]), planned[0, step][1])


def test_torch_distributed_is_asked_when_an_epoch_begins(shards, planned, monkeypatch):
    loader, test = loader_of(shards), EvalLoader(shards, batch_size=6, crop=64)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    images, labels = next(iter(loader))
    assert torch.equal(images, planned[0, 0][0][7:]) and torch.equal(labels, planned[0, 0][1][7:])
    expected = [record.label for record in stored.records(shards.root, "val")][10:]
    assert len(test) == 2 and torch.cat([labels for _, labels in test]).tolist() == expected


# A process under DistributedDataParallel: two epochs, and every record of val after each.
PROCESS = """
import json, sys
import torch, torch.distributed as dist
from alexnet_dali.pipeline.stream.loaders import EvalLoader, TrainLoader
from alexnet_dali.pipeline.plan.plan import Augmentation

root, meeting, rank, ranks = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=ranks)
torch.manual_seed(rank)
net = torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten(), torch.nn.Linear(48, 4))
net = torch.nn.parallel.DistributedDataParallel(net)  # all begin with the weights of rank 0
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
options = {"threads": 1, "decode": "threads"}
train = TrainLoader(root, 4, augmentation=Augmentation(crop=64), **options)
given, tested = [], []
for epoch in range(2):
    for images, labels in train:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images / 64), labels).backward()
        optimizer.step()
        given.append(len(labels))
    for images, labels in EvalLoader(root, "val", 1, crop=64, **options):
        tested.append([labels.item(), net.module(images / 64).argmax().item()])
print(json.dumps([given, tested, net.module[2].weight.flatten().tolist()]))
dist.barrier()
"""


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_test_every_record_once(tmp_path):
    """Of three records to test they have two and one, so not as many batches each: nobody waits for the other."""
    few = tiny.few_shards(tmp_path, train=8)

    def ended(ranks):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, few.root, tmp_path / f"meeting{ranks}", str(rank), str(ranks)],
                stdout=subprocess.PIPE,
            )
            for rank in range(ranks)
        ]
        said = [process.communicate(timeout=120)[0] for process in started]
        assert [process.returncode for process in started] == [0] * ranks
        return [json.loads(out) for out in said]

    (alone,), (first, second) = ended(1), ended(2)
    assert [given for given, *_ in (alone, first, second)] == [[4] * 4, [2] * 4, [2] * 4]
    assert first[2] == second[2] == pytest.approx(alone[2], rel=1e-4, abs=1e-6)
    assert sorted(len(tested) for _, tested, _ in (first, second)) == [2, 4]
    assert sorted(first[1] + second[1]) == sorted(alone[1])
    assert sorted(label for label, _ in alone[1]) == sorted(
        2 * [record.label for record in stored.records(few.root, "val")]
    )


def test_two_iterations_at_once_are_refused(shards):
    loader = loader_of(shards)
    first = iter(loader)
    next(first)
    for end in (lambda: iter(loader), lambda: loader.set_epoch(5), loader.close):
        running = iter(loader)
        next(running)
        end()
        with pytest.raises(PlanError, match="this iteration has ended"):
            next(running)
    with pytest.raises(PlanError, match="one loader for each concurrent loop"):
        next(first)
    assert len(list(loader)) == 4  # it may be used again after it was closed


def test_testing_meets_every_record_once_at_its_centre(raw_shards):
    records = stored.records(raw_shards.root, "val")
    loader = EvalLoader(raw_shards, "val", 6)
    for _ in range(2):
        batches = list(loader)
        assert [len(labels) for _, labels in batches] == [6, 6, 6, 2] and len(loader) == 4
        assert torch.cat([labels for _, labels in batches]).tolist() == [record.label for record in records]
        images = torch.cat([images for images, _ in batches])
        assert images.shape == (20, 3, 224, 224)
        for image, record in zip(images, records, strict=True):
            expected = record.pixels[16:240, 16:240] - loader.stats.mean_rgb
            np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("views", [4, 5, 10])
def test_several_views_are_all_given(raw_shards, views):
    (images, labels), *_ = EvalLoader(raw_shards, "val", 6, views=views)
    with views_stream(raw_shards, stats.load_stats(raw_shards), "val", views=views, batch_size=6, mean="rgb") as stream:
        expected = next(iter(stream)).images
    assert images.shape == (6, views, 3, 224, 224) and len(labels) == 6
    assert torch.equal(images, expected)


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_testing_on_ranks_meets_every_record_once(shards, ranks):
    loaders = [EvalLoader(shards, "val", 4, crop=32, rank=rank, ranks=ranks) for rank in range(ranks)]
    labels = [[labels for _, labels in loader] for loader in loaders]
    assert [len(each) for each in labels] == [len(loader) for loader in loaders]
    expected = [record.label for record in stored.records(shards.root, "val")]
    assert torch.cat([torch.cat(each) for each in labels]).tolist() == expected


@pytest.mark.parametrize(
    "make, kind, told",
    [
        (lambda root: TrainLoader(root, 0), PlanError, "a batch of 0"),
        (lambda root: TrainLoader(root, 8, rank=1), UsageError, "rank is 1, ranks is None"),
        (lambda root: TrainLoader(root, 8, rank=2, ranks=2), PlanError, "invalid rank 2 of 2 ranks"),
        (
            lambda root: TrainLoader(root, 8, augmentation=Augmentation(crop=300)),
            PlanError,
            "does not fit into 256x256",
        ),
        (lambda root: EvalLoader(root, "val", 0), PlanError, "batch size 0 is below 1"),
        (
            lambda root: TrainLoader(root, 14).load_state_dict({"epoch": 0, "step": 4}),
            PlanError,
            "no epoch 0, step 4: an epoch has 4 steps",
        ),
        (lambda root: TrainLoader(root, 14).set_epoch(-1), PlanError, "no epoch -1"),
        (lambda root: TrainLoader(root / "train"), UsageError, "no shard set there"),
    ],
)
def test_what_cannot_be_is_said_at_once(shards, make, kind, told):
    with pytest.raises(kind, match=told):
        make(shards.root)


@pytest.fixture
def unmeasured(shards, tmp_path):
    """The set without its statistics."""
    (tmp_path / "dataset.json").write_bytes((shards.root / "dataset.json").read_bytes())
    for name in ("train", "val"):
        (tmp_path / name).symlink_to(shards.root / name)
    return tmp_path


@pytest.mark.parametrize("options", [{}, {"mean": "image"}, {"mean": "imagenet", "light": Lighting()}])
def test_a_set_without_statistics_says_how_to_take_them(unmeasured, options):
    with pytest.raises(StatsError, match=f"alexnet-prep pca-stats --shards {unmeasured}"):
        TrainLoader(unmeasured, **options)
    if "light" not in options:
        with pytest.raises(StatsError, match="alexnet-prep pca-stats"):
            EvalLoader(unmeasured, **options)


def test_imagenets_mean_wants_no_statistics(shards, unmeasured):
    train, val = (
        loader(unmeasured, mean="imagenet", decode="threads", **options)
        for loader, options in ((TrainLoader, {"augmentation": CROP}), (EvalLoader, {"crop": 64}))
    )
    for loader in (train, val):
        images, _ = next(iter(loader))
        assert images.abs().max() < 3 and images.shape[1:] == (3, 64, 64)
        with pytest.raises(StatsError, match="alexnet-prep pca-stats"):
            _ = loader.stats
    assert TrainLoader(shards, mean="imagenet").stats.images == 60  # who asks for them gets them
