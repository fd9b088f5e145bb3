"""Photos in tars that are links, or that a later member replaces: counted in the account, one line a tar and reason."""

import gzip
import io
import tarfile

import forms
import pytest
from alexnet_dali.pipeline.errors import SourceError, UsageError
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.sources.imagenet.class_tars import flat_photos, training_photos
from alexnet_dali.pipeline.sources.tars.passed_over import LINKS, REPLACED

HARD, SOFT = tarfile.LNKTYPE, tarfile.SYMTYPE


def tar(path, *members):
    """Write a tar of (name, bytes), or of (name, type of link, target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, *what in members:
            info = tarfile.TarInfo(name)
            if len(what) == 2:
                info.type, info.linkname = what
                archive.addfile(info)
            else:
                info.size = len(what[0])
                archive.addfile(info, io.BytesIO(what[0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    data = out.getvalue()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def some(form, names=("cat", "dog")):
    return [(form.format(name=name), name.encode()) for name in names]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_in_class_folders(tmp_path, ending):
    links = [("cat/l.jpg", HARD, "cat/1.jpg"), ("dog/s.JPEG", SOFT, "/etc/passwd"), ("dog/README", SOFT, "x")]
    again = [("cat/2.jpg", b"cat, new"), ("cat/2.jpg", b"cat, newer"), ("README", b"a"), ("README", b"b")]
    tar(tmp_path / f"x{ending}", *some("{name}/1.jpg"), *some("{name}/2.jpg"), *links, *again)
    found = find_photos(tmp_path, split="train")
    assert forms.left_out(found) == [(f"x{ending}", 2, LINKS), (f"x{ending}", 2, REPLACED)]
    assert found.account.members == 3  # two READMEs, and the link
    shown = {photo[-1] for photo in forms.shown(found)}
    assert shown == {b"cat", b"dog", b"cat, newer"} and len(forms.shown(found)) == 4


def test_those_of_a_split_that_is_not_built_are_counted_too(tmp_path):
    for split in ("train", "val"):
        tar(tmp_path / f"{split}.tar", *some("{name}/" + split + ".jpg"), ("cat/l.jpg", HARD, "cat/1"))
    found = find_photos(tmp_path, split="train")
    assert ("train.tar", 1, LINKS) in forms.left_out(found) and ("val.tar", 1, LINKS) in forms.left_out(found)
    tar(tmp_path / "test.tar", ("1.jpg", b"?"), ("l.jpg", HARD, "1.jpg"))
    lines = [line for line in forms.left_out(find_photos(tmp_path)) if line[0] == "test.tar"]
    assert [line[1] for line in lines] == [1, 1] and LINKS in {line[2] for line in lines} and lines[0] != lines[1]
    tar(tmp_path / "links/a.tar", *some("{name}/1.jpg"))
    tar(tmp_path / "links/b.tar", ("cat/l.jpg", HARD, "cat/1.jpg"))
    assert forms.left_out(find_photos(tmp_path / "links", split="train")) == [("b.tar", 1, LINKS)]


def test_ignored_links_are_told_as_ignored(tmp_path):
    tar(tmp_path / "x.tar", *some("{name}/1.jpg"), ("cat/l.jpg", HARD, "cat/1.jpg"), ("cat/m.jpg", HARD, "cat/1.jpg"))
    found = find_photos(tmp_path, split="train", ignore=("l.jpg",))
    assert forms.left_out(found) == [("x.tar", 1, LINKS), ("x.tar/cat/l.jpg", 1, "ignored, as requested")]


def test_a_link_to_a_tar_is_refused(tmp_path):
    inner = tar(tmp_path / "in/n01440764.tar", ("1.JPEG", b"fish")).read_bytes()
    members = [("n01440764.tar", inner), ("n01443537.tar", HARD, "n01440764.tar")]
    path = tar(tmp_path / "set/whole.tar", *members)
    with pytest.raises(UsageError, match=r"n01443537\.tar: a link to a tar"):
        find_photos(tmp_path / "set", split="train")
    with pytest.raises(SourceError, match=r"n01443537\.tar is a link"):
        training_photos(path.parent, path.name, [])


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_in_webdataset(tmp_path, ending):
    samples = [(f"{k}.{end}", data) for k in "01" for end, data in (("jpg", k.encode()), ("cls", k.encode()))]
    links = [("2.jpg", HARD, "1.jpg"), ("3.jpg", SOFT, "/etc/passwd")]
    tar(tmp_path / f"train-0{ending}", *samples, *links, ("0.jpg", b"new"), ("0.cls", b"0"))
    tar(tmp_path / f"train-1{ending}", ("9.jpg", SOFT, "1.jpg"))
    found = find_photos(tmp_path)
    first, second = (f"train-{k}{ending}" for k in range(2))
    assert found.kind.startswith("WebDataset")
    assert sorted(forms.left_out(found)) == [(first, 1, REPLACED), (first, 2, LINKS), (second, 1, LINKS)]
    assert sorted(photo[-1] for photo in forms.shown(found)) == [b"1", b"new"]


def test_two_photos_of_a_key_that_differ_in_case_are_refused(tmp_path):
    tar(tmp_path / "train-0.tar", ("0.jpg", b"a"), ("0.cls", b"0"), ("0.JPG", b"b"))
    with pytest.raises(SourceError, match=r"0\.jpg and 0\.JPG are two photos of one key"):
        find_photos(tmp_path)


def test_in_archives_of_imagenet(tmp_path):
    members = [("1.JPEG", b"old"), ("l.JPEG", HARD, "1.JPEG"), ("d", SOFT, "x"), ("1.JPEG", b"new")]
    inner = tar(tmp_path / "in.tar", *members).read_bytes()
    tar(tmp_path / "train.tar", ("n01440764.tar", inner), ("n01443537.tar", inner))
    for archive, times, read in (("train.tar", 2, training_photos), ("in.tar", 1, flat_photos)):
        left_out = []
        entries, others = read(tmp_path, archive, left_out)
        assert len(entries) == others == times
        assert [(one.path, one.photos, one.why) for one in left_out] == [
            (archive, times, LINKS),
            (archive, times, REPLACED),
        ]
