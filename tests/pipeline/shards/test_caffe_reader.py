"""DALI's own `fn.readers.caffe`, which knows nothing of us, reads the encoded shards unmodified."""

import shutil

import numpy as np
import pytest
import stored
from alexnet_dali.pipeline.shards.lmdb_shard import sha256_of
from nvidia.dali import fn
from nvidia.dali.pipeline import Pipeline

BATCH = 7  # divides no number of records here: the last batch runs over into the next epoch


def read(folders, count, decode):
    """Pixels and labels of the first `count` records as the reader delivers them, and how many it says there are."""
    pipeline = Pipeline(batch_size=BATCH, num_threads=1, device_id=None)
    with pipeline:
        data, label = fn.readers.caffe(path=[str(folder) for folder in folders], name="caffe")  # type: ignore[misc]
        pipeline.set_outputs(fn.decoders.image(data, device="cpu") if decode else data, label)
    pipeline.build()
    pictures: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    while len(pictures) < count:
        data, label = pipeline.run()
        pictures += [np.array(data.at(k)) for k in range(BATCH)]
        labels += [np.array(label.at(k)) for k in range(BATCH)]
    assert all(label.dtype == np.int32 and label.shape == (1,) for label in labels)
    return pictures, [int(label[0]) for label in labels], pipeline.epoch_size("caffe")


@pytest.fixture
def copies(request, tmp_path):
    """The shards of a set in a folder of their own: two programs must not hold one file open in one process."""

    def copy(shard_set, split):
        return [shutil.copytree(folder, tmp_path / split / folder.name) for folder, _ in shard_set.split(split).shards]

    return copy


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_record_in_our_order(shards, copies, split):
    ours = stored.records(shards.root, split)
    folders = copies(shards, split)
    pictures, labels, size = read(folders, len(ours) + BATCH, decode=True)
    assert size == len(ours) == shards.split(split).records
    assert 0 in labels and len(set(labels)) == 4
    around = [ours[k % size] for k in range(len(labels))]  # after the last comes the first
    assert labels == [record.label for record in around]
    for got, record in zip(pictures, around, strict=True):
        assert got.shape == (256, 256, 3) and got.dtype == np.uint8
        np.testing.assert_array_equal(got, record.pixels)


def test_whole_pictures_of_any_sides(short_side_shards, copies):
    ours = stored.records(short_side_shards.root, "train")
    pictures, labels, size = read(copies(short_side_shards, "train"), len(ours), decode=True)
    assert size == len(ours) and labels[:size] == [record.label for record in ours]
    for got, record in zip(pictures, ours, strict=False):
        np.testing.assert_array_equal(got, record.pixels)


def test_raw_records_are_pixels(raw_shards, copies):
    ours = stored.records(raw_shards.root, "val")
    pictures, labels, size = read(copies(raw_shards, "val"), len(ours), decode=False)
    assert size == len(ours) and labels[:size] == [record.label for record in ours]
    for got, record in zip(pictures, ours, strict=False):
        np.testing.assert_array_equal(got, record.pixels)


def test_reading_leaves_the_shards_as_they_are(shards, copies):
    folders = copies(shards, "val")
    read(folders, 1, decode=False)
    for folder, (_, file) in zip(folders, shards.split("val").shards, strict=True):
        assert sha256_of(folder / "data.mdb") == file.sha256
        assert [path.name for path in folder.iterdir()] == ["data.mdb"]
