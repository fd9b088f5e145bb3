"""Gzipped tars: read once and in order, with every kind of damage told; prepared in parts, and resumed."""

import gzip
import io
import tarfile
from concurrent.futures import ThreadPoolExecutor

import forms
import pytest
from alexnet_dali.pipeline.errors import SourceError
from alexnet_dali.pipeline.prepare import prepared_cache, shard_job
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.sources import sequential
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.sources.photo import is_sequential
from alexnet_dali.pipeline.sources.sequential import Stream, read_in_order
from alexnet_dali.pipeline.sources.tars.tar_index import members, open_tar
from ilsvrc import tar_bytes

FILES = [(f"{k}.JPEG", bytes([k]) * (400 * k)) for k in range(1, 9)]


def put(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_gzipped_tar_lists_what_the_plain_one_does(tmp_path, form):
    data = tar_bytes([*FILES, ("long/" * 30 + "x.JPEG", b"long")], form)
    plain = members(put(tmp_path / "a.tar", data))
    assert members(put(tmp_path / "a.tar.gz", gzip.compress(data))) == plain and len(plain) == 9
    assert members(put(tmp_path / "b.TGZ", gzip.compress(data[:3000]) + gzip.compress(data[3000:]))) == plain
    assert members(put(tmp_path / "c.tar.gz", data)) == plain  # as browsers unpack it and keep the name


def test_which_archives_are_read_in_order():
    assert [is_sequential(name) for name in ("a.parquet", "a.PARQUET", "a.tar.gz", "b/a.tgz", "A.TAR.GZ")] == [True] * 5
    assert [is_sequential(name) for name in ("", "a.tar", "a.tar.bz2", "a.gz", "tar.gz/a.tar")] == [False] * 5


def test_photos_are_read_in_one_pass_and_only_forwards(tmp_path, monkeypatch):
    path = put(tmp_path / "a.tar.gz", gzip.compress(tar_bytes(FILES)))
    found = members(path)
    wanted = [found[k] for k in (0, 3, 7)]
    opened = []
    monkeypatch.setattr(sequential, "Stream", lambda path: opened.append(path) or Stream(path))
    read = list(read_in_order(path, [one.offset for one in wanted], [one.bytes for one in wanted]))
    assert read == [(one.offset, FILES[k][1]) for one, k in zip(wanted, (0, 3, 7), strict=True)] and opened == [path]
    with pytest.raises(ValueError, match="ascending"):
        list(read_in_order(path, [found[1].offset, found[0].offset], [1, 1]))
    stream = Stream(path)
    assert stream.read(700, 100) == tar_bytes(FILES)[700:800]
    with pytest.raises(ValueError, match="byte 799 has passed"):
        stream.read(799, 1)
    stream.close()
    with pytest.raises(SourceError, match=r"ends before byte 1,000,005, unpacked"):
        list(read_in_order(path, [found[0].offset, 1_000_000], [found[0].bytes, 5]))


def test_a_cut_or_damaged_gzipped_tar_is_an_error_wherever_it_is_cut(tmp_path):
    whole = gzip.compress(tar_bytes(FILES), mtime=0)
    path = tmp_path / "a.tar.gz"
    for length in range(2, len(whole), 7):
        with pytest.raises(SourceError) as caught:
            members(put(path, whole[:length]))
        assert caught.value.message.startswith(f"{path}: is truncated") and "gzip -t" in caught.value.hint, length
        assert caught.value.__cause__ is None
    for place in (len(whole) - 6, len(whole) // 2):  # the checksum at the end, which covers the padding too; the data
        flipped = bytearray(whole)
        flipped[place] ^= 1
        with pytest.raises(SourceError) as caught:
            members(put(path, bytes(flipped)))
        assert str(path) in caught.value.message and "damaged" in caught.value.message
    for data, what in ((tar_bytes(FILES)[:2000], "truncated: no end marker"), (b"<html>" * 99, "is not a tar")):
        with pytest.raises(SourceError, match=what):
            members(put(path, gzip.compress(data)))
    hole = bytearray(tar_bytes(FILES))
    hole[512 : 512 + 1024] = bytes(1024)
    with pytest.raises(SourceError, match="is damaged"):
        members(put(path, gzip.compress(bytes(hole[512:]))))
    with pytest.raises(SourceError, match="No such file"):
        members(tmp_path / "none.tar.gz")


def test_a_gzipped_tar_of_tars_is_listed_in_one_pass(tmp_path):
    inner = [(f"{k}.tar", tar_bytes(FILES[k : k + 2])) for k in range(5)]
    path = put(tmp_path / "a.tgz", gzip.compress(tar_bytes(inner)))
    with open_tar(path) as tar:
        found = {one.name: [inside.name for inside in tar.members(one)] for one in tar.members()}
    assert found == {f"{k}.tar": [name for name, _ in FILES[k : k + 2]] for k in range(5)}


@pytest.fixture
def gzipped(photos, tmp_path):
    """The photos of the session in a tar of class folders, gzipped."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in sorted(photos.rglob("*.JPEG")):
            tar.add(path, str(path.relative_to(photos)))
        broken = tarfile.TarInfo("train/" + sorted(p.name for p in (photos / "train").iterdir())[0] + "/broken.JPEG")
        broken.size = 9
        tar.addfile(broken, io.BytesIO(b"no photo!"))
    (tmp_path / "in").mkdir()
    return put(tmp_path / "in/photos.tar.gz", gzip.compress(out.getvalue(), 1))


def build(source, out):
    options = BuildOptions(size=24, shard_records=16)
    with ThreadPoolExecutor(1) as executor:
        return build_shards(find_photos(source), out, options, executor)[0]


def test_parts_and_a_stopped_build_give_the_same_bytes(gzipped, tmp_path, monkeypatch):
    """In one part or in many; stopped after each part and shard: no part that is done is read again."""
    whole = build(gzipped, tmp_path / "whole")
    assert "broken.JPEG" in (tmp_path / "whole/rejected.csv").read_text()
    monkeypatch.setattr(prepared_cache, "PART_BYTES", 200_000)
    real = sequential.read_in_order
    parts = []

    def reading(path, places, sizes):
        parts.append(tuple(places))
        return real(path, places, sizes)

    monkeypatch.setattr(prepared_cache, "read_in_order", reading)
    built = build(gzipped, tmp_path / "parts")
    count = len(parts)
    assert count > 3 and len({place for part in parts for place in part}) == sum(map(len, parts)) == 81
    assert forms.hashes(built) == forms.hashes(whole) and not (tmp_path / "parts/.build").exists()
    for stop in (2, count, count + 2):
        parts.clear()
        calls = []

        def counted(work, calls=calls, stop=stop):
            def working(job):
                calls.append(job)
                if len(calls) == stop:
                    raise KeyboardInterrupt
                return work(job)

            return working

        with monkeypatch.context() as patch:
            patch.setitem(build_shards.__globals__, "spool", counted(prepared_cache.spool))
            patch.setitem(build_shards.__globals__, "build_shard", counted(shard_job.build_shard))
            with pytest.raises(KeyboardInterrupt):
                build(gzipped, tmp_path / str(stop))
        again = build(gzipped, tmp_path / str(stop))
        assert forms.hashes(again) == forms.hashes(whole)
        if stop > count:
            assert len(parts) == count  # nothing was read twice


def test_a_photo_too_large_is_rejected_without_reading_all_of_it(gzipped, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared_cache, "MOST_BYTES", 8)
    with pytest.raises(SourceError, match="the file has more than 8 bytes"):
        build(gzipped, tmp_path / "out")
