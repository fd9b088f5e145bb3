"""The commands in strange homes: another user, no network, no HOME, odd names, no terminal, small limits.

Each home is the whole way from photos to a tested net, or to the statistics, in processes of their own; the shards have
the bytes of an ordinary one. As root, other users and mounts are real (`setpriv`, `unshare`); elsewhere the tests are
another user already, and namespaces are asked for without root.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
from alexnet_dali.tools.sample_photos import make_photos
from faults import SMALL

ROOT = os.geteuid() == 0
STEP = ("--epochs", "1", "--steps", "1", "--batch-size", "4", "--rate", "0.001")
# Nobody, who may read what root may (the interpreter can stand in root's home) and write nothing but their own.
READS = "dac_read_search"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
NOBODY += [f"--inh-caps=-all,+{READS}", f"--ambient-caps=+{READS}", f"--bounding-set=-all,+{READS}"]
SPACE = ["unshare"] if ROOT else ["unshare", "--map-root-user"]
# A warning of a line of ours is an error, in the workers too, where no option of Python's reaches.
STRICT = "import warnings; warnings.filterwarnings('error', module=r'alexnet_dali\\b')\n"


class Home:
    """Commands that run under the same strange conditions.

    Args:
        before: the words before the interpreter's name.
        options: the interpreter's.
        limits: resource and number.
        keywords: of subprocess.run.
        environment: what differs in it; None, not there.
    """

    def __init__(self, place: Path, *, before=(), options=(), limits=(), umask=-1, keywords=None, **environment):
        self.place, self.before, self.options, self.limits, self.umask = place, before, options, limits, umask
        self.keywords = keywords or {}
        together = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self.environment = {name: value for name, value in together.items() if value is not None}

    def run(self, tool: str, *arguments, code=0) -> tuple[str, str]:
        """Run a command to its exit code; what it said on both outputs. Never a traceback."""
        done = subprocess.run(
            [*self.before, sys.executable, *self.options, "-m", f"alexnet_dali.tools.{tool}", *map(str, arguments)],
            check=False,
            timeout=120,
            env=self.environment,
            umask=self.umask,
            preexec_fn=partial(_limit, self.limits) if self.limits else None,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **self.keywords},
        )
        out, err = ((said or b"").decode(errors="replace") for said in (done.stdout, done.stderr))
        assert "Traceback" not in err and "Exception ignored" not in err and "Warning" not in err, err
        assert done.returncode == code, (done.returncode, out, err)
        return out, err

    def build(self, photos: Path) -> Path:
        """Photos to shards with statistics."""
        out = self.place / "shards"
        options = ("--size", 64, "--shard-records", 4, "--val-share", 0, "--workers", 2)
        said, _ = self.run("prep", "build-lmdb", photos, "--out", out, *options)
        assert "12 photos in = 12 records + 0 rejected" in said
        said, _ = self.run("prep", "pca-stats", "--shards", out)
        assert "stats.npz" in said
        return out

    def train(self, shards: Path) -> Path:
        """A step, and what it is worth."""
        run = self.place / "run"
        said, _ = self.run("train", "--shards", shards, "--run", run, *SMALL, *STEP)
        assert "last checkpoint" in said
        said, _ = self.run("evaluate", run, "--shards", shards, "--device", "cpu")
        assert "top-1 error" in said
        return run


def _limit(limits) -> None:
    for which, number in limits:
        resource.setrlimit(which, (number, number))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight photos to train on and four to test."""
    folder = tmp_path_factory.mktemp("ordinary") / "photos"
    make_photos(folder, train=8, val=4, classes=4, seed=2, side=(60, 90))
    return folder


@pytest.fixture(scope="module")
def ordinary(photos):
    """The bytes of the set of an ordinary home."""
    return data(Home(photos.parent).build(photos))


@pytest.fixture
def shared_place():
    """A folder that any user can reach: those of pytest are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="home-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def data(shards: Path) -> dict[str, bytes]:
    """What a set holds, without the names of the place it was built from."""
    kinds = ("data.mdb", "stats.npz", "classes.txt")
    files = {str(path.relative_to(shards)): path.read_bytes() for path in shards.rglob("*") if path.name in kinds}
    assert len([name for name in files if name.endswith("data.mdb")]) == 3 and "stats.npz" in files
    return files


def test_another_user_without_home_and_network(photos, ordinary, shared_place):
    copied = shutil.copytree(photos, shared_place / "photos")
    home = Home(
        shared_place / "out",
        before=[*SPACE, "--net", "--", *(NOBODY if ROOT else [])],
        umask=0o077,
        HOME=None,
        USER=None,
        LOGNAME=None,
        XDG_CACHE_HOME=None,
        TERM="dumb",
        LC_ALL="C",
        LANG=None,
        TZ="Pacific/Apia",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
    )
    shards = home.build(copied)
    run = home.train(shards)
    assert data(shards) == ordinary
    if ROOT:
        assert {path.stat().st_uid for path in (shards, shards / "stats.npz", run / "last.pt")} == {65534}
    assert not [path for path in (shards, *shards.rglob("*"), *run.rglob("*")) if path.stat().st_mode & 0o077]


def test_odd_names_a_home_that_cannot_be_written_no_asserts_and_strict_warnings(photos, ordinary, tmp_path):
    odd = tmp_path / "a b'c\"d\ne ünï 猫 $(x) `y` %s {z} *[0]"
    odd.mkdir()
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(STRICT)
    home = Home(
        odd,
        umask=0o000,
        limits=[(resource.RLIMIT_NOFILE, 64)],
        keywords={"stdin": None, "close_fds": True},
        HOME="/proc/nonexistent",
        XDG_CACHE_HOME="/proc/nonexistent/cache",
        LC_ALL="C.UTF-8",
        PYTHONIOENCODING="latin-1",
        PYTHONOPTIMIZE="1",
        PYTHONHASHSEED="4294967295",
        PYTHONPATH=f"{tmp_path / 'python'}:{os.environ.get('PYTHONPATH', '')}",
        TZ=":no/such\nzone",
    )
    shards = home.build(shutil.copytree(photos, odd / "photos"))
    home.train(shards)
    assert data(shards) == ordinary
    said, _ = home.run("prep", "verify", "--shards", shards)
    assert said.startswith("whole: 12 records")


@pytest.mark.parametrize("options", ["size=64m", "size=64m,ro"])
def test_little_or_no_shared_memory(photos, ordinary, tmp_path, options):
    """A tmpfs over /dev/shm, in a space of mounts of its own; read-only, no semaphore can be made there either."""
    mount = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$0" "$@"'
    home = Home(tmp_path, before=[*SPACE, "--mount", "--", "sh", "-c", mount])
    if "ro" not in options:
        shards = home.build(photos)
        assert data(shards) == ordinary
        home.train(shards)
        return
    _, err = home.run(
        "prep", "build-lmdb", photos, "--out", tmp_path / "shards", "--val-share", 0, "--workers", 2, code=1
    )
    assert err.startswith("error: ") and "/dev/shm" in err


def test_a_limit_of_addresses_is_told_and_costs_nothing(photos, ordinary, tmp_path):
    """`ulimit -v`: LMDB reserves addresses, not memory, for the largest shard that there could be."""
    home = Home(tmp_path, limits=[(resource.RLIMIT_AS, 4 << 30)], OPENBLAS_NUM_THREADS="1")
    build = ("prep", "build-lmdb", photos, "--out", tmp_path / "shards", "--size", 64, "--shard-records", 4)
    _, err = home.run(*build, "--val-share", 0, "--workers", 2, code=1)
    assert err.startswith("error: ") and "Cannot allocate memory" in err
    assert data(Home(tmp_path).build(photos)) == ordinary


def test_a_present_folder_that_is_gone(photos, ordinary, tmp_path):
    """It can be of mode 0; one that is deleted is named."""
    here = tmp_path / "here"
    here.mkdir(mode=0)
    home = Home(tmp_path, before=["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(here)])
    assert data(home.build(photos)) == ordinary
    here.chmod(0o700)
    home.before = ["sh", "-c", 'cd "$1" && rmdir "$1" && shift && exec "$@"', "sh", str(here)]
    _, err = home.run("prep", "build-lmdb", photos, "--out", tmp_path / "other", "--val-share", 0, code=1)
    assert err == "error: the present folder is gone: No such file or directory\n"


def test_a_reader_that_leaves(photos, tmp_path):
    """`... | head -1`, and outputs that are closed or full."""
    home = Home(tmp_path)
    shards = home.build(photos)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        home.keywords = {"stdout": writing}
        home.run("prep", "info", "--shards", shards)
        home.run("train", "--list-recipes")
    finally:
        os.close(writing)
    for closing in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        home = Home(tmp_path, before=["sh", "-c", f'exec "$0" "$@" {closing}'])
        home.run("prep", "info", "--shards", shards)
    with open("/dev/full", "wb") as full:
        home = Home(tmp_path, keywords={"stdout": full})
        _, err = home.run("prep", "info", "--shards", shards, code=1)
    assert "No space left on device" in err


def test_a_terminal_that_hangs_up(photos, tmp_path):
    """SIGHUP ends a build at once, as any other; the same command finishes it."""
    home = Home(tmp_path)
    command = [sys.executable, "-m", "alexnet_dali.tools.prep", "build-lmdb", str(photos)]
    command += [
        "--out",
        str(tmp_path / "shards"),
        "--size",
        "64",
        "--shard-records",
        "4",
        "--val-share",
        "0",
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        command,
        env=home.environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509, nohup ignores it
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.25)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(60) == -signal.SIGHUP
    home.build(photos)
