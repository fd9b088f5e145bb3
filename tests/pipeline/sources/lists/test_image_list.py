"""Lists of photos: the same as class folders, however a list is written, and what is wrong in which line."""

import os
import shutil

import forms
import pytest
from alexnet_dali.pipeline.errors import AlexnetError, SourceError, UsageError
from alexnet_dali.pipeline.sources.entries import LeftOut, Request
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.sources.inventory import take_inventory
from alexnet_dali.pipeline.sources.lists import image_list
from conftest import build_set


def lay(root, *paths):
    """Write files below root, each with its path in it."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def listed(source):
    """Path and class of every photo by split."""
    return {
        split: [(photo.path, source.classes[photo.label] if photo.label >= 0 else "") for photo in photos]
        for split, photos in source.splits.items()
    }


def fits(path):
    """Whether the layout is detected."""
    return image_list.declines(take_inventory(path), Request()) is None


def refused(path, **options):
    with pytest.raises(AlexnetError) as caught:
        find_photos(path, layout="list", **options)
    return caught.value


@pytest.fixture
def folder(tmp_path):
    """Photos of three classes in folders that do not sort as they are numbered here."""
    return lay(tmp_path, "n03/a b.JPEG", "n03/c.JPEG", "n01/d.JPEG", "n02/e.JPEG")


@pytest.fixture
def tree(tmp_path):
    return forms.make_tree(tmp_path / "tree")


LINES = ["n03/a b.JPEG 0", "n01/d.JPEG 1", "n02/e.JPEG 2", "n03/c.JPEG 0"]
FOUND = [("n01/d.JPEG", "n01"), ("n02/e.JPEG", "n02"), ("n03/a b.JPEG", "n03"), ("n03/c.JPEG", "n03")]


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_same_photos_as_in_class_folders(tree, by_name, newline):
    folders = find_photos(tree)
    lists = find_photos(forms.make_lists(tree, by_name, newline))
    assert lists.kind == "list, train and val" and folders.kind == "class folders, train and val"
    assert forms.shown(lists) == forms.shown(folders) and lists.classes == folders.classes
    assert lists.splits == folders.splits


def test_builds_the_same_records(photos, shards, tmp_path):
    copy = shutil.copytree(photos, tmp_path / "photos")
    built = build_set(forms.make_lists(copy), tmp_path / "out", shard_records=16)
    assert forms.hashes(built) == forms.hashes(shards) and built.classes == shards.classes


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(LINES),
        "\r\n".join([*LINES, ""]),
        "\ufeff" + "\n".join(LINES),
        "\n".join(LINES).encode("utf-16"),
        "# photos\n\n" + "\n \n  # more\n".join(LINES) + "\n\n",
        "\n".join(line.replace("G ", "G\t") for line in LINES),
        "\n".join(line.replace("G ", "G   ") for line in LINES),
        "path label\n" + "\n".join(LINES),
        "path,label\n" + "\n".join(line.replace("G ", "G,") for line in LINES),
        "\n".join(line.replace("G ", "G, ") for line in LINES),
        "label,width,filename\r\n" + "\r\n".join(f'{line[-1]},9,"{line[:-2]}"' for line in LINES),
        "\n".join(f"./{line}" for line in LINES),
    ],
)
def test_every_way_of_writing_a_list(folder, text):
    source = find_photos(write(folder / "list.txt", text), split="train")
    assert listed(source) == {"train": FOUND} and source.classes == ("n01", "n02", "n03")
    unused = (f"{folder}/list.txt: columns that are not used: width",) if "width" in str(text) else ()
    assert source.root == folder and source.notes == (
        *unused,
        "labels follow the sorted class names, not the source's numbers (see --label-order source)",
    )
    kept = find_photos(folder / "list.txt", split="train", label_order="source")
    assert kept.classes == ("n03", "n01", "n02") and kept.notes == unused


def test_names_with_blanks_after_a_tab_and_in_a_csv(folder):
    for text in ("n03/a b.JPEG\tgreat white shark\nn03/c.JPEG\tcat", "n03/a b.JPEG,great white shark\nn03/c.JPEG,cat"):
        source = find_photos(write(folder / "list.txt", text), split="train")
        assert source.classes == ("cat", "great white shark")
    with pytest.raises(UsageError, match="the source does not number its classes"):
        find_photos(folder / "list.txt", split="train", label_order="source")


def test_a_list_is_flat_unless_it_is_called_val(folder):
    lines = "\n".join(LINES)
    flat = find_photos(write(folder / "train.txt", lines), val_share=0.25)
    assert flat.kind == "list, flat" and [len(flat.splits[name]) for name in ("train", "val")] == [3, 1]
    val = find_photos(write(folder / "val.txt", lines))
    assert val.kind == "list, all val" and listed(val) == {"val": FOUND}


def test_paths_anywhere(folder, tmp_path_factory):
    other = lay(tmp_path_factory.mktemp("other"), "n03/z.JPEG")
    link = os.path.relpath(other / "n03/z.JPEG", folder)
    inside, outside = folder / "n01/d.JPEG", other / "n03/z.JPEG"
    text = f"{inside} 0\n{outside} 1\n{link} 1\n"
    source = find_photos(write(folder / "list.txt", text), split="train")
    assert listed(source) == {"train": [("n01/d.JPEG", "n01"), *sorted([(link, "n03"), (str(outside), "n03")])]}
    assert [data for _, _, _, data in forms.shown(source)] == [b"n01/d.JPEG", b"n03/z.JPEG", b"n03/z.JPEG"]


def test_a_copy_elsewhere_has_the_same_fingerprint(folder, tmp_path_factory, monkeypatch):
    write(folder / "list.txt", "\n".join(f"{folder}/{line}" for line in LINES))
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("other") / "copy")
    write(copy / "list.txt", "\n".join(LINES))
    wanted = find_photos(copy / "list.txt").fingerprint()
    assert find_photos(folder / "list.txt").fingerprint() == wanted
    monkeypatch.chdir(folder)
    assert find_photos(image_list.Path("list.txt")).fingerprint() == wanted


def test_labels_that_the_folders_do_not_name_are_their_own_names(tmp_path):
    lay(tmp_path, *(f"all/{k}.jpg" for k in range(12)))
    write(tmp_path / "list.txt", "\n".join(f"all/{k}.jpg {k}" for k in range(12)))
    source = find_photos(tmp_path / "list.txt", split="train")
    assert source.classes == tuple(str(k) for k in range(12))
    assert source.notes == (
        "all class names are whole numbers: labels follow the numbers, 2 before 10 (--label-order)",
    )


def test_flat_validation_photos_are_named_by_the_training_ones(tmp_path):
    lay(tmp_path, "train/n02/a.JPEG", "train/n01/b.JPEG", "val/1.JPEG", "val/2.JPEG")
    write(tmp_path / "train.txt", "n02/a.JPEG 0\nn01/b.JPEG 1\n")
    write(tmp_path / "val.txt", "1.JPEG 1\n2.JPEG 0\n")
    write(tmp_path / "synset_words.txt", "n01 tench, Tinca tinca\nn02 goldfish\n")
    source = find_photos(tmp_path)
    assert listed(source)["val"] == [("val/1.JPEG", "n01"), ("val/2.JPEG", "n02")]
    assert source.words == {"n01": "tench, Tinca tinca", "n02": "goldfish"}


def test_splits_that_are_numbered_differently(tmp_path):
    lay(tmp_path, "train/n01/a.JPEG", "train/n02/b.JPEG", "val/n01/a.JPEG", "val/n02/b.JPEG")
    write(tmp_path / "train.txt", "n01/a.JPEG 0\nn02/b.JPEG 1\n")
    write(tmp_path / "val.txt", "n01/a.JPEG 1\nn02/b.JPEG 0\n")
    error = refused(tmp_path)
    assert error.message == "n01 has the label 0 in train and 1 in val" and isinstance(error, SourceError)


def test_numbers_that_are_left_out_are_told(folder):
    write(folder / "list.txt", "n03/c.JPEG 1\nn01/d.JPEG 2\nn02/e.JPEG 5\n")
    source = find_photos(folder / "list.txt", split="train", label_order="source")
    assert source.classes == ("n03", "n01", "n02")
    assert source.notes == (
        "the labels run up to 5 and skip 3 numbers, first 0: classes are renumbered from 0 without gaps",
    )


def test_a_line_that_is_there_twice_counts_once(folder):
    write(folder / "list.txt", "\n".join([*LINES, "n03/../n03/c.JPEG 0", *LINES[:2], "./n02/e.JPEG 2"]))
    source = find_photos(folder / "list.txt", split="train", label_order="source")
    assert len(source.splits["train"]) == 5  # n03/../n03 may be another place, where there are links
    assert source.notes == (f"{folder}/list.txt: 3 duplicate lines are ignored",)


def test_photos_in_two_splits_are_told(folder):
    for name in ("train", "val"):
        write(folder / f"{name}.txt", "\n".join(LINES[:3] if name == "train" else LINES))
    assert "3 photos are listed in more than one split" in find_photos(folder).notes


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["n03/c.JPEG 1"], "line 5: n03/c.JPEG has the label 1, but another in line 4"),
        (["n03/x.JPEG 0", "n03/y.JPEG 0"], "line 5: n03/x.JPEG: no such file (2 of 6 photos are missing)"),
        (["n03 0"], "line 5: n03: no such file (1 of 5 photos are missing)"),
        (["n03/c.JPEG/x.JPEG 0"], "line 5: n03/c.JPEG/x.JPEG: no such file (1 of 5 photos are missing)"),
        (["new.JPEG"], "line 5: no label"),
        (["new.JPEG", "newer.JPEG"], "line 5: no label; 2 of 6 photos have none"),
        (["new.JPEG -1"], "line 5: no label"),
        (["new.JPEG -2"], "line 5: the label -2 is negative"),
        (["new.JPEG cat"], "line 5: the label is the name 'cat', while earlier labels are numbers"),
        (["new.JPEG 1.0"], "line 5: the label 1.0 is not a whole number"),
    ],
)
def test_what_is_wrong_in_which_line(folder, lines, message):
    lay(folder, "new.JPEG", "newer.JPEG")
    error = refused(write(folder / "list.txt", "\n".join([*LINES, *lines])))
    assert error.message == f"{folder}/list.txt: {message}" and error.hint and error.exit_code == 1


def test_a_number_among_names(folder):
    error = refused(write(folder / "list.txt", "n03/c.JPEG cat\nn01/d.JPEG 3"))
    assert error.message == f"{folder}/list.txt: line 2: the label is 3, while earlier labels are names"


def test_lists_whose_photos_are_all_missing(tmp_path):
    for name in ("train", "val"):
        write(tmp_path / f"{name}.txt", "a.JPEG 0\nb.JPEG 1\n")
    (tmp_path / "train").mkdir()
    error = refused(tmp_path)
    assert error.message == f"{tmp_path}/train.txt: line 1: a.JPEG: no such file (2 of 2 photos are missing)"
    assert error.hint == (
        f"remove these lines, or add the photos below {tmp_path} or {tmp_path}/train; if they are elsewhere: --root DIR"
    )
    assert fits(tmp_path)
    lay(tmp_path, "train/cat/1.jpg")
    assert find_photos(tmp_path).kind == "class folders, flat"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no photos"),
        ("# nothing\n", "contains no photos"),
        (b"\x89PNG\0\0", "not a text file"),
        ('path,label\n"a.JPEG,0\n', "line 2: invalid CSV: unexpected end of data"),
        (",0\nn03/c.JPEG,0\n", "line 1: an empty path: no such file (1 of 2 photos are missing)"),
        ("a\0b.JPEG 0\n", "not a text file"),
    ],
)
def test_files_that_are_no_lists(folder, text, message):
    assert refused(write(folder / "list.csv", text)).message == f"{folder}/list.csv: {message}"


def test_a_folder_without_lists(folder):
    assert refused(folder).message == f"{folder}: no train.txt, val.txt or test.txt, and no table of photos"
    (folder / "train.txt").mkdir()
    assert refused(folder).exit_code == 2


@pytest.mark.parametrize("label", ["", " -1", " 0"])
def test_a_test_list_without_labels_is_built_by_name_only(folder, label):
    for name in ("train", "val"):
        write(folder / f"{name}.txt", "\n".join(LINES))
    photos = [f"test/x {k}.JPEG" for k in range(4)]
    lay(folder, *photos)
    write(folder / "test.txt", "".join(f"{path}{label}\n" for path in photos))
    source = find_photos(folder)
    assert list(source.splits) == ["train", "val"] and source.kind == "list, train and val"
    why = "test, without labels (--split test builds them)"
    assert source.account.left_out == (LeftOut("test", 4, why),)
    assert ("test: all 4 labels are 0 and are ignored" in source.notes) == (label == " 0")
    assert listed(find_photos(folder, split="test")) == {"test": [(path, "") for path in photos]}


def test_a_test_list_with_labels(folder):
    for name in ("train", "val", "test"):
        write(folder / f"{name}.txt", "\n".join(LINES))
    assert listed(find_photos(folder)) == dict.fromkeys(("train", "val", "test"), FOUND)
    write(folder / "test.txt", "\n".join([*LINES[:2], "n03/c.JPEG -2"]))
    assert refused(folder).message == f"{folder}/test.txt: line 3: the label -2 is negative"


def test_one_list_of_test_photos_alone(folder):
    write(folder / "list.txt", "n01/d.JPEG\nn02/e.JPEG\n")
    assert listed(find_photos(folder / "list.txt", split="test")) == {"test": [(path, "") for path, _ in FOUND[:2]]}


def test_letters_that_end_a_line_elsewhere(tmp_path):
    names = ["a\u2028b.JPEG", "a\x0bb.JPEG", "a\x85b.JPEG"]
    lay(tmp_path, *names)
    write(tmp_path / "list.txt", "".join(f"{name} 0\n" for name in names))
    assert sorted(path for path, _ in listed(find_photos(tmp_path / "list.txt", split="train"))["train"]) == sorted(
        names
    )


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.JPEG")
    lay(tmp_path, "a.JPEG")
    (tmp_path / name).write_bytes(b"x")
    source = find_photos(write(tmp_path / "list.txt", b"caf\xe9.JPEG 0\na.JPEG 1\n"), split="train")
    assert [photo.path for photo in source.splits["train"]] == [name, "a.JPEG"]


def test_what_looks_like_lists(folder):
    assert not fits(folder)
    write(folder / "train.txt", "\n".join(LINES))
    assert not fits(folder) and fits(folder / "train.txt")  # val may lie elsewhere
    for text, yes in [("2008_000008\n", False), ("a.JPEG\n", False), ("Photos of cats\n", False), (LINES[0], True)]:
        write(folder / "val.txt", text)
        assert fits(folder) is yes
    assert not fits(write(folder / "empty", ""))
    assert not fits(write(folder / "tar", b"a.JPEG 0\0\n"))
    assert fits(write(folder / "long.txt", f"{LINES[0]}\n" * 10_000))
