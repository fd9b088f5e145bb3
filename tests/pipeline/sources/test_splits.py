"""Splits by the words in names of files and folders."""

import os

import pytest
from alexnet_dali.pipeline.errors import UsageError
from alexnet_dali.pipeline.sources.splits import files_by_split, first_file, split_of


def lay(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00294", "train"),
        ("imagenet1k-validation-07", "val"),
        ("ILSVRC_VAL_3", "val"),
        ("dev.0", "val"),
        ("testing2", "test"),
        ("strain-0001", ""),  # a word, not a part of one
        ("trainval-0", ""),
        ("train-test", ""),
        ("train-training-0", "train"),
        ("000001", ""),
        ("", ""),
    ],
)
def test_the_split_that_a_name_says(name, split):
    assert split_of(name) == split


def test_files_of_folders_called_like_splits_belong_to_them(tmp_path):
    lay(tmp_path, "train/test-0.tar", "train/b.tar", "Val/a.tar", "train/c.txt", "other/x.tar", "train/.d.tar")
    assert files_by_split(tmp_path, ".tar") == {"train": ["train/b.tar", "train/test-0.tar"], "val": ["Val/a.tar"]}
    assert first_file(tmp_path, ".tar") in ("train/b.tar", "Val/a.tar") and first_file(tmp_path, ".zip") == ""


def test_folders_that_are_many_are_classes(tmp_path):
    lay(tmp_path, *(f"class{k}/{k}.jpg" for k in range(16)), "class3/val.tar")
    assert files_by_split(tmp_path, ".tar") == {"val": ["class3/val.tar"]}
    lay(tmp_path, "class16/1.jpg")
    assert files_by_split(tmp_path, ".tar") == {}


def test_links_to_files_and_to_nothing(tmp_path):
    lay(tmp_path, "blobs/1f0a")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train-0.parquet").symlink_to("../blobs/1f0a")  # the cache of huggingface_hub
    assert files_by_split(tmp_path, ".parquet") == {"": ["data/train-0.parquet"]}  # train alone
    assert files_by_split(tmp_path / "data/train-0.parquet", ".parquet") == {"": ["train-0.parquet"]}
    (tmp_path / "data/val-0.parquet").symlink_to("../blobs/gone")  # is listed, and then refused by name
    assert files_by_split(tmp_path, ".parquet")["val"] == ["data/val-0.parquet"]


def test_pipes_and_links_to_themselves(tmp_path):
    lay(tmp_path, "train.tar")
    os.mkfifo(tmp_path / "val.tar")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "test.tar").symlink_to("test.tar")
    assert files_by_split(tmp_path, ".tar") == {"train": ["train.tar"], "test": ["test.tar"]}


def test_some_that_say_their_split_and_some_that_do_not(tmp_path):
    lay(tmp_path, "train-0.tar", "1.tar")
    with pytest.raises(UsageError, match=r"the name 1\.tar has no split, but train-0\.tar has; put the files into"):
        files_by_split(tmp_path, ".tar")
