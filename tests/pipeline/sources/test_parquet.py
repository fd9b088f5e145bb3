"""Parquet files: the same photos as in class folders, found without reading a photo, and every kind of damage."""

import builtins
import io
import os
import re
import sys
from pathlib import Path

import forms
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from alexnet_dali.pipeline.errors import AlexnetError, SourceError, UsageError
from alexnet_dali.pipeline.sources import parquet
from alexnet_dali.pipeline.sources.entries import Request
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.sources.inventory import take_inventory
from alexnet_dali.pipeline.sources.photo import Photo
from conftest import build_set

WORDS = ["tench, Tinca tinca", "Chihuahua", "harvester"]


def listed(source):
    """Path below its file, row and class of every photo by split."""
    return {
        split: [
            (photo.path.removeprefix(f"{photo.archive}/"), photo.offset, source.classes[photo.label])
            for photo in photos
        ]
        for split, photos in source.splits.items()
    }


def refused(path, **options):
    with pytest.raises(AlexnetError) as caught:
        find_photos(path, layout="parquet", **options)
    return caught.value


def fits(path):
    return parquet.declines(take_inventory(path), Request()) is None


def image(data=b"x", path=None):
    return {"bytes": data, "path": path}


def rows_of(*labels):
    return [(image(b"%d" % k, f"{k}.jpg"), label) for k, label in enumerate(labels)]


@pytest.fixture
def tree(tmp_path):
    return forms.make_tree(tmp_path / "tree")


@pytest.mark.parametrize(("shards", "group"), [(1, 100), (2, 1), (3, 2)])
def test_the_same_photos_as_in_class_folders(tree, tmp_path, shards, group):
    folders = find_photos(tree)
    found = find_photos(forms.make_parquet(tree, tmp_path / "hf", shards, WORDS, group))
    assert found.kind == "parquet, train and val" and found.root == tmp_path / "hf" and found.notes == ()
    assert found.classes == folders.classes and forms.shown(found) == forms.shown(folders)
    assert found.words == dict(zip(folders.classes, WORDS, strict=True))
    assert all(photo.path == f"{photo.archive}/{photo.path.split('/')[-1]}" for photo in found.splits["train"])
    data = find_photos(tmp_path / "hf/data")
    assert forms.shown(data) == forms.shown(found)


def test_builds_the_same_records(photos, shards, tmp_path):
    built = build_set(forms.make_parquet(photos, tmp_path / "hf"), tmp_path / "out", shard_records=16)
    assert forms.hashes(built) == forms.hashes(shards) and built.classes == shards.classes


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train-0.parquet", "test-0.parquet"], ["train", "test"]),
        (["train/0000.parquet", "valid/0000.parquet"], ["train", "val"]),
        (["cifar/train-00000-of-00001.parquet", "cifar/dev.parquet"], ["train", "val"]),
        (["data/Train/0000.parquet", "data/testing/0000.parquet"], ["train", "test"]),
        (["imagenet_validation_0.parquet"], ["val"]),
    ],
)
def test_splits_by_the_names_of_files_and_folders(tmp_path, files, splits):
    for k, name in enumerate(files):
        forms.write_parquet(tmp_path / name, rows_of(0, 1)[: 2 - k])
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/x.parquet").write_bytes(b"")
    (tmp_path / "._train-0.parquet").write_bytes(b"")
    source = find_photos(tmp_path)
    assert list(source.splits) == splits and [len(some) for some in source.splits.values()] == [2, 1][: len(files)]
    assert find_photos(tmp_path / files[0]).splits  # one file alone


def test_files_that_do_not_say_their_split_are_flat(tmp_path):
    for name in ("a", "b"):
        forms.write_parquet(tmp_path / f"{name}.parquet", rows_of(*range(5)))
    source = find_photos(tmp_path, val_share=0.2)
    assert source.kind == "parquet, flat" and [len(source.splits[name]) for name in ("train", "val")] == [8, 2]
    assert find_photos(tmp_path, split="val").kind == "parquet, all val"
    forms.write_parquet(tmp_path / "train.parquet", rows_of(0))
    assert refused(tmp_path).message == f"{tmp_path}: the name a.parquet has no split, but train.parquet has"


def test_two_sets_in_one_folder(tmp_path):
    for name in ("cifar10", "cifar100"):
        forms.write_parquet(tmp_path / name / "train.parquet", rows_of(0))
    assert fits(tmp_path)
    error = refused(tmp_path)
    assert error.message == f"{tmp_path}: cifar10 and cifar100 both contain .parquet files" and error.exit_code == 2
    assert error.hint == (
        f"choose one of these folders: {tmp_path}/cifar10; or go on without the others: --ignore 'cifar100'"
    )
    for source in (find_photos(tmp_path / "cifar10", split="train"), find_photos(tmp_path, ignore=("cifar100",))):
        assert sum(map(len, source.splits.values())) == 1 and not any(
            "cifar100" in photo.path for photos in source.splits.values() for photo in photos
        )


def test_configurations_of_hugging_face(tmp_path):
    """plain_text/ and default/ hold the same photos twice; data/ beside files of the folder itself, too."""
    for name in ("plain_text/train-00000-of-00001", "default/train/0000", "default/test/0000"):
        forms.write_parquet(tmp_path / "one" / f"{name}.parquet", rows_of(0, 1, 2))
    error = refused(tmp_path / "one")
    assert error.message == f"{tmp_path}/one: default and plain_text both contain .parquet files"
    found = find_photos(tmp_path / "one", ignore=("plain_text",), val_share=0)
    assert {name: len(some) for name, some in found.splits.items()} == {"train": 3, "test": 3}
    assert [left.path for left in found.account.left_out] == ["plain_text"]
    for name in ("train", "data/test", "more/train"):
        forms.write_parquet(tmp_path / "two" / f"{name}.parquet", rows_of(0))
    error = refused(tmp_path / "two")
    assert error.message == (
        f"{tmp_path}/two: the folder itself and data both contain .parquet files, and so do 1 more folders"
    )
    assert error.hint.endswith("go on without the others: --ignore 'data' --ignore 'more'")
    assert len(find_photos(tmp_path / "two", ignore=("data", "more"), split="train").splits["train"]) == 1


def test_a_part_of_train_is_train(tmp_path):
    """Hugging Face's own conversion of a set above 5 GB."""
    forms.write_parquet(tmp_path / "default/partial-train/0000.parquet", rows_of(*[0, 1, 2] * 4))
    forms.write_parquet(tmp_path / "default/validation/0000.parquet", rows_of(0, 1, 2))
    source = find_photos(tmp_path)
    assert {name: len(some) for name, some in source.splits.items()} == {"train": 12, "val": 3}
    assert source.notes[0] == (
        "default/partial-train: by its name only a part of train, not the whole of the published set"
    )
    for photo in source.splits["train"]:
        [(_, data)] = parquet.read_rows(tmp_path / photo.archive, [photo.offset])
        assert int(data) % 3 == int(source.classes[photo.label]) and photo.archive.startswith("default/partial-train/")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/0.parquet", "partial-train/0.parquet"], "partial-train and train both hold files of train"),
        (["train.parquet", "training/0.parquet"], "the folder itself and training both hold files of train"),
        (["train/test-0.parquet"], "/train/test-0.parquet: the folder says train, the file's name test"),
        (
            ["train-00000-of-00001.parquet", "train-00001-of-00002.parquet"],
            "train-00000-of-00001.parquet and train-00001-of-00002.parquet are of two versions of the set",
        ),
    ],
)
def test_names_that_contradict_each_other(tmp_path, files, message):
    for name in files:
        forms.write_parquet(tmp_path / name, rows_of(0, 1))
    error = refused(tmp_path)
    assert error.message.endswith(message) and error.hint and isinstance(error, UsageError)


def test_files_among_photos_are_named_and_can_be_ignored(tree, tmp_path):
    forms.write_parquet(tree / "train/n01440764/x.parquet", rows_of(0))
    with pytest.raises(UsageError, match=r"no part of the layout .*x\.parquet"):
        find_photos(tree)
    assert find_photos(tree, ignore=("x.parquet",)).kind.startswith("class folders")
    declined = parquet.declines(take_inventory(tree), Request())
    assert declined.found == "1 of them in folders of photos, such as train/n01440764/x.parquet"
    forms.write_parquet(tmp_path / "cats/metadata.parquet", [("a.jpg", 0)], image=TEXT, label=INT)
    (tmp_path / "cats/cat").mkdir()
    (tmp_path / "cats/cat/a.jpg").write_bytes(b"\xff\xd8")
    error = refused(tmp_path / "cats")
    assert error.hint.endswith("; or go on without the file: --ignore 'metadata.parquet'")
    assert find_photos(tmp_path / "cats", ignore=("metadata.parquet",), split="train").classes == ("cat",)


def test_ignored_files_are_not_read(tmp_path):
    for name, labels in (("train-0", [0, 1]), ("train-1", [2]), ("val-0", [0])):
        forms.write_parquet(tmp_path / f"{name}.parquet", rows_of(*labels))
    (tmp_path / "train-1.parquet").write_bytes(b"damaged")
    assert refused(tmp_path).hint == "copy or download it again"
    source = find_photos(tmp_path, ignore=("*-1.parquet",))
    assert source.classes == ("0", "1") and [len(some) for some in source.splits.values()] == [2, 1]


def test_what_looks_like_parquet(tree, tmp_path):
    assert not fits(tree) and not fits(tree / "train/n01440764/x.JPEG")
    assert "no parquet files" in refused(tree).message
    forms.write_parquet(tree / "train/n01440764/deep/x.parquet", rows_of(0))
    assert not fits(tree)
    forms.write_parquet(tmp_path / "deep/a/b/c/train.parquet", rows_of(0))  # nothing else is there
    assert fits(tmp_path / "deep") and find_photos(tmp_path / "deep", split="train").classes == ("0",)
    os.mkfifo(tmp_path / "x.parquet")
    assert not fits(tmp_path / "x")


@pytest.mark.parametrize(
    ("types", "make"),
    [
        ({"img": forms.IMAGE, "fine_label": pyarrow.uint8()}, lambda data, label: (image(data), label)),
        ({"jpg": pyarrow.binary(), "cls": pyarrow.int32()}, lambda data, label: (data, label)),
        ({"image": pyarrow.large_binary(), "labels": pyarrow.int64()}, lambda data, label: (data, label)),
        ({"x": pyarrow.int8(), "image": forms.IMAGE, "label": pyarrow.int64()}, lambda d, n: (None, image(d), n)),
        (
            {
                "image": pyarrow.struct([("path", pyarrow.string()), ("bytes", pyarrow.large_binary())]),
                "label": pyarrow.int64(),
            },
            lambda data, label: (image(data), label),
        ),
        ({"png": pyarrow.binary(), "label": pyarrow.string()}, lambda data, label: (data, "ab"[label])),
        (
            {"png": pyarrow.binary(), "label": pyarrow.dictionary(pyarrow.int8(), pyarrow.string())},
            lambda data, label: (data, "ab"[label]),
        ),
    ],
)
def test_columns_of_other_names_and_types(tmp_path, types, make):
    forms.write_parquet(tmp_path / "x.parquet", [make(b"one", 1), make(b"two", 0)], **types)
    source = find_photos(tmp_path, split="train")
    names = ("a", "b") if types.get("label") not in (None, pyarrow.int64()) else ("0", "1")
    assert listed(source) == {"train": [("row-0000001", 1, names[0]), ("row-0000000", 0, names[1])]}
    assert [data for *_, data in forms.shown(source)] == [b"two", b"one"]


def test_names_of_photos_are_never_paths(tmp_path):
    names = ["../../etc/a.jpg", "/b.jpg", "dir/", "..", ".", None, "", "x/a.jpg", "a.jpg"]
    forms.write_parquet(tmp_path / "x.parquet", [(image(b"x", name), 0) for name in names])
    paths = [path for path, *_ in sorted(listed(find_photos(tmp_path, split="train"))["train"], key=lambda row: row[1])]
    assert paths == ["a.jpg", "b.jpg", *(f"row-{k:07d}" for k in range(2, 7)), "row-0000007/a.jpg", "row-0000008/a.jpg"]


@pytest.mark.parametrize(
    ("paths", "classes", "words"),
    [
        (["n01_1.jpg", "n02_1.jpg"], ("cat", "dog"), {}),  # no wnids
        (["n00000002_1.jpg", "n00000001_1.jpg"], ("n00000001", "n00000002"), {"n00000002": "cat", "n00000001": "dog"}),
        (["a_n00000002.jpg", "b_n00000001.jpg"], ("n00000001", "n00000002"), {"n00000002": "cat", "n00000001": "dog"}),
        (["a_n00000002.jpg", "b_n00000002.jpg"], ("cat", "dog"), {}),  # two numbers of one name
        (["a_n00000002.jpg", "b.jpg"], ("cat", "dog"), {}),
    ],
)
def test_names_of_the_classes(tmp_path, paths, classes, words):
    rows = [(image(b"x", path), k) for k, path in enumerate(paths)]
    forms.write_parquet(tmp_path / "x.parquet", rows, ["cat", "dog"])
    source = find_photos(tmp_path, split="train")
    assert source.classes == classes and source.words == words
    assert [photo.label for photo in sorted(source.splits["train"], key=lambda photo: photo.offset)] == [
        classes.index(name) if name in classes else classes.index(["n00000002", "n00000001"][k])
        for k, name in enumerate(["cat", "dog"])
    ]


def test_classes_without_photos_keep_their_numbers(tmp_path):
    forms.write_parquet(tmp_path / "x.parquet", rows_of(0, 2), ["wolf", "cat", "ant"])
    source = find_photos(tmp_path, split="train", label_order="source")
    assert source.classes == ("wolf", "cat", "ant") and source.classes_without_training() == ["cat"]
    forms.write_parquet(tmp_path / "x.parquet", rows_of(0, 2, 1), ["crane", "cat", "crane"])  # two of one name
    source = find_photos(tmp_path, split="train")
    assert source.classes == ("0", "1", "2") and source.words == {"0": "crane", "1": "cat", "2": "crane"}


def test_a_test_split_without_labels_is_built_by_name_only(tmp_path):
    for label, types in ((-1, {}), (None, {}), (None, {"image": forms.IMAGE})):
        forms.write_parquet(tmp_path / "train-0.parquet", rows_of(0, 1))
        rows = [row[: len(types) or 2] for row in rows_of(label, label)]
        forms.write_parquet(tmp_path / "test-0.parquet", rows, **types)
        source = find_photos(tmp_path)
        assert list(source.splits) == ["train"]
        assert [(left.path, left.photos, left.why) for left in source.account.left_out] == [
            ("test-0.parquet", 2, "test, without labels (--split test builds them)")
        ]
        test = find_photos(tmp_path, split="test").splits["test"]
        assert [(photo.path, photo.label) for photo in test] == [
            ("test-0.parquet/0.jpg", -1),
            ("test-0.parquet/1.jpg", -1),
        ]


def test_a_download_that_is_not_whole_is_told(tmp_path):
    forms.write_parquet(tmp_path / "data/train-00000-of-00294.parquet", rows_of(0, 1))
    notes = find_photos(tmp_path, val_share=0).notes
    assert notes[0] == "only 1 of 294 files such as data/train-00000-of-00294.parquet exist"
    assert len(notes) == 2 and notes[1].startswith("all class names are whole numbers: labels follow the numbers")


def test_finding_reads_no_photo_and_sizes_add_up(tmp_path, monkeypatch):
    rows = [(image(os.urandom(50_000 + k), f"{k}.jpg"), k % 3) for k in range(40)]
    path = forms.write_parquet(tmp_path / "train.parquet", rows, group=10)
    read = 0
    real = pyarrow.parquet.ParquetFile

    class Counted(io.FileIO):
        def readinto(self, buffer):
            nonlocal read
            count = super().readinto(buffer)
            read += count
            return count

        def read(self, size=-1):
            nonlocal read
            data = super().read(size)
            read += len(data)
            return data

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", lambda path, **options: real(Counted(path), **options))
    source = find_photos(tmp_path)
    assert 0 < read < 200_000 < path.stat().st_size
    about = pyarrow.parquet.read_metadata(path)
    total = sum(about.row_group(k).total_byte_size for k in range(4))
    assert total == sum(photo.bytes for photos in source.splits.values() for photo in photos)


def test_the_fingerprint_knows_a_copy_and_a_photo_of_another_length(tmp_path):
    seen = set()
    for place, sizes in (("a", [3, 5]), ("b", [3, 5]), ("c", [3, 6])):
        rows = [(image(bytes(size), f"{k}.jpg"), k) for k, size in enumerate(sizes)]
        forms.write_parquet(tmp_path / place / "train.parquet", rows)
        seen.add(find_photos(tmp_path / place).fingerprint())
    assert len(seen) == 2


@pytest.mark.parametrize(("count", "group"), [(50, 50), (50, 7), (50, 1)])
def test_rows_in_order(tmp_path, count, group):
    rows = [(image(b"%d" % k), 0) for k in range(count)]
    path = forms.write_parquet(tmp_path / "x.parquet", rows, group=group)
    for wanted in (range(count), [0], [count - 1], [3, 4, 17, 40], range(0, count, 9), []):
        for kept in (wanted, np.array(wanted, dtype=np.int64)):
            assert list(parquet.read_rows(path, kept)) == [(k, b"%d" % k) for k in wanted]
    with pytest.raises(
        SourceError, match=f"x.parquet: no row {count}: the file has {count} rows; the file was replaced"
    ):
        list(parquet.read_rows(path, [3, count]))
    for wanted in ([4, 3], [3, 3], [-1]):
        with pytest.raises(ValueError, match="must be ascending"):
            list(parquet.read_rows(path, wanted))


def test_row_groups_without_a_wanted_row_are_not_read(tmp_path):
    rows = [(image(os.urandom(1000)), 0) for _ in range(30)]
    path = forms.write_parquet(tmp_path / "x.parquet", rows, group=10)
    column = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    with open(path, "r+b") as file:  # the second row group cannot be read any more
        file.seek(column.dictionary_page_offset or column.data_page_offset)
        file.write(bytes(column.total_compressed_size))
    assert [row for row, _ in parquet.read_rows(path, [0, 9, 20, 29])] == [0, 9, 20, 29]
    with pytest.raises(SourceError, match=r"x\.parquet: not a complete parquet file"):
        list(parquet.read_rows(path, [0, 10]))


def test_null_bytes_are_an_empty_photo(tmp_path):
    rows = [(image(b"a"), 0), (image(None, "b.jpg"), 0), (None, 0), (image(b""), 0)]
    path = forms.write_parquet(tmp_path / "x.parquet", rows)
    assert list(parquet.read_rows(path, range(4))) == [(0, b"a"), (1, b""), (2, b""), (3, b"")]
    assert sorted(path for path, *_ in listed(find_photos(tmp_path, split="train"))["train"]) == [
        "b.jpg",
        "row-0000000",
        "row-0000002",
        "row-0000003",
    ]
    path = forms.write_parquet(
        tmp_path / "x.parquet", [(b"a", 0), (None, 0)], image=pyarrow.binary(), label=pyarrow.int8()
    )
    assert list(parquet.read_rows(path, range(2))) == [(0, b"a"), (1, b"")]


INT, TEXT, BINARY = pyarrow.int64(), pyarrow.string(), pyarrow.binary()


@pytest.mark.parametrize(
    ("rows", "types", "message"),
    [
        ([("a",)], {"text": TEXT}, "no column is named image, img, jpg, jpeg, png; columns: text (string)"),
        ([(1, 0)], {"image": INT, "label": INT}, "the column image is int64; photos must be binary or struct{bytes: "),
        ([([b""], 0)], {"image": pyarrow.list_(BINARY), "label": INT}, "the column image is list<element: binary>;"),
        ([("a.jpg", 0)], {"image": TEXT, "label": INT}, "the column image has paths of photos, not their"),
        (
            [(image(None, "a.jpg"), 0)] * 9,
            {},
            "the column image has paths of photos, not their bytes",
        ),
        (
            [({"path": "a.jpg"}, 0)],
            {"image": pyarrow.struct([("path", TEXT)]), "label": INT},
            "the column image has paths of photos, not their bytes",
        ),
        ([(b"", 0.5)], {"image": BINARY, "label": pyarrow.float64()}, "the column label is double; labels must be int"),
        (
            [(b"", [1])],
            {"image": BINARY, "labels": pyarrow.list_(INT)},
            "the column labels is list<element: int64>; labels must be integers or class names, one a photo, and a "
            "list may have several",
        ),
        ([(b"",), (b"",)], {"image": BINARY}, "row 0: no label; 2 of 2 photos have none; no column is named label, "),
        ([(b"", True)], {"image": BINARY, "label": pyarrow.bool_()}, "the column label is bool; labels must be integ"),
        ([(b"",)], {"image": BINARY}, "row 0: no label"),
        (rows_of(0, None, -1, 1), {}, "row 1: no label; 2 of 4 photos have none"),
        (rows_of(0, -3), {}, "row 1: the label -3 is negative"),
        ([(b"", "cat"), (b"", "")], {"image": BINARY, "label": TEXT}, "row 1: no label"),
    ],
)
def test_columns_that_cannot_be_meant(tmp_path, rows, types, message):
    path = forms.write_parquet(tmp_path / "train-0.parquet", rows, **types)
    error = refused(tmp_path)
    assert error.message.startswith(f"{path}: {message}") and error.hint and error.exit_code == 1


VIEW, TEXT_VIEW = pyarrow.binary_view(), pyarrow.string_view()


@pytest.mark.parametrize(
    "photo",
    [
        VIEW,
        pyarrow.large_binary(),
        pyarrow.dictionary(pyarrow.int32(), BINARY),
        pyarrow.struct([("bytes", VIEW), ("path", TEXT_VIEW)]),
        pyarrow.struct([("path", pyarrow.large_string()), ("bytes", pyarrow.large_binary())]),
        pyarrow.struct(
            [("bytes", pyarrow.dictionary(INT, BINARY)), ("path", pyarrow.dictionary(pyarrow.int8(), TEXT))]
        ),
    ],
)
@pytest.mark.parametrize(
    "label",
    [INT, TEXT, TEXT_VIEW, pyarrow.large_string(), pyarrow.dictionary(pyarrow.int8(), pyarrow.large_string())],
)
def test_types_of_other_writers(tmp_path, photo, label):
    """Polars writes views; and labels that are digits as text are in the order of numbers."""
    rows = []
    for k in range(24):
        data = b"%d" % (k % 12)
        said = k % 12 if label == INT else str(k % 12)
        rows.append((image(data, f"{k}.jpg") if pyarrow.types.is_struct(photo) else data, said))
    group = 7 if "struct" not in str(photo) else 100  # pyarrow cannot slice structs of views, nor join dictionaries
    path = forms.write_parquet(tmp_path / "train.parquet", rows, group=group, image=photo, label=label)
    source = find_photos(tmp_path, split="train")
    assert source.classes == tuple(map(str, range(12))) and source.label_order == "class names as whole numbers"
    photos = sorted(source.splits["train"], key=lambda photo: photo.offset)
    assert [(photo.offset, b"%d" % photo.label) for photo in photos] == list(parquet.read_rows(path, range(24)))
    named = [photo.path.rpartition("/")[2] for photo in photos]
    assert named == [f"{k}.jpg" if pyarrow.types.is_struct(photo) else f"row-{k:07d}" for k in range(24)]


def test_what_pyarrow_cannot_read_is_not_called_damaged(tmp_path):
    kind = pyarrow.struct([("bytes", BINARY), ("path", pyarrow.dictionary(pyarrow.int8(), TEXT))])
    path = forms.write_parquet(tmp_path / "train.parquet", rows_of(*range(9)), group=3, image=kind, label=INT)
    try:
        assert len(find_photos(tmp_path, split="train").splits["train"]) == 9  # a later pyarrow may
    except SourceError as error:
        assert error.message.startswith(f"{path}: pyarrow {pyarrow.__version__} cannot read its columns: ")
        assert error.hint.startswith("save the photos as binary")


def test_no_label_as_text(tmp_path):
    forms.write_parquet(tmp_path / "train.parquet", [(b"", "1"), (b"", "0")], image=BINARY, label=TEXT)
    forms.write_parquet(tmp_path / "test.parquet", [(b"", "-1")], image=BINARY, label=TEXT)
    source = find_photos(tmp_path)
    assert source.classes == ("0", "1") and "test" not in source.splits
    assert [photo.label for photo in find_photos(tmp_path, split="test").splits["test"]] == [-1]


def test_several_columns_of_labels(tmp_path):
    """CIFAR-100's coarse labels are not used, which is said; names of numbers become their words."""
    rows = [(b"", k, k // 2, None) for k in range(4)]
    types = {"img": BINARY, "fine_label": INT, "coarse_label": INT, "labels": pyarrow.list_(INT)}
    forms.write_parquet(tmp_path / "a/train.parquet", rows, **types)
    source = find_photos(tmp_path / "a", split="train")
    assert source.classes == ("0", "1", "2", "3")
    assert source.notes[0] == "the labels are those of the column fine_label; coarse_label, labels: not used"
    rows = [(b"", k % 3, ["cat", "dog", "fox"][k % 3]) for k in range(6)] + [(b"", -1, "unknown"), (b"", None, "?")]
    types = {"image": BINARY, "label": INT, "label_name": TEXT}
    forms.write_parquet(tmp_path / "b/train-0.parquet", rows[:6], **types)
    forms.write_parquet(tmp_path / "b/test-0.parquet", rows[6:], **types)
    source = find_photos(tmp_path / "b")
    assert source.words == {"0": "cat", "1": "dog", "2": "fox"} and len(source.splits["train"]) == 6
    assert source.notes[0] == "the labels are those of the column label; the same say label_name"


@pytest.mark.parametrize("second", [(2, "cat"), (0, "fox")])
def test_columns_of_labels_that_are_two_labels(tmp_path, second):
    types = {"image": BINARY, "label": INT, "class_name": TEXT}
    forms.write_parquet(tmp_path / "train-0.parquet", [(b"", 0, "cat"), (b"", 1, "dog")], **types)
    path = forms.write_parquet(tmp_path / "val-0.parquet", [(b"", 1, "dog"), (b"", *second)], **types)
    error = refused(tmp_path)
    assert error.message == (
        f"{path}: row 1: label is {second[0]} and class_name is {second[1]!r}, unlike in earlier rows: "
        "the columns are two different labels"
    )
    assert error.hint.startswith("save the file without the column that is not the label, label or class_name")


def test_a_column_of_splits(tmp_path):
    """A photo of test is never in train: the column is read, whatever it is called; another meaning is left alone."""
    types = {"image": BINARY, "label": INT, "subset": TEXT}
    named = ["train", "testing", "Valid", "train", "test"]
    rows = [(b"%d" % k, k % 2, name) for k, name in enumerate(named)]
    forms.write_parquet(tmp_path / "x.parquet", rows, **types)
    source = find_photos(tmp_path)
    assert {name: sorted(photo.offset for photo in some) for name, some in source.splits.items()} == {
        "train": [0, 3],
        "val": [2],
        "test": [1, 4],
    }
    assert "the splits are those of the column subset" in source.notes
    path = forms.write_parquet(tmp_path / "x.parquet", [(b"", 0, "train"), (b"", 1, "north")], **types)
    assert refused(tmp_path).message == f"{path}: row 1: the column subset is 'north', which names no split"
    forms.write_parquet(tmp_path / "x.parquet", [(b"", 0, "south"), (b"", 1, "north")], **types)
    assert len(find_photos(tmp_path, split="train").splits["train"]) == 2
    rows = [(b"", 0, "train"), (b"", 1, "train"), (b"", -1, "test")]
    path = forms.write_parquet(tmp_path / "x.parquet", rows, **types)
    source = find_photos(tmp_path, val_share=0)
    assert "x.parquet: 1 photos are left out: test, without labels (--split test builds them)" in source.notes
    path = path.rename(tmp_path / "train.parquet")
    error = refused(tmp_path)
    assert error.message == f"{path}: row 2: the column subset says test, the file's name train"


def test_a_label_beyond_the_names(tmp_path):
    path = forms.write_parquet(tmp_path / "x.parquet", rows_of(0, 1, 2), ["cat", "dog"])
    assert refused(tmp_path).message == f"{path}: row 2: the label 2 is out of range: there are 2 names, from 0"


def test_files_that_do_not_fit_together(tmp_path):
    forms.write_parquet(tmp_path / "train-0.parquet", rows_of(0, 1), ["cat", "dog"])
    path = forms.write_parquet(tmp_path / "val-0.parquet", rows_of(0, 1), ["dog", "cat"])
    assert refused(tmp_path).message == f"{path}: class names differ from those of {tmp_path}/train-0.parquet"
    forms.write_parquet(path, [(b"", "cat")], image=BINARY, label=TEXT)
    assert refused(tmp_path).message == (
        f"{path}: row 0: the label is the name 'cat', while earlier labels are numbers"
    )


def test_without_rows(tmp_path):
    forms.write_parquet(tmp_path / "train-0.parquet", [])
    assert refused(tmp_path).message == f"{tmp_path}: 1 parquet files without rows"


def test_metadata_of_other_shapes_is_no_reason_to_stop(tmp_path):
    table = pyarrow.table({"image": [b"a"], "label": [0]})
    for about in (b"", b"\xff", b"[]", b'{"info": null}', b'{"info": {"features": {"label": {"names": [1]}}}}'):
        pyarrow.parquet.write_table(table.replace_schema_metadata({b"huggingface": about}), tmp_path / "x.parquet")
        assert find_photos(tmp_path, split="train").classes == ("0",)


def test_files_cut_short_or_damaged(tmp_path):
    path = forms.write_parquet(tmp_path / "train-0.parquet", [(image(os.urandom(500), "a.jpg"), 0)] * 20, group=5)
    whole = path.read_bytes()
    for size in [0, 3, 4, 100, len(whole) // 2, len(whole) - 100, len(whole) - 8, len(whole) - 1]:
        path.write_bytes(whole[:size])
        error = refused(tmp_path)
        assert re.match(rf"{path}: not a complete parquet file: ", error.message) and isinstance(error, SourceError)
        assert error.hint == "copy or download it again"
    for place in range(0, len(whole), 97):  # whatever byte is wrong: photos, perhaps other ones, or one clear error
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            photos = find_photos(tmp_path, split="train").splits["train"]
            list(parquet.read_rows(path, sorted(photo.offset for photo in photos)))
        except AlexnetError as error:
            assert str(path) in error.message or str(tmp_path) in error.message


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(SourceError, match=r"x\.parquet: not a complete parquet file: "):
        list(parquet.read_rows(tmp_path / "x.parquet", [0]))


def test_without_pyarrow(tmp_path, monkeypatch):
    forms.write_parquet(tmp_path / "train.parquet", rows_of(0))
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    error = refused(tmp_path)
    assert (
        isinstance(error, UsageError)
        and error.message == "reading parquet files requires pyarrow, which is not installed"
    )
    assert error.hint == "pip install pyarrow  (or the extra: alexnet-dali[parquet])"


def test_pyarrow_is_imported_when_needed_only(tmp_path):
    code = "import alexnet_dali.pipeline.sources.parquet, sys; sys.exit('pyarrow' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


def test_the_file_of_a_photo_is_below_root(tmp_path):
    forms.write_parquet(tmp_path / "data/train.parquet", rows_of(0))
    source = find_photos(tmp_path / "data/train.parquet", split="train")
    assert source.root == tmp_path / "data"
    [photo] = source.splits["train"]
    assert photo == Photo("train.parquet/0.jpg", 0, photo.bytes, "train.parquet", 0) and isinstance(source.root, Path)
