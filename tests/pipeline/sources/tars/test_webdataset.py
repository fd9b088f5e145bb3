"""WebDataset's tars: the same photos as in class folders, read in place; keys, labels and damage of every kind."""

import gzip
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor

import forms
import pytest
from alexnet_dali.pipeline.csv_files import read_csv
from alexnet_dali.pipeline.errors import AlexnetError, SourceError
from alexnet_dali.pipeline.shards.export import export_shards
from alexnet_dali.pipeline.sources.entries import Request
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.sources.inventory import take_inventory
from alexnet_dali.pipeline.sources.tars import webdataset
from conftest import build_set


def listed(source):
    """Member and class of every photo by split."""
    return {
        split: [
            (photo.path.removeprefix(f"{photo.archive}/"), source.classes[photo.label] if photo.label >= 0 else "")
            for photo in photos
        ]
        for split, photos in source.splits.items()
    }


def refused(path, **options):
    with pytest.raises(AlexnetError) as caught:
        find_photos(path, layout="webdataset", **options)
    return caught.value


def fits(path):
    """Whether the layout is detected."""
    return webdataset.declines(take_inventory(path), Request()) is None


def samples(**labels):
    """Content of a tar: for each key a photo that holds it, and its label."""
    return {
        f"{key}.{ending}": data
        for key, label in labels.items()
        for ending, data in (("jpg", key.encode()), ("cls", str(label).encode()))
    }


@pytest.fixture
def tree(tmp_path):
    return forms.make_tree(tmp_path / "tree")


@pytest.mark.parametrize("shards", [1, 3])
def test_the_same_photos_as_in_class_folders(tree, tmp_path, shards):
    folders = find_photos(tree)
    found = find_photos(forms.make_webdataset(tree, tmp_path / "wds", shards))
    assert found.kind == "WebDataset, train and val" and found.account.other_files == 0 and found.notes == ()
    assert found.classes == folders.classes and forms.shown(found) == forms.shown(folders)
    sizes = {split: [photo.bytes for photo in photos] for split, photos in folders.splits.items()}
    assert {split: [photo.bytes for photo in photos] for split, photos in found.splits.items()} == sizes


def test_builds_the_same_records(photos, shards, tmp_path):
    built = build_set(forms.make_webdataset(photos, tmp_path / "wds"), tmp_path / "out", shard_records=16)
    assert forms.hashes(built) == forms.hashes(shards) and built.classes == shards.classes


def test_our_own_export(shards, tmp_path):
    with ThreadPoolExecutor(1) as executor:
        export_shards(shards, tmp_path / "tars", "webdataset", executor)
    source = find_photos(tmp_path / "tars")
    assert source.kind == "WebDataset, train and val" and source.classes == shards.classes
    stored = []
    for split in shards.splits:
        for shard_csv in sorted((shards.root / split).glob("*.csv")):
            stored += [(split, shards.classes[int(row[1])]) for row in read_csv(shard_csv)]
    found = forms.shown(source)
    assert sorted(row[:2] for row in found) == sorted(stored) and len(found) == 80
    assert all(data.startswith(b"\xff\xd8\xff") for *_, data in found)


def test_classes_and_words_in_json(tmp_path):
    for split, count in (("train", 4), ("val", 2)):
        content = {}
        for k in range(count):
            wnid = ["n02", "n01"][k % 2]
            about = {"source_path": f"{wnid}/{k}.JPEG", "class": wnid, "words": f"words of {wnid}", "width": 256}
            key = f"00000_{k:08d}"
            content |= {
                f"{key}.cls": b"%d" % (1 - k % 2),
                f"{key}.jpg": key.encode(),
                f"{key}.json": json.dumps(about).encode(),
            }
        forms.write_tar(tmp_path / f"{split}-000000.tar", content)
    (tmp_path / "export.json").write_text("{}")
    source = find_photos(tmp_path)
    assert source.classes == ("n01", "n02") and source.words == {"n01": "words of n01", "n02": "words of n02"}
    assert listed(source)["val"] == [("00000_00000001.jpg", "n01"), ("00000_00000000.jpg", "n02")]
    about = {"source_path": "x.JPEG", "class": None, "words": ""}
    unlabelled = {"00000_0.cls": b"-1", "00000_0.jpg": b"x", "00000_0.json": json.dumps(about).encode()}
    forms.write_tar(tmp_path / "test-000000.tar", unlabelled)
    assert list(find_photos(tmp_path).splits) == ["train", "val"]
    assert listed(find_photos(tmp_path, split="test")) == {"test": [("00000_0.jpg", "")]}


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"], ["train", "val"]),
        (["train/0.tar", "val/0.tar"], ["train", "val"]),
        (["data/0_train.tar", "data/0_test.tar"], ["train", "test"]),
        (["shards/train-{0..3}.TAR", "shards/valid.tar"], ["train", "val"]),
    ],
)
def test_splits_by_the_names_of_files_and_folders(tmp_path, files, splits):
    for name, content in zip(files, (samples(a=0, b=1), samples(c=0)), strict=True):
        forms.write_tar(tmp_path / name, content)
    (tmp_path / "._train.tar").write_bytes(b"a Mac's")
    source = find_photos(tmp_path)
    assert [(split, len(photos)) for split, photos in source.splits.items()] == [(splits[0], 2), (splits[1], 1)]


def test_flat_and_one_tar_alone(tmp_path):
    for k in range(2):
        forms.write_tar(tmp_path / f"{k:06d}.tar", samples(**{f"{k}{j}": j for j in range(5)}))
    source = find_photos(tmp_path, val_share=0.2)
    assert source.kind == "WebDataset, flat" and [len(some) for some in source.splits.values()] == [8, 2]
    one = find_photos(tmp_path / "000001.tar", split="train")
    assert one.root == tmp_path and len(one.splits["train"]) == 5 and forms.shown(one)[0][3] == b"10"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"a.jpg": b"", "a.cls": b" 1\n"}, [("a.jpg", "1")]),
        ({"a.JPEG": b"", "a.CLS": b"1"}, [("a.JPEG", "1")]),
        ({"a.png": b"", "a.cls.txt": b"1"}, [("a.png", "1")]),
        ({"a.jpg": b"", "a.json": b'{"label": 1}'}, [("a.jpg", "1")]),
        ({"a.jpg": b"", "a.json": b'{"cls": 1, "label": "cat"}'}, [("a.jpg", "cat")]),
        ({"a.jpg": b"", "a.json": b'{"label": true, "wnid": "n01"}'}, [("a.jpg", "n01")]),
        ({"a.jpg": b"", "a.json": b'{"class_name": "cat"}'}, [("a.jpg", "cat")]),
        ({"a.jpg": b"", "a.cls": b"1", "a.json": b'{"label": 2, "caption": "x"}'}, [("a.jpg", "1")]),
        ({"a.jpg": b"", "a.seg.png": b"", "a.cls": b"1"}, [("a.jpg", "1")]),  # a mask beside the photo
        ({"a.image.jpg": b"", "a.cls": b"1"}, [("a.image.jpg", "1")]),
        ({"a.input.jpg": b"", "a.output.cls": b"1"}, [("a.input.jpg", "1")]),
        ({"a.image.jpg": b"", "a.label.json": b'{"label": 1}'}, [("a.image.jpg", "1")]),
        ({"a.jpg": b"", "a.cls": b"1", "a.old.cls": b"2"}, [("a.jpg", "1")]),
        ({"a.jpg": b"", "a.json": b'{"label": "3"}'}, [("a.jpg", "3")]),
        ({"a.jpg": b"", "a.json": b'{"label": "007", "class_name": "cat"}'}, [("a.jpg", "cat")]),
        ({"a.jpg": b"", "a.json": b'{"class_name": "3"}'}, [("a.jpg", "3")]),
        ({"a.b/c.d.jpg": b"", "a.b/c.cls": b"1"}, [("a.b/c.d.jpg", "a.b")]),  # dots of folders are none of the key's
        ({"x/1.jpg": b"", "y/1.jpg": b"", "x/1.cls": b"1", "y/1.cls": b"0"}, [("x/1.jpg", "x"), ("y/1.jpg", "y")]),
        ({"n00000007_1.jpg": b"", "n00000007_1.cls": b"3"}, [("n00000007_1.jpg", "n00000007")]),
        ({"1_n00000007.jpg": b"", "1_n00000007.cls": b"3"}, [("1_n00000007.jpg", "n00000007")]),
        ({"../../a.jpg": b"", "../../a.cls": b"1"}, [("../../a.jpg", "1")]),
        ({"/etc/a.jpg": b"", "/etc/a.cls": b"1"}, [("/etc/a.jpg", "etc")]),
        ({"a.cls": b"1", "b.cls": b"2", "b.jpg": b"", "c.txt": b"", "readme": b""}, [("b.jpg", "2")]),
    ],
)
def test_keys_and_labels(tmp_path, content, found):
    forms.write_tar(tmp_path / "x.tar", content)
    assert listed(find_photos(tmp_path, split="train", layout="webdataset")) == {"train": found}


def test_members_that_belong_to_no_photo_are_counted(tmp_path):
    forms.write_tar(tmp_path / "x.tar", {**samples(a=0, b=1), "c.cls": b"1", "c.json": b"?", "readme": b""})
    assert find_photos(tmp_path).account.members == 3


def test_of_two_members_with_one_name_the_last_counts(tmp_path):
    with tarfile.open(forms.write_tar(tmp_path / "x.tar", samples(a=0, b=1)), "a") as archive:
        path = tmp_path / "a.jpg"
        path.write_bytes(b"newer")
        archive.add(path, "a.jpg")
    assert [row[3] for row in forms.shown(find_photos(tmp_path, split="train", layout="webdataset"))] == [
        b"newer",
        b"b",
    ]


def test_links_in_a_tar_lead_nowhere(tmp_path):
    with tarfile.open(forms.write_tar(tmp_path / "x.tar", samples(a=0)), "a") as archive:
        for name, kind in (("b.jpg", tarfile.SYMTYPE), ("c.jpg", tarfile.LNKTYPE), ("d.jpg", tarfile.FIFOTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "/etc/hostname"
            archive.addfile(link)
    assert listed(find_photos(tmp_path, split="train")) == {"train": [("a.jpg", "0")]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"b.jpg": b""}, "b.jpg: no label"),
        ({"b.jpg": b"", "c.jpg": b"", "c.json": b"{}"}, "b.jpg: no label; 2 of 3 photos have none"),
        ({"b.jpg": b"", "b.cls": b"-1"}, "b.jpg: no label"),
        ({"b.jpg": b"", "b.cls": b"-4"}, "b.jpg: the label -4 is negative"),
        ({"b.jpg": b"", "b.cls": b"cat"}, "b.cls: the label 'cat' is not a number"),
        ({"b.jpg": b"", "b.cls": b""}, "b.cls: the label '' is not a number"),
        ({"b.jpg": b"", "b.cls": b"1.5"}, "b.cls: the label '1.5' is not a number"),
        ({"b.jpg": b"", "b.cls": b"\xff\xfe"}, "b.cls: the label '\ufffd\ufffd' is not a number"),
        ({"b.jpg": b"", "b.cls": b"1" * 65}, "b.cls: a label of 65 bytes"),
        ({"b.jpg": b"", "b.json": b"[" * (1 << 20) + b"["}, "b.json: a label of 1,048,577 bytes"),
        ({"b.jpg": b"", "b.json": b"[" * 100_000}, "b.json: not a JSON object"),
        ({"b.jpg": b"", "b.json": b"[1]"}, "b.json: not a JSON object"),
        ({"b.jpg": b"", "b.json": b"\xff"}, "b.json: not a JSON object"),
        (
            {"b.jpg": b"", "b.json": b'{"class": "cat"}'},
            "b.jpg: the label is the name 'cat', while earlier labels are num",
        ),
        ({"b.jpg": b"", "b.png": b"", "b.cls": b"1"}, "the key b has 2 photos: b.jpg and b.png"),
        ({"b.jpg": b"", "b.l.cls": b"1", "b.r.cls": b"1"}, "the key b has 2 labels: b.l.cls and b.r.cls"),
        ({"b.jpg": b"", "b.cls": b"1", "b.cls.txt": b"1"}, "the key b has 2 labels: b.cls and b.cls.txt"),
        ({"b.l.jpg": b"", "b.r.jpg": b"", "b.cls": b"1"}, "the key b has 2 photos: b.l.jpg and b.r.jpg"),
    ],
)
def test_what_is_wrong_in_which_member(tmp_path, content, message):
    forms.write_tar(tmp_path / "train-0.tar", {**samples(a=0), **content})
    error = refused(tmp_path)
    assert error.message.startswith(f"{tmp_path}/train-0.tar: {message}")
    assert isinstance(error, SourceError) and error.hint


def test_numbers_that_the_splits_disagree_about(tmp_path):
    forms.write_tar(tmp_path / "train.tar", samples(n00000001_1=0, n00000002_1=1))
    forms.write_tar(tmp_path / "val.tar", samples(n00000001_2=1, n00000002_2=0))
    assert refused(tmp_path).message == "n00000001 has the label 0 in train and 1 in val"


def test_tars_without_photos_and_folders_without_tars(tmp_path):
    assert refused(tmp_path).message == f"{tmp_path}: no tar files"
    forms.write_tar(tmp_path / "x.tar", {"readme": b""})
    assert refused(tmp_path).message == f"{tmp_path}: 1 tar files without photos"


def test_a_tar_cut_short(tmp_path):
    path = forms.write_tar(tmp_path / "train-0.tar", {**samples(a=0, b=1), "c.jpg": bytes(2000), "c.cls": b"0"})
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for size in [0, 100, 512, 700, 1536, end - 1024, end - 512, end]:
        path.write_bytes(whole[:size])
        error = refused(tmp_path)
        assert isinstance(error, SourceError) and str(path) in error.message and error.hint


def test_a_tar_that_ends_within_a_photo_when_it_is_read(tmp_path):
    path = forms.write_tar(tmp_path / "x.tar", samples(a=0))
    source = find_photos(tmp_path, split="train")
    os.truncate(path, source.splits["train"][0].offset)
    with pytest.raises(SourceError, match=r"x\.tar: ends within x\.tar/a\.jpg"):
        forms.shown(source)


def test_what_looks_like_webdataset(tree, tmp_path):
    assert not fits(tree)
    forms.write_tar(tree / "backup.tar", {"train/n01/a.jpg": b"", "train/n01/b.jpg": b""})
    assert not fits(tree)  # photos alone
    (tree / "backup.tar").write_bytes(b"damaged")
    assert not fits(tree)
    for name, yes in (("ILSVRC2012_img_val.tar", False), ("n01440764.tar", False), ("0.tar", True)):
        folder = tmp_path / name
        forms.write_tar(folder / name, samples(a=0) if yes else {"ILSVRC2012_val_00000001.JPEG": b""})
        assert fits(folder) is yes and fits(folder / name) is yes
    (tmp_path / "0.tar/0.tar").write_bytes(b"damaged")
    assert fits(tmp_path / "0.tar")  # and is then refused by name


def test_labels_that_are_numbers_as_text_are_numbers_in_their_order(tmp_path):
    """2 before 10, whether as text or not, in one set."""
    content = {}
    for k, label in enumerate(('"10"', "2", '"2"', "10")):
        content |= {f"{k}.jpg": b"%d" % k, f"{k}.json": b'{"label": %s}' % label.encode()}
    forms.write_tar(tmp_path / "x.tar", content)
    source = find_photos(tmp_path, split="train")
    assert source.classes == ("2", "10")
    assert listed(source) == {"train": [("0.jpg", "10"), ("3.jpg", "10"), ("1.jpg", "2"), ("2.jpg", "2")]}


def test_gzipped_tars_are_the_same(tree, tmp_path):
    plain = forms.make_webdataset(tree, tmp_path / "plain")
    (tmp_path / "gz").mkdir()
    for path in plain.glob("*.tar"):
        (tmp_path / "gz" / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    found, packed = find_photos(plain), find_photos(tmp_path / "gz")
    shown = forms.shown(found)
    assert forms.shown(packed) == shown and packed.kind == found.kind
    mixed = sorted((tmp_path / "gz").iterdir())
    mixed[0].rename(tmp_path / "plain" / mixed[0].name)
    (tmp_path / "plain" / mixed[0].stem).unlink()
    assert forms.shown(find_photos(tmp_path / "plain")) == shown


def test_detection_knows_what_the_finder_knows(tmp_path):
    forms.write_tar(tmp_path / "a/x.tar", {**{f"{k}.txt": b"" for k in range(500)}, **samples(a=0)})
    assert fits(tmp_path / "a")
    forms.write_tar(tmp_path / "b/x.tar", {"a.image.jpg": b"", "a.label.cls": b"1"})
    assert fits(tmp_path / "b")
    about = {"cat/1.jpg": b"", "cat/1.json": b'{"width": 3}', "dog/1.jpg": b"", "dog/1.json": b"{}"}
    forms.write_tar(tmp_path / "c/x.tar", about)  # no label: class folders, then
    assert not fits(tmp_path / "c") and find_photos(tmp_path / "c", split="train").classes == ("cat", "dog")
    ask = webdataset.declines(take_inventory(tmp_path / "c"), Request())
    assert ask.found == "x.tar, without labels: cat/1.jpg, cat/1.json, dog/1.jpg"


def test_ignored_tars_are_not_read(tmp_path):
    forms.write_tar(tmp_path / "train-0.tar", samples(a=0, b=1))
    (tmp_path / "other.tar").write_bytes(b"damaged")
    assert "the name other.tar has no split" in refused(tmp_path).message
    assert len(find_photos(tmp_path, split="train", ignore=("other.tar",)).splits["train"]) == 2
