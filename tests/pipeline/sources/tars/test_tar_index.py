"""Tars listed by offset: what Python's tarfile lists, and every kind of damage told, with the byte."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest
from alexnet_dali.pipeline.errors import SourceError
from alexnet_dali.pipeline.sources.entries import LeftOut
from alexnet_dali.pipeline.sources.tars.passed_over import LINKS, REPLACED, PassedOver
from alexnet_dali.pipeline.sources.tars.tar_index import MD5SUMS, members, members_in_memory
from hypothesis import given
from hypothesis import strategies as st
from ilsvrc import tar_bytes

FILES = [("a.JPEG", b"first"), ("b/c.JPEG", b"x" * 512), ("d.JPEG", b""), ("e.txt", b"y" * 1000)]
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def put(path, data):
    path.write_bytes(data)
    return path


def contents(path, found):
    """Name and bytes of the members, read at their offsets."""
    data = path.read_bytes()
    return [(one.name, data[one.offset : one.offset + one.bytes]) for one in found]


def special(*infos, after=(("z.JPEG", b"last"),)):
    """A tar with members of odd types, given as (name, type, link's target), and then files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, target in infos:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        for name, data in after:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def refused(path, **window):
    with pytest.raises(SourceError) as caught:
        members(path, **window)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize("form", FORMATS)
def test_a_tar_of_every_format(tmp_path, form):
    path = put(tmp_path / "a.tar", tar_bytes(FILES, form))
    found = members(path)
    assert contents(path, found) == FILES
    with tarfile.open(path) as tar:
        assert [(one.name, one.offset, one.bytes) for one in found] == [(i.name, i.offset_data, i.size) for i in tar]
    assert members_in_memory(path.read_bytes(), path) == found


@pytest.mark.parametrize("form", FORMATS[1:])
def test_long_names_and_names_that_are_not_utf8(tmp_path, form):
    names = ["d/" * 300 + "e.JPEG", os.fsdecode(b"caf\xe9.JPEG"), "ä" * 80 + ".JPEG", "new\nline,\"'.JPEG", "a b.JPEG"]
    path = put(tmp_path / "a.tar", tar_bytes([(name, name[:3].encode("utf-8", "replace")) for name in names], form))
    assert [one.name for one in members(path)] == names


def test_names_that_ustar_splits_and_names_of_just_a_hundred_bytes(tmp_path):
    names = ["folder/" * 20 + "x.JPEG", "n" * 95 + ".JPEG", "n" * 94 + ".JPEG", "short.JPEG"]
    path = put(tmp_path / "a.tar", tar_bytes([(name, name[:1].encode()) for name in names], tarfile.USTAR_FORMAT))
    assert [one.name for one in members(path)] == names


def test_a_long_link_is_of_the_link_alone(tmp_path):
    data = special(("l.JPEG", tarfile.SYMTYPE, "t/" * 200))
    assert [one.name for one in members(put(tmp_path / "a.tar", data))] == ["z.JPEG"]


def test_a_size_in_a_pax_header_goes_before_the_other(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("big.JPEG")
        info.pax_headers = {"size": "700", "comment": "of 700 bytes"}
        tar.addfile(info)
    data = out.getvalue()[:1536] + b"p" * 700 + bytes(324) + tar_bytes([("z.JPEG", b"last")])
    path = put(tmp_path / "a.tar", data)
    assert contents(path, members(path)) == [("big.JPEG", b"p" * 700), ("z.JPEG", b"last")]


def test_a_tar_in_a_tar_is_read_through_a_window(tmp_path):
    inner = [tar_bytes(FILES), tar_bytes([("only.JPEG", b"one")], tarfile.PAX_FORMAT)]
    path = put(tmp_path / "outer.tar", tar_bytes([("1.tar", inner[0]), ("deep/2.tar", inner[1])]))
    one, two = members(path)
    assert (one.name, two.name) == ("1.tar", "deep/2.tar")
    assert contents(path, members(path, offset=one.offset, size=one.bytes)) == FILES
    assert contents(path, members(path, offset=two.offset, size=two.bytes)) == [("only.JPEG", b"one")]


def test_a_tar_in_a_tar_in_a_tar_is_a_member_like_any_other(tmp_path):
    bomb = tar_bytes([("0.tar", b"")])
    for k in range(20):
        bomb = tar_bytes([(f"{k}.tar", bomb), (f"{k}.tar2", bomb[:1024])])
    assert [one.name for one in members(put(tmp_path / "bomb.tar", bomb))] == ["19.tar", "19.tar2"]


def test_links_folders_and_devices_are_skipped_and_named(tmp_path):
    odd = [
        ("folder", tarfile.DIRTYPE, ""),
        ("soft.JPEG", tarfile.SYMTYPE, "/etc/passwd"),
        ("hard.JPEG", tarfile.LNKTYPE, "z.JPEG"),
        ("char.JPEG", tarfile.CHRTYPE, ""),
        ("block.JPEG", tarfile.BLKTYPE, ""),
        ("pipe.JPEG", tarfile.FIFOTYPE, ""),
        ("unheard-of.JPEG", b"Q", ""),
    ]
    skipped = PassedOver()
    path = put(tmp_path / "a.tar", special(*odd))
    assert contents(path, members(path, skipped=skipped)) == [("z.JPEG", b"last")]
    assert skipped.links == ["soft.JPEG", "hard.JPEG"]
    assert skipped.others == [name for name, _, _ in odd if name not in skipped.links]
    assert skipped.left_out("a.tar") == [LeftOut("a.tar", 2, LINKS)]


def test_names_that_would_lead_out_are_only_names(tmp_path):
    names = ["../../evil.JPEG", "/etc/evil.JPEG", "C:\\evil.JPEG", "./a.JPEG"]
    (tmp_path / "in").mkdir()
    path = put(tmp_path / "in/a.tar", tar_bytes([(name, b"e") for name in names]))
    assert [one.name for one in members(path)] == names
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "in", path]  # and nothing was written


def test_hidden_files_are_left_out(tmp_path):
    files = [("._a.JPEG", b"mac"), ("a.JPEG", b"photo"), ("d/.DS_Store", b"mac"), ("__MACOSX/._b.JPEG", b"mac")]
    path = put(tmp_path / "a.tar", tar_bytes(files))
    assert contents(path, members(path)) == [("a.JPEG", b"photo")]


def test_of_two_members_with_one_name_the_last_counts(tmp_path):
    texts = [("t.txt", b"old"), ("t.txt", b"new")]
    path = put(tmp_path / "a.tar", tar_bytes([("a.JPEG", b"old"), ("b.JPEG", b"b"), ("a.JPEG", b"new"), *texts]))
    skipped = PassedOver()
    assert contents(path, members(path, skipped=skipped)) == [("b.JPEG", b"b"), ("a.JPEG", b"new"), ("t.txt", b"new")]
    assert skipped.left_out("a.tar") == [LeftOut("a.tar", 1, REPLACED)]  # photos alone


def test_an_empty_tar_and_one_with_nothing_but_a_pax_header(tmp_path):
    assert members(put(tmp_path / "a.tar", bytes(10240))) == []
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "global"}):
        pass
    assert members(put(tmp_path / "b.tar", out.getvalue())) == []


@pytest.mark.parametrize("form", FORMATS[1:])
def test_a_cut_tar_is_an_error_wherever_it_is_cut(tmp_path, form):
    whole = tar_bytes([("long" * 40 + ".JPEG", b"x" * 700), ("b.JPEG", b"y" * 600), ("c.JPEG", b"z" * 3)], form)
    end = len(whole.rstrip(b"\0"))
    end += -end % 512  # the end mark follows
    path = tmp_path / "a.tar"
    for length in range(0, end + 512, 100):
        error = refused(put(path, whole[:length]))
        assert error.message.startswith(f"{path}: ")
        assert error.hint == f"compare its size with the original's and run: md5sum {path}", length
    assert len(members(put(path, whole[: end + 512]))) == 3


def test_the_error_of_a_cut_tar_names_member_and_byte(tmp_path):
    whole = tar_bytes([("a.JPEG", b"x" * 500), ("b.JPEG", b"y" * 600)])
    path = tmp_path / "ILSVRC2012_img_val.tar"
    error = refused(put(path, whole[:1700]))
    assert error.message == (
        f"{path}: is truncated within b.JPEG: it has 600 bytes from byte 1,536 on, but the archive ends at byte 1,700"
    )
    assert error.hint == (
        f"compare its size with the original's and run: md5sum {path}  (the original: 29b22e2961454d5413ddabcf34fc5622)"
    )
    assert MD5SUMS["ILSVRC2012_img_train.tar"].startswith("1d675b47")
    error = refused(put(path, whole[:1024]))
    assert error.message == f"{path}: is truncated: no end marker at byte 1,024, after a.JPEG"
    error = refused(put(path, whole[:1100]))
    assert error.message == f"{path}: is truncated: no end marker at byte 1,024, after a.JPEG"


def test_a_damaged_header_is_an_error_where_tarfile_stops_without_a_word(tmp_path):
    whole = bytearray(tar_bytes([("a.JPEG", b"x"), ("b.JPEG", b"y"), ("c.JPEG", b"z")]))
    whole[1024 + 130] ^= 1  # in b's size
    path = put(tmp_path / "a.tar", bytes(whole))
    assert refused(path).message == f"{path}: is damaged at byte 1,024, after a.JPEG"
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["a.JPEG"]


def test_a_hole_that_a_stopped_download_left_is_no_end(tmp_path):
    files = [(f"{k}.JPEG", bytes([k]) * 4000) for k in range(5)]
    whole = bytearray(tar_bytes(files))
    whole[4608:9216] = bytes(4608)  # all of the second member
    path = put(tmp_path / "a.tar", bytes(whole))
    assert refused(path).message == f"{path}: is damaged: more data after the end marker at byte 4,608"
    whole = tar_bytes(files[:1]) + bytes(2 << 20)
    error = refused(put(path, whole))
    assert error.message == f"{path}: is damaged: zeros at byte 4,608, but {len(whole) - 4608:,} bytes follow"


@pytest.mark.parametrize(
    ("program", "pack"),
    [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress), ("zstd", lambda _: b"\x28\xb5\x2f\xfd?")],
)
def test_a_compressed_tar_is_refused_with_the_command_that_unpacks_it(tmp_path, program, pack):
    path = put(tmp_path / "a.tar", pack(tar_bytes(FILES)))
    error = refused(path)
    assert error.message == f"{path}: is compressed with {program}: its members cannot be read in place"
    assert error.hint == f"unpack it first: {program} -dc {path} > {path}.new && mv {path}.new {path}"


def test_a_file_that_is_no_tar(tmp_path):
    path = put(tmp_path / "a.tar", b"<!DOCTYPE html><html>please log in</html>" * 40)
    assert refused(path).message == f"{path}: is not a tar: it begins with b'<!DOCTYPE html><'"
    assert refused(put(path, b"")).message == f"{path}: is not a tar: it begins with b''"
    assert refused(tmp_path / "none.tar").message == f"{tmp_path}/none.tar: No such file or directory"
    assert refused(tmp_path).message == f"{tmp_path}: Is a directory"


def test_an_error_within_an_inner_tar_names_both(tmp_path):
    inner = tar_bytes([("a.JPEG", b"x" * 600)])
    path = put(tmp_path / "outer.tar", tar_bytes([("n01440764.tar", inner[:1000]), ("b.tar", inner)]))
    member = members(path)[0]
    error = refused(path, offset=member.offset, size=member.bytes, inner=member.name)
    assert error.message == (
        f"{path}: n01440764.tar: is truncated within a.JPEG: "
        "it has 600 bytes from byte 1,024 on, but the archive ends at byte 1,512"
    )


def test_what_follows_the_window_is_not_read(tmp_path):
    # Cut within its end mark; the outer tar's padding would complete it.
    path = put(tmp_path / "outer.tar", tar_bytes([("n01440764.tar", tar_bytes([("a.JPEG", b"x")])[:1100])]))
    error = refused(path, offset=512, size=1100, inner="n01440764.tar")
    assert error.message == f"{path}: n01440764.tar: is truncated: no end marker at byte 1,536, after a.JPEG"


def test_a_link_with_the_size_of_its_target_has_no_data(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("hard.JPEG")
        info.type, info.linkname, info.size = tarfile.LNKTYPE, "z.JPEG", 5000
        tar.addfile(info)
    path = put(tmp_path / "a.tar", out.getvalue()[:512] + tar_bytes([("z.JPEG", b"last")]))
    assert contents(path, members(path)) == [("z.JPEG", b"last")]


def test_members_with_holes_are_refused(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("GNUSparseFile.0/holes.JPEG")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "holes.JPEG"}
        tar.addfile(info)
    path = put(tmp_path / "a.tar", out.getvalue())
    assert refused(path).message.endswith("is stored as a sparse file")
    path = put(tmp_path / "b.tar", special(("holes.JPEG", tarfile.GNUTYPE_SPARSE, "")))
    error = refused(path)
    assert error.message == f"{path}: holes.JPEG: is stored as a sparse file"
    assert error.hint == "create the archive again without tar's --sparse"


@pytest.mark.parametrize(
    "record",
    [b"5 a=b", b"99 path=x\n", b"0 path=x\n", b"x path=a\n", b"11 size=-5\n", b"12 size=9e9\n", b" a=b\n"],
)
def test_a_damaged_pax_header_is_an_error_and_no_loop(tmp_path, record):
    out = io.BytesIO()
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(info, io.BytesIO(record))
    path = put(tmp_path / "a.tar", out.getvalue()[:1024] + tar_bytes(FILES))
    assert "PAX header" in refused(path).message


def test_a_name_of_megabytes_is_refused_before_it_is_read(tmp_path):
    path = put(tmp_path / "a.tar", tar_bytes([("n" * (2 << 20), b"")]))
    tracemalloc.start()
    assert "is damaged: a name of 2,097,153 bytes at byte 512" in refused(path).message
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_negative_size_is_damage(tmp_path):
    info = tarfile.TarInfo("a.JPEG")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 11 + b"\x00"  # -256, as GNU tar writes it
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path = put(tmp_path / "a.tar", tar_bytes([("z.JPEG", b"z")])[:1024] + bytes(block) + bytes(1024))
    assert refused(path).message == f"{path}: is damaged at byte 1,024, after z.JPEG"


@given(st.data())
def test_no_damage_raises_anything_else(data):
    whole = bytearray(tar_bytes(FILES, data.draw(st.sampled_from(FORMATS))))[:6144]
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 4095))] = data.draw(st.integers(0, 255))
    try:
        found = members_in_memory(bytes(whole), Path("a.tar"))
    except SourceError:
        return
    assert all(one.offset >= 512 and one.offset + one.bytes <= len(whole) for one in found)


def test_many_members_are_listed_in_little_time_and_memory(tmp_path):
    path = put(tmp_path / "a.tar", tar_bytes([(f"n01440764_{k}.JPEG", b"x" * (k % 700)) for k in range(20_000)]))
    began = time.process_time()
    assert len(members(path)) == 20_000
    assert (time.process_time() - began) / 20_000 < 80e-6  # seconds a member: about 13 us, and 40 on a slow machine
    tracemalloc.start()
    found = members(path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / len(found) < 300 and peak < 1.5 * held
