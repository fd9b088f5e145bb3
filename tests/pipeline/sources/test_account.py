"""The account: what is used, what is left out and why, and other files; photos that fit no reading are an error."""

import io
import tarfile
import zipfile

import pytest
from alexnet_dali.pipeline.errors import UsageError
from alexnet_dali.pipeline.sources.account import lines_of
from alexnet_dali.pipeline.sources.find import find_photos
from coloured import lay
from forms import left_out


def photos(*paths):
    return dict.fromkeys(paths, 1)


def refused(root, **options):
    with pytest.raises(UsageError) as caught:
        find_photos(root, **options)
    return caught.value


SET = photos("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "val/dog/2.jpg")


def test_a_folder_of_photos_beside_the_splits_is_refused_once_and_ignored_by_name(tmp_path):
    extra = photos(*(f"extra/{k}/{j}.png" for k in range(30) for j in range(2)))
    lay(tmp_path, SET | extra)
    error = refused(tmp_path)
    assert error.message == (
        f"photos that are no part of the layout (class folders, train and val): {tmp_path}/extra: 60 photos"
    )
    assert error.hint == "move them to where they belong, or go on without them: --ignore 'extra'"
    source = find_photos(tmp_path, ignore=("extra",))
    assert left_out(source) == [("extra", 60, "ignored, as requested")]
    assert source.account.used == {"train": {"cat": 1, "dog": 1}, "val": {"cat": 1, "dog": 1}}


def test_a_split_alone_leaves_the_others_out_with_a_line(tmp_path):
    lay(tmp_path, SET | photos("extra/1.jpg"))
    assert left_out(find_photos(tmp_path, split="train")) == [("extra", 1, "not in the split train")]


def test_patterns_match_names_and_paths_below_the_source(tmp_path):
    lay(tmp_path, SET | photos("train/cat/bad_7.jpg", "val/cat/bad_8.jpg", "train/cat/sub/3.jpg"))
    assert len(find_photos(tmp_path).splits["train"]) == 4
    source = find_photos(tmp_path, ignore=("bad_*", "train/cat/sub/"))
    assert [photo.path for photo in source.splits["train"]] == ["train/cat/1.jpg", "train/dog/1.jpg"]
    assert source.account.others == {"ignored": (2, ["train/cat/bad_7.jpg", "val/cat/bad_8.jpg"])}
    assert left_out(source) == [("train/cat/sub", 1, "ignored, as requested")]


def test_archives_of_photos_that_no_layout_reads(tmp_path):
    lay(tmp_path, SET)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as packed:
        packed.writestr("a/1.jpg", b"x")
        packed.writestr("a/notes.txt", b"x")
    with tarfile.open(tmp_path / "notes.tar.gz", "w:gz") as packed:
        packed.addfile(tarfile.TarInfo("readme.txt"), io.BytesIO())
    assert refused(tmp_path).message.endswith(f"{tmp_path}/more.zip: 1 photo")
    (tmp_path / "more.zip").rename(tmp_path / "val.zip")  # beside its folder
    source = find_photos(tmp_path)
    assert left_out(source) == [("val.zip", -1, "taken for the packed form of val/")]
    assert source.account.others == {".gz": (1, ["notes.tar.gz"])}


def test_other_files_by_ending_and_the_first_names(tmp_path):
    lay(tmp_path, SET, {f"train/cat/{k}.xml": "" for k in range(5)} | {"LICENSE": "", "val/._2.jpg": ""})
    source = find_photos(tmp_path)
    assert source.account.others == {
        ".xml": (5, [f"train/cat/{k}.xml" for k in range(3)]),
        "no ending": (1, ["LICENSE"]),
        "hidden": (1, ["val/._2.jpg"]),
    }
    assert lines_of(source.account) == [
        "other files: 5 .xml (train/cat/0.xml, train/cat/1.xml, train/cat/2.xml, ...)",
        "other files: 1 no ending (LICENSE)",
        "other files: 1 hidden (val/._2.jpg)",
    ]


def test_a_long_account_is_cut_in_print_only(tmp_path):
    lay(tmp_path, SET | photos(*(f"train/cat/{k}/@eaDir/1.jpg" for k in range(20))))
    account = find_photos(tmp_path).account
    lines = lines_of(account)
    assert len(account.left_out) == 20 and len(lines) == 13
    assert lines[-1] == "left out: 8 more places with 8 photos (all are in dataset.json)"


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    lay(tmp_path, SET | photos("train/cat/closed/3.jpg"))
    real = __import__("os").scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    error = refused(tmp_path)
    assert error.message == f"{tmp_path}/train/cat/closed: Permission denied"
    assert "chmod" in error.hint and "--ignore 'train/cat/closed'" in error.hint
    assert len(find_photos(tmp_path, ignore=("closed",)).splits["train"]) == 2
