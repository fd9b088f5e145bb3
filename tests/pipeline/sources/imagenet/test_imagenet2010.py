"""The archives of 2010: the photos of the class folders, patched; labels for val and test; patches that fit nothing."""

import ilsvrc
import pytest
from alexnet_dali.pipeline.errors import SourceError, UsageError
from alexnet_dali.pipeline.sources.find import find_photos
from forms import left_out
from ilsvrc import GROUPS, ORDER, TEST, TRAIN, VAL, WNIDS, WORDS, everything, tar_bytes, write_tar

TRAIN_TAR, VAL_TAR, TEST_TAR = (f"ILSVRC2010_images_{split}.tar" for split in ("train", "val", "test"))
DEVKIT, PATCH, TRUTH = "ILSVRC2010_devkit-1.0.tar.gz", "patch_images.tar", "ILSVRC2010_test_ground_truth.txt"
BROKEN = ("n01440764_10026.JPEG", "ILSVRC2010_val_00000002.JPEG", "ILSVRC2010_test_00000001.JPEG")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return ilsvrc.class_folders(tmp_path_factory.mktemp("ilsvrc"), 2010)


@pytest.fixture
def archives(photos, tmp_path):
    return ilsvrc.official_2010(photos, tmp_path / "archives", broken=BROKEN)


def refused(root, error=SourceError, **options):
    with pytest.raises(error) as caught:
        find_photos(root, **options)
    return caught.value


def test_the_archives_hold_the_photos_of_the_class_folders(photos, archives):
    source, folders = find_photos(archives), find_photos(photos)
    assert everything(source) == everything(folders) and len(everything(source)) == TRAIN + VAL + TEST
    assert list(source.splits) == ["train", "val", "test"] and source.kind == "ImageNet 2010, archives"
    assert source.classes == WNIDS and source.words == dict(zip(WNIDS, WORDS, strict=True))
    assert source.notes == ("3 photos are replaced from patch_images.tar",)
    assert find_photos(archives, label_order="devkit").classes == ORDER


def test_a_patch_gives_its_bytes_and_the_photo_keeps_its_path(photos, archives):
    patched = {
        photo.path for photos in find_photos(archives).splits.values() for photo in photos if photo.archive == PATCH
    }
    assert patched == {
        f"{TRAIN_TAR}/n01440764.tar/n01440764_10026.JPEG",
        f"{VAL_TAR}/val/ILSVRC2010_val_00000002.JPEG",
        f"{TEST_TAR}/test/ILSVRC2010_test_00000001.JPEG",
    }
    (archives / PATCH).unlink()
    source = find_photos(archives)
    assert [name for *_, name, data in everything(source) if data == b"gone"] == list(BROKEN)
    assert source.notes == (f"{archives}/{PATCH} is missing: some photos are blank or damaged without it",)
    names = [name for *_, name, _ in everything(source)]
    assert names == [name for *_, name, _ in everything(find_photos(photos))]


def test_a_split_alone_is_patched_by_its_own_patches(archives):
    whole = find_photos(archives)
    for split in ("train", "val", "test"):
        source = find_photos(archives, split=split)
        assert source.splits == {split: whole.splits[split]} and source.classes == WNIDS
        assert source.notes == ("1 photos are replaced from patch_images.tar",)


@pytest.mark.parametrize(
    ("member", "text"),
    [
        ("patch_images/train/n01440764_1.JPEG", "matches 0 photos instead of 1"),
        (f"patch_images/val/{BROKEN[0]}", "matches 0 photos instead of 1"),
        (f"patch_images/{BROKEN[0]}", "matches 0 photos instead of 1"),
        (BROKEN[0], "matches 0 photos instead of 1"),
        ("train/twice.JPEG", "matches 2 photos instead of 1"),
    ],
)
def test_a_patch_that_replaces_no_photo_or_two(archives, member, text):
    tars = [
        (f"{wnid}.tar", tar_bytes([("twice.JPEG", b"x"), (BROKEN[0], b"y")][: 1 + (k > 1)]))
        for k, wnid in enumerate(WNIDS[:3])
    ]
    write_tar(archives / TRAIN_TAR, tars[::2])
    write_tar(archives / PATCH, [(member, b"new"), (member[:-5] + ".txt", b"about it")])
    error = refused(archives)
    assert error.message == f"{archives}/{PATCH}: {member} {text}"
    assert "check that this archive is complete" in error.hint


def test_patches_in_the_folder_valid(archives):
    write_tar(archives / PATCH, [("valid/ILSVRC2010_val_00000002.JPEG", b"new"), ("valid/._a.JPEG", b"mac")])
    source = find_photos(archives, split="val")
    assert [data for *_, name, data in everything(source) if name == BROKEN[1]] == [b"new"]


def test_without_its_ground_truth_test_is_left_out(archives):
    (archives / TRUTH).unlink()
    source = find_photos(archives)
    assert list(source.splits) == ["train", "val"]
    assert left_out(source) == [(TEST_TAR, -1, f"without labels: {TRUTH} is missing (--split test builds them)")]
    photos = find_photos(archives, split="test").splits["test"]
    assert len(photos) == TEST and {photo.label for photo in photos} == {-1}


def test_the_ground_truth_in_the_devkits_folder(archives, photos):
    folder = archives / "devkit-1.0/data"
    folder.mkdir(parents=True)
    (archives / TRUTH).rename(folder / TRUTH)
    (archives / DEVKIT).unlink()
    (folder / "meta.mat").write_bytes(ilsvrc.meta_mat("ILSVRC2010_ID"))
    (archives / "ILSVRC2010_validation_ground_truth.txt").write_bytes(ilsvrc.truth(photos / "val"))
    assert everything(find_photos(archives)) == everything(find_photos(photos))
    (folder / "ILSVRC2010_validation_ground_truth.txt").write_bytes(b"1\n")
    assert (
        refused(archives).message == f"{folder}/meta.mat: ILSVRC2010_validation_ground_truth.txt: 1 lines for 7 photos"
    )


def test_labels_that_do_not_fit_the_photos(archives, photos):
    lines = ilsvrc.truth(photos / "test").decode().split()
    table = f"{archives}/{TRUTH}"
    for changed, text in (
        (lines[:-1], f"{table}: 4 lines for 5 photos"),
        ([*lines[:2], "6", *lines[3:]], f"{table}, line 3: 6 is {GROUPS[1]}, a group of classes, not a class"),
        (
            [*lines[:2], "n01440764", *lines[3:]],
            f"{table}, line 3: 'n01440764' is not the ILSVRC ID of a class, 1 to 4",
        ),
    ):
        (archives / TRUTH).write_text("\n".join(changed))
        assert refused(archives).message == text
    (archives / TRUTH).write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    assert everything(find_photos(archives)) == everything(find_photos(photos))


def test_without_the_devkit(archives):
    (archives / DEVKIT).unlink()
    for split, tar, count in ((None, VAL_TAR, VAL), ("val", VAL_TAR, VAL), ("test", TEST_TAR, TEST)):
        error = refused(archives, UsageError, split=split)
        assert error.message == f"{archives}/{tar}: {count} photos without labels: {DEVKIT} is missing"
        assert error.hint == f"put it into {archives}, or build the training photos alone with --split train"
    source = find_photos(archives, split="train")
    assert len(source.splits["train"]) == TRAIN and source.classes == WNIDS
    (archives / TRUTH).unlink()
    source = find_photos(archives, split="test")
    assert len(source.splits["test"]) == TEST and source.classes == WNIDS


def test_any_of_the_archives(archives):
    (archives / TRAIN_TAR).rename(archives / "away")
    error = refused(archives, UsageError)
    assert error.message == f"{archives}: no train photos: {TRAIN_TAR} is missing"
    assert error.hint == "add it, or build another split with --split: val, test"
    assert find_photos(archives, split="val").classes == WNIDS
    (archives / VAL_TAR).unlink()
    assert len(find_photos(archives, split="test").splits["test"]) == TEST
    assert refused(archives, UsageError, split="val").message == f"{archives}: no val photos: {VAL_TAR} is missing"
    (archives / TEST_TAR).unlink()
    assert refused(archives, UsageError, layout="imagenet2010").hint == "add it"
    (archives / "away").rename(archives / TRAIN_TAR)
    write_tar(archives / PATCH, [])
    source = find_photos(archives, val_share=0.25)
    assert source.kind == "ImageNet 2010, archives, flat" and len(source.splits["val"]) == TRAIN // 4
    assert source.notes[0] == f"{archives}/{VAL_TAR} is missing: a share of the training photos is held out as val"


def test_the_train_tar_alone_is_patched_too(archives):
    for name in (VAL_TAR, TEST_TAR):
        (archives / name).unlink()
    whole = find_photos(archives, split="train")
    assert sum(photo.archive == PATCH for photo in whole.splits["train"]) == 1
    source = find_photos(archives)
    assert sum(photo.archive == PATCH for photos in source.splits.values() for photo in photos) == 1


def test_a_damaged_archive(archives):
    for name in (TRAIN_TAR, VAL_TAR, TEST_TAR, PATCH):
        whole = (archives / name).read_bytes()
        (archives / name).write_bytes(whole[:1500])
        error = refused(archives)
        assert error.message.startswith(f"{archives}/{name}: is truncated")
        assert error.hint == f"compare its size with the original's and run: md5sum {archives}/{name}"
        (archives / name).write_bytes(whole)


def test_a_class_of_another_year(archives):
    write_tar(archives / TRAIN_TAR, [("n99999999.tar", tar_bytes([("a.JPEG", b"a")]))])
    write_tar(archives / PATCH, [])
    for split in (None, "val"):
        assert "first n99999999" in refused(archives, split=split).message
