"""The n-th thing that the offline stage does to its files fails, or is its last: n = 1, 2, 3, ... until it succeeds.

Of build-lmdb, pca-stats, verify --repair, stage and export, each as it is typed, its workers being this process. After
each, every file under a final name is old or new, never half; the message names a file and what to do; the same command
finishes, to the bytes of a run that nothing disturbed, and leaves nothing beside them. The bytes are equal by
construction: pictures and sums are computed in integers, records have their order from the plan of the photos.
`FAULT_KILLS=1000` kills at each operation, not at a few; `FAULT_ERRORS=7` has each fail with every error, not with one.
"""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest
from alexnet_dali.tools import console
from alexnet_dali.tools.prep.cli import prep
from alexnet_dali.tools.prep.sample_photos import make_photos
from faults import Faults, doubling
from forms import make_parquet

KILLS = int(os.environ.get("FAULT_KILLS", "6"))
SLOW = pytest.mark.slow
EACH = int(os.environ.get("FAULT_ERRORS", "1"))  # errors that each operation fails with
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EDQUOT, errno.EROFS, KeyboardInterrupt, errno.EINTR)
# By Python or LMDB, when they are interrupted.
RETRIED = ("open", "read", "write", "flush", "fsync", "pwrite", "syncfs", "put", "commit", "sync")
# What is left goes another time, a folder may be there, what cannot be read may be damage, which is mended.
HARMLESS = ("unlink", "rmdir", "mkdir", "read")


class Here(Executor):
    """Does each job at once, in this thread; any number of workers."""

    def __init__(self, workers=1):
        pass

    def submit(self, function, /, *arguments, **keywords):
        future: Future = Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def here(workers=0):
    yield Here()


def in_this_process(patch):
    """Have the commands' workers be this thread."""
    for name in ("build_lmdb", "verify", "export"):
        patch(f"alexnet_dali.tools.prep.{name}.worker_pool", here)
    patch("alexnet_dali.tools.prep.pca_stats.ThreadPoolExecutor", Here)


@dataclass(frozen=True)
class Job:
    """A command, and what is in its folder before it.

    Attributes:
        name: of the folder in `made` that it is begun from, and of its own.
        arguments: what is typed, given the folder of all and the folder it works in.
        fewest: operations that are surely done.
    """

    name: str
    arguments: Callable[[Path, Path], tuple]
    fewest: int


BUILD = ("--size", 16, "--shard-records", 2)
EXPORT = ("export", "--format")
JOBS = [
    Job("build", lambda made, out: ("build-lmdb", made / "photos", "--out", out, *BUILD), 100),
    Job("build on", lambda made, out: ("build-lmdb", made / "photos", "--out", out, *BUILD), 80),
    Job("build a table", lambda made, out: ("build-lmdb", made / "table", "--out", out, *BUILD), 120),
    Job("pca-stats", lambda made, out: ("pca-stats", "--shards", out), 20),
    Job("pca-stats again", lambda made, out: ("pca-stats", "--shards", out), 20),
    Job("verify --repair", lambda made, out: ("verify", "--shards", out, "--repair"), 150),
    Job("stage", lambda made, out: ("stage", "--shards", made / "set", "--to", out), 70),
    Job("export to tars", lambda made, out: (*EXPORT, "webdataset", "--shards", made / "set", "--to", out), 40),
    Job("export to folders", lambda made, out: (*EXPORT, "folder", "--shards", made / "set", "--to", out), 80),
]


def command(*arguments) -> int:
    """Run alexnet-prep; its code."""
    with pytest.raises(SystemExit) as left:
        console.run(prep, [str(argument) for argument in arguments])
    return left.value.code


def contents(folder: Path) -> dict[str, bytes | None]:
    """All files with their bytes, and all folders, by name."""
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photos, a table of them, their set, and what the jobs begin with."""
    made = tmp_path_factory.mktemp("faults")
    make_photos(made / "photos", train=3, val=2, classes=2, seed=2, side=(20, 30))
    (made / "photos/train/checker/empty.jpg").write_bytes(b"")
    make_parquet(made / "photos", made / "table", shards=1)
    with pytest.MonkeyPatch.context() as patch:
        in_this_process(patch.setattr)
        assert command(*JOBS[0].arguments(made, made / "set")) == 0
        for name in ("pca-stats", "pca-stats again"):
            shutil.copytree(made / "set", made / name)
        assert command("pca-stats", "--shards", made / "set") == 0
        for name in ("stats.npz", "stats.json"):
            (made / "pca-stats again" / name).write_bytes(b"of other photos")
        with Faults(made / "build on", 45, KeyboardInterrupt):
            assert command(*JOBS[1].arguments(made, made / "build on")) == 130
        for left in ("train/.00001.lmdb.0a1b2c3d.part", "val/.00000.lmdb.0a1b2c3d.part"):  # as a killed one leaves them
            (made / "build on" / left).mkdir(parents=True)
            (made / "build on" / left / "data.mdb").write_bytes(b"half")
        hurt = shutil.copytree(made / "set", made / "verify --repair")
        with open(hurt / "train/00000.lmdb/data.mdb", "r+b") as file:
            file.seek(5000)
            file.write(b"other bytes")
        (hurt / "val/00000.csv").unlink()
    return made


@pytest.fixture
def workplace(made, tmp_path, monkeypatch):
    """Give a job its folder as it is before the command, whatever was there."""
    in_this_process(monkeypatch.setattr)

    def begin(job):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        return shutil.copytree(made / job.name, out) if (made / job.name).exists() else out

    return begin


def undisturbed(job, made, workplace):
    """What is there before and after a run that nothing disturbs, and all that it did."""
    before = contents(out) if (out := workplace(job)).exists() else {}
    with Faults(out, sync=False) as faults:
        assert command(*job.arguments(made, out)) == 0
    assert len(faults.seen) >= job.fewest
    return before, contents(out), faults.seen


def old_or_new(out, before, after, what):
    """Whatever has a final name has the bytes from before or those of the end."""
    for name, data in contents(out).items() if out.exists() else ():
        if data is not None and not any(part.startswith(".") for part in Path(name).parts):
            assert data in (before.get(name), after.get(name)), f"{what}: half of {name}"


def told(err, out, error, kind):
    """The message is two lines, a file or folder under its final name and what to do; or the one of Ctrl-C."""
    if error is KeyboardInterrupt:
        return err.endswith("stopped; run the same command again to continue\n")
    found = re.search(rf"^error: ({re.escape(str(out))}[^:]*): .*\n(  try: .+\n)?$", err, re.MULTILINE)
    return found and ".part" not in found[1] and (found[2] or kind == "read")


def errors_of(kind, number):
    """Those of the operation's turn."""
    some = [error for error in ERRORS if error != errno.EINTR or kind not in RETRIED]
    return [some[(number + k) % len(some)] for k in range(min(EACH, len(some)))]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=SLOW)], ids=["1, 2, 4, 8, ...", "each"])
def test_whatever_operation_fails_all_is_old_or_new_and_the_same_command_finishes(
    job, all_of_them, made, workplace, capfd
):
    before, after, seen = undisturbed(job, made, workplace)
    untold, faulted = [], 0
    for number in range(1, len(seen) + 1) if all_of_them else doubling(len(seen)):
        done = seen[number - 1]
        kind = done.split()[0]
        for error in errors_of(kind, number):
            out, faulted = workplace(job), faulted + 1
            capfd.readouterr()
            with Faults(out, number, error, sync=False) as faults:
                code = command(*job.arguments(made, out))
            err = capfd.readouterr().err
            what = f"{faults.seen[number - 1]} {error if error is KeyboardInterrupt else errno.errorcode[error]}"
            assert "Traceback" not in err
            if code == 0:
                assert error is not KeyboardInterrupt and (kind in HARMLESS or done.startswith("open ")), what
            elif not told(err, out, error, kind):
                untold.append(f"{what}: {err}")
            old_or_new(out, before, after, what)
            with Faults(out, sync=False):
                assert command(*job.arguments(made, out)) == 0, what
            assert contents(out) == after, what
    assert not untold, "\n".join(untold)
    print(f"{job.name}: {len(seen)} operations, {faulted} failed")  # for docs/reliability.md, with pytest -rP


FORKED = """
import os, signal, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
import test_faults_build as ours
ours.killed(*sys.argv[2:])
"""


def killed(made, folder, asked):
    """In a process of one thread, so that its copies can: run each command to its n-th operation and die there."""
    cv2.setNumThreads(1)
    in_this_process(pytest.MonkeyPatch().setattr)
    jobs = {job.name: job for job in JOBS}
    for name, points in json.loads(asked).items():
        for point in points:
            child = os.fork()
            if child == 0:
                with Faults(out := Path(folder) / name / str(point), point, None, sync=False):
                    command(*jobs[name].arguments(Path(made), out))
                os._exit(0)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL, (name, point)


@pytest.mark.parametrize(
    ("jobs", "kills"),
    [(JOBS, 3), *(pytest.param([job], KILLS, marks=SLOW, id=job.name) for job in JOBS)],
)
def test_killed_at_any_operation_the_same_command_finishes(jobs, kills, made, workplace, tmp_path, capfd):
    whole, asked = {}, {}
    for job in jobs:
        _, _, seen = whole[job.name] = undisturbed(job, made, workplace)
        count = min(kills, len(seen))
        asked[job.name] = sorted({1 + round(k * (len(seen) - 1) / max(1, kills - 1)) for k in range(count)})
        for point in asked[job.name]:
            (tmp_path / job.name).mkdir(exist_ok=True)
            if (made / job.name).exists():
                shutil.copytree(made / job.name, tmp_path / job.name / str(point))
    words = [os.pathsep.join(sys.path), str(made), str(tmp_path), json.dumps(asked)]
    subprocess.run([sys.executable, "-c", FORKED, *words], check=True, timeout=600, capture_output=True)
    for job in jobs:
        before, after, seen = whole[job.name]
        for point in asked[job.name]:
            out = tmp_path / job.name / str(point)
            old_or_new(out, before, after, f"killed at {seen[point - 1]}")
            with Faults(out, sync=False):
                assert command(*job.arguments(made, out)) == 0, capfd.readouterr().err
            assert contents(out) == after, f"killed at {seen[point - 1]}"
        print(f"{job.name}: killed at {len(asked[job.name])} of {len(seen)} operations")
