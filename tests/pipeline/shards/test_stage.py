"""The copy on a local disk: every hash checked, complete or not there, whatever stops it."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from functools import partial

import pytest
from alexnet_dali.pipeline.errors import AlexnetError, ShardError, UsageError
from alexnet_dali.pipeline.files import locked
from alexnet_dali.pipeline.shards import stage as module
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.shards.stage import stage_shards
from alexnet_dali.tools.prep.cli import prep
from faults import Faults


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(shards, tmp_path):
    """A copy of the shard set, to be damaged; it lies in `net`."""
    return open_shard_set(shutil.copytree(shards.root, tmp_path / "net"))


def refusal(*arguments, error=ShardError, **options):
    with pytest.raises(error) as caught:
        stage_shards(*arguments, **options)
    return caught.value.message


def test_the_copy_is_the_set(shards, tmp_path):
    staged = stage_shards(shards, tmp_path / "deep/copy")
    assert contents(tmp_path / "deep/copy") == contents(shards.root)
    total = sum(file.bytes for split in shards.splits.values() for _, file in split.shards)
    assert (staged.copied, staged.existing) == (total, 0)
    assert staged.shard_set == open_shard_set(tmp_path / "deep/copy")
    assert staged.shard_set.split("train").fingerprint() == shards.split("train").fingerprint()


def test_a_complete_copy_is_left_as_it_is(shards, tmp_path):
    stage_shards(shards, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*")}
    told = []
    staged = stage_shards(shards, tmp_path / "copy", advance=lambda count, fresh=True: told.append((count, fresh)))
    assert staged.copied == 0 and told == [(staged.existing, False)]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*")} == before


def test_the_source_may_be_read_only(source, tmp_path):
    for path in [*source.root.rglob("*"), source.root]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        stage_shards(source, tmp_path / "copy")
        assert contents(tmp_path / "copy") == contents(source.root)
        assert os.access(tmp_path / "copy/train/00000.lmdb/data.mdb", os.W_OK)
    finally:
        for path in [source.root, *source.root.rglob("*")]:
            path.chmod(0o755)


@pytest.mark.parametrize(("splits", "others"), [(["val"], []), (["train"], ["stats.npz", "stats.json"])])
def test_some_splits(shards, tmp_path, splits, others):
    staged = stage_shards(shards, tmp_path, splits)
    assert list(staged.shard_set.splits) == splits
    assert staged.shard_set.splits[splits[0]].fingerprint() == shards.splits[splits[0]].fingerprint()
    expected = [name for name in contents(shards.root) if name.startswith(splits[0])]
    assert sorted(contents(tmp_path)) == sorted([*expected, *others, "dataset.json", "rejected.csv"])
    assert refusal(shards, tmp_path, error=UsageError) == f"{tmp_path}: holds another shard set"


def test_both_splits_are_the_set(shards, tmp_path):
    stage_shards(shards, tmp_path, ["val", "train"])
    assert contents(tmp_path) == contents(shards.root)


def test_no_such_split(shards, tmp_path):
    assert refusal(shards, tmp_path / "copy", ["test"]) == f"{shards.root}: unknown split 'test'"
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("damage", ["a bit", "the end", "more"])
def test_a_damaged_source_is_named(source, tmp_path, damage):
    path = source.root / "train/00002.lmdb/data.mdb"
    data = path.read_bytes()
    changed = {
        "a bit": data[:5000] + bytes([data[5000] ^ 4]) + data[5001:],
        "the end": data[:-4096],
        "more": data + b"x",
    }
    path.write_bytes(changed[damage])
    with pytest.raises(ShardError) as caught:
        stage_shards(source, tmp_path / "copy")
    assert caught.value.message.startswith(
        f"{path}: {len(changed[damage]):,} bytes with another SHA-256 than in dataset.json: "
    )
    assert "alexnet-prep verify" in caught.value.hint
    assert not (tmp_path / "copy/dataset.json").exists()
    assert sorted(os.listdir(tmp_path / "copy/train")) == [
        "00000.csv",
        "00000.lmdb",
        "00001.csv",
        "00001.lmdb",
        "00002.csv",
    ]
    path.write_bytes(data)
    stage_shards(source, tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(source.root)


def source_fault(source, copy, done, number):
    """The message and the hint where something that is done to the source fails."""
    with Faults(source.root) as undisturbed:
        stage_shards(source, copy)
    shutil.rmtree(copy)
    with Faults(source.root, 1 + undisturbed.seen.index(done), number), pytest.raises(AlexnetError) as caught:
        stage_shards(source, copy)
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize(
    ("done", "path"), [("read data.mdb", "train/00000.lmdb/data.mdb"), ("read stats.npz", "stats.npz")]
)
def test_a_source_that_may_not_be_read_is_not_told_to_be_written(source, tmp_path, done, path):
    message, hint = source_fault(source, tmp_path / "copy", done, errno.EACCES)
    assert message == f"{source.root / path}: Permission denied"
    assert hint == "check that you have read permission, then run the same command again"


def test_a_disk_of_the_source_that_fails_is_named(source, tmp_path):
    message, hint = source_fault(source, tmp_path / "copy", "read data.mdb", errno.EIO)
    assert message == f"{source.root}/train/00000.lmdb/data.mdb: Input/output error"
    assert hint == "check the disk, then run the same command again"


def test_a_damaged_csv_is_named(source, tmp_path):
    path = source.root / "val/00000.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert refusal(source, tmp_path / "copy") == f"{path}: 15 rows for 16 records"


def test_what_was_copied_wrongly_is_copied_again(source, tmp_path):
    copy = tmp_path / "copy"
    stage_shards(source, copy)
    path = copy / "train/00001.lmdb/data.mdb"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"x")
    os.truncate(copy / "train/00003.lmdb/data.mdb", 100)  # so the copy is not complete, and is looked at again
    staged = stage_shards(source, copy)
    assert staged.copied == sum((source.root / f"train/0000{k}.lmdb/data.mdb").stat().st_size for k in (1, 3))
    assert contents(copy) == contents(source.root)
    (copy / "val/00001.csv").unlink()
    assert stage_shards(source, copy).copied == 0
    assert contents(copy) == contents(source.root)


def test_a_full_disk_is_told_before_a_byte_is_copied(shards, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 12_345))
    total = sum(file.bytes for split in shards.splits.values() for _, file in split.shards)
    assert refusal(shards, tmp_path) == f"{tmp_path}: {total:,} bytes to copy, but only 12,345 are free"
    assert contents(tmp_path).keys() == {".stage"}
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**9, 0, total))
    stage_shards(shards, tmp_path)


def test_other_folders_are_refused(shards, raw_shards, tmp_path):
    assert refusal(shards, shards.root, error=UsageError) == f"{shards.root}: source and target are the same set"
    (tmp_path / "file").write_text("x")
    assert refusal(shards, tmp_path / "file", error=UsageError) == f"{tmp_path}/file: not a folder"
    assert refusal(shards, tmp_path, error=UsageError) == f"{tmp_path}: holds something that is not a shard set"
    assert os.listdir(tmp_path) == ["file"]
    stage_shards(raw_shards, tmp_path / "raw")
    before = contents(tmp_path / "raw")
    assert refusal(shards, tmp_path / "raw", error=UsageError) == f"{tmp_path}/raw: holds another shard set"
    assert contents(tmp_path / "raw") == before
    (tmp_path / "raw/dataset.json").write_text("{")
    assert refusal(raw_shards, tmp_path / "raw", error=UsageError) == f"{tmp_path}/raw: holds another shard set"
    with locked(tmp_path / "busy"):
        assert refusal(shards, tmp_path / "busy") == f"{tmp_path}/busy: another process is at work there"


def test_a_part_of_another_set_is_refused(shards, raw_shards, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage_shards(raw_shards, tmp_path, advance=stop)
    assert refusal(shards, tmp_path, error=UsageError) == f"{tmp_path}: holds another shard set"
    stage_shards(raw_shards, tmp_path)
    assert contents(tmp_path) == contents(raw_shards.root)


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


def test_whatever_call_fails_nothing_half_done_is_left(shards, tmp_path, monkeypatch):
    """The n-th rename, replacement or sync fails as a full disk does, for n = 1, 2, ... until none does."""
    whole = contents(shards.root)
    for failing in range(1, 100):
        out = tmp_path / str(failing)
        with monkeypatch.context() as patch:
            calls = fail_at(patch, failing)
            try:
                stage_shards(shards, out, ["val"])
            except OSError as error:
                assert error.errno == errno.ENOSPC
            else:
                assert len(calls) < failing
                break
        for name, data in contents(out).items():
            assert name == ".stage" or data == whole[name] or name == "dataset.json", f"call {failing}: half of {name}"
        stage_shards(shards, out, ["val"])
        assert {name: data for name, data in contents(out).items() if name != "dataset.json"} == {
            name: data for name, data in whole.items() if name.startswith("val") or name == "rejected.csv"
        }
    assert failing == 1 + 3 + 2 * 7 + 3 + 3  # the job; a CSV and a shard, twice; rejected.csv; dataset.json


@pytest.fixture
def call(in_process):
    """Run alexnet-prep."""
    return partial(in_process, prep)


def test_the_command_says_what_it_did(call, shards, tmp_path):
    code, said, aside = call("stage", "--shards", shards.root, "--to", tmp_path, "--split", "val")
    first, second = said.splitlines()
    assert (code, aside) == (0, "")
    assert first.startswith(f"{tmp_path}: 20 records in 2 shards, ")
    assert " copied in 0 s, " in second and second.endswith("/s, all hashes correct")
    code, said, _ = call("stage", "--shards", shards.root, "--to", tmp_path, "--split", "val")
    assert code == 0 and said.endswith("already complete: nothing to do\n")
    assert call("verify", "--shards", tmp_path, "--workers", 1)[0] == 0


def test_killed_at_some_moment_it_goes_on(raw_shards, tmp_path):
    """`kill -9` of the command, again and again; then the same command to its end."""
    # Longer than it was, and dataset.json says so, so that the copy can be met at work.
    source = shutil.copytree(raw_shards.root, tmp_path / "net")
    manifest = json.loads((source / "dataset.json").read_text())
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            path = source / shard["path"] / "data.mdb"
            os.truncate(path, 40_000_000)
            shard["bytes"] = 40_000_000
            shard["sha256"] = module.sha256_of(path)
    (source / "dataset.json").write_text(json.dumps(manifest))
    command = [sys.executable, "-m", "alexnet_dali.tools.prep.cli", "stage", "--shards", str(source), "--to"]
    copy = tmp_path / "copy"
    met, chance = 0, random.Random()
    for shards in (0, 1, 3):
        process = subprocess.Popen([*command, str(copy)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not (copy.exists() and len(list(copy.glob("*/*.lmdb"))) >= shards and list(copy.glob("*/.*.part"))):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.001)
        time.sleep(chance.random() * 0.05)
        met += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (copy / "dataset.json").exists()
    assert met
    done = subprocess.run([*command, str(copy)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there, here = ({path.relative_to(root) for path in root.rglob("*")} for root in (source, copy))
    assert there == here
    for path in here:
        if (copy / path).is_file() and path.name != "dataset.json":
            assert module.sha256_of(copy / path) == module.sha256_of(source / path)
    assert open_shard_set(copy).splits.keys() == raw_shards.splits.keys()
