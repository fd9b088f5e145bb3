"""`alexnet-prep` as people and scripts use it: what it prints where, how it ends, what a `kill -9` costs."""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from alexnet_dali.pipeline.files import locked
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.sources.find import LAYOUTS, WHAT
from alexnet_dali.tools.prep.cli import COMMANDS, prep
from alexnet_dali.tools.prep.sample_photos import make_photos

COMMAND = [sys.executable, "-m", "alexnet_dali.tools.prep.cli"]
SMALL = ["--size", "32", "--shard-records", "4"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """14 training and 6 validation photos of 2 classes."""
    folder = tmp_path_factory.mktemp("prep") / "photos"
    make_photos(folder, train=14, val=6, classes=2, seed=2, side=(40, 70))
    return folder


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A finished set of the tiny photos, with its statistics; not to be changed."""
    out = tmp_path_factory.mktemp("prep") / "out"
    for command in (["build-lmdb", tiny, "--out", out, *SMALL], ["pca-stats", "--shards", out]):
        subprocess.run([*COMMAND, *command], check=True, stdout=subprocess.DEVNULL)
    return out


@pytest.fixture
def call(in_process, threads_for_workers):
    """Run alexnet-prep, its workers being threads."""
    threads_for_workers("prep.build_lmdb")
    return partial(in_process, prep)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# build-lmdb


def test_a_build_says_what_it_did(call, tiny, tmp_path):
    out = tmp_path / "out"
    code, said, aside = call("build-lmdb", tiny, "--out", out, *SMALL, "--workers", 1)
    first, train, val, other, second, forms, third = said.splitlines()
    assert (code, aside) == (0, "")
    assert (train, val) == ("  train: 2 classes of 7 photos", "  val: 2 classes of 3 photos")
    assert other == "  other files: 1 .json (sample.json)"
    assert first == "20 photos in 2 classes (class folders, train and val: train 14, val 6)"
    counts = ": 20 photos in = 20 records + 0 rejected; 6 shards, "
    assert re.fullmatch(re.escape(f"{out}{counts}") + r"\d+\.\d kB", second)
    assert forms == "by content not plain JPEG: 1 JPEG grey"
    assert re.fullmatch(r"\d+ s, [\d,]+ images/s with 1 workers", third)


def test_a_second_run_has_nothing_to_do(call, tiny, finished):
    before = times(finished)
    code, said, aside = call("build-lmdb", tiny, "--out", finished, *SMALL)
    assert (code, aside) == (0, "")
    assert said.splitlines()[-1] == "already complete: nothing to do"
    assert times(finished) == before


def test_the_options_reach_the_set(call, tiny, tmp_path):
    options = ["--size", 40, "--fit", "short-side", "--encoding", "raw", "--quality", 80, "--seed", 3, "--split", "val"]
    assert call("build-lmdb", tiny, "--out", tmp_path / "out", *options, "--shard-records", 5)[0] == 0
    manifest = json.loads((tmp_path / "out/dataset.json").read_text())
    wanted = {"size": 40, "fit": "short-side", "encoding": "raw", "quality": 80, "seed": 3, "shard_records": 5}
    assert {name: manifest[name] for name in wanted} == wanted
    assert {name: [shard["records"] for shard in split["shards"]] for name, split in manifest["splits"].items()} == {
        "val": [5, 1]
    }


def test_the_default_folder_is_out(call, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("build-lmdb", tiny, "--size", 32)[0] == 0
    assert call("pca-stats")[0] == 0
    assert sorted(os.listdir(tmp_path / "out")) == [
        "dataset.json",
        "rejected.csv",
        "stats.json",
        "stats.npz",
        "train",
        "val",
    ]
    assert (json.loads((tmp_path / "out/dataset.json").read_text())["quality"]) == 95


def test_a_flat_folder_is_split(call, tiny, tmp_path):
    code, said, _ = call("build-lmdb", tiny / "train", "--out", tmp_path / "out", *SMALL, "--val-share", 0.25)
    assert code == 0 and said.startswith("14 photos in 2 classes (class folders, flat: train 10, val 4)\n")


def test_what_is_odd_is_noted_aside(call, tiny, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    (photos / "train/checker/notes.txt").write_text("x")
    (photos / "train/checker/empty.jpg").write_bytes(b"")
    for name in ("w", "x", "y", "z"):
        (photos / "val" / name).mkdir()
        shutil.copy(photos / "val/checker/val_00000.JPEG", photos / "val" / name)
    out = tmp_path / "out"
    code, said, aside = call("build-lmdb", photos, "--out", out, *SMALL)
    assert code == 0
    note, warning = aside.splitlines()
    assert note.startswith(
        "note: 1 photo is in more than one class, by a hash of the files, such as val/checker/val_00000.JPEG"
    )
    assert [warning] == [
        "warning: 4 of the 6 classes of val are not in train: w, x, y and 1 more",
    ]
    assert "\n  other files: 1 .txt (train/checker/notes.txt)\n" in said
    assert f"\n{out}: 25 photos in = 24 records + 1 rejected (see {out}/rejected.csv); 7 shards, " in said
    assert (out / "rejected.csv").read_text() == "source_path,reason\ntrain/checker/empty.jpg,the file is empty\n"


def test_without_validation_photos_it_says_so(call, tiny, tmp_path):
    code, _, aside = call("build-lmdb", tiny, "--out", tmp_path / "out", *SMALL, "--split", "train")
    assert (code, aside) == (0, "note: no photos in val: training will not evaluate\n")
    assert not open_shard_set(tmp_path / "out").has("val")


def test_a_name_that_is_not_utf8_can_be_printed(tiny, tmp_path):
    photos = shutil.copytree(tiny, tmp_path / "photos")
    (photos / "val/crescent").rename(photos / "val" / os.fsdecode(b"caf\xe9"))
    out = tmp_path / os.fsdecode(b"o\xe9")
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}  # as Python has it in most languages' locales
    for command in (["build-lmdb", photos, "--out", out, *SMALL, "--workers", "1"], ["pca-stats", "--shards", out]):
        done = subprocess.run([*COMMAND, *command], check=False, env=strict, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "o\\udce9" in done.stdout
    assert open_shard_set(out).classes[0] == os.fsdecode(b"caf\xe9")


def refused(outcome, code, message, hint=None):
    """Whether a command ended in these two lines and this code, and printed no result."""
    got, _, aside = outcome
    assert (got, aside) == (code, f"error: {message}\n" + (f"  try: {hint}\n" if hint else ""))


def test_a_missing_source(call, tmp_path):
    refused(
        call("build-lmdb", tmp_path / "nothing"),
        2,
        f"{tmp_path}/nothing: no such file or folder",
        WHAT,
    )


def test_an_empty_source(call, tmp_path):
    code, said, aside = call("build-lmdb", tmp_path, "--out", tmp_path / "out")
    first, *looked_for, last = aside.splitlines()
    assert (code, said) == (2, "") and first == f"error: {tmp_path}: no photos in a known layout; there is: nothing"
    assert len(looked_for) == len(LAYOUTS) and all(re.match(r"  not .+: none there$", line) for line in looked_for)
    assert last == f"  try: {WHAT}"
    assert os.listdir(tmp_path) == []


def test_a_foreign_folder(call, tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    refused(
        call("build-lmdb", tiny, "--out", tmp_path),
        2,
        f"{tmp_path}: holds something that is not a shard set",
        "choose an empty folder with --out",
    )
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_another_build(call, tiny, finished):
    before = times(finished)
    refused(
        call("build-lmdb", tiny, "--out", finished, *SMALL, "--quality", 90),
        2,
        f"{finished}: holds another build: quality was 95, now 90",
        "choose another --out",
    )
    assert times(finished) == before


def test_a_builder_at_work(call, tiny, tmp_path):
    with locked(tmp_path):
        refused(
            call("build-lmdb", tiny, "--out", tmp_path),
            1,
            f"{tmp_path}: another process is at work there",
            "wait for it, or stop it",
        )


def test_no_photo_that_can_be_read(call, tmp_path):
    (tmp_path / "photos/cat").mkdir(parents=True)
    (tmp_path / "photos/cat/1.jpg").write_bytes(b"x")
    refused(
        call("build-lmdb", tmp_path / "photos", "--out", tmp_path / "out"),
        1,
        f"{tmp_path}/photos: none of 1 photos could be read (cat/1.jpg: not a photo in a known format)",
        "check that these files are photos",
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--size", "7"], "error: --size 7 is not between 8 and 4096 pixels\n  try: 256, as in the paper\n"),
        (["--quality", "0"], "error: --quality 0 is not between 1 and 100\n  try: 95, as the authors\n"),
        (["--val-share", "0.95"], "Invalid value for '--val-share': 0.95 is not in the range 0<=x<=0.9."),
        (["--val-share", "nan"], "a share of nan cannot be held out"),
        (["--encoding", "webp"], "'webp' is not one of 'jpeg', 'raw'"),
        (["--fit", "stretch"], "'stretch' is not one of 'crop', 'short-side'"),
        (["--split", "dev"], "'dev' is not one of 'train', 'val', 'test'"),
        (["--workers", "0"], "0 is not in the range x>=1"),
        (["--seed", "-1"], "-1 is not in the range x>=0"),
        (["--seed", str(1 << 64)], f"error: --seed {1 << 64} or --shard-records 0 is out of range\n"),
        (["--shard-records", "0"], "0 is not in the range x>=1"),
        (["--sise", "64"], "No such option"),
        (["more"], "Got unexpected extra argument (more)"),
    ],
)
def test_a_wrong_option(call, tiny, tmp_path, options, text):
    code, said, aside = call("build-lmdb", tiny / "train", "--out", tmp_path / "out", *options)
    assert code == 2 and said == ""
    assert text in aside
    assert not (tmp_path / "out").exists()


# pca-stats


def test_statistics_say_what_they_found(call, finished):
    before = contents(finished)
    code, said, aside = call("pca-stats", "--shards", finished, "--workers", 3)
    there = stats.load_stats(open_shard_set(finished))
    assert (code, aside) == (0, "")
    assert said == f"{stats.summary(there)}\nwritten: {finished}/stats.npz, {finished}/stats.json\n"
    assert {name: data for name, data in contents(finished).items() if name != "stats.npz"} == {
        name: data
        for name, data in before.items()
        if name != "stats.npz"  # whose zip holds the time
    }
    numbers = json.loads((finished / "stats.json").read_text())
    np.testing.assert_allclose(numbers["mean_rgb"], there.mean_image.mean(axis=(0, 1)), rtol=1e-12)


def test_statistics_of_no_set(call, tmp_path):
    refused(
        call("pca-stats", "--shards", tmp_path / "out"),
        2,
        f"{tmp_path}/out: no shard set there (no dataset.json)",
        f"build one: alexnet-prep build-lmdb PHOTOS --out {tmp_path}/out",
    )


def test_statistics_of_an_unfinished_set(call, tmp_path):
    (tmp_path / ".build").mkdir()
    refused(
        call("pca-stats", "--shards", tmp_path),
        1,
        f"{tmp_path}: the build is not finished",
        "run the same alexnet-prep build-lmdb command again to resume it",
    )


def test_statistics_without_training_photos(call, tiny, tmp_path):
    assert call("build-lmdb", tiny, "--out", tmp_path, *SMALL, "--split", "val")[0] == 0
    refused(
        call("pca-stats", "--shards", tmp_path),
        1,
        f"{tmp_path}: no records in a split 'train'; available: val (6)",
        "build the shards from a folder that has photos for it",
    )


def test_statistics_of_a_damaged_shard_are_not_written_and_the_hint_mends_it(call, tiny, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    (out / "stats.npz").unlink()
    data = bytearray((out / "train/00001.lmdb/data.mdb").read_bytes())
    start = data.index(b"\xff\xd8\xff\xe0")
    data[start : start + 600] = bytes(600)
    (out / "train/00001.lmdb/data.mdb").write_bytes(data)
    code, said, aside = call("pca-stats", "--shards", out)
    assert (code, said) == (1, "")
    assert re.match(rf"error: {out}/train/00001.lmdb, record [0-3]: ", aside)
    assert re.search(r"\n  try: alexnet-prep verify --shards \S+ --repair finds and rebuilds what is damaged\n$", aside)
    assert not (out / "stats.npz").exists()
    shutil.rmtree(out / "train/00001.lmdb")
    assert call("build-lmdb", tiny, "--out", out, *SMALL)[0] == 0
    assert call("pca-stats", "--shards", out)[0] == 0
    assert contents(out / "train") == contents(finished / "train")


# Both


def test_every_command_is_listed_and_explained(call):
    assert {"sample-photos", "build-lmdb", "pca-stats", "doctor"} <= set(COMMANDS)
    code, said, _ = call("--help")
    assert code == 0 and list(COMMANDS) == re.findall(r"^  ([a-z-]+)  ", said.partition("Commands:")[2], re.MULTILINE)
    for command in COMMANDS:
        code, said, _ = call(command, "--help")
        assert code == 0 and "Example" in said and f"alexnet-prep {command}" in said


def test_a_command_that_is_none(call):
    code, said, aside = call("build")
    assert (code, said) == (2, "") and "No such command 'build'" in aside


def test_version(call):
    code, said, _ = call("--version")
    assert code == 0 and re.search(r"version \d+\.\d+\.\d+\n$", said)


def test_the_offline_stage_needs_neither_dali_nor_torch():
    code = (
        "import sys\n"
        "import alexnet_dali.tools.prep.cli, alexnet_dali.tools.prep.build_lmdb, alexnet_dali.tools.prep.pca_stats\n"
        "import alexnet_dali.pipeline.plan.plan, alexnet_dali.pipeline.workers\n"
        "import alexnet_dali.pipeline.stream.record_reader\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'nvidia')])\n"
        "import alexnet_dali.pipeline.shards.manifest"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Processes that are stopped


def started(arguments, **options):
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, **options,
    )  # fmt: skip


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)


def members(group):
    """The processes of a process group that are not dead yet."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                state, _, of = file.read().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            found.append(int(name))
    return found


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """300 photos in 2 classes, enough for a build to be met at work."""
    folder = tmp_path_factory.mktemp("prep") / "many"
    make_photos(folder, train=40, val=4, classes=2, seed=4, side=(60, 90))
    for path in list(folder.glob("train/*/*.JPEG")):
        for k in range(7):
            os.link(path, path.with_name(f"{path.stem}_{k}.JPEG"))
    return folder


def build_of(photos, out):
    return ["build-lmdb", photos, "--out", out, "--shard-records", "8", "--workers", "2"]


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    """The many photos, built without a disturbance."""
    out = tmp_path_factory.mktemp("prep") / "whole"
    subprocess.run([*COMMAND, *map(str, build_of(many, out))], check=True, stdout=subprocess.DEVNULL)
    return out


def test_killed_at_some_moment_it_goes_on_to_the_same_bytes(many, whole, tmp_path):
    """`kill -9` of the command, again and again, each time later; then the same command to its end."""
    out = tmp_path / "out"
    groups, random_shards = [], random.Random()
    for least in (0, 12):
        shards = least + random_shards.randrange(10)
        process = started(build_of(many, out))
        wait_for(
            lambda shards=shards: len(list(out.glob(".build/train-*.json"))) >= shards and (out / ".build").exists()
        )
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (out / "dataset.json").exists(), "it was too quick to be killed"
        for folder in out.glob("*/*.lmdb"):  # what has its final name is whole; decoding and resampling are in integers
            assert (folder / "data.mdb").read_bytes() == (whole / folder.relative_to(out) / "data.mdb").read_bytes()
        groups.append(process.pid)
    process = started(build_of(many, out))
    _, aside = process.communicate(timeout=60)
    assert process.returncode == 0, aside
    assert contents(out) == contents(whole)
    wait_for(lambda: not any(members(group) for group in groups))


def test_ctrl_c_ends_all_of_it_in_one_line(many, whole, tmp_path):
    out = tmp_path / "out"
    process = started(build_of(many, out))
    wait_for((out / "train").exists)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, aside = process.communicate(timeout=60)
    assert process.returncode == 130
    assert aside.strip() == "stopped; run the same command again to continue"
    wait_for(lambda: not members(process.pid))
    assert not (out / "dataset.json").exists()


def test_a_full_disk_is_told_and_costs_nothing(many, whole, tmp_path):
    """No file may grow beyond 20 kB, which to LMDB is what a full disk is."""
    out = tmp_path / "out"
    process = started(
        build_of(many, out), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    )
    _, aside = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.fullmatch(
        rf"error: {out}/train/000\d\d.lmdb: cannot be written: mdb_txn_commit: (Input/output error|File too large)\n"
        r"  try: check free space and write permission\n",
        aside,
    )
    assert not list(out.glob("*/*.lmdb"))
    process = started(build_of(many, out))
    assert process.wait(timeout=60) == 0
    process.communicate()
    assert contents(out) == contents(whole)
