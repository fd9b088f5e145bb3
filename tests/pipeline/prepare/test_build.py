"""The build: the same bytes whatever the workers, whatever stopped it; nothing lost, nothing of others touched."""

import csv
import dataclasses
import errno
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
import tracemalloc
from collections import Counter
from concurrent.futures import Executor, Future
from pathlib import Path

import lmdb
import numpy as np
import oracle
import pytest
from alexnet_dali.pipeline import workers as pool
from alexnet_dali.pipeline.errors import ShardError, SourceError, UsageError
from alexnet_dali.pipeline.files import locked
from alexnet_dali.pipeline.prepare import build as module
from alexnet_dali.pipeline.prepare import journal, shard_job
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.prepare.resize import prepare
from alexnet_dali.pipeline.prepare.shard_job import at_work
from alexnet_dali.pipeline.shards import datum
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.sources.entries import Entries, Entry, Photos
from alexnet_dali.pipeline.sources.find import PhotoSource, find_photos
from alexnet_dali.pipeline.sources.photo import Photo
from alexnet_dali.pipeline.workers import worker_pool
from alexnet_dali.tools.prep.sample_photos import make_photos
from pictures import slow
from PIL import Image

SMALL = BuildOptions(size=32, shard_records=4)


class Here(Executor):
    """Does each job at once in this process; stops before job number `stop`, counted from 1, as Ctrl-C would."""

    def __init__(self, stop=0):
        self.stop, self.jobs = stop, []

    def submit(self, function, /, *arguments, **keywords):
        self.jobs.append(arguments[0])
        if len(self.jobs) == self.stop:
            raise KeyboardInterrupt
        future: Future = Future()
        future.set_result(function(*arguments, **keywords))
        return future


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """14 training and 6 validation photos of 2 classes."""
    folder = tmp_path_factory.mktemp("build") / "photos"
    make_photos(folder, train=14, val=6, classes=2, seed=2, side=(40, 70))
    return folder


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    """The tiny photos, built without a disturbance: 4 shards to train on, 2 to validate."""
    out = tmp_path_factory.mktemp("build") / "out"
    build_shards(find_photos(tiny), out, SMALL, Here())
    return out


def contents(folder):
    """Every file below a folder, hidden ones too, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def records(folder):
    """Source path, record and CSV row of every key of a shard, in key order; read without the product's code."""
    with open(folder.with_suffix(".csv"), newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        values = [(name.decode(), bytes(value)) for name, value in transaction.cursor()]
    assert [row["key"] for row in rows] == [name for name, _ in values]
    return [(row["source_path"], value, row) for row, (_, value) in zip(rows, values, strict=True)]


def by_path(out):
    """Where each photo lies and what its record is: (shard, record)."""
    return {
        path: (str(folder.relative_to(out)), value)
        for split in ("train", "val")
        for folder in sorted((out / split).glob("*.lmdb"))
        for path, value, _ in records(folder)
    }


def fail_at(monkeypatch, number):
    """Make the number-th of these calls of `os` fail as a full disk does. Returns a list that grows with each call."""
    seen: list[str] = []
    for name in ("fsync", "replace", "rename"):

        def failing(*arguments, _real=getattr(os, name), _name=name, **keywords):
            seen.append(_name)
            if len(seen) == number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return _real(*arguments, **keywords)

        monkeypatch.setattr(os, name, failing)
    return seen


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_the_order_is_the_seeds(tiny, undisturbed):
    for split in ("train", "val"):
        names = sorted(str(path.relative_to(tiny)) for path in (tiny / split).rglob("*.JPEG"))
        order = oracle.order(oracle.philox_words(0, 0, 6, len(names)))
        stored = [path for folder in sorted((undisturbed / split).glob("*.lmdb")) for path, _, _ in records(folder)]
        assert stored == [names[k] for k in order]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoding": "raw"},
        {"fit": "short-side", "quality": 60},
        {"fit": "short-side", "encoding": "raw", "size": 50, "seed": 9},
    ],
)
def test_a_record_is_its_photo(tiny, tmp_path, options):
    options = dataclasses.replace(SMALL, **options)
    shard_set, fresh = build_shards(find_photos(tiny), tmp_path / "out", options, Here())
    assert fresh == 20 and [split.records for split in shard_set.splits.values()] == [14, 6]
    count = 0
    for split in shard_set.splits.values():
        for folder, file in split.shards:
            assert file.records == len(records(folder))
            for path, value, row in records(folder):
                picture = prepare(
                    (tiny / path).read_bytes(),
                    size=options.size,
                    fit=options.fit,
                    encoding=options.encoding,
                    quality=options.quality,
                )
                record = datum.parse(value)
                assert bytes(record.data) == picture.data
                assert (record.height, record.width) == (picture.height, picture.width)
                assert min(record.height, record.width) == options.size
                assert record.encoded == (options.encoding == "jpeg")
                assert shard_set.classes[record.label] == path.split("/")[1] == shard_set.classes[int(row["label"])]
                assert (int(row["source_width"]), int(row["source_height"])) == (
                    picture.source_width,
                    picture.source_height,
                )
                count += 1
    assert count == 20


def test_the_manifest(tiny, undisturbed):
    manifest = json.loads((undisturbed / "dataset.json").read_text())
    assert (manifest["format"], manifest["version"]) == ("alexnet-dali shard set", 1)
    assert {name: manifest[name] for name in ("size", "fit", "encoding", "quality", "seed", "shard_records")} == {
        "size": 32,
        "fit": "crop",
        "encoding": "jpeg",
        "quality": 95,
        "seed": 0,
        "shard_records": 4,
    }
    assert manifest["classes"] == [{"name": "checker"}, {"name": "crescent"}]
    assert manifest["label_order"] == "sorted class names"
    assert manifest["source"] == {
        "kind": "class folders, train and val",
        "fingerprint": find_photos(tiny).fingerprint(),
        "path": str(tiny),
        "request": {
            "layout": "folders",
            "split": None,
            "val_share": None,
            "seed": 0,
            "label_order": "sorted",
            "class_folders": "auto",
            "paths_root": None,
            "ignore": [],
            "rules": 2,
        },
        "account": {
            "used": {"train": {"checker": 7, "crescent": 7}, "val": {"checker": 3, "crescent": 3}},
            "left_out": [],
            "others": {".json": {"files": 1, "such_as": ["sample.json"]}},
            "members": 0,
        },
    }
    assert manifest["duplicates"] == {"across_splits": 0, "across_classes": 0, "examples": []}
    assert manifest["empty"] == {"count": 0, "photos": []}
    assert [shard["path"] for shard in manifest["splits"]["train"]["shards"]] == [
        f"train/0000{k}.lmdb" for k in range(4)
    ]
    assert manifest["versions"]["lmdb"] == lmdb.__version__ and manifest["versions"]["numpy"] == np.__version__
    assert sorted(contents(undisturbed)) == sorted(
        ["dataset.json", "rejected.csv"]
        + [
            f"{split}/0000{k}.{end}"
            for split, n in (("train", 4), ("val", 2))
            for k in range(n)
            for end in ("csv", "lmdb/data.mdb")
        ]
    )
    assert (undisturbed / "rejected.csv").read_bytes() == b"source_path,reason\n"


def test_workers_and_their_number_change_no_byte(tiny, undisturbed, tmp_path):
    for workers in (1, 3):
        with worker_pool(workers) as pool:
            build_shards(find_photos(tiny), tmp_path / str(workers), SMALL, pool)
    assert contents(tmp_path / "1") == contents(tmp_path / "3") == contents(undisturbed)


def test_a_copy_of_the_photos_elsewhere_gives_the_same_records(tiny, undisturbed, tmp_path):
    copy = shutil.copytree(tiny, tmp_path / "a copy")
    built, _ = build_shards(find_photos(copy), tmp_path / "out", SMALL, Here())
    assert by_path(tmp_path / "out") == by_path(undisturbed)
    assert built.split("train").fingerprint() == open_shard_set(undisturbed).split("train").fingerprint()


def test_another_seed_is_another_order_of_the_same_records(tiny, undisturbed, tmp_path):
    build_shards(find_photos(tiny), tmp_path / "out", dataclasses.replace(SMALL, seed=1), Here())
    there, here = by_path(undisturbed), by_path(tmp_path / "out")
    assert {path: value for path, (_, value) in there.items()} == {path: value for path, (_, value) in here.items()}
    assert list(there) != list(here)


ODD = {
    b"empty.jpg": (b"", "the file is empty"),
    b'comma, "quote"\nand line.png': (b"no photo", "not a photo in a known format"),
    b"return\r.jpg": (b"no photo either", "not a photo in a known format"),
    b"caf\xe9.jpg": (b"GIF89", "not a photo in a known format"),
}


@pytest.fixture
def damaged(tiny, tmp_path):
    """A copy of the tiny photos with others that cannot be read, and, by path, why."""
    photos = shutil.copytree(tiny, tmp_path / "photos")
    reasons = {}
    for name, (data, reason) in ODD.items():
        path = "train/checker/" + os.fsdecode(name)
        (photos / path).write_bytes(data)
        reasons[path] = reason
    (photos / "val/crescent/lost.jpg").symlink_to("nowhere")
    reasons["val/crescent/lost.jpg"] = "No such file or directory"
    return photos, reasons


def test_a_rejected_photo_is_listed_and_counted(damaged, tmp_path):
    photos, reasons = damaged
    source = find_photos(photos)
    shard_set, _ = build_shards(source, tmp_path / "out", SMALL, Here())
    with open(tmp_path / "out/rejected.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    assert rows == [["source_path", "reason"], *map(list, sorted(reasons.items()))]
    assert shard_set.manifest["rejected"] == len(reasons) == 5
    stored = sum(split.records for split in shard_set.splits.values())
    assert stored + len(reasons) == sum(map(len, source.splits.values())) == 25
    assert not reasons.keys() & by_path(tmp_path / "out").keys()
    assert build_shards(source, tmp_path / "out", SMALL, Here())[1] == 0  # which reads rejected.csv


def test_a_rejected_photo_shortens_its_shard_and_moves_no_other_record(tiny, undisturbed, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    there = by_path(undisturbed)
    torn = next(path for path, (shard, _) in there.items() if shard == "train/00001.lmdb")
    size = (photos / torn).stat().st_size
    (photos / torn).write_bytes(bytes(size))
    shard_set, _ = build_shards(find_photos(photos), tmp_path / "out", SMALL, Here())
    assert [file.records for _, file in shard_set.split("train").shards] == [4, 3, 4, 2]
    here = by_path(tmp_path / "out")
    assert here == {path: where for path, where in there.items() if path != torn}
    assert list(here) == [path for path in there if path != torn]  # in the same order, without a gap in the keys


def test_a_photo_that_vanishes_during_the_build_is_rejected(tiny, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    source = find_photos(photos)
    (photos / source.splits["val"][2].path).unlink()
    shard_set, _ = build_shards(source, tmp_path / "out", SMALL, Here())
    assert shard_set.split("val").records == 5
    assert source.splits["val"][2].path + ",No such file or directory\n" in (tmp_path / "out/rejected.csv").read_text()


@pytest.mark.parametrize("before", ["nothing", "an empty folder"])
def test_no_photo_that_can_be_read(tmp_path, before):
    (tmp_path / "photos/cat").mkdir(parents=True)
    for k in range(5):
        (tmp_path / f"photos/cat/{k}.jpg").write_bytes(b"")
    if before == "an empty folder":
        (tmp_path / "out").mkdir()
    with pytest.raises(SourceError) as caught:
        build_shards(find_photos(tmp_path / "photos"), tmp_path / "out", SMALL, Here())
    reason = "the file is empty"
    assert caught.value.message == (
        f"{tmp_path}/photos: none of 5 photos could be read "
        f"(cat/0.jpg: {reason}; cat/1.jpg: {reason}; cat/2.jpg: {reason}; ...)"
    )
    assert caught.value.hint == "check that these files are photos"
    make_photos(tmp_path / "good", train=4, val=2, classes=2, side=(40, 50))
    build_shards(
        find_photos(tmp_path / "good"), tmp_path / "out", SMALL, Here()
    )  # nothing stands in the way of the next


def test_a_finished_set_is_left_as_it_is(tiny, undisturbed):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    executor, told = Here(), []
    shard_set, fresh = build_shards(
        find_photos(tiny), undisturbed, SMALL, executor, lambda photos, fresh=True: told.append((photos, fresh))
    )
    assert fresh == 0 and executor.jobs == [] and told == [(20, False)]
    assert shard_set == open_shard_set(undisturbed)
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before


def test_progress_adds_up(tiny, tmp_path):
    told = []

    def advance(photos, fresh=True):
        told.append((photos, fresh))

    with pytest.raises(KeyboardInterrupt):
        build_shards(find_photos(tiny), tmp_path / "out", SMALL, Here(stop=3), advance)
    assert told == []
    assert build_shards(find_photos(tiny), tmp_path / "out", SMALL, Here(), advance)[1] == 12
    assert told[0] == (8, False) and sum(photos for photos, _ in told) == 20
    assert all(fresh for _, fresh in told[1:])


def test_stopped_at_any_shard_it_goes_on(tiny, undisturbed, tmp_path):
    for stop in range(1, 8):
        out = tmp_path / str(stop)
        stopped = Here(stop)
        if stop == 7:  # there are 6 shards
            build_shards(find_photos(tiny), out, SMALL, stopped)
        else:
            with pytest.raises(KeyboardInterrupt):
                build_shards(find_photos(tiny), out, SMALL, stopped)
            with pytest.raises(ShardError, match="the build is not finished"):
                open_shard_set(out)
            rest = Here()
            build_shards(find_photos(tiny), out, SMALL, rest)
            assert len(rest.jobs) == 6 - (stop - 1)  # what was durable is not built again
        assert contents(out) == contents(undisturbed)


def test_stopped_among_rejected_photos_it_goes_on(damaged, tmp_path):
    source = find_photos(damaged[0])
    build_shards(source, tmp_path / "whole", SMALL, Here())
    with pytest.raises(KeyboardInterrupt):
        build_shards(source, tmp_path / "out", SMALL, Here(stop=6))
    build_shards(source, tmp_path / "out", SMALL, Here())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_whatever_call_fails_nothing_half_done_is_left(tiny, tmp_path, monkeypatch):
    """The n-th rename, replacement or sync fails as a full disk does, for n = 1, 2, ... until none does."""
    source = find_photos(tiny, split="val")
    build_shards(source, tmp_path / "whole", SMALL, Here())
    whole = contents(tmp_path / "whole")
    count = (
        2 * 3 + 2 * 12 + 2 * 3
    )  # job.json, photos.csv; a shard, its CSV, hashes and receipt, twice; rejected.csv, dataset.json
    for failing in range(1, count + 1):
        out = tmp_path / str(failing)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left on device"):
            fail_at(patch, failing)
            build_shards(source, out, SMALL, Here())
        for name, data in contents(out).items():
            assert name.startswith(".build/") or data == whole[name], f"call {failing}: half of {name}"
        build_shards(source, out, SMALL, Here())
        assert contents(out) == whole
    calls = fail_at(monkeypatch, 0)
    build_shards(source, tmp_path / "undisturbed", SMALL, Here())
    assert len(calls) == count


def test_what_a_killed_build_left_is_cleared(tiny, undisturbed, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build_shards(find_photos(tiny), out, SMALL, Here(stop=3))
    (out / "train/.00002.lmdb.part").mkdir()
    (out / "train/.00002.lmdb.part/data.mdb").write_bytes(b"half")
    (out / "train/.00002.csv.part").write_bytes(b"half")
    (out / ".build/.train-00002.json.part").write_bytes(b"half")
    (out / ".dataset.json.part").write_bytes(b"half")
    (out / ".rejected.csv.part").write_bytes(b"half")
    shutil.copytree(out / "train/00000.lmdb", out / "train/00002.lmdb")  # in place, but without its receipt
    build_shards(find_photos(tiny), out, SMALL, Here())
    assert contents(out) == contents(undisturbed)


def test_a_set_killed_in_its_last_moment(tiny, undisturbed, tmp_path):
    """dataset.json is written, the receipts are not yet removed."""
    out = shutil.copytree(undisturbed, tmp_path / "out")
    (out / ".build").mkdir()
    (out / ".build/train-00000.json").write_text("{}")
    assert open_shard_set(out).split("train").records == 14
    assert build_shards(find_photos(tiny), out, SMALL, Here())[1] == 0
    assert contents(out) == contents(undisturbed)


@pytest.mark.parametrize("lost", ["train/00001.lmdb", "val/00000.lmdb", "train/00002.csv", "train"])
def test_a_lost_shard_is_built_again(tiny, undisturbed, tmp_path, lost):
    out = shutil.copytree(undisturbed, tmp_path / "out")
    if (out / lost).is_dir():
        shutil.rmtree(out / lost)
    else:
        (out / lost).unlink()
    rest = Here()
    build_shards(find_photos(tiny), out, SMALL, rest)
    assert len(rest.jobs) == (4 if lost == "train" else 1)
    assert contents(out) == contents(undisturbed)


def test_a_lost_shard_with_rejected_photos(damaged, tmp_path):
    source = find_photos(damaged[0])
    build_shards(source, tmp_path / "out", SMALL, Here())
    whole = contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out/train/00002.lmdb")
    build_shards(source, tmp_path / "out", SMALL, Here())
    assert contents(tmp_path / "out") == whole


def test_a_lost_list_of_the_rejected(tiny, undisturbed, tmp_path):
    out = shutil.copytree(undisturbed, tmp_path / "out")
    (out / "rejected.csv").unlink()
    build_shards(find_photos(tiny), out, SMALL, Here())  # it was empty
    assert contents(out) == contents(undisturbed)


def test_a_lost_list_of_some_rejected(damaged, tmp_path):
    source, out = find_photos(damaged[0]), tmp_path / "out"
    build_shards(source, out, SMALL, Here())
    (out / "rejected.csv").unlink()
    with pytest.raises(ShardError) as caught:
        build_shards(source, out, SMALL, Here())
    assert str(caught.value) == (f"{out}: rejected.csv is missing; copy it again, or choose another folder with --out")


@pytest.mark.parametrize("stage", ["finished", "stopped"])
@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"size": 40}, "size was 32, now 40"),
        ({"fit": "short-side", "seed": 7}, "fit was crop, now short-side; seed was 0, now 7"),
        ({"encoding": "raw"}, "encoding was jpeg, now raw"),
        ({"quality": 90}, "quality was 95, now 90"),
        ({"shard_records": 5}, "shard_records was 4, now 5"),
    ],
)
def test_another_build_is_refused_by_its_difference(tiny, undisturbed, tmp_path, stage, options, difference):
    out = undisturbed
    if stage == "stopped":
        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            build_shards(find_photos(tiny), out, SMALL, Here(stop=2))
    before = contents(out)
    with pytest.raises(UsageError) as caught:
        build_shards(find_photos(tiny), out, dataclasses.replace(SMALL, **options), Here())
    assert caught.value.message == f"{out}: holds another build: {difference}"
    assert caught.value.hint == "choose another --out" + (", or remove that folder" if stage == "stopped" else "")
    assert {name: data for name, data in contents(out).items() if name in before} == before


def test_other_photos_are_refused(tiny, undisturbed, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    (photos / "train/checker/more.jpg").write_bytes(b"more")
    before = contents(undisturbed)
    with pytest.raises(UsageError, match="holds another build: the photos or their splits changed"):
        build_shards(find_photos(photos), undisturbed, SMALL, Here())
    with pytest.raises(UsageError, match="holds another build: the photos or their splits changed"):
        build_shards(find_photos(tiny, split="val"), undisturbed, SMALL, Here())
    assert contents(undisturbed) == before


def test_a_foreign_folder_is_not_touched(tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError) as caught:
        build_shards(find_photos(tiny), tmp_path, SMALL, Here())
    assert caught.value.message == f"{tmp_path}: holds something that is not a shard set"
    assert caught.value.hint == "choose an empty folder with --out"
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_out_may_not_be_a_file_or_the_photos(tiny, tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(UsageError, match=f"{out}: not a folder"):
            build_shards(find_photos(tiny), out, SMALL, Here())
    with pytest.raises(UsageError, match="holds something that is not a shard set"):
        build_shards(find_photos(tiny), tiny, SMALL, Here())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "alexnet-dali shard set"}', "null"])
def test_a_damaged_manifest_is_refused(tiny, undisturbed, tmp_path, text):
    out = shutil.copytree(undisturbed, tmp_path / "out")
    (out / "dataset.json").write_text(text)
    with pytest.raises(ShardError) as caught:
        build_shards(find_photos(tiny), out, SMALL, Here())
    assert caught.value.message.startswith(f"{out}/dataset.json: damaged: ")
    assert caught.value.hint == "remove the folder, or choose another --out"


@pytest.mark.parametrize("splits", [{}, {"train": {}}, None, {"train": {"shards": [{"path": "train/00000.lmdb"}]}}])
def test_a_manifest_with_damaged_splits_is_refused(tiny, undisturbed, tmp_path, splits):
    out = shutil.copytree(undisturbed, tmp_path / "out")
    edit(out / "dataset.json", lambda manifest: manifest.update(splits=splits))
    with pytest.raises(ShardError, match=r"dataset\.json: damaged: "):
        build_shards(find_photos(tiny), out, SMALL, Here())


@pytest.mark.parametrize("name", ["job.json", "train-00000.json"])
@pytest.mark.parametrize("text", ["", "{}", "[3]"])
def test_damaged_receipts_are_refused(tiny, tmp_path, name, text):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build_shards(find_photos(tiny), out, SMALL, Here(stop=3))
    (out / ".build" / name).write_text(text)
    with pytest.raises(ShardError) as caught:
        build_shards(find_photos(tiny), out, SMALL, Here())
    assert caught.value.message.startswith(f"{out}/.build: damaged: ")
    assert caught.value.hint == "remove the folder, or choose another --out"


def test_a_second_builder_is_refused(tiny, tmp_path):
    out = tmp_path / "out"
    source = find_photos(tiny)

    class Meddler(Here):
        def submit(self, function, /, *arguments, **keywords):
            with pytest.raises(ShardError) as caught:
                build_shards(source, out, SMALL, Here())
            assert str(caught.value) == f"{out}: another process is at work there; wait for it, or stop it"
            return super().submit(function, *arguments, **keywords)

    build_shards(source, out, SMALL, Meddler())
    with locked(out), pytest.raises(ShardError, match="another process is at work there"):
        build_shards(source, out, SMALL, Here())
    assert build_shards(source, out, SMALL, Here())[1] == 0


def test_a_killed_worker_is_told_and_costs_nothing(tiny, undisturbed, tmp_path):
    photos, out = shutil.copytree(tiny, tmp_path / "photos"), tmp_path / "out"
    source = find_photos(photos)
    held = next(photos / path for path, (shard, _) in by_path(undisturbed).items() if shard == "train/00002.lmdb")
    photo = held.read_bytes()
    held.write_bytes(slow())  # the worker is here until it is killed

    def kill():
        end = time.monotonic() + 20
        while str(held.relative_to(photos)) not in at_work(out).values() and time.monotonic() < end:
            time.sleep(0.001)
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(ShardError) as caught, worker_pool(1) as pool:
        threading.Thread(target=kill).start()
        build_shards(source, out, SMALL, pool)
    photo_on = held.relative_to(photos)
    assert caught.value.message.startswith(f"{out}: a worker process died on {photo_on} (")
    assert caught.value.hint == (
        "run the same command again to resume, with fewer --workers if memory was short; "
        "if a worker dies there again, remove that photo and report it"
    )
    held.write_bytes(photo)
    rest = Here()
    build_shards(source, out, SMALL, rest)
    assert len(rest.jobs) == 4 and by_path(out) == by_path(undisturbed)


def test_half_a_set_is_not_finished_by_other_libraries(tiny, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        build_shards(find_photos(tiny), tmp_path / "out", SMALL, Here(stop=3))
    there = module.versions()
    monkeypatch.setattr(module, "versions", lambda: there | {"simplejpeg": "99.0"})
    with pytest.raises(ShardError) as caught:
        build_shards(find_photos(tiny), tmp_path / "out", SMALL, Here())
    assert caught.value.message.endswith(
        f"which may produce other bytes: simplejpeg was {there['simplejpeg']}, now 99.0"
    )
    monkeypatch.undo()
    assert build_shards(find_photos(tiny), tmp_path / "out", SMALL, Here())[1] == 12


def test_of_several_workers_the_dead_one_is_named(tiny, tmp_path):
    """The pool ends the survivors too; only the one that was killed is to blame."""
    photos, out = shutil.copytree(tiny, tmp_path / "photos"), tmp_path / "out"
    source = find_photos(photos)
    build_shards(source, tmp_path / "whole", SMALL, Here())
    chosen = [by_path(tmp_path / "whole")[photo.path][0] for photo in source.splits["train"]]
    held = [source.splits["train"][chosen.index(f"train/0000{shard}.lmdb")].path for shard in (0, 1)]
    for path in held:
        (photos / path).write_bytes(slow())  # both workers are here for seconds

    def kill():
        end = time.monotonic() + 20
        while set(held) - set(at_work(out).values()) and time.monotonic() < end:
            time.sleep(0.001)
        process = next(process for process, path in at_work(out).items() if path == held[1])
        os.kill(process, signal.SIGKILL)

    with pytest.raises(ShardError) as caught, worker_pool(2) as pool:
        threading.Thread(target=kill).start()
        build_shards(source, out, SMALL, pool)
    assert caught.value.message.startswith(f"{out}: a worker process died on {held[1]} (")


def test_a_photo_that_comes_back_is_built(tiny, undisturbed, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    source = find_photos(photos)
    away = photos / source.splits["train"][5].path
    away.rename(tmp_path / "away")
    shard_set, _ = build_shards(source, tmp_path / "out", SMALL, Here())
    assert shard_set.manifest["rejected"] == 1
    assert build_shards(source, tmp_path / "out", SMALL, Here())[1] == 0  # still away: nothing to do
    (tmp_path / "away").rename(away)
    rest = Here()
    build_shards(source, tmp_path / "out", SMALL, rest)
    assert len(rest.jobs) == 1 and by_path(tmp_path / "out") == by_path(undisturbed)
    assert open_shard_set(tmp_path / "out").manifest["rejected"] == 0


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_photo_that_vanishes_between_two_runs_is_rejected(tiny, tmp_path, stop):
    """The build is of the photos it was begun with: as if the photo had vanished during an undisturbed one."""
    photos, out = shutil.copytree(tiny, tmp_path / "photos"), tmp_path / "out"
    source = find_photos(photos)
    with pytest.raises(KeyboardInterrupt):
        build_shards(source, out, SMALL, Here(stop))
    lost = source.splits["val"][2].path
    (photos / lost).unlink()
    built, _ = build_shards(find_photos(photos), out, SMALL, Here())
    build_shards(source, tmp_path / "whole", SMALL, Here())
    assert contents(out) == contents(tmp_path / "whole")
    assert built.manifest["rejected"] == 1 and lost in (out / "rejected.csv").read_text()


def test_photos_that_changed_are_named(damaged, tmp_path):
    """More than vanished, or from a finished set: what is gone and what is new."""
    photos, out = damaged[0], tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build_shards(find_photos(photos), out, SMALL, Here(3))
    first = find_photos(photos).splits["train"][0].path
    (photos / first).rename(photos / "train/checker/new.JPEG")
    named = rf"their splits changed \(gone: {first}; new: train/checker/new.JPEG\)"
    with pytest.raises(UsageError, match=named):
        build_shards(find_photos(photos), out, SMALL, Here())
    (photos / "train/checker/new.JPEG").rename(photos / first)
    build_shards(find_photos(photos), out, SMALL, Here())
    (photos / first).rename(photos / "train/checker/new.JPEG")
    with pytest.raises(UsageError, match=named) as caught:
        build_shards(find_photos(photos), out, SMALL, Here())
    assert caught.value.hint == "choose another --out"
    for path in list((photos / "val/crescent").iterdir()):
        path.unlink()
    named = r"gone: train/checker/caf.\.jpg, val/crescent/lost\.jpg, \S+ and 2 more; new:"
    with pytest.raises(UsageError, match=named):
        build_shards(find_photos(photos), out, SMALL, Here())


def test_a_failing_disk_stops_the_build_and_rejects_nothing(tiny, undisturbed, tmp_path, monkeypatch):
    source = find_photos(tiny)
    bad = next(path for path, (shard, _) in by_path(undisturbed).items() if shard == "train/00002.lmdb")
    real = shard_job.read_photo

    def read(root, photo):
        if photo.path == bad:
            raise OSError(errno.EIO, "Input/output error")
        return real(root, photo)

    with monkeypatch.context() as patch, pytest.raises(SourceError) as caught:
        patch.setattr(shard_job, "read_photo", read)
        build_shards(source, tmp_path / "out", SMALL, Here())
    assert str(caught.value) == (
        f"{tiny}/{bad}: Input/output error; when the photos can be read again, run the same command to resume"
    )
    build_shards(source, tmp_path / "out", SMALL, Here())
    assert contents(tmp_path / "out") == contents(undisturbed)


def test_a_source_that_is_gone_stops_the_build(tiny, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    source = find_photos(photos)
    photos.rename(tmp_path / "unmounted")
    with pytest.raises(SourceError, match="No such file or directory; when the photos can be read again"):
        build_shards(source, tmp_path / "out", SMALL, Here())
    (tmp_path / "unmounted").rename(photos)
    assert build_shards(source, tmp_path / "out", SMALL, Here())[0].manifest["rejected"] == 0


def test_photos_by_what_they_are(tiny, tmp_path):
    """Forms are counted by content; ImageNet's known odd photos are expected, and told when they look mended."""
    photos = shutil.copytree(tiny, tmp_path / "photos")
    folder = photos / "train/checker"
    picture = Image.open(folder / "train_00000.JPEG")
    picture.save(folder / "n02105855_2933.JPEG", "PNG")
    picture.convert("CMYK").save(folder / "n01739381_1309.JPEG", "JPEG")
    picture.convert("L").save(folder / "grey.JPEG", "JPEG")
    picture.save(folder / "n02077923_14822.JPEG", "JPEG")  # listed as CMYK
    shard_set, _ = build_shards(find_photos(photos), tmp_path / "out", SMALL, Here())
    entries = shard_set.manifest["splits"]["train"]["shards"]
    forms = sum((Counter(entry["forms"]) for entry in entries), Counter())
    grey = sum(Image.open(path).mode == "L" for path in (tiny / "train").rglob("*.JPEG"))  # made photos may be grey
    assert forms == {"JPEG": 15 - grey, "PNG": 1, "JPEG CMYK": 1, "JPEG grey": 1 + grey}
    assert sum(entry["known"] for entry in entries) == 2
    assert [path for entry in entries for path in entry["unlike"]] == ["train/checker/n02077923_14822.JPEG"]


@pytest.mark.parametrize(
    ("photos", "shards"),
    [(1, [1]), (256, [256]), (257, [256, 1]), (4096, [256] * 16), (16_000, [1000] * 16), (100_001, [5000] * 20 + [1])],
)
def test_shards_by_the_number_of_photos(tmp_path, photos, shards):
    source = PhotoSource(tmp_path, "", ("cat",), {"train": [Photo(f"{k}.jpg", 0, 1) for k in range(photos)]}, 0)
    jobs = module._jobs(source, tmp_path, BuildOptions())
    assert [len(job.photos) for job in jobs] == shards
    assert {photo.path for job in jobs for photo in job.photos} == {photo.path for photo in source.splits["train"]}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 7}, "--size 7 is not between 8 and 4096 pixels; 256, as in the paper"),
        ({"size": 4097}, "--size 4097 is not between 8 and 4096 pixels; 256, as in the paper"),
        ({"quality": 0}, "--quality 0 is not between 1 and 100; 95, as the authors"),
        ({"quality": 101}, "--quality 101 is not between 1 and 100; 95, as the authors"),
        ({"fit": "stretch"}, "--fit stretch --encoding jpeg: not one of ('crop', 'short-side') and ('jpeg', 'raw')"),
        ({"encoding": "webp"}, "--fit crop --encoding webp: not one of ('crop', 'short-side') and ('jpeg', 'raw')"),
        ({"seed": -1}, "--seed -1 or --shard-records 0 is out of range"),
        ({"seed": 1 << 64}, f"--seed {1 << 64} or --shard-records 0 is out of range"),
        ({"shard_records": 100_000_000}, "--seed 0 or --shard-records 100000000 is out of range"),
    ],
)
def test_options_that_cannot_be_meant(options, text):
    with pytest.raises(UsageError) as caught:
        BuildOptions(**options)
    assert str(caught.value) == text


@pytest.mark.parametrize("share", [float("nan"), -0.1, 0.91])
def test_a_share_that_cannot_be_held_out(tiny, share):
    """Where the source has its splits, too, and no photo would be held out."""
    with pytest.raises(UsageError) as caught:
        find_photos(tiny, val_share=share)
    assert str(caught.value) == f"a share of {share} cannot be held out; choose --val-share between 0 and 0.9"


def test_more_workers_than_make_sense_are_refused_before_one_is_started(monkeypatch):
    monkeypatch.setattr(pool, "WorkerPool", None)
    monkeypatch.setattr(pool, "available_cores", lambda: 2)
    with pytest.raises(UsageError, match="--workers 65: more than 64 would only use up memory"), worker_pool(65):
        pass
    with pytest.raises(TypeError), worker_pool(64):  # it would have been started
        pass
    monkeypatch.setattr(pool, "available_cores", lambda: 100)
    with pytest.raises(UsageError, match="--workers 1601: more than 1600 "), worker_pool(1601):
        pass


def many(count):
    """A source of so many photos that do not exist, in 10 classes, half of them in an archive."""
    entries = Entries(
        Entry(f"n{k % 10:08d}", f"n{k % 10:08d}/n{k % 10:08d}_{k}.JPEG", 100 + k, "a.tar" * (k % 2), 512 * k)
        for k in range(count)
    )
    classes = tuple(f"n{k:08d}" for k in range(10))
    photos = Photos(entries, np.arange(count), {name: k for k, name in enumerate(classes)} | {"": -1})
    return PhotoSource(Path("/nowhere"), "many", classes, {"train": photos})


def test_a_build_of_many_photos_needs_little_memory_for_each(tmp_path):
    """Everything that the main process does with all photos: their jobs, journal, fingerprint and changes."""
    source, count = many(20_000), 20_000
    one_less = dataclasses.replace(source, splits={"train": source.splits["train"][1:]})
    (tmp_path / ".build").mkdir()
    about = {"rules": 2, "account": journal.account_as_json(source.account)}
    for what, work in {
        "fingerprint": source.fingerprint,
        "jobs": lambda: module._jobs(source, tmp_path, SMALL.__class__()),
        "journal": lambda: journal.write_photos(tmp_path / journal.PHOTOS, source),
        "restored": lambda: journal.restore_photo_list(one_less, tmp_path),
        "changes": lambda: journal.changes(tmp_path, one_less),
    }.items():
        job = {"source": {"fingerprint": source.fingerprint()}, **about}
        (tmp_path / ".build/job.json").write_text(json.dumps(job))
        tracemalloc.start()
        made = work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak / count < (100 if what in ("restored", "changes") else 50), (
            f"{what}: {peak / count:.0f} bytes a photo"
        )
        if what == "restored":
            assert made is not one_less and made.splits == source.splits
            assert all(isinstance(photos, Photos) for photos in made.splits.values())
        if what == "changes":
            assert made == f"gone: {source.splits['train'][0].path}"
    job = pickle.loads(pickle.dumps(module._jobs(source, tmp_path, SMALL)[0]))
    assert isinstance(job.photos, tuple) and len(job.photos) == 4
    assert len(pickle.dumps(job)) < 2_000  # a job carries its own photos alone


def test_an_account_is_kept_and_comes_back(tiny, tmp_path):
    """dataset.json says what was used and what was left out, as the build was begun; neither is a reason to refuse."""
    photos, out = shutil.copytree(tiny, tmp_path / "photos"), tmp_path / "out"
    (photos / "notes.txt").write_text("x")
    (photos / "@eaDir").mkdir()
    (photos / "@eaDir/a.jpg").write_bytes(b"")
    source = find_photos(photos)
    with pytest.raises(KeyboardInterrupt):
        build_shards(source, out, SMALL, Here(3))
    (photos / source.splits["val"][0].path).unlink()
    built, _ = build_shards(find_photos(photos), out, SMALL, Here())
    account = built.manifest["source"]["account"]
    assert account == json.loads(json.dumps(journal.account_as_json(source.account)))
    assert account["used"]["val"] == {"checker": 3, "crescent": 3} and account["others"][".txt"]["files"] == 1
    assert account["left_out"] == [{"path": "@eaDir", "photos": 1, "why": "left by the system"}]
    (photos / "more.txt").write_text("x")
    with pytest.raises(KeyboardInterrupt):
        build_shards(find_photos(photos), tmp_path / "again", SMALL, Here(3))
    (photos / "third.txt").write_text("x")
    assert build_shards(find_photos(photos), tmp_path / "again", SMALL, Here())[1] > 0


def test_a_build_begun_by_the_old_rules_is_refused_by_name(tiny, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build_shards(find_photos(tiny), out, SMALL, Here(3))

    def as_of_old(job):
        del job["rules"], job["account"]
        job["versions"]["alexnet-dali"] = "0.1.0"
        job["source"]["fingerprint"] = "other photos"

    edit(out / ".build/job.json", as_of_old)
    with pytest.raises(ShardError) as caught:
        build_shards(find_photos(tiny), out, SMALL, Here())
    assert caught.value.message == (
        f"{out}: the build was begun by other rules for folders, splits and labels (those of alexnet-dali 0.1), "
        "which may give other labels"
    )
    assert caught.value.hint == "remove the folder and build again; or finish it with that version"


def test_a_set_by_the_old_rules_of_other_photos_says_so(tiny, undisturbed, tmp_path):
    out = shutil.copytree(undisturbed, tmp_path / "out")

    def as_of_old(manifest):
        del manifest["source"]["account"], manifest["duplicates"], manifest["empty"]
        manifest["source"]["request"] = {"layout": "folders", "split": None, "val_share": 0.1, "seed": 0}

    edit(out / "dataset.json", as_of_old)
    assert build_shards(find_photos(tiny), out, SMALL, Here())[1] == 0  # the same photos and labels by either
    photos = shutil.copytree(tiny, tmp_path / "photos")
    next((photos / "val/crescent").iterdir()).unlink()
    with pytest.raises(UsageError, match=r"it was built by the rules of alexnet-dali 0\.1 for folders, splits and lab"):
        build_shards(find_photos(photos), out, SMALL, Here())


def test_stopped_when_all_shards_are_written(tiny, undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        build_shards(find_photos(tiny), tmp_path / "out", SMALL, Here())
    rest = Here()
    build_shards(find_photos(tiny), tmp_path / "out", SMALL, rest)
    assert rest.jobs == [] and contents(tmp_path / "out") == contents(undisturbed)
