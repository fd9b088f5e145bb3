"""The spool: photos of a table, read once and in order; nothing lost, nothing read twice, nothing left behind."""

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import forms
import ilsvrc
import numpy as np
import pytest
from alexnet_dali.pipeline.errors import ShardError, SourceError
from alexnet_dali.pipeline.prepare import prepared_cache
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.prepare.prepared_cache import Spool, SpoolJob, spool
from alexnet_dali.pipeline.sources import parquet
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.sources.photo import Photo
from pictures import saved

SMALL = BuildOptions(size=24, shard_records=5)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Class folders of 16 and 7 photos."""
    return ilsvrc.class_folders(tmp_path_factory.mktemp("spool"))


@pytest.fixture
def table(photos, tmp_path):
    """The same photos in four parquet files."""
    return forms.make_parquet(photos, tmp_path / "table")


def build_it(source, out, advance=lambda photos, fresh=True: None):
    with ThreadPoolExecutor(1) as executor:
        return build_shards(find_photos(source), out, SMALL, executor, advance)


def contents(folder):
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_is_read_once_and_the_spool_is_gone_after(table, tmp_path, monkeypatch):
    read, told = [], []
    real = parquet.read_rows

    def reading(path, rows):
        read.append((path.name, list(rows)))
        return real(path, rows)

    monkeypatch.setattr(parquet, "read_rows", reading)
    build_it(table, tmp_path / "out", lambda photos, fresh=True: told.append((photos, fresh)))
    assert len(read) == len({name for name, _ in read}) == 4
    assert sorted(len(rows) for _, rows in read) == [3, 4, 8, 8]
    assert sum(photos for photos, _ in told) == 23 and all(fresh for _, fresh in told)
    assert not (tmp_path / "out/.build").exists()


def test_a_stopped_build_reads_no_file_twice(table, tmp_path, monkeypatch):
    """Stopped at each spooled file and each shard: what was read is not read again, and the bytes are the same."""
    build_it(table, tmp_path / "whole")
    for stop in range(1, 11):
        out, read, calls = tmp_path / str(stop), [], []
        real_rows, real_spool, real_shard = (
            parquet.read_rows,
            prepared_cache.spool,
            build_shards.__globals__["build_shard"],
        )

        def counted(work, calls=calls, stop=stop):
            def working(job):
                calls.append(job)
                if len(calls) == stop:
                    raise KeyboardInterrupt
                return work(job)

            return working

        def reading(path, rows, read=read, real=real_rows):
            read.append(path.name)
            return real(path, rows)

        with monkeypatch.context() as patch:
            patch.setattr(parquet, "read_rows", reading)
            with monkeypatch.context() as inner:
                inner.setitem(build_shards.__globals__, "spool", counted(real_spool))
                inner.setitem(build_shards.__globals__, "build_shard", counted(real_shard))
                with pytest.raises(KeyboardInterrupt):
                    build_it(table, out)
            build_it(table, out)
        assert len(read) == len(set(read)) == 4, f"stopped at {stop}"
        assert contents(out) == contents(tmp_path / "whole")


def test_a_photo_that_cannot_be_read_is_rejected_by_name(photos, tmp_path):
    photos = shutil.copytree(photos, tmp_path / "photos")
    torn = sorted((photos / "train").rglob("*.JPEG"))[3]
    torn.write_bytes(b"no photo")
    table = forms.make_parquet(photos, tmp_path / "table")
    shard_set, _ = build_it(table, tmp_path / "out")
    with open(tmp_path / "out/rejected.csv", newline="") as file:
        [[path, reason]] = list(csv.reader(file))[1:]
    assert torn.stem in path and ".parquet/" in path and reason == "not a photo in a known format"
    assert shard_set.split("train").records == 15 and shard_set.manifest["rejected"] == 1


def test_a_repair_reads_only_what_it_needs(table, tmp_path, monkeypatch):
    build_it(table, tmp_path / "out")
    whole = contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out/val/00001.lmdb")  # two photos
    rows = []
    real = parquet.read_rows
    monkeypatch.setattr(parquet, "read_rows", lambda path, some: rows.extend(some) or real(path, some))
    build_it(table, tmp_path / "out")
    assert len(rows) == 2 and contents(tmp_path / "out") == whole


def test_a_table_that_is_gone_stops_the_build(table, tmp_path):
    source = find_photos(table)
    lost = next((table / "data").glob("train-00001*"))
    lost.rename(tmp_path / "away")
    with ThreadPoolExecutor(1) as executor, pytest.raises(SourceError, match="train-00001-of-00002"):
        build_shards(source, tmp_path / "out", SMALL, executor)
    (tmp_path / "away").rename(lost)
    build_it(table, tmp_path / "out")
    assert json.loads((tmp_path / "out/dataset.json").read_text())["rejected"] == 0


def test_a_picture_that_is_not_in_the_spool(table, tmp_path):
    archive = "data/" + next((table / "data").glob("train-00000*")).name
    (tmp_path / "out/.build").mkdir(parents=True)
    job = SpoolJob(table, tmp_path / "out", archive, (1, 4), SMALL)
    assert not job.is_done()
    assert spool(job) == 2 and job.is_done()
    assert not SpoolJob(table, tmp_path / "out", archive, (1, 2), SMALL).is_done()
    kept = Spool(tmp_path / "out")
    assert kept.picture(Photo("x", 0, 0, archive, 4)).form.startswith("JPEG")
    for row in (0, 2, 5):
        with pytest.raises(ShardError, match="x is not in the cache; run the same command again"):
            kept.picture(Photo("x", 0, 0, archive, row))
    job.path.write_bytes(b"")
    with pytest.raises(ShardError, match="x is not in the cache"):
        Spool(tmp_path / "out").picture(Photo("x", 0, 0, archive, 4))


def test_a_picture_that_shows_nothing_is_noted_in_the_cache(photos, tmp_path):
    photos = shutil.copytree(photos, tmp_path / "photos")
    for photo in (photos / "train").rglob("*.JPEG"):
        photo.write_bytes(saved(np.zeros((30, 40, 3), np.uint8)))
    table = forms.make_parquet(photos, tmp_path / "table")
    (tmp_path / "out/.build").mkdir(parents=True)
    for split, empty in (("train", "one colour"), ("val", "")):
        archive = "data/" + next((table / "data").glob(f"{split}*-00000*")).name
        spool(SpoolJob(table, tmp_path / "out", archive, (0, 1), SMALL))
        pictures = [Spool(tmp_path / "out").picture(Photo("x", 0, 0, archive, row)) for row in (0, 1)]
        assert [picture.empty for picture in pictures] == [empty, empty]


def test_a_cache_of_a_version_that_noted_less_is_read_again(table, tmp_path):
    archive = "data/" + next((table / "data").glob("train-00000*")).name
    (tmp_path / "out/.build").mkdir(parents=True)
    job = SpoolJob(table, tmp_path / "out", archive, (1, 4), SMALL)
    spool(job)
    index = np.load(job.path.with_suffix(".npy"))
    np.save(job.path.with_suffix(".npy"), index[[name for name in index.dtype.names if name != "empty"]])
    assert not job.is_done()
    spool(job)
    assert job.is_done() and Spool(tmp_path / "out").picture(Photo("x", 0, 0, archive, 4)).empty == ""
