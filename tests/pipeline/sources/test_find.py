"""Finding the photos: every layout of folders, the same list whatever the disk's order, nothing that hangs."""

import dataclasses
import os
import random
import shutil
import subprocess
import sys

import pytest
from alexnet_dali.pipeline.errors import ShardError, UsageError
from alexnet_dali.pipeline.sources.find import LAYOUTS, WHAT, find_again, find_photos
from forms import left_out


def lay(root, *paths):
    """Write files below root, each as long as its name."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.encode())
    return root


def listed(source):
    """What was found, in few words: split, path and class of every photo."""
    return {
        split: [(photo.path, source.classes[photo.label]) for photo in photos]
        for split, photos in source.splits.items()
    }


def test_train_and_val(tmp_path):
    lay(tmp_path, "train/n02/b.JPEG", "train/n02/a.jpg", "train/n01/x.png", "val/n02/v.jpeg", "train/n01/notes.txt")
    source = find_photos(tmp_path)
    assert listed(source) == {
        "train": [("train/n01/x.png", "n01"), ("train/n02/a.jpg", "n02"), ("train/n02/b.JPEG", "n02")],
        "val": [("val/n02/v.jpeg", "n02")],
    }
    assert source.classes == ("n01", "n02") and [photo.label for photo in source.splits["train"]] == [0, 1, 1]
    assert [photo.bytes for photo in source.splits["val"]] == [len("val/n02/v.jpeg")]
    assert source.kind == "class folders, train and val" and source.account.other_files == 1 and source.root == tmp_path


def test_one_split_alone_keeps_the_labels_of_both(tmp_path):
    lay(tmp_path, "train/b/1.jpg", "val/a/2.jpg", "val/b/3.jpg")
    assert listed(find_photos(tmp_path, split="val")) == {"val": [("val/a/2.jpg", "a"), ("val/b/3.jpg", "b")]}
    assert find_photos(tmp_path, split="train").classes == ("a", "b")


def test_flat_with_a_seeded_hold_out(tmp_path):
    lay(tmp_path, *(f"{name}/{k}.jpg" for name in ("cat", "dog") for k in range(50)))
    source = find_photos(tmp_path, val_share=0.1, seed=3)
    assert source.kind == "class folders, flat"
    train, val = ({photo.path for photo in source.splits[name]} for name in ("train", "val"))
    assert len(val) == 10 and len(train) == 90 and not train & val  # a share of all photos, each in one split
    assert find_photos(tmp_path, val_share=0.1, seed=3) == source
    assert {photo.path for photo in find_photos(tmp_path, val_share=0.1, seed=4).splits["val"]} != val
    assert len(find_photos(tmp_path, val_share=0.25).splits["val"]) == 25
    assert len(find_photos(tmp_path, val_share=0.001).splits["val"]) == 1  # asked for some, got some
    assert listed(find_photos(tmp_path, val_share=0))["val"] == []


def test_flat_as_one_split(tmp_path):
    lay(tmp_path, "cat/1.jpg", "dog/2.jpg")
    for split in ("train", "val"):
        source = find_photos(tmp_path, split=split)
        assert listed(source) == {split: [("cat/1.jpg", "cat"), ("dog/2.jpg", "dog")]}
        assert source.kind == f"class folders, all {split}"


def test_an_impossible_share_is_refused(tmp_path):
    lay(tmp_path, "cat/1.jpg")
    with pytest.raises(UsageError, match=r"a share of 0.95 cannot be held out; choose --val-share between 0 and 0.9"):
        find_photos(tmp_path, val_share=0.95)


def test_only_train_is_one_flat_set(tmp_path):
    lay(tmp_path, *(f"train/cat/{k}.jpg" for k in range(20)), "readme.md")
    source = find_photos(tmp_path)
    assert source.classes == ("cat",) and len(source.splits["train"]) == 18 and len(source.splits["val"]) == 2
    assert source.splits["train"][0].path == "train/cat/0.jpg"


def test_only_val_is_all_val(tmp_path):
    lay(tmp_path, "val/cat/1.jpg", "val/dog/2.jpg")
    assert listed(find_photos(tmp_path)) == {"val": [("val/cat/1.jpg", "cat"), ("val/dog/2.jpg", "dog")]}


def test_val_without_class_folders_is_refused(tmp_path):
    lay(tmp_path, "train/cat/1.jpg", "val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG")
    for split in (None, "val"):
        with pytest.raises(UsageError) as caught:
            find_photos(tmp_path, split=split)
        assert caught.value.message == f"{tmp_path}/val: 2 photos without a class folder, and so without labels"
        assert caught.value.hint == (
            "sort them into class folders as in train; or put LOC_val_solution.csv (Kaggle's) or "
            f"ILSVRC2012_devkit_t12.tar.gz into {tmp_path}; or omit them with --split train"
        )
    assert listed(find_photos(tmp_path, split="train")) == {"train": [("train/cat/1.jpg", "cat")]}


def test_an_empty_val(tmp_path):
    lay(tmp_path, "train/cat/1.jpg")
    (tmp_path / "val").mkdir()
    source = find_photos(tmp_path)
    assert listed(source) == {"train": [("train/cat/1.jpg", "cat")], "val": []}


def test_a_class_without_training_photos_is_told(tmp_path):
    lay(tmp_path, "train/cat/1.jpg", "val/cat/2.jpg", "val/ape/3.jpg")
    (tmp_path / "train" / "dog").mkdir()  # a folder without photos is not a class
    source = find_photos(tmp_path)
    assert source.classes == ("ape", "cat") and source.classes_without_training() == ["ape"]


def test_deeper_folders_belong_to_their_class(tmp_path):
    lay(tmp_path, "cat/tabby/old/1.jpg", "cat/2.jpg")
    found = listed(find_photos(tmp_path, split="train"))
    assert found == {"train": [("cat/tabby/old/1.jpg", "cat"), ("cat/2.jpg", "cat")]}  # by file name


def test_a_photo_is_known_by_its_suffix_in_any_case(tmp_path):
    taken = ["a.jpeg", "b.JPG", "c.jpe", "d.Png", "e.gif", "f.bmp", "g.webp", "h.tif", "i.TIFF", "j.ppm", "k.pgm"]
    left = ["a.txt", "b.jpg.bak", "jpg", "c.json"]
    lay(tmp_path, *(f"cat/{name}" for name in taken + left))
    source = find_photos(tmp_path, split="train")
    assert [path for path, _ in listed(source)["train"]] == [f"cat/{name}" for name in taken]
    assert source.account.other_files == len(left)


def test_hidden_files_and_folders_are_ignored(tmp_path):
    lay(tmp_path, "cat/1.jpg", "cat/._1.jpg", "cat/.thumbs/2.jpg", ".trash/cat/3.jpg", ".jpg/4.jpg")
    source = find_photos(tmp_path, split="train")
    assert listed(source) == {"train": [("cat/1.jpg", "cat")]} and source.account.others == {
        "hidden": (1, ["cat/._1.jpg"])
    }
    assert left_out(source) == [(".jpg", 1, "hidden"), (".trash", 1, "hidden"), ("cat/.thumbs", 1, "hidden")]


def test_a_folder_called_like_a_photo_is_a_folder(tmp_path):
    lay(tmp_path, "cat/x.JPEG/1.jpg")
    assert listed(find_photos(tmp_path, split="train")) == {"train": [("cat/x.JPEG/1.jpg", "cat")]}


def test_links_are_followed(tmp_path):
    lay(tmp_path / "store", "cats/1.jpg", "dogs/2.jpg", "deep/3.jpg", "4.jpg")
    (tmp_path / "photos" / "dog").mkdir(parents=True)
    os.symlink(tmp_path / "store" / "cats", tmp_path / "photos" / "cat")
    os.symlink(tmp_path / "store" / "deep", tmp_path / "photos" / "dog" / "more")
    os.symlink(tmp_path / "store" / "4.jpg", tmp_path / "photos" / "dog" / "4.jpg")
    os.symlink(tmp_path / "store" / "cats", tmp_path / "photos" / "dog" / "again")  # twice the same folder is no loop
    source = find_photos(tmp_path / "photos", split="train")
    assert [path for path, _ in listed(source)["train"]] == [
        "cat/1.jpg",
        "dog/again/1.jpg",
        "dog/more/3.jpg",
        "dog/4.jpg",
    ]
    os.symlink(tmp_path / "photos", tmp_path / "link")
    assert find_photos(tmp_path / "link", split="train").fingerprint() == source.fingerprint()


@pytest.mark.parametrize("target", [".", "..", "deeper"])
def test_a_loop_of_links_is_noticed(tmp_path, target):
    lay(tmp_path, "cat/deeper/1.jpg")
    os.symlink(tmp_path / "cat" / target, tmp_path / "cat" / "deeper" / "loop")
    with pytest.raises(UsageError) as caught:
        find_photos(tmp_path)
    assert caught.value.message == f"{tmp_path}/cat/deeper/loop: symbolic link to a folder above it"
    assert caught.value.hint == "remove the link, or go on without it: --ignore 'cat/deeper/loop'"
    assert listed(find_photos(tmp_path, split="train", ignore=("loop",))) == {"train": [("cat/deeper/1.jpg", "cat")]}


def test_links_to_nothing_and_to_themselves(tmp_path):
    lay(tmp_path, "cat/1.jpg")
    os.symlink("nowhere", tmp_path / "cat" / "lost.jpg")
    os.symlink("itself.jpg", tmp_path / "cat" / "itself.jpg")
    os.symlink("itself", tmp_path / "itself")
    os.symlink("nowhere", tmp_path / "lost")
    source = find_photos(tmp_path, split="train")  # listed, so that the build rejects them by name
    assert [(photo.path, photo.bytes) for photo in source.splits["train"]] == [
        ("cat/1.jpg", 9),
        ("cat/itself.jpg", 0),
        ("cat/lost.jpg", 0),
    ]


def test_a_pipe_is_ignored_without_hanging(tmp_path):
    lay(tmp_path, "cat/1.jpg")
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    code = (
        "import sys; from pathlib import Path; from alexnet_dali.pipeline.sources.find import find_photos\n"
        "source = find_photos(Path(sys.argv[1]), split='train')\n"
        "print([photo.path for photo in source.splits['train']], source.account.other_files)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "['cat/1.jpg'] 2\n"


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    lay(tmp_path, "a/1.jpg")
    os.makedirs(tmp_path / name)
    (tmp_path / name / os.fsdecode(b"\xff\n.jpg")).write_bytes(b"x")
    source = find_photos(tmp_path, split="train")
    assert source.classes == ("a", name)
    assert source.splits["train"][1].path == f"{name}/" + os.fsdecode(b"\xff\n.jpg")
    assert len(source.fingerprint()) == 64


def test_the_order_of_creation_does_not_matter(tmp_path):
    names = [f"{folder}/{k}.jpg" for folder in ("b", "a", "c") for k in (10, 9, 1)]
    for copy, seed in (("one", 0), ("two", 1)):
        random.Random(seed).shuffle(names)
        lay(tmp_path / copy, *names)
    one, two = (find_photos(tmp_path / copy, seed=5) for copy in ("one", "two"))
    assert listed(one) == listed(two) and one.fingerprint() == two.fingerprint()


def test_the_order_that_the_disk_gives_does_not_matter(tmp_path, monkeypatch):
    lay(tmp_path, *(f"{folder}/{k}.jpg" for folder in "abc" for k in range(4)))
    there = find_photos(tmp_path)

    class Backwards:
        def __init__(self, place):
            with real(place) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    real = os.scandir
    monkeypatch.setattr(os, "scandir", Backwards)
    assert find_photos(tmp_path) == there


def test_the_fingerprint_knows_a_copy_and_every_change(tmp_path):
    lay(tmp_path / "photos", "train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "val/b/4.jpg")
    before = find_photos(tmp_path / "photos").fingerprint()
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(tmp_path / "photos", copy)
    assert find_photos(copy).fingerprint() == before
    lay(copy, "train/b/readme.txt")
    assert find_photos(copy).fingerprint() == before
    flat = {find_photos(tmp_path / "photos/train", val_share=0.5, seed=seed).fingerprint() for seed in range(6)}
    assert len(flat) == 2  # of two photos, one or the other is held out
    assert len({find_photos(tmp_path / "photos/train", split=split).fingerprint() for split in ("train", "val")}) == 2
    changes = [
        lambda: (copy / "train/a/1.jpg").write_bytes(b"longer than it was"),
        lambda: (copy / "train/a/1.jpg").rename(copy / "train/a/0.jpg"),
        lambda: (copy / "train/a/0.jpg").rename(copy / "train/b/0.jpg"),
        lambda: (copy / "train/b/0.jpg").rename(copy / "val/b/0.jpg"),
        (copy / "val/b/0.jpg").unlink,
    ]
    seen = {before}
    for change in changes:
        change()
        seen.add(find_photos(copy).fingerprint())
    assert len(seen) == 1 + len(changes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing", "no such file or folder"),
        ("file", "no photos in a known layout; there is: a file of another kind"),
    ],
)
def test_a_source_that_is_no_folder(tmp_path, name, text):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as caught:
        find_photos(tmp_path / name)
    assert caught.value.message == f"{tmp_path / name}: {text}" and caught.value.hint == WHAT


@pytest.mark.parametrize(
    "paths",
    [[], ["loose.jpg"], ["cat/notes.txt"], ["train/cat/notes.txt", "val/cat/notes.txt"]],
)
def test_a_source_without_photos_in_class_folders(tmp_path, paths):
    lay(tmp_path, *paths)
    with pytest.raises(UsageError) as caught:
        find_photos(tmp_path)
    text = [path for path in paths if path.endswith(".txt")]
    there = f"{len(text)} .txt" if text else "1 photo" if paths else "nothing"
    nearest = "1 photo, but none in a class folder" if "loose.jpg" in paths else f"no photos, {len(text)} other files"
    assert caught.value.message == f"{tmp_path}: no photos in a known layout; there is: {there}"
    nearest_line, *others = caught.value.details
    if paths:
        assert nearest_line == f"not class folders of photos: CLASS/photo.jpg, or train/CLASS/photo.jpg: {nearest}"
        assert caught.value.hint.startswith(
            f"arrange them as {tmp_path}/CLASS/photo.jpg, or as {tmp_path}/train/CLASS/photo.jpg "
            f"and {tmp_path}/val/CLASS/photo.jpg"
        )
    assert len(others) == len(LAYOUTS) - 1 and all(line.startswith("not ") for line in others)


@pytest.mark.parametrize(
    ("paths", "which"),
    [(["train/1.jpg", "val/2.jpg"], ("train", "val")), (["train/1.jpg"], ("train",)), (["val/1.jpg"], ("val",))],
)
def test_splits_without_class_folders_are_no_classes(tmp_path, paths, which):
    lay(tmp_path, *paths)
    for split in (None, "train", "val"):
        with pytest.raises(UsageError) as caught:
            find_photos(tmp_path, split=split)
        if split in (None, *which):
            first = split or which[0]
            wanted = f"{tmp_path}/{first}: 1 photo without a class folder, and so without labels"
            assert caught.value.message == wanted and caught.value.hint.startswith("sort them into ")
        else:
            assert caught.value.message.startswith(f"{tmp_path}: no photos in class folders")


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Train", "Validation"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
        ("seg_train/seg_train", "seg_dev/seg_dev"),
        ("all/train2017", "all/val2017"),
        ("trainImages", "valImages"),
    ],
)
def test_splits_have_many_spellings(tmp_path, train, val):
    lay(tmp_path, f"{train}/cat/1.jpg", f"{train}/dog/1.jpg", f"{val}/cat/2.jpg")
    assert listed(find_photos(tmp_path)) == {
        "train": [(f"{train}/cat/1.jpg", "cat"), (f"{train}/dog/1.jpg", "dog")],
        "val": [(f"{val}/cat/2.jpg", "cat")],
    }


def test_loose_training_photos_beside_val_in_class_folders_are_refused(tmp_path):
    lay(tmp_path, "train/1.jpg", "val/cat/2.jpg")
    for split in (None, "train"):
        with pytest.raises(UsageError, match="only val has photos in class folders"):
            find_photos(tmp_path, split=split)
    assert len(find_photos(tmp_path, split="val").splits["val"]) == 1


def test_loose_photos_beside_class_folders_are_counted(tmp_path):
    lay(tmp_path, "train/1.jpg", "train/cat/2.jpg", "val/cat/3.jpg")
    assert left_out(find_photos(tmp_path)) == [("train", 1, "in no class folder")]


def test_among_others_train_is_a_class_of_locomotives(tmp_path):
    lay(tmp_path, "train/1.jpg", "bus/2.jpg")
    assert find_photos(tmp_path).classes == ("bus", "train")


def test_a_split_of_another_name(tmp_path):
    lay(tmp_path, "cat/1.jpg")
    with pytest.raises(UsageError, match="unknown split 'dev'; choose one of train, val, test"):
        find_photos(tmp_path, split="dev")


def test_an_unlabelled_test_is_skipped_with_a_line_and_built_by_name(tmp_path):
    lay(tmp_path, "train/cat/1.jpg", "val/cat/2.jpg", "test/3.jpg", "test/4.jpg")
    source = find_photos(tmp_path)
    assert listed(source) == {"train": [("train/cat/1.jpg", "cat")], "val": [("val/cat/2.jpg", "cat")]}
    assert left_out(source) == [("test", 2, "without labels (--split test builds them)")]
    by_name = find_photos(tmp_path, split="test")
    assert [(photo.path, photo.label) for photo in by_name.splits["test"]] == [("test/3.jpg", -1), ("test/4.jpg", -1)]
    assert list(by_name.splits) == ["test"]


@pytest.mark.parametrize("more", [[], ["train/cat/1.jpg"]])
def test_a_test_folder_alone(tmp_path, more):
    lay(tmp_path, "test/3.jpg", *more)
    source = find_photos(tmp_path, split="test")
    assert [(photo.path, photo.label) for photo in source.splits["test"]] == [("test/3.jpg", -1)]


def test_a_folder_of_loose_photos_is_a_test_split_by_name(tmp_path):
    lay(tmp_path, "1.jpg", "2.jpg")
    assert [photo.label for photo in find_photos(tmp_path, split="test").splits["test"]] == [-1, -1]
    with pytest.raises(UsageError, match="no photos in a known layout") as caught:
        find_photos(tmp_path, split="train")
    assert "2 photos, but none in a class folder" in caught.value.details[0]


def test_a_labelled_test_has_the_classes_of_training(tmp_path):
    lay(tmp_path, "train/cat/1.jpg", "train/ant/1.jpg", "val/cat/2.jpg", "test/cat/3.jpg")
    assert [photo.label for photo in find_photos(tmp_path).splits["test"]] == [1]
    assert [photo.label for photo in find_photos(tmp_path, split="test").splits["test"]] == [1]
    shutil.rmtree(tmp_path / "val")
    assert [photo.label for photo in find_photos(tmp_path, split="test").splits["test"]] == [1]


def test_find_again_asks_as_before(tmp_path):
    lay(tmp_path / "photos", *(f"{name}/{k}.jpg" for name in ("a", "b") for k in range(20)))
    source = find_photos(tmp_path / "photos", val_share=0.3, seed=5)
    manifest = {"source": {"path": str(source.root), "request": source.request}}
    assert find_again(manifest) == source
    moved = tmp_path / "moved"
    (tmp_path / "photos").rename(moved)
    assert find_again(manifest, moved).fingerprint() == source.fingerprint()
    with pytest.raises(ShardError, match=r"dataset\.json does not record the source of the set"):
        find_again({"source": {"path": "x"}})


def test_words_come_with_the_classes(tmp_path):
    lay(tmp_path, "n01440764/1.jpg", "n01443537/1.jpg")
    (tmp_path / "synset_words.txt").write_text("n01440764 tench, Tinca tinca\nn09999999 nothing\n")
    assert find_photos(tmp_path).words == {"n01440764": "tench, Tinca tinca"}
    (tmp_path / "LOC_synset_mapping.txt").write_bytes(b"\xef\xbb\xbfn01440764 tench\r\nn01443537\tgoldfish\r\n\r\n")
    assert find_photos(tmp_path).words == {"n01440764": "tench", "n01443537": "goldfish"}


def test_a_layout_of_no_name(tmp_path):
    lay(tmp_path, "cat/1.jpg")
    with pytest.raises(UsageError, match="unknown layout 'zip'; choose one of auto, "):
        find_photos(tmp_path, layout="zip")


def test_a_request_of_a_later_version_is_told(tmp_path):
    lay(tmp_path, "cat/1.jpg")
    with pytest.raises(ShardError, match="unknown source options: colour; update alexnet-dali"):
        find_again({"source": {"path": str(tmp_path), "request": {"colour": "blue"}}})


def test_a_class_of_half_a_character_has_a_fingerprint(tmp_path):
    lay(tmp_path, "cat/1.jpg")
    source = find_photos(tmp_path)
    assert len(dataclasses.replace(source, classes=("\ud800",)).fingerprint()) == 64


def test_classes_named_after_splits_are_asked_about_and_read_on_request(tmp_path):
    lay(tmp_path, "steam train/1.jpg", "bullet train/2.jpg", "test tube/3.jpg")
    with pytest.raises(UsageError, match="the name says train, and so does") as caught:
        find_photos(tmp_path)
    assert "--class-folders top" in caught.value.hint
    source = find_photos(tmp_path, class_folders="top")
    assert source.classes == ("bullet train", "steam train", "test tube")
    shutil.rmtree(tmp_path / "steam train")
    with pytest.raises(UsageError, match="1 photo without a class folder") as caught:
        find_photos(tmp_path)
    assert caught.value.hint.endswith("; or, if the folders are classes, --class-folders top")
    assert find_photos(tmp_path, class_folders="top").classes == ("bullet train", "test tube")


@pytest.mark.parametrize("upper", ["cat", "animals"])
def test_splits_below_other_folders_are_refused_with_the_way_out(tmp_path, upper):
    inner = "" if upper == "cat" else "/cat"
    lay(tmp_path, *(f"{top}/{split}{inner}/1.jpg" for top in (upper, "dog") for split in ("train", "val")))
    with pytest.raises(UsageError, match="is named after a split, below a folder that is not") as caught:
        find_photos(tmp_path)
    assert "SPLIT/CLASS/photo.jpg" in caught.value.hint and "--class-folders" not in caught.value.hint


def test_the_hint_for_training_photos_without_folders_is_not_that_for_val(tmp_path):
    lay(tmp_path, "train/cat.0.jpg", "train/dog.0.jpg")
    for split in (None, "train"):
        with pytest.raises(UsageError, match="2 photos without a class folder") as caught:
            find_photos(tmp_path, split=split)
        assert caught.value.hint == f"sort them into {tmp_path}/train/CLASS, or write a list of lines `path label`"


def test_tiny_imagenet_without_its_annotations_names_them(tmp_path):
    lay(tmp_path, "train/n01/images/1.jpg", "train/n02/images/1.jpg", "val/images/2.jpg", "wnids.txt")
    with pytest.raises(UsageError) as caught:
        find_photos(tmp_path, layout="folders")
    assert "val_annotations.txt (Tiny ImageNet's)" in caught.value.hint


def test_options_that_do_nothing_are_said(tmp_path):
    lay(tmp_path, "train/cat/1.jpg", "train/eel/1.jpg", "val/cat/2.jpg")
    source = find_photos(tmp_path, ignore=("zzz", "./train/eel/"), val_share=0.3)
    assert source.warnings[1:] == ("--ignore 'zzz' matches nothing",) and source.classes == ("cat",)
    assert "--val-share 0.3 is not used: there is a val" in source.notes
    alone = find_photos(tmp_path / "train", split="train", val_share=0.3)
    assert "--val-share 0.3 is not used: --split train takes all photos of a split" in alone.notes
    assert len(alone.splits["train"]) == 2


def test_a_set_without_training_photos_says_so(tmp_path):
    lay(tmp_path, "val/cat/1.jpg", "val/dog/1.jpg")
    assert find_photos(tmp_path).warnings == ("there are no training photos: all are val",)
    assert find_photos(tmp_path, split="val").warnings == ()
