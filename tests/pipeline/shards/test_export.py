"""Shards for other programs: tar files and folders hold the same pictures and labels, read by others' code."""

import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import stored
from alexnet_dali.pipeline.errors import ShardError, UsageError
from alexnet_dali.pipeline.files import locked
from alexnet_dali.pipeline.shards import datum
from alexnet_dali.pipeline.shards.export import export_shards
from alexnet_dali.pipeline.shards.export_shard import UNLABELLED_DIR, class_folders
from alexnet_dali.pipeline.shards.lmdb_shard import sha256_of
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.workers import worker_pool
from alexnet_dali.tools.console import run
from alexnet_dali.tools.prep.cli import prep
from PIL import Image
from torchvision.datasets import ImageFolder
from unlabelled import make_unlabelled


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


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["jpeg", "raw", "short side"])
def any_set(request, shards, raw_shards, short_side_shards):
    return {"jpeg": shards, "raw": raw_shards, "short side": short_side_shards}[request.param]


def samples(path):
    """The samples of a tar as webdataset groups them: by the name up to its first dot, in order."""
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            assert member.isfile() and "/" not in member.name
            assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
            name, _, suffix = member.name.partition(".")
            assert not found or name == list(found)[-1] or name not in found, "a sample's members stand apart"
            assert suffix not in found.setdefault(name, {})
            found[name][suffix] = archive.extractfile(member).read()
    return found


def test_tars_hold_the_records(any_set, tmp_path):
    assert export_shards(any_set, tmp_path, "webdataset", Here()) == sum(s.records for s in any_set.splits.values())
    suffix = "png" if any_set.encoding == "raw" else "jpg"
    for split in any_set.splits.values():
        records = stored.records(any_set.root, split.name)
        rows = [
            line.split(",")
            for folder, _ in split.shards
            for line in folder.with_suffix(".csv").read_text().splitlines()[1:]
        ]
        files = [tmp_path / f"{split.name}-{k:06d}.tar" for k in range(len(split.shards))]
        found = [pair for file in files for pair in samples(file).items()]
        assert len(found) == len(records) == len({name for name, _ in found})
        assert [name for name, _ in found] == sorted(name for name, _ in found)
        for (_, sample), record, row in zip(found, records, rows, strict=True):
            assert sample.keys() == {"cls", "json", suffix}
            assert int(sample["cls"]) == record.label
            np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(sample[suffix]))), record.pixels)
            about = json.loads(sample["json"])
            assert about == {
                "source_path": row[2],
                "class": any_set.classes[record.label],
                "words": "",
                "width": record.pixels.shape[1],
                "height": record.pixels.shape[0],
                "source_width": int(row[3]),
                "source_height": int(row[4]),
            }


def test_jpegs_are_copied(shards, tmp_path):
    export_shards(shards, tmp_path / "tar", "webdataset", Here())
    export_shards(shards, tmp_path / "folder", "folder", Here())
    folder, _ = shards.split("train").shards[1]
    payloads = [stored.parts(value)[0] for value in stored.values(folder)]
    assert [sample["jpg"] for sample in samples(tmp_path / "tar/train-000001.tar").values()] == payloads
    written = {path.name: path.read_bytes() for path in (tmp_path / "folder/train").glob("*/00001_*")}
    assert [written[name] for name in sorted(written)] == payloads


def test_folders_are_an_image_folder_with_equal_labels_and_pixels(any_set, tmp_path):
    export_shards(any_set, tmp_path, "folder", Here())
    for split in any_set.splits.values():
        dataset = ImageFolder(str(tmp_path / split.name))
        assert dataset.classes == list(any_set.classes)
        found = {os.path.basename(path): (path, label) for path, label in dataset.samples}
        records = stored.records(any_set.root, split.name)
        suffix = "png" if any_set.encoding == "raw" else "jpg"
        shard_numbers = {folder: k for k, (folder, _) in enumerate(split.shards)}
        assert len(found) == len(records)
        for record in records:
            path, label = found[f"{shard_numbers[record.shard]:05d}_{record.index:08d}.{suffix}"]
            assert label == record.label
            np.testing.assert_array_equal(np.array(dataset.loader(path)), record.pixels)


@pytest.mark.parametrize("format_", ["webdataset", "folder"])
def test_workers_change_no_byte(shards, tmp_path, format_):
    export_shards(shards, tmp_path / "here", format_, Here())
    with worker_pool(2) as pool:
        export_shards(shards, tmp_path / "pool", format_, pool)
    assert contents(tmp_path / "here") == contents(tmp_path / "pool")


def test_the_index(shards, tmp_path):
    export_shards(shards, tmp_path, "webdataset", Here(), splits=["val"])
    index = json.loads((tmp_path / "export.json").read_text())
    assert index["format"] == "webdataset" and index["classes"] == shards.manifest["classes"]
    assert index["splits"] == {
        "val": {
            "records": 20,
            "fingerprint": shards.splits["val"].fingerprint(),
            "paths": ["val-000000.tar", "val-000001.tar"],
        }
    }
    assert sorted(contents(tmp_path)) == ["export.json", "val-000000.tar", "val-000001.tar"]


def renamed(root, copy, names, labels=None):
    """A copy of a set whose classes are called otherwise; with `labels`, whose first shard of val says -1."""
    shutil.copytree(root, copy)
    manifest = json.loads((copy / "dataset.json").read_text())
    for entry, name in zip(manifest["classes"], names, strict=True):
        entry.update(name=name, words=f"words of {name}")
    (copy / "dataset.json").write_text(json.dumps(manifest))
    return open_shard_set(copy)


@pytest.mark.parametrize(
    "names",
    [
        ["..", "a/b", "c", "d"],
        ["", ".hidden", "nul\0", "x" * 300],
        ["a", "b/../../../x", "c", "d"],
        ["b", "a", "d", "c"],
        ["same", "same", "t", "u"],
        [os.fsdecode(b"caf\xe9"), "cr\rlf\n", "z z", "zz'\""],
        ["../../x", "/etc", "C:\\", "~"],
    ],
)
def test_odd_class_names_stay_inside_and_keep_their_labels(shards, tmp_path, names):
    odd = renamed(shards.root, tmp_path / "set", names)
    export_shards(odd, tmp_path / "to" / "here", "folder", Here())
    assert os.listdir(tmp_path / "to") == ["here"] and len(os.listdir(tmp_path / "to/here/train")) == 4
    dataset = ImageFolder(str(tmp_path / "to/here/train"))
    labels = {os.path.basename(path): label for path, label in dataset.samples}
    numbers = {folder.name: k for k, (folder, _) in enumerate(odd.split("train").shards)}
    records = stored.records(shards.root, "train")
    assert len(labels) == len(records)
    assert all(labels[f"{numbers[r.shard.name]:05d}_{r.index:08d}.jpg"] == r.label for r in records)
    export_shards(odd, tmp_path / "tars", "webdataset", Here())
    first = next(iter(samples(tmp_path / "tars/train-000000.tar").values()))
    about = json.loads(first["json"])
    assert (about["class"], about["words"]) == (names[int(first["cls"])], f"words of {names[int(first['cls'])]}")


def test_plain_class_names_stay_as_they_are():
    assert class_folders(["n01440764", "n02102040"]) == ("n01440764", "n02102040")
    assert class_folders(["b", "a"]) == ("00000_b", "00001_a")


def test_a_class_without_pictures_has_its_folder(shards, tmp_path):
    """Or ImageFolder would count the classes after it wrongly."""
    manifest = json.loads((shutil.copytree(shards.root, tmp_path / "set") / "dataset.json").read_text())
    manifest["classes"].append({"name": "zebra"})
    (tmp_path / "set/dataset.json").write_text(json.dumps(manifest))
    export_shards(open_shard_set(tmp_path / "set"), tmp_path / "out", "folder", Here())
    dataset = ImageFolder(str(tmp_path / "out/val"), allow_empty=True)
    assert dataset.classes == [*shards.classes, "zebra"]


def test_records_without_a_label(shards, tmp_path):
    value = stored.values(shards.root / "val/00000.lmdb")[2]
    data, height, width, _ = stored.parts(value)
    unlabelled = datum.encode(data, height=height, width=width, label=-1, encoded=True)
    stored.damaged(shards.root, tmp_path / "set", "val", 0, 2, unlabelled)
    odd = open_shard_set(tmp_path / "set")
    export_shards(odd, tmp_path / "folder", "folder", Here(), splits=["val"])
    assert os.listdir(tmp_path / "folder/val" / UNLABELLED_DIR) == ["00000_00000002.jpg"]
    export_shards(odd, tmp_path / "tar", "webdataset", Here(), splits=["val"])
    sample = samples(tmp_path / "tar/val-000000.tar")["00000_00000002"]
    assert sample["cls"] == b"-1" and json.loads(sample["json"])["class"] is None


def test_a_set_without_labels(shards, tmp_path):
    out = open_shard_set(make_unlabelled(shards.root, tmp_path / "set"))
    export_shards(out, tmp_path / "folder", "folder", Here())
    assert os.listdir(tmp_path / "folder/test") == [UNLABELLED_DIR]
    assert len(os.listdir(tmp_path / "folder/test" / UNLABELLED_DIR)) == 20
    export_shards(out, tmp_path / "tar", "webdataset", Here())
    assert {sample["cls"] for sample in samples(tmp_path / "tar/test-000000.tar").values()} == {b"-1"}


def test_a_damaged_record_is_named(shards, tmp_path):
    folder = stored.damaged(shards.root, tmp_path / "set", "train", 1, 4, b"no Datum")
    with pytest.raises(ShardError) as caught:
        export_shards(open_shard_set(tmp_path / "set"), tmp_path / "out", "webdataset", Here())
    assert caught.value.message.startswith(f"{folder}, record 4: not a Datum")
    assert "alexnet-prep verify" in caught.value.hint
    assert not (tmp_path / "out/train-000001.tar").exists() and not (tmp_path / "out/export.json").exists()


def test_a_csv_that_does_not_fit(shards, tmp_path):
    copy = shutil.copytree(shards.root, tmp_path / "set")
    (copy / "val/00001.csv").write_text("key,label,source_path,source_width,source_height\n")
    with pytest.raises(ShardError, match=r"val/00001\.lmdb: 4 records, but its CSV has 0 rows"):
        export_shards(open_shard_set(copy), tmp_path / "out", "folder", Here())


@pytest.mark.parametrize("format_", ["webdataset", "folder"])
def test_stopped_at_any_shard_it_goes_on(shards, tmp_path, format_):
    export_shards(shards, tmp_path / "whole", format_, Here())
    for stop in range(1, 7):
        out, told = tmp_path / str(stop), []
        with pytest.raises(KeyboardInterrupt):
            export_shards(shards, out, format_, Here(stop))
        assert not (out / "export.json").exists()
        rest = Here()
        export_shards(shards, out, format_, rest, lambda count, fresh=True, told=told: told.append((count, fresh)))
        assert len(rest.jobs) == 6 - (stop - 1)
        assert sum(count for count, _ in told) == 80
        assert contents(out) == contents(tmp_path / "whole")
    again = Here()
    assert export_shards(shards, out, format_, again) == 0 and again.jobs == []


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


@pytest.mark.parametrize("format_", ["webdataset", "folder"])
def test_whatever_call_fails_nothing_half_done_is_left(shards, tmp_path, monkeypatch, format_):
    """The n-th rename, replacement or sync fails as a full disk does, for n = 1, 2, ... until none does."""
    export_shards(shards, tmp_path / "whole", format_, Here(), splits=["val"])
    whole = contents(tmp_path / "whole")
    for failing in range(1, 100):
        out = tmp_path / str(failing)
        with monkeypatch.context() as patch:
            calls = fail_at(patch, failing)
            try:
                export_shards(shards, out, format_, Here(), splits=["val"])
            except OSError as error:
                assert error.errno == errno.ENOSPC
            else:
                assert len(calls) < failing
                break
        for name, data in contents(out).items():
            assert name.startswith(".export/") or data == whole[name], f"call {failing}: half of {name}"
        export_shards(shards, out, format_, Here(), splits=["val"])
        assert contents(out) == whole
    assert failing > 15


def test_other_folders_are_refused(shards, raw_shards, tmp_path):
    def message(*arguments, **options):
        with pytest.raises((UsageError, ShardError)) as caught:
            export_shards(*arguments, Here(), **options)
        return caught.value.message

    (tmp_path / "thesis.tex").write_text("years of work")
    assert message(shards, tmp_path, "folder") == f"{tmp_path}: holds something that is not an export"
    assert message(shards, shards.root, "folder") == f"{shards.root}: holds something that is not an export"
    export_shards(shards, tmp_path / "out", "folder", Here())
    for other in ((raw_shards, tmp_path / "out", "folder"), (shards, tmp_path / "out", "webdataset")):
        assert message(*other) == f"{tmp_path}/out: holds another export"
    with pytest.raises(KeyboardInterrupt):
        export_shards(shards, tmp_path / "half", "folder", Here(stop=2))
    assert message(raw_shards, tmp_path / "half", "folder") == f"{tmp_path}/half: holds another export"
    assert message(shards, tmp_path / "new", "folder", splits=["test"]) == "unknown split 'test'"
    assert message(shards, tmp_path / "new", "zip") == "unknown format 'zip'"
    with locked(tmp_path / "busy"):
        assert message(shards, tmp_path / "busy", "folder") == f"{tmp_path}/busy: another process is at work there"


def test_a_worker_that_dies_is_told(shards, tmp_path):
    class Dying(Executor):
        def submit(self, *_, **__):
            future: Future = Future()
            future.set_exception(BrokenExecutor("gone"))
            return future

    with pytest.raises(ShardError, match="a worker process died"):
        export_shards(shards, tmp_path, "folder", Dying())


# The command


@pytest.mark.parametrize(("format_", "what"), [("webdataset", "val-000001.tar"), ("folder", "val/")])
def test_the_command(shards, tmp_path, monkeypatch, capsys, format_, what):
    @contextmanager
    def threads(workers):
        with ThreadPoolExecutor(workers) as executor:
            yield executor

    monkeypatch.setattr("alexnet_dali.tools.prep.export.worker_pool", threads)
    for line in ("0 s, ", "already complete: nothing to do\n"):
        with pytest.raises(SystemExit) as caught:
            run(prep, ["export", "--shards", str(shards.root), "--to", str(tmp_path), "--format", format_])
        said, aside = capsys.readouterr()
        assert (caught.value.code, aside) == (0, "")
        first, second = said.splitlines(keepends=True)
        assert first == f"{tmp_path}: 80 records as {format_}\n" and second.startswith(line)
    assert any(name.startswith(what) for name in contents(tmp_path))


@pytest.mark.parametrize("format_", ["webdataset", pytest.param("folder", marks=pytest.mark.slow)])
def test_killed_at_some_moment_it_goes_on_to_the_same_bytes(raw_shards, tmp_path, format_):
    """`kill -9` of the command, again and again, at any moment; then the same command to its end."""
    export_shards(raw_shards, tmp_path / "whole", format_, Here())
    out = tmp_path / "out"
    command = [sys.executable, "-m", "alexnet_dali.tools.prep.cli", "export", "--shards", str(raw_shards.root)]
    command += ["--to", str(out), "--format", format_, "--workers", "2"]
    met, chance = 0, random.Random()
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while process.poll() is None and not list(out.glob("**/*.part")) and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.05)
        met += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert met, "it was too quick to be killed"
    time.sleep(0.7)  # its workers end within half a second
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {name: sha256_of(out / name) for name in contents(out)} == {
        name: sha256_of(tmp_path / "whole" / name) for name in contents(tmp_path / "whole")
    }
