"""The map-style dataset: ImageFolder's pictures and labels, in any process, and what goes wrong by name."""

import io
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import stored
import torch
from alexnet_dali.pipeline.errors import ShardError, UsageError
from alexnet_dali.pipeline.shards import datum
from alexnet_dali.pipeline.shards.export import export_shards
from alexnet_dali.pipeline.stream.dataset import ShardDataset
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from unlabelled import make_unlabelled


@pytest.mark.parametrize("kind", ["shards", "raw_shards", "short_side_shards"])
def test_equals_imagefolder_over_the_exported_folder(kind, request, tmp_path):
    shard_set = request.getfixturevalue(kind)
    with ThreadPoolExecutor(1) as executor:
        export_shards(shard_set, tmp_path / "folder", "folder", executor)
    for split in ("train", "val"):
        ours, theirs = ShardDataset(shard_set.root, split), ImageFolder(tmp_path / "folder" / split)
        assert (ours.classes, ours.class_to_idx, len(ours)) == (theirs.classes, theirs.class_to_idx, len(theirs))
        # Exported names are SHARD_KEY: sorted by them, ImageFolder's photos stand in our order.
        order = sorted(range(len(theirs)), key=lambda k: theirs.samples[k][0].rpartition("/")[2])
        assert ours.targets == [theirs.targets[k] for k in order]
        for k, place in enumerate(order):
            (picture, label), (expected, expected_label) = ours[k], theirs[place]
            assert isinstance(picture, Image.Image) and picture.mode == "RGB" and type(label) is int
            assert label == expected_label == ours.targets[k]
            assert np.array_equal(np.asarray(picture), np.asarray(expected))


def test_record_i_is_record_i_of_the_set(shards):
    records = stored.records(shards.root, "train")
    dataset = ShardDataset(shards)  # an opened set will do too
    assert len(dataset) == 60 == len(records)
    for k in (0, 15, 16, 59):
        assert np.array_equal(np.asarray(dataset[k][0]), records[k].pixels) and dataset[k][1] == records[k].label
    assert dataset.targets == [record.label for record in records]


def test_indices_are_those_of_a_list(shards):
    dataset = ShardDataset(shards, "val")
    assert np.array_equal(np.asarray(dataset[-1][0]), np.asarray(dataset[19][0]))
    assert dataset[np.int64(3)][1] == dataset[torch.tensor(3)][1] == dataset.targets[3] == dataset[-17][1]
    for beyond in (20, -21):
        with pytest.raises(IndexError, match=f"no record {beyond} among 20 of val"):
            dataset[beyond]
    assert [label for _, label in dataset] == dataset.targets  # iteration ends by IndexError
    with pytest.raises(TypeError):
        dataset["3"]


def test_pictures_outlive_the_shards(raw_shards):
    dataset = ShardDataset(raw_shards)
    picture = dataset[7][0]
    before = np.asarray(picture).copy()
    del dataset
    assert np.array_equal(np.asarray(picture), before)


def test_transforms_are_called(shards):
    transform = v2.Compose([v2.RandomResizedCrop(64), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    picture, label = ShardDataset(shards, "val", transform, lambda label: label + 100)[2]
    assert picture.shape == (3, 64, 64) and picture.dtype == torch.float32 and 0 <= float(picture.min()) < 1
    assert label == ShardDataset(shards, "val").targets[2] + 100


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_give_the_same(shards, start):
    """Also where the parent has the shards open, by this dataset and by another: a fork must not use those."""
    dataset, another = ShardDataset(shards, "val", v2.ToImage()), ShardDataset(shards, "val")
    another[3]
    here = [dataset[k] for k in range(20)]
    loader = DataLoader(dataset, batch_size=7, num_workers=2, multiprocessing_context=start)
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert labels.tolist() == [label for _, label in here]
    assert all(torch.equal(image, own) for image, (own, _) in zip(images, here, strict=True))
    assert another[3][1] == here[3][1]  # the parent's own are as they were


def test_a_forked_child_opens_the_shards_itself(shards):
    dataset = ShardDataset(shards)
    dataset[0]
    parents = dataset._feed
    dataset._process = -1  # as a child sees what another process opened
    assert dataset[1][1] == dataset.targets[1] and dataset._feed is not parents


def test_it_pickles_after_it_was_read(shards):
    dataset = ShardDataset(shards, "val")
    picture, label = dataset[5]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.classes == dataset.classes and copy.targets == dataset.targets
    assert np.array_equal(np.asarray(copy[5][0]), np.asarray(picture)) and copy[5][1] == label


def test_records_without_a_label_have_minus_one(shards, tmp_path):
    dataset = ShardDataset(make_unlabelled(shards.root, tmp_path / "unlabelled"), "test")
    assert dataset.classes == [] and dataset[0][1] == -1 and dataset.targets == [-1] * 20


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault, told",
    [
        ("no datum", "not a Datum"),
        ("cut short", "a damaged JPEG: image file is truncated"),
        ("of another size", "a damaged JPEG: it is 10x10, not 256x256"),
    ],
)
def test_a_damaged_record_is_named(shards, tmp_path, fault, told):
    data, height, width, _ = stored.parts(stored.values(shards.root / "train/00001.lmdb")[3])
    if fault == "cut short":
        data = data[: len(data) // 2]
    elif fault == "of another size":
        small = io.BytesIO()
        Image.new("RGB", (10, 10)).save(small, "JPEG")
        data = small.getvalue()
    value = datum.encode(data, height=height, width=width, label=1, encoded=True)
    value = {"no datum": b"\xff\xff"}.get(fault, value)
    folder = stored.damaged(shards.root, tmp_path / "copy", "train", 1, 3, value)
    dataset = ShardDataset(tmp_path / "copy")
    with pytest.raises(ShardError) as caught:
        dataset[16 + 3]
    assert caught.value.message.startswith(f"{folder}, record 3: ") and told in caught.value.message
    assert f"verify --shards {tmp_path / 'copy'} --repair" in caught.value.hint
    assert dataset[16 + 2][1] == ShardDataset(shards).targets[16 + 2]  # the others are as good as ever


def test_a_csv_that_is_not_of_its_shard_is_named(shards, tmp_path):
    shutil.copytree(shards.root, tmp_path / "copy")
    path = tmp_path / "copy" / "train" / "00002.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ShardError) as caught:
        ShardDataset(tmp_path / "copy").targets  # noqa: B018
    assert caught.value.message == f"{path}: 15 rows, but the shard has 16 records"
    path.unlink()
    with pytest.raises(ShardError, match=r"00002\.csv: No such file"):
        ShardDataset(tmp_path / "copy").targets  # noqa: B018


def test_no_set_and_no_split_are_said(shards, tmp_path):
    with pytest.raises(UsageError, match="no shard set there"):
        ShardDataset(tmp_path)
    with pytest.raises(ShardError, match="no records in a split 'test'; available: train"):
        ShardDataset(shards.root, "test")
