"""Lists that name only some of the photos in class folders are asked about; the folder of a list's paths is kept."""

import json
import shutil

import pytest
from alexnet_dali.pipeline.errors import UsageError
from alexnet_dali.pipeline.sources.find import find_again, find_photos
from alexnet_dali.tools.prep.cli import prep
from test_table_layouts import NAMES, check, colour, draw, refused, write


def class_folders(root, below=""):
    """Write 12 photos in two class folders and return their paths relative to the folder of these."""
    paths = [f"{NAMES[k % 2]}/{k}.jpg" for k in range(12)]
    for k, path in enumerate(paths):
        draw(root / below / path, k % 2)
    return paths


def label(path):
    return f"{path} {NAMES.index(path.split('/')[0])}"


@pytest.mark.parametrize(
    ("below", "file", "numbers", "form", "said"),
    [
        ("", "splits.csv", range(9, 12), "{0},test", "3 of the 12 photos in class folders (test 3)"),
        ("", "test.txt", range(9, 12), "{0}", "3 of the 12 photos in class folders (test 3)"),
        ("images", "meta/test.txt", range(9, 12), "{0}", "3 of the 12 photos in class folders (test 3)"),
        ("images", "meta/train.txt", range(9), "{2}", "9 of the 12 photos in class folders (train 9)"),
        ("", "train.txt", range(9), "{0}", "9 of the 12 photos in class folders (train 9)"),
        ("", "train.txt", range(9), "{1}", "9 of the 12 photos in class folders (train 9)"),
        ("images", "meta/train.txt", range(9), "{1}", "9 of the 12 photos in class folders (train 9)"),
        ("", "labels.csv", range(6), "{0},{3}", "6 of the 12 photos in class folders;"),
        ("", "val.txt", range(3), "{1}", "3 of the 12 photos in class folders (val 3)"),
        ("", "test.txt", range(3), "{1}", "3 of the 12 photos in class folders (test 3)"),
    ],
)
def test_a_list_of_some_photos_is_asked_about(tmp_path, below, file, numbers, form, said):
    paths = class_folders(tmp_path, below)
    head = {"splits.csv": ["image,split"], "labels.csv": ["image,label"]}.get(file, [])
    listed = [paths[k] for k in numbers]
    write(
        tmp_path / file,
        *head,
        *(form.format(path, label(path), path.removesuffix(".jpg"), path.split("/")[0]) for path in listed),
    )
    error = refused(tmp_path)
    assert isinstance(error, UsageError)
    assert f"{file}: lists {said}" in error.message
    assert all(one in error.hint for one in ("--layout list", "--layout folders", f"--ignore '{file}'"))
    check(find_photos(tmp_path, layout="folders", split="train"), NAMES, train=12)
    check(find_photos(tmp_path, ignore=(file,), split="train"), NAMES, train=12)
    unlabelled = "test" in said and "1" not in form
    assert ("--layout list --split test" in error.hint) == unlabelled
    alone = find_photos(tmp_path, layout="list", split="test" if unlabelled else None, val_share=0)  # as the hint says
    taken = ["/".join(photo.path.split("/")[-2:]) for photos in alone.splits.values() for photo in photos]
    assert sorted(taken) == sorted(listed)
    if not unlabelled:
        assert all(photo.label == colour(alone.root, photo) for photos in alone.splits.values() for photo in photos)


def test_caffes_lists_that_leave_out_photos_of_class_folders(tmp_path):
    paths = class_folders(tmp_path)
    write(tmp_path / "train.txt", *map(label, paths[:6]))
    write(tmp_path / "val.txt", *map(label, paths[6:10]))
    error = refused(tmp_path)
    assert "train.txt and val.txt: lists 10 of the 12 photos in class folders (train 6, val 4)" in error.message
    check(find_photos(tmp_path, layout="list"), NAMES, train=6, val=4)
    write(tmp_path / "test.txt", *paths[10:])  # without labels, which is said; but every photo is in a list
    check(find_photos(tmp_path), NAMES, train=6, val=4)


def test_a_list_of_other_photos_beside_class_folders(tmp_path):
    paths = class_folders(tmp_path)
    for k in range(4):
        draw(tmp_path / f"{k}.png", k % 2)
    write(tmp_path / "labels.csv", "image,label", *(f"{k}.png,{NAMES[k % 2]}" for k in range(4)))
    said = f"labels.csv: lists 0 of the {len(paths)} photos in class folders, and 4 others;"
    assert said in refused(tmp_path).message
    check(find_photos(tmp_path, layout="list", split="train"), NAMES, train=4)


@pytest.mark.parametrize("part", ["train", "both"])
def test_a_list_that_repeats_a_splits_folder_is_not_asked_about(tmp_path, part):
    for split in ("train", "val"):
        class_folders(tmp_path, split)
    paths = class_folders(tmp_path / "spare")
    shutil.rmtree(tmp_path / "spare")
    splits = ["train", "val"] if part == "both" else ["train"]
    lines = [f"{split}/{path},{split},{path.split('/')[0]}" for split in splits for path in paths]
    write(tmp_path / "labels.csv", "image,split,label", *lines)
    source = find_photos(tmp_path)
    check(source, NAMES, train=12, val=12)
    assert source.kind == "class folders, train and val"
    write(tmp_path / "labels.csv", "image,split,label", *lines[1:])
    assert f"{len(lines) - 1} of the 24 photos" in refused(tmp_path).message


def test_a_list_whose_photos_are_not_there_is_named(tmp_path):
    paths = class_folders(tmp_path / "elsewhere")
    write(tmp_path / "set" / "train.txt", *(f"/{label(path)}" for path in paths))
    error = refused(tmp_path / "set")
    assert "train.txt, whose photos are not there" in error.details[0]
    assert error.hint.startswith("say where they are: --root")
    check(find_photos(tmp_path / "set", paths_root=tmp_path / "elsewhere", split="train"), NAMES, train=12)


def test_a_list_beside_which_nothing_is_does_not_hide_those_in_meta(tmp_path):
    paths = class_folders(tmp_path, "images")
    write(tmp_path / "test.txt", "gone/1.jpg", "gone/2.jpg")
    write(tmp_path / "meta" / "train.txt", *map(label, paths[:8]))
    write(tmp_path / "meta" / "val.txt", *map(label, paths[8:]))
    check(find_photos(tmp_path), NAMES, train=8, val=4)


def test_a_root_for_a_layout_without_lists(tmp_path):
    class_folders(tmp_path)
    error = refused(tmp_path, paths_root=tmp_path / "cat")
    assert isinstance(error, UsageError)
    assert error.message == "--root is for lists; this source was read as class folders, flat, which has none"
    assert refused(tmp_path, paths_root=tmp_path, layout="folders").message == error.message


@pytest.mark.parametrize("name", ["img", "."])
def test_a_root_inside_the_source_moves_with_it(tmp_path, name):
    paths = class_folders(tmp_path / "set", name)
    listing = write(tmp_path / "set" / "photos.csv", "image,label", *(f"{one},{one.split('/')[0]}" for one in paths))
    for source_path in (tmp_path / "set", listing):
        source = find_photos(source_path, paths_root=tmp_path / "set" / name, split="train")
        assert source.request["paths_root"] == f"./{name}"
        check(source, NAMES, train=12)
        manifest = json.loads(json.dumps({"source": {"path": str(source_path), "request": source.request}}))
        moved = tmp_path / "moved" / source_path.relative_to(tmp_path / "set")
        (tmp_path / "set").rename(tmp_path / "moved")
        again = find_again(manifest, moved)
        check(again, NAMES, train=12)
        assert again.fingerprint() == source.fingerprint()
        (tmp_path / "moved").rename(tmp_path / "set")


@pytest.mark.parametrize("apart", [False, True])
def test_a_moved_source_with_a_root_repairs_a_set(tmp_path, in_process, threads_for_workers, apart):
    threads_for_workers("prep.build_lmdb")
    threads_for_workers("prep.verify")
    paths = class_folders(tmp_path / "set" / "img")
    write(tmp_path / "set" / "photos.csv", "image,label", *(f"{path},{path.split('/')[0]}" for path in paths))
    root, out, moved = tmp_path / "set" / "img", tmp_path / "out", tmp_path / "moved"
    if apart:
        root = root.rename(tmp_path / "apart")
    options = ("--out", out, "--root", root, "--size", 16, "--workers", 1)
    assert in_process(prep, "build-lmdb", tmp_path / "set", *options)[0] == 0
    (tmp_path / "set").rename(moved)
    if apart:
        root.rename(tmp_path / "gone")
    data = out / "train" / "00000.lmdb" / "data.mdb"
    before = data.read_bytes()
    data.write_bytes(before[:100])
    verify = (prep, "verify", "--shards", out, "--workers", 1)
    if apart:
        code, _, aside = in_process(*verify, "--repair", "--source", moved)
        assert code == 2 and f"--root {root}: no such folder" in aside and "move the photos back there" in aside
        (tmp_path / "gone").rename(root)
    assert in_process(*verify, "--repair", "--source", moved)[0] == 0
    assert data.read_bytes() == before
    code, said, aside = in_process(*verify, "--against", moved)
    assert code == 0, said + aside
    assert "12" in said


def test_a_root_elsewhere_that_is_gone(tmp_path):
    paths = class_folders(tmp_path / "photos")
    write(tmp_path / "set" / "train.txt", *map(label, paths))
    source = find_photos(tmp_path / "set", paths_root=tmp_path / "photos", split="train")
    assert source.request["paths_root"] == str(tmp_path / "photos")
    manifest = {"source": {"path": str(tmp_path / "set"), "request": source.request}}
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(UsageError) as caught:
        find_again(manifest)
    assert "no such folder" in caught.value.message and "move the photos back" in caught.value.hint
    (tmp_path / "photos").symlink_to(tmp_path / "moved")  # as the hint says
    assert find_again(manifest).fingerprint() == source.fingerprint()
