"""The repair: exactly what is damaged is built again, to the same bytes, whatever stops it."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from functools import partial

import pytest
from alexnet_dali.pipeline.errors import ShardError, SourceError, UsageError
from alexnet_dali.pipeline.files import locked
from alexnet_dali.pipeline.prepare.build import BuildOptions, build_shards
from alexnet_dali.pipeline.prepare.repair import repair
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.shards.verify import verify_shards
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.tools.prep.cli import prep
from alexnet_dali.tools.prep.sample_photos import make_photos

SMALL = BuildOptions(size=32, shard_records=4)


class Here(Executor):
    """Does each job at once in this process; `stop` makes job number `stop`, counted from 1, end as Ctrl-C would."""

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
    """14 training and 6 validation photos of 2 classes, and one that is rejected."""
    folder = tmp_path_factory.mktemp("repair") / "photos"
    make_photos(folder, train=14, val=6, classes=2, seed=2, side=(40, 70))
    (folder / "train/checker/empty.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The set of them, with its statistics: 4 shards to train on, 2 to validate."""
    out = tmp_path_factory.mktemp("repair") / "out"
    shard_set, _ = build_shards(find_photos(tiny), out, SMALL, Here())
    stats.save_stats(stats.measure_stats(shard_set, Here()), out)
    return out


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path, place=-100):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def hurt(copy):
    """Damage three of six shards in three ways."""
    flip(copy / "train/00001.lmdb/data.mdb")
    os.truncate(copy / "val/00000.lmdb/data.mdb", 4096)
    (copy / "train/00003.csv").write_text("key,label,source_path,source_width,source_height\n")
    return ("train/00001.lmdb", "train/00003.lmdb", "val/00000.lmdb")


def mend(out, executor=None, **options):
    return repair(verify_shards(out, Here()), executor or Here(), **options)


def test_exactly_the_damaged_shards_are_rebuilt_to_the_same_bytes(whole, copy):
    damaged = hurt(copy)
    kept = {path: path.stat().st_ino for path in copy.glob("*/*.lmdb/data.mdb")}
    executor = Here()
    done = mend(copy, executor)
    assert done.shards == damaged and len(executor.jobs) == 3
    assert (done.changed, done.rejected, done.versions, done.kept) == ((), (), (), None)
    assert contents(copy) == contents(whole)
    assert verify_shards(done.shard_set, Here()).whole
    rebuilt = {path.parent.relative_to(copy).as_posix() for path, inode in kept.items() if path.stat().st_ino != inode}
    assert rebuilt == set(damaged)


@pytest.mark.parametrize("lost", ["train/00001.lmdb", "train/00002.csv", "train", "val"])
def test_lost_shards_are_rebuilt(whole, copy, lost):
    shutil.rmtree(copy / lost) if (copy / lost).is_dir() else (copy / lost).unlink()
    mend(copy)
    assert contents(copy) == contents(whole)


def test_photos_that_moved(whole, copy, tiny, tmp_path):
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest["source"]["path"] = str(tmp_path / "gone")
    (copy / "dataset.json").write_text(json.dumps(manifest, indent=2) + "\n")
    hurt(copy)
    before = contents(copy)
    with pytest.raises(UsageError, match="no such"):
        mend(copy)
    assert contents(copy) == before
    mend(copy, photos=tiny)
    assert contents(copy) == contents(whole)


def test_other_photos_are_refused_and_nothing_is_touched(copy, tiny, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    (photos / "train/checker/more.jpg").write_bytes(b"more")
    hurt(copy)
    before = contents(copy)
    with pytest.raises(UsageError) as caught:
        mend(copy, photos=photos)
    assert caught.value.message == (f"{photos}: not the photos of {copy}: names, classes or sizes differ")
    assert "--source" in caught.value.hint
    assert contents(copy) == before


def test_a_part_of_a_set_is_refused(copy):
    manifest = json.loads((copy / "dataset.json").read_text())
    del manifest["splits"]["val"]
    (copy / "dataset.json").write_text(json.dumps(manifest))
    hurt(copy)
    before = contents(copy)
    with pytest.raises(ShardError) as caught:
        mend(copy)
    assert caught.value.message == f"{copy}: has only the splits train of train, val"
    assert "alexnet-prep stage" in caught.value.hint
    assert contents(copy) == before


def test_a_photo_that_was_changed_under_its_name_and_size_is_told(whole, copy, tiny, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    changed = (whole / "train/00001.csv").read_text().splitlines()[1].split(",")[2]
    data = bytearray((photos / changed).read_bytes())
    data[data.index(b"\xff\xdb") + 6] ^= 7  # a step of its quantisation: other pixels
    (photos / changed).write_bytes(data)
    hurt(copy)
    done = mend(copy, photos=photos)
    assert (done.changed, done.rejected, done.versions, done.kept) == (("train/00001.lmdb",), (), (), None)
    report = verify_shards(copy, Here())
    assert [damage.shard for damage in report.damages] == ["stats.npz"]  # dataset.json has the new hash
    assert not (copy / ".damaged").exists()


def test_other_libraries_are_told(copy):
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest["versions"]["simplejpeg"] = "0.1"
    manifest["splits"]["train"]["shards"][1]["sha256"] = "0" * 64
    (copy / "dataset.json").write_text(json.dumps(manifest))
    done = mend(copy)
    assert done.shards == done.changed == ("train/00001.lmdb",)
    (line,) = done.versions
    assert line.startswith("simplejpeg ") and line.endswith(", before 0.1")


def test_a_photo_that_was_lost_leaves_the_damaged_shard(whole, copy, tiny, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    lost = (whole / "train/00001.csv").read_text().splitlines()[1].split(",")[2]
    (photos / lost).write_bytes(bytes((photos / lost).stat().st_size))
    flip(copy / "train/00001.lmdb/data.mdb")
    damaged = (copy / "train/00001.lmdb/data.mdb").read_bytes()
    done = mend(copy, photos=photos)
    assert done.changed == ("train/00001.lmdb",) and done.kept == copy / "damaged-1"
    assert [line.split(": ")[0] for line in done.rejected] == [lost]
    assert (copy / "damaged-1/train/00001.lmdb/data.mdb").read_bytes() == damaged
    assert open_shard_set(copy).split("train").records == 13
    assert [damage.shard for damage in verify_shards(copy, Here()).damages] == ["stats.npz"]


def test_where_no_photo_can_be_read_the_set_is_as_it_was(copy, tiny, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    for path in photos.rglob("*.JPEG"):
        path.write_bytes(bytes(path.stat().st_size))
    for path in copy.glob("*/*.lmdb/data.mdb"):
        flip(path)
    before = contents(copy)
    with pytest.raises(SourceError, match="could be read"):
        mend(copy, photos=photos)
    assert {name: data for name, data in contents(copy).items() if not name.startswith(".")} == before


def test_without_the_list_of_the_rejected(copy):
    hurt(copy)
    (copy / "rejected.csv").unlink()
    with pytest.raises(ShardError) as caught:
        mend(copy)
    assert caught.value.message == f"{copy}/rejected.csv: No such file or directory"
    assert "build it again" in caught.value.hint


def test_a_set_at_work_is_left_alone(copy):
    hurt(copy)
    before = contents(copy)
    with locked(copy), pytest.raises(ShardError, match="another process is at work there"):
        mend(copy)
    assert contents(copy) == before


def test_stopped_at_any_shard_it_goes_on(whole, tmp_path):
    for stop in (1, 2, 3):
        copy = shutil.copytree(whole, tmp_path / str(stop))
        damaged = hurt(copy)
        with pytest.raises(KeyboardInterrupt):
            mend(copy, Here(stop))
        assert verify_shards(copy, Here()).damaged_shards == damaged[stop - 1 :]
        rest = Here()
        mend(copy, rest)
        assert len(rest.jobs) == 4 - stop
        assert contents(copy) == contents(whole)


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


def test_whatever_call_fails_it_can_be_run_again(whole, tmp_path, monkeypatch):
    """The n-th rename, replacement or sync fails as a full disk does, for n = 1, 2, ... until none does."""
    for failing in range(1, 100):
        out = shutil.copytree(whole, tmp_path / str(failing))
        hurt(out)
        with monkeypatch.context() as patch:
            calls = fail_at(patch, failing)
            try:
                mend(out)
            except OSError as error:
                assert error.errno == errno.ENOSPC
            else:
                assert len(calls) < failing
                assert contents(out) == contents(whole)
                break
        if not (report := verify_shards(out, Here())).whole:
            repair(report, Here())
        shutil.rmtree(out / ".damaged", ignore_errors=True)  # as the command does when the set is whole
        shutil.rmtree(out / ".build", ignore_errors=True)
        assert contents(out) == contents(whole), f"call {failing}"
    assert failing > 20


# The command


@pytest.fixture
def call(in_process, threads_for_workers):
    """Run alexnet-prep, its workers being threads."""
    threads_for_workers("prep.verify")
    return partial(in_process, prep)


def test_the_command_says_what_it_did(call, whole, copy):
    hurt(copy)
    code, said, aside = call("verify", "--shards", copy, "--repair")
    assert (code, aside) == (0, "")
    lines = said.splitlines()
    assert lines[-2:] == [
        "rebuilt: 3 shards, identical byte for byte",
        "undamaged: 20 records in 6 shards; all hashes and pictures are correct",
    ]
    assert lines[0].startswith("train/00001.lmdb: the SHA-256 of data.mdb is ")
    assert contents(copy) == contents(whole)


def test_nothing_to_repair(call, whole, copy):
    (copy / ".damaged/train").mkdir(parents=True)  # a repair was killed in its last moment
    assert call("verify", "--shards", copy, "--repair")[0] == 0
    assert contents(copy) == contents(whole) and not (copy / ".damaged").exists()


def test_what_changed_is_told(call, whole, copy, tiny, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    lost = (whole / "train/00001.csv").read_text().splitlines()[1].split(",")[2]
    (photos / lost).write_bytes(bytes((photos / lost).stat().st_size))
    flip(copy / "train/00001.lmdb/data.mdb")
    code, said, aside = call("verify", "--shards", copy, "--repair", "--source", photos)
    assert code == 1
    assert "rebuilt: train/00001.lmdb, with different bytes; dataset.json has the new SHA-256\n" in said
    assert "stats.npz: these statistics are of another shard set\n" in said
    lines = aside.splitlines()
    assert lines[0] == ("warning: photos changed under the same names and sizes, or can no longer be read")
    assert lines[1].startswith(f"warning: rejected now but not before: {lost}: ")
    assert lines[2] == f"note: 1 photos are lost; the damaged shards are kept in {copy}/damaged-1"
    assert lines[-1] == f"  try: alexnet-prep pca-stats --shards {copy}"


def test_killed_at_some_moment_it_goes_on_to_the_same_bytes(whole, copy):
    """`kill -9` of the command, again and again, at any moment; then the same command to its end."""
    for path in copy.glob("*/*.lmdb/data.mdb"):
        flip(path)
    command = [sys.executable, "-m", "alexnet_dali.tools.prep.cli", "verify", "--shards", str(copy), "--repair"]
    chance = random.Random()
    met = 0
    for _ in range(4):
        process = subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not (copy / ".damaged").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.05)
        met += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert met, "it was too quick to be killed"
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(copy) == contents(whole)
