"""The archives of 2012: the same photos as in class folders, whichever are there; every contradiction is told."""

import gzip
import io
import shutil
import tarfile

import ilsvrc
import pytest
from alexnet_dali.pipeline.errors import SourceError, UsageError
from alexnet_dali.pipeline.shards.manifest import SPLITS
from alexnet_dali.pipeline.sources.entries import Request
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.sources.imagenet import imagenet2012
from alexnet_dali.pipeline.sources.inventory import take_inventory
from forms import left_out
from ilsvrc import GROUPS, ORDER, TRAIN, VAL, WNIDS, WORDS, everything, tar_bytes, write_tar

TRAIN_TAR, VAL_TAR, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
TEST_TAR = "ILSVRC2012_img_test_v10102019.tar"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return ilsvrc.class_folders(tmp_path_factory.mktemp("ilsvrc"))


@pytest.fixture
def archives(photos, tmp_path):
    return ilsvrc.official_2012(photos, tmp_path / "archives")


@pytest.fixture
def unpacked(photos, tmp_path):
    return ilsvrc.unpacked_2012(photos, tmp_path / "unpacked")


def refused(root, error=SourceError, **options):
    with pytest.raises(error) as caught:
        find_photos(root, **options)
    return caught.value


def truth(photos):
    return ilsvrc.truth(photos / "val").decode().split()


def with_truth(photos, root, lines, end="\n"):
    """Write the devkit with another ground truth."""
    files = {"d/data/meta.mat": ilsvrc.meta_mat(), "d/data/ILSVRC2012_validation_ground_truth.txt": end.join(lines)}
    ilsvrc.write_tar_gz(root / DEVKIT, {k: v.encode() if isinstance(v, str) else v for k, v in files.items()})


def test_the_archives_hold_the_photos_of_the_class_folders(photos, archives):
    source, folders = find_photos(archives), find_photos(photos)
    assert everything(source) == everything(folders) and len(everything(source)) == TRAIN + VAL
    assert source.kind == "ImageNet 2012, archives" and source.notes == () and source.account.others == {}  # the devkit
    assert source.classes == folders.classes == WNIDS and source.words == dict(zip(WNIDS, WORDS, strict=True))
    first = source.splits["train"][0]
    assert first.path == "ILSVRC2012_img_train.tar/n01440764.tar/n01440764_10026.JPEG" and first.archive == TRAIN_TAR
    assert source.splits["val"][0].path.startswith("ILSVRC2012_img_val.tar/ILSVRC2012_val_0000000")


def test_so_do_the_unpacked_folders(photos, unpacked):
    source = find_photos(unpacked)
    assert everything(source) == everything(find_photos(photos))
    assert source.kind == "ImageNet 2012, unpacked" and source.classes == WNIDS


@pytest.mark.parametrize("moved", ["train", "val"])
def test_one_archive_unpacked_and_the_other_not(photos, archives, unpacked, moved):
    (archives / {"train": TRAIN_TAR, "val": VAL_TAR}[moved]).unlink()
    shutil.copytree(unpacked / moved, archives / moved)
    assert everything(find_photos(archives)) == everything(find_photos(photos))


def test_val_sorted_into_class_folders_needs_no_labels(photos, archives, unpacked):
    for root in (archives, unpacked):
        shutil.rmtree(root / "val", ignore_errors=True)
        (root / VAL_TAR).unlink(missing_ok=True)
        shutil.copytree(photos / "val", root / "val")
        assert everything(find_photos(root)) == everything(find_photos(photos))
    (archives / DEVKIT).unlink()
    assert everything(find_photos(archives)) == everything(find_photos(photos))
    assert find_photos(archives, split="val").classes == WNIDS


def test_an_archive_beside_its_unpacked_folder_is_the_one_that_is_read(photos, archives, unpacked):
    shutil.copytree(unpacked / "train", archives / "train")
    shutil.copytree(unpacked / "val", archives / "val")
    source = find_photos(archives)
    assert everything(source) == everything(find_photos(photos))
    assert left_out(source) == [
        ("train", TRAIN, f"{TRAIN_TAR} contains the same photos"),
        ("val", VAL, f"{VAL_TAR} contains the same photos"),
    ]


def test_the_orders_of_the_labels(archives):
    assert find_photos(archives, label_order="devkit").classes == ORDER
    assert find_photos(archives, label_order="sorted").classes == WNIDS == tuple(sorted(ORDER))
    by_name = {photo.path: photo.label for photo in find_photos(archives, label_order="devkit").splits["val"]}
    for photo in find_photos(archives).splits["val"]:
        assert ORDER[by_name[photo.path]] == WNIDS[photo.label]


def test_a_split_alone_has_the_labels_of_the_whole(photos, archives, unpacked):
    for root in (archives, unpacked):
        whole = find_photos(root)
        for split in ("train", "val"):
            source = find_photos(root, split=split)
            assert source.splits == {split: whole.splits[split]} and source.classes == WNIDS and not source.notes


def test_val_alone_knows_all_classes_without_the_train_tar(photos, archives):
    (archives / TRAIN_TAR).unlink()
    lines = truth(photos)
    keep = ORDER.index(WNIDS[1]) + 1  # all photos in one class: the others are known by the devkit only
    with_truth(photos, archives, [str(keep)] * len(lines))
    source = find_photos(archives, split="val")
    assert source.classes == WNIDS and {photo.label for photo in source.splits["val"]} == {1} and source.notes == ()
    error = refused(archives, UsageError)
    assert error.message == f"{archives}: no training photos: {TRAIN_TAR} is missing"
    assert error.hint == "add it, or build val alone with --split val"


def test_the_train_tar_alone_holds_out_a_share(photos, archives):
    (archives / VAL_TAR).unlink()
    source = find_photos(archives, val_share=0.25)
    assert source.kind == "ImageNet 2012, archives, flat"
    assert [len(source.splits[split]) for split in ("train", "val")] == [12, 4]
    assert source.notes == (f"{archives}/{VAL_TAR} is missing: a share of the training photos is held out as val",)
    error = refused(archives, UsageError, split="val")
    assert error.message == f"{archives}: no val photos: {VAL_TAR} is missing"
    (archives / DEVKIT).unlink()
    whole = find_photos(photos).splits["train"]
    assert len(find_photos(archives, split="train").splits["train"]) == len(whole) == TRAIN
    assert find_photos(archives, split="train").classes == WNIDS


def test_val_without_the_devkit_is_refused_by_name(archives, unpacked):
    for root, val in ((archives, VAL_TAR), (unpacked, "val")):
        (root / DEVKIT).unlink()
        if root == unpacked:
            shutil.copy(archives / TRAIN_TAR, root)
        for split in (None, "val"):
            error = refused(root, UsageError, split=split)
            assert error.message == f"{root / val}: {VAL} photos without labels: {DEVKIT} is missing"
            assert error.hint == f"put it into {root}, or omit val with --split train"
        assert len(find_photos(root, split="train").splits["train"]) == TRAIN


def test_a_devkit_alone(archives):
    for name in (TRAIN_TAR, VAL_TAR):
        (archives / name).unlink()
    for split in (None, *SPLITS):
        error = refused(archives, UsageError, split=split)
        assert error.message.startswith(f"{archives}: no photos, only the devkit: ILSVRC2012_img_t")
    assert "not a folder" in refused(archives / DEVKIT, UsageError, layout="imagenet2012").message
    (archives / DEVKIT).unlink()
    error = refused(archives, UsageError, layout="imagenet2012")
    assert error.message == f"{archives}: no photos: {TRAIN_TAR} is missing"


def test_a_devkit_beside_class_folders_without_splits(photos, archives, tmp_path):
    root = tmp_path / "flat"
    shutil.copytree(photos / "train", root)
    shutil.copy(archives / DEVKIT, root)
    source = find_photos(root, split="train", label_order="devkit")
    assert source.classes == ORDER and source.kind == "class folders, all train" and len(source.words) == len(WNIDS)
    assert len(source.splits["train"]) == TRAIN


def test_a_devkit_beside_few_classes_adds_none(photos, archives, tmp_path):
    root = tmp_path / "few"
    shutil.copytree(photos, root)
    shutil.copy(archives / DEVKIT, root)
    for split in ("train", "val"):
        shutil.rmtree(root / split / WNIDS[2], ignore_errors=True)
    assert find_photos(root).classes == (*WNIDS[:2], WNIDS[3]) and not find_photos(root).classes_without_training()
    assert find_photos(root, label_order="devkit").classes == tuple(name for name in ORDER if name != WNIDS[2])


def test_a_devkit_beside_something_else_does_not_claim_it(archives, tmp_path):
    root = tmp_path / "parquet"
    (root / "data").mkdir(parents=True)
    shutil.copy(archives / DEVKIT, root)
    (root / "data/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    assert all(imagenet2012.declines(take_inventory(path), Request()) for path in (root, root / DEVKIT))
    (root / WNIDS[0]).mkdir()
    assert imagenet2012.declines(take_inventory(root), Request()) is None


def test_other_files_beside_the_archives_do_not_matter(archives):
    for name in ("ILSVRC2012_img_train_t3.tar", "ILSVRC2012_bbox_train_v2.tar.gz", "photo.JPEG", "meta.bin"):
        (archives / name).write_bytes(b"?")
    assert len(everything(find_photos(archives))) == TRAIN + VAL


def test_other_members_are_counted(photos, archives):
    tars = [(f"train/{wnid}.tar", tar_bytes([(f"{wnid}_1.JPEG", b"x"), ("notes.txt", b"")])) for wnid in WNIDS]
    write_tar(archives / TRAIN_TAR, [*tars, ("readme.txt", b"read"), ("._n01440764.tar", b"mac")])
    source = find_photos(archives)
    assert source.account.members == 5 and [photo.path for photo in source.splits["train"]] == [
        f"{TRAIN_TAR}/train/{wnid}.tar/{wnid}_1.JPEG" for wnid in WNIDS
    ]


def test_the_test_archive(archives):
    write_tar(archives / TEST_TAR, [(f"test/ILSVRC2012_test_{k:08d}.JPEG", b"t" * k) for k in (2, 1)])
    write_tar(archives / "ILSVRC2012_img_test.tar", [("ILSVRC2012_test_00000001.JPEG", b"blank")])
    assert left_out(find_photos(archives)) == [
        ("ILSVRC2012_img_test.tar", -1, f"{TEST_TAR} corrects it"),
        (TEST_TAR, -1, "without labels (--split test builds them)"),
    ]
    assert list(find_photos(archives).splits) == ["train", "val"]
    source = find_photos(archives, split="test")
    assert everything(source) == [
        ("test", WNIDS[-1], "ILSVRC2012_test_00000001.JPEG", b"t"),
        ("test", WNIDS[-1], "ILSVRC2012_test_00000002.JPEG", b"tt"),
    ]
    assert {photo.label for photo in source.splits["test"]} == {-1} and source.classes == WNIDS
    for name, classes in ((TRAIN_TAR, WNIDS), (VAL_TAR, WNIDS), (DEVKIT, ())):
        (archives / name).unlink()
        source = find_photos(archives, split="test")
        assert len(source.splits["test"]) == 2 and source.classes == classes
    assert TRAIN_TAR in refused(archives, UsageError).message


def test_unpacked_test_photos(unpacked):
    error = refused(unpacked, UsageError, split="test")
    assert error.message == f"{unpacked}: no test photos: ILSVRC2012_img_test*.tar is missing"
    (unpacked / "test/test").mkdir(parents=True)  # as the archive of 2019 unpacks
    (unpacked / "test/test/ILSVRC2012_test_00000001.JPEG").write_bytes(b"t")
    assert left_out(find_photos(unpacked)) == [("test/test", 1, "without labels (--split test builds them)")]
    assert [photo.label for photo in find_photos(unpacked, split="test").splits["test"]] == [-1]


def test_only_what_the_split_needs_is_read(archives):
    whole = (archives / TRAIN_TAR).read_bytes()
    at = whole.index(b"n01440764_10026.JPEG")
    (archives / TRAIN_TAR).write_bytes(whole[:at] + b"damaged!!" + whole[at + 9 :])
    assert f"{archives}/{TRAIN_TAR}: n01440764.tar: is " in refused(archives).message
    assert len(find_photos(archives, split="val").splits["val"]) == VAL
    (archives / TRAIN_TAR).write_bytes(whole)
    (archives / VAL_TAR).write_bytes(b"")
    assert len(find_photos(archives, split="train").splits["train"]) == TRAIN


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.97])
def test_a_cut_archive_is_told_with_its_sum(archives, share):
    for name, md5 in ((TRAIN_TAR, "1d675b47d978889d74fa0da5fadfb00e"), (VAL_TAR, "29b22e2961454d5413ddabcf34fc5622")):
        whole = (archives / name).read_bytes()
        end = len(whole.rstrip(b"\0"))
        (archives / name).write_bytes(whole[: int(share * end)])
        error = refused(archives)
        assert error.message.startswith(f"{archives}/{name}: ") and "is truncated" in error.message
        assert error.hint.endswith(f"run: md5sum {archives}/{name}  (the original: {md5})")
        (archives / name).write_bytes(whole)
    assert len(everything(find_photos(archives))) == TRAIN + VAL


def test_a_compressed_archive_is_told(archives):
    for name in (TRAIN_TAR, VAL_TAR):
        whole = (archives / name).read_bytes()
        (archives / name).write_bytes(gzip.compress(whole))
        assert "is compressed with gzip" in refused(archives).message
        (archives / name).write_bytes(whole)


def test_links_devices_and_strange_names_lead_nowhere(archives, tmp_path):
    odd = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for k, kind in enumerate(odd):
            info = tarfile.TarInfo(f"{k}.JPEG")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name, data in (("../../../up.JPEG", b"u"), ("/root.JPEG", b"r"), ("2.JPEG", b"old"), ("2.JPEG", b"new")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    tars = [(f"{wnid}.tar", tar_bytes([("a.JPEG", b"a")])) for wnid in WNIDS[1:]]
    write_tar(archives / TRAIN_TAR, [(f"{WNIDS[0]}.tar", out.getvalue()), *tars])
    before = sorted(tmp_path.rglob("*"))
    source = find_photos(archives, split="train")
    found = [(name, data) for _, wnid, name, data in everything(source) if wnid == WNIDS[0]]
    assert found == [("2.JPEG", b"new"), ("root.JPEG", b"r"), ("up.JPEG", b"u")]
    assert source.account.members == len(odd) - 2 and sorted(tmp_path.rglob("*")) == before
    links, replaced = [one for one in source.account.left_out if one.path == TRAIN_TAR]
    assert (links.photos, replaced.photos) == (2, 1) and "links" in links.why and "replaced" in replaced.why


def test_a_class_of_another_set(archives):
    tars = [(f"{wnid}.tar", tar_bytes([("a.JPEG", b"a")])) for wnid in (*WNIDS, "n99999999")]
    write_tar(archives / TRAIN_TAR, tars)
    error = refused(archives)
    assert error.message == (f"{archives}: 1 of 5 classes are not among the 4 of {archives}/{DEVKIT}, first n99999999")
    assert error.hint == "use photos and devkit of the same year"


def test_a_class_that_is_missing_is_one_without_training(archives):
    write_tar(archives / TRAIN_TAR, [(f"{wnid}.tar", tar_bytes([("a.JPEG", b"a")])) for wnid in WNIDS[1:]])
    source = find_photos(archives)
    assert source.classes == WNIDS and source.classes_without_training() == [WNIDS[0]]


def test_train_tars_that_are_none(archives):
    write_tar(archives / TRAIN_TAR, [("n01440764/a.JPEG", b"a")])
    assert refused(archives).message == (
        f"{archives}/{TRAIN_TAR}: contains no class tars, such as n01440764.tar, but 1 other members"
    )
    write_tar(archives / TRAIN_TAR, [("n01440764.tar", tar_bytes([("notes.txt", b"a")]))])
    assert refused(archives).message == f"{archives}/{TRAIN_TAR}: no photos in n01440764.tar, but 1 other members"
    inner = tar_bytes([("a.JPEG", b"a")])
    write_tar(archives / TRAIN_TAR, [("n01440764.tar", inner), ("old/n01440764.tar", inner)])
    assert refused(archives).message == (
        f"{archives}/{TRAIN_TAR}: two tars of the class n01440764: n01440764.tar and old/n01440764.tar"
    )


def test_labels_that_do_not_fit_the_photos(photos, archives):
    lines = truth(photos)
    table = f"{archives}/{DEVKIT}: ILSVRC2012_validation_ground_truth.txt"
    for changed, text in (
        (lines[:-1], f"{table}: 6 lines for 7 photos"),
        ([*lines, "1"], f"{table}: 8 lines for 7 photos"),
        (["5", *lines[1:]], f"{table}, line 1: 5 is {GROUPS[0]}, a group of classes, not a class"),
        ([*lines[:-1], "1001"], f"{table}, line 7: '1001' is not the ILSVRC ID of a class, 1 to 4"),
    ):
        with_truth(photos, archives, changed)
        assert refused(archives).message == text
        assert len(find_photos(archives, split="train").splits["train"]) == TRAIN
    with_truth(photos, archives, ["\ufeff" + lines[0], *lines[1:], "", ""], end="\r\n")
    assert everything(find_photos(archives)) == everything(find_photos(photos))
    ilsvrc.write_tar_gz(archives / DEVKIT, {"d/data/meta.mat": ilsvrc.meta_mat()})
    assert refused(archives).message == f"{archives}/{DEVKIT}: no ILSVRC2012_validation_ground_truth.txt"


def test_a_val_photo_that_is_missing(photos, archives, unpacked):
    files = [(name, data) for name, data in ilsvrc.flat(photos / "val") if "00000003" not in name]
    write_tar(archives / VAL_TAR, files)
    (unpacked / "val/ILSVRC2012_val_00000003.JPEG").unlink()
    for root, val in ((archives, VAL_TAR), (unpacked, "val")):
        error = refused(root)
        assert error.message.startswith(f"{val}/ILSVRC2012_val_00000004.JPEG: is photo 3 in the order of file names: ")


def test_val_photos_loose_and_in_folders(unpacked):
    (unpacked / "val/n01440764").mkdir()
    (unpacked / "val/n01440764/a.JPEG").write_bytes(b"a")
    error = refused(unpacked, UsageError)
    assert error.message == f"{unpacked}/val: 7 photos without a class folder, beside class folders"
