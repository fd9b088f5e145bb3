"""The devkit: numbers to classes, as SciPy saves them in every shape; contradictions told by file and line."""

import contextlib
import gzip
import io
import os
import pickle
import struct

import numpy as np
import pytest
from alexnet_dali.pipeline.errors import SourceError
from alexnet_dali.pipeline.sources.entries import Entry
from alexnet_dali.pipeline.sources.imagenet import devkit as module
from alexnet_dali.pipeline.sources.imagenet.devkit import Devkit, has_devkit, read_devkit
from ilsvrc import GROUPS, ORDER, WNIDS, WORDS, meta_mat, synsets, tar_bytes, write_tar_gz
from scipy.io import savemat

NAME = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def put(folder, meta, truth=b"1\n2\n", name=NAME):
    """Write a devkit; None leaves a file out."""
    files = {f"ILSVRC2012_devkit_t12/data/{n}": d for n, d in (("meta.mat", meta), (TRUTH, truth)) if d is not None}
    write_tar_gz(folder / name, files)
    return folder / name


def refused(folder, year=2012):
    with pytest.raises(SourceError) as caught:
        read_devkit(folder, year)
    return caught.value


def changed(k, **fields):
    """The meta.mat with one row changed."""
    rows = synsets()
    rows[k] |= fields
    return meta_mat(rows=rows)


@pytest.mark.parametrize("form", ["structs", "row", "cells"])
def test_meta_mat_in_every_shape(tmp_path, form):
    path = put(tmp_path, meta_mat(form=form))
    found = read_devkit(tmp_path, 2012)
    assert found == Devkit(path, ORDER, dict(zip(WNIDS, WORDS, strict=True)), {5: GROUPS[0], 6: GROUPS[1]}, ("1", "2"))
    assert found.order != tuple(sorted(found.order))


def test_numbers_and_words_in_other_types(tmp_path):
    rows = synsets()
    for row in rows:
        row["ILSVRC2012_ID"] = np.array([[row["ILSVRC2012_ID"]]], np.float64)
        row["num_children"] = float(row["num_children"])
    rows[0]["words"] = ""
    put(tmp_path, meta_mat(rows=rows))
    found = read_devkit(tmp_path, 2012)
    assert found.order == ORDER and found.words[ORDER[0]] == ""


def test_one_class_alone(tmp_path):
    put(tmp_path, meta_mat(rows=synsets()[:1]))
    assert read_devkit(tmp_path, 2012).order == ORDER[:1]


def test_rows_in_any_order(tmp_path):
    put(tmp_path, meta_mat(rows=synsets()[::-1]))
    assert read_devkit(tmp_path, 2012).order == ORDER


@pytest.mark.parametrize("place", ["ILSVRC2012_devkit_t12/data", "."])
def test_an_unpacked_devkit(tmp_path, place):
    assert not has_devkit(tmp_path, 2012) and read_devkit(tmp_path, 2012) is None
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "meta.mat").write_bytes(meta_mat())
    (tmp_path / place / TRUTH).write_bytes(b"\xef\xbb\xbf3\r\n1\r\n\r\n")
    assert has_devkit(tmp_path, 2012) and not has_devkit(tmp_path, 2010)
    found = read_devkit(tmp_path, 2012)
    assert found.order == ORDER and found.truth == ("3", "1")


def test_a_devkit_of_2010(tmp_path):
    files = {"devkit-1.0/data/meta.mat": meta_mat("ILSVRC2010_ID")}
    write_tar_gz(tmp_path / "ILSVRC2010_devkit-1.0.tar.gz", files)
    assert read_devkit(tmp_path, 2010).order == ORDER and read_devkit(tmp_path, 2010).truth is None
    assert not has_devkit(tmp_path, 2012)


def test_a_devkit_of_another_year_under_this_name(tmp_path):
    path = put(tmp_path, meta_mat("ILSVRC2010_ID"))
    assert refused(tmp_path).message.startswith(f"{path}: meta.mat cannot be read: ")


def test_a_cut_or_damaged_archive(tmp_path):
    path = put(tmp_path, meta_mat())
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:-4], b"", b"<html>", whole[:40] + bytes(40) + whole[80:]):
        path.write_bytes(data)
        error = refused(tmp_path)
        assert error.message.startswith(f"{path}: ")
        assert f"run: md5sum {path}  (the original: fa75699e90414af021442c21a62c3abf)" in error.hint
    path.write_bytes(gzip.compress(tar_bytes([("a/readme.txt", b"read me")])))
    assert refused(tmp_path).message == f"{path}: contains no meta.mat"


@pytest.mark.parametrize(
    "meta", [b"", b"MATLAB 5.0", meta_mat()[:300], bytes(4096), b"\x89HDF\r\n\x1a\n" * 90, b"x" * 999]
)
def test_a_meta_mat_that_is_none(tmp_path, meta):
    path = put(tmp_path, meta)
    assert refused(tmp_path).message.startswith(f"{path}: meta.mat cannot be read: ")


def test_every_flipped_byte_of_meta_mat_is_read_or_told(tmp_path):
    whole = meta_mat(form="row")
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[int(random.integers(128, len(whole)))] ^= 1 << int(random.integers(8))
        put(tmp_path, bytes(damaged))
        with contextlib.suppress(SourceError):
            assert len(read_devkit(tmp_path, 2012).order) == len(ORDER)


def test_nothing_in_meta_mat_is_executed(tmp_path):
    flag = tmp_path / "pwned"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(flag),)

    bomb = pickle.dumps(Bomb())
    pickle.loads(bomb)
    assert flag.exists()  # it would go off
    flag.rmdir()
    file = io.BytesIO()
    savemat(file, {"synsets": np.frombuffer(bomb, np.uint8)})
    npy = io.BytesIO()
    np.save(npy, np.array([Bomb()], object), allow_pickle=True)
    for meta in (bomb, file.getvalue(), npy.getvalue(), meta_mat()[:128] + bomb):
        put(tmp_path, meta)
        refused(tmp_path)
    assert not flag.exists()


def test_a_huge_meta_mat_is_refused_before_it_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_META_BYTES", 1 << 20)
    path = put(tmp_path, meta_mat() + bytes(1 << 20))
    assert "meta.mat has 1," in refused(tmp_path).message and "more than the original" in refused(tmp_path).message
    # a few kilobytes that MATLAB's own compression makes large
    rows = synsets()
    rows[0]["gloss"] = "a" * (2 << 20)
    put(tmp_path, meta_mat(rows=rows))
    assert path.stat().st_size < 1 << 16
    assert refused(tmp_path).message == f"{path}: meta.mat cannot be read: synsets unpacks to more than 1 MiB"
    monkeypatch.setattr(module, "_MOST_BYTES", 1 << 20)
    write_tar_gz(path, {"data/zeros": bytes(2 << 20), "data/meta.mat": meta_mat()})
    assert path.stat().st_size < 1 << 16
    assert refused(tmp_path).message == f"{path}: unpacks to more than 1 MiB"
    path.unlink()
    (tmp_path / "meta.mat").write_bytes(bytes(2 << 20))
    (tmp_path / TRUTH).write_bytes(b"1\n")
    assert refused(tmp_path).message == f"{tmp_path}/meta.mat: larger than 1 MiB"


def test_an_array_that_claims_to_be_huge(tmp_path):
    rows = meta_mat(form="row")
    shape = struct.pack("<II", 1, len(synsets()))
    assert rows.count(shape) >= 1
    put(tmp_path, rows.replace(shape, struct.pack("<II", 1 << 15, 1 << 16), 1))
    assert "meta.mat cannot be read: " in refused(tmp_path).message


@pytest.mark.parametrize(
    ("row", "fields", "text"),
    [
        (1, {"WNID": "n0144"}, "synset 2 of meta.mat has the ILSVRC2012_ID 2 and the WNID 'n0144'"),
        (2, {"WNID": ORDER[0]}, f"synset 3 of meta.mat has the ILSVRC2012_ID 3 and the WNID '{ORDER[0]}'"),
        (2, {"ILSVRC2012_ID": 1}, "synset 3 of meta.mat has the ILSVRC2012_ID 1"),
        (0, {"ILSVRC2012_ID": 0}, "synset 1 of meta.mat has the ILSVRC2012_ID 0"),
        (0, {"ILSVRC2012_ID": 9}, "the 4 classes of meta.mat are not numbered from 1 to 4"),
        (0, {"num_children": 2}, "the 3 classes of meta.mat are not numbered from 1 to 3"),
    ],
)
def test_a_meta_mat_that_contradicts_itself(tmp_path, row, fields, text):
    path = put(tmp_path, changed(row, **fields))
    assert f"{path}: {text}" in refused(tmp_path).message


def photos(*numbers):
    return [Entry("", f"val.tar/ILSVRC2012_val_{k:08d}.JPEG", 9, "val.tar", 512 * k) for k in numbers]


@pytest.fixture
def kit(tmp_path):
    put(tmp_path, meta_mat())
    return read_devkit(tmp_path, 2012)


def test_labels_are_given_in_the_order_of_the_names(kit):
    found = kit.label(photos(3, 1, 4, 2), ("2", "4", " 4 ", "1"), "truth.txt")
    assert [(one.path[-13:-5], one.class_name, one.offset) for one in found] == [
        ("00000001", ORDER[1], 512),
        ("00000002", ORDER[3], 1024),
        ("00000003", ORDER[3], 1536),
        ("00000004", ORDER[0], 2048),
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("0", "'0' is not the ILSVRC ID of a class, 1 to 4"),
        ("7", "'7' is not the ILSVRC ID of a class, 1 to 4"),
        ("-1", "'-1' is not the ILSVRC ID of a class, 1 to 4"),
        ("n01440764", "'n01440764' is not the ILSVRC ID of a class, 1 to 4"),
        ("", "'' is not the ILSVRC ID of a class, 1 to 4"),
        ("1.0", "'1.0' is not the ILSVRC ID of a class, 1 to 4"),
        ("٣", "'٣' is not the ILSVRC ID of a class, 1 to 4"),
        ("9" * 30, f"'{'9' * 30}' is not the ILSVRC ID of a class, 1 to 4"),
        ("6", f"6 is {GROUPS[1]}, a group of classes, not a class"),
    ],
)
def test_a_line_that_names_no_class(kit, line, text):
    with pytest.raises(SourceError) as caught:
        kit.label(photos(1, 2, 3), ("1", line, "2"), "truth.txt")
    assert caught.value.message == f"truth.txt, line 2: {text}"


def test_lines_and_photos_must_be_as_many(kit):
    with pytest.raises(SourceError, match=r"truth.txt: 2 lines for 3 photos"):
        kit.label(photos(1, 2, 3), ("1", "2"), "truth.txt")
    with pytest.raises(SourceError, match=r"truth.txt: 4 lines for 3 photos"):
        kit.label(photos(1, 2, 3), ("1", "2", "1", "1"), "truth.txt")


def test_a_missing_photo_does_not_shift_the_labels(kit):
    # As many photos as lines, one gone and a stranger at the end: counting alone would label most of them wrongly.
    with pytest.raises(SourceError) as caught:
        kit.label(photos(1, 3, 4), ("1", "2", "3"), "truth.txt")
    assert caught.value.message == (
        "val.tar/ILSVRC2012_val_00000003.JPEG: is photo 2 in the order of file names: photos are missing or "
        "added before it (3 photos, 3 lines in truth.txt)"
    )
