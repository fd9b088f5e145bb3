"""The commands in strange homes: a user without rights, no network, no HOME, odd names, another locale, small limits.

The shards have the bytes of an ordinary home's, since pictures and sums are computed in integers. What Python writes,
runs and asks is watched (watched.py).
"""

import os
import resource
import shutil
import tempfile
from importlib import import_module
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path

import homes
import pytest
import watched
from alexnet_dali.tools import console
from homes import ASCII, NOBODY, ROOT, SPACE, Home, data

SLOW = pytest.mark.slow
# A warning of a line of ours is an error, in the workers too, where no option of Python's reaches.
STRICT = "import warnings; warnings.filterwarnings('error', module=r'alexnet_dali\\b')\n"
# After a command in a space of networks of its own: what its kernel counted of packets, sent or without a way.
COUNTED = '"$0" "$@"; code=$?; cat /proc/net/snmp /proc/net/snmp6 >> "$COUNTED"; exit $code'

ASKING = """
import contextlib, socket
with contextlib.suppress(OSError):
    socket.create_connection(("192.0.2.1", 80), timeout=1)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight photos to train on and four to test."""
    return homes.strange_photos(tmp_path_factory.mktemp("ordinary") / "photos")


@pytest.fixture(scope="module")
def ordinary_shards(photos):
    """A set of an ordinary home."""
    return Home(photos.parent, LC_ALL="C.UTF-8").build(photos)


@pytest.fixture(scope="module")
def ordinary(ordinary_shards):
    """What it holds."""
    return data(ordinary_shards)


@pytest.fixture
def shared_place():
    """A folder that any user can reach: those of pytest are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="home-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("only_build", [True, pytest.param(False, marks=SLOW)], ids=["photos to shards", "all"])
def test_another_user_without_home_and_network(photos, ordinary, shared_place, only_build):
    """Nobody, without one right of root's: they read the photos, write the folder, and ask nobody anything.

    In between their HOME is one that they can read and not write.
    """
    copied = shutil.copytree(photos, shared_place / "photos")
    log, counted = shared_place / "log", shared_place / "counted"
    counted.touch()
    counted.chmod(0o666)
    (shared_place / "temporary").mkdir()
    (shared_place / "temporary").chmod(0o777)
    home = Home(
        shared_place / "out",
        before=[
            *SPACE,
            "--net",
            "--mount",
            "--",
            *homes.reached(shared_place / "mounts"),
            *NOBODY,
            "sh",
            "-c",
            COUNTED,
        ],
        umask=0o077,
        **watched.environment(shared_place / "python", log),
        HOME=None,
        USER=None,
        LOGNAME=None,
        XDG_CACHE_HOME=None,
        COUNTED=str(counted),
        TERM="dumb",
        TMPDIR=str(shared_place / "temporary"),
        TZ="Pacific/Apia",
        **ASCII,
    )

    def assert_nobody_asked():
        deeds = watched.read(log)
        assert not [deed for deed in deeds if deed[0] in watched.NETWORK]
        tried = shared_place / "home" / ".config"  # by matplotlib, that then takes a temporary folder
        assert not watched.outside(deeds, shared_place / "out", shared_place / "temporary", tried)
        assert set(_packets(counted).values()) == {0}

    shards = home.build(copied)
    assert_nobody_asked()
    assert data(shards) == ordinary
    run = home.place / "run"
    if not only_build:
        (shared_place / "home").mkdir(mode=0o555)
        home.environment["HOME"] = str(shared_place / "home")
        home.train(shards)
        home.copy(shards)
        home.show(shards, run)
        home.report(shards, run)
        assert_nobody_asked()
    if ROOT:
        owned = (shards, shards / "stats.npz", *([] if only_build else [run / "last.pt"]))
        assert {path.stat().st_uid for path in owned} == {65534}
    assert not [path for path in (shards, *shards.rglob("*"), *run.rglob("*")) if path.stat().st_mode & 0o077]
    assert len(watched.read(log)) > (40 if only_build else 100)


def _packets(counted: Path) -> dict[str, int]:
    """Sums over all commands: snmp has a line of names and one of numbers, snmp6 a name and a number a line."""
    sums = dict.fromkeys(("OutRequests", "OutNoRoutes", "Ip6OutRequests", "Ip6OutNoRoutes"), 0)
    lines = [line.split() for line in counted.read_text().splitlines()]
    assert sum(line[0] == "Ip:" for line in lines) > 1
    for names, numbers in pairwise(lines):
        if names[0] == numbers[0] == "Ip:" and names[1].isalpha():
            for name in ("OutRequests", "OutNoRoutes"):
                sums[name] += int(numbers[names.index(name)])
    for line in lines:
        if line[0] in sums:
            sums[line[0]] += int(line[1])
    return sums


def test_the_network_that_is_asked_would_be_seen(shared_place):
    """By both: by the hook what Python asks, by the kernel what any program does."""
    log, counted = shared_place / "log", shared_place / "counted"
    home = Home(
        shared_place,
        before=[*SPACE, "--net", "--", "sh", "-c", COUNTED],
        COUNTED=str(counted),
        **watched.environment(shared_place / "python", log),
    )
    asking = (
        "import socket, contextlib\nwith contextlib.suppress(OSError):\n    socket.create_connection(('192.0.2.1', 80))"
    )
    (shared_place / "python" / "sitecustomize.py").open("a").write(asking)
    for _ in range(3):
        home.run("prep", "--version")
    deeds = watched.read(log)
    assert [what for what, _ in deeds if what in watched.NETWORK].count("socket.connect") == 3
    assert _packets(counted)["OutNoRoutes"] == 3


@SLOW
def test_a_home_that_could_be_written_is_left_as_it_was(photos, ordinary, tmp_path):
    """And nothing is written but what was asked for; by seven workers as by two."""
    user, temporary, log = tmp_path / "user", tmp_path / "temporary", tmp_path / "log"
    for folder in (user, temporary):
        folder.mkdir()
    (user / ".profile").write_text("x")
    home = Home(
        tmp_path / "out",
        **watched.environment(tmp_path / "python", log),
        HOME=str(user),
        XDG_CACHE_HOME=None,
        XDG_CONFIG_HOME=None,
        MPLCONFIGDIR=None,
        TMPDIR=str(temporary),
    )
    home.place.mkdir()
    shards = home.build(photos, workers=7)
    assert data(shards) == ordinary
    run = home.train(shards)
    assert [str(path.relative_to(user)) for path in user.rglob("*")] == [".profile"]
    home.show(shards, run)
    # matplotlib keeps the fonts that it has found, and has no switch for that.
    there = {str(path.relative_to(user)) for path in user.rglob("*")} - {".profile", ".cache", ".config"}
    assert all(name.startswith((".cache/matplotlib", ".config/matplotlib")) for name in there), there
    caches = [user / ".cache", user / ".config/matplotlib", user / ".config"]
    assert not watched.outside(watched.read(log), home.place, temporary, *caches)
    assert [path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor")] == []


@SLOW
def test_odd_names_a_home_that_cannot_be_written_no_asserts_and_strict_warnings(photos, ordinary, tmp_path):
    odd = tmp_path / "a b'c\"d\ne ünï 猫 $(x) `y` %s {z} *[0]"
    log, temporary = tmp_path / "log", tmp_path / "temporary"
    for folder in (odd, temporary):
        folder.mkdir()
    home = Home(
        odd,
        umask=0o000,
        limits=[(resource.RLIMIT_NOFILE, 64)],
        keywords={"stdin": None, "close_fds": True},
        **watched.environment(tmp_path / "python", log, STRICT),
        HOME="/proc/nonexistent",
        XDG_CACHE_HOME="/proc/nonexistent/cache",
        LC_ALL="C.UTF-8",
        PYTHONIOENCODING="latin-1",
        PYTHONOPTIMIZE="1",
        PYTHONHASHSEED="4294967295",
        TMPDIR=str(temporary),
        TZ=":no/such\nzone",
    )
    shards = home.build(shutil.copytree(photos, odd / "photos"))
    run = home.train(shards)
    home.run("weights", "export", run, "--to", odd / "weights")
    assert data(shards) == ordinary
    said, _ = home.run("prep", "verify", "--shards", shards)
    assert said.startswith("undamaged: 12 records")
    assert not watched.outside(watched.read(log), odd, temporary)


@pytest.mark.parametrize("options", [pytest.param("size=64m", marks=SLOW), "size=64m,ro"])
def test_little_or_no_shared_memory(photos, ordinary, tmp_path, options):
    """A tmpfs over /dev/shm, in a space of mounts of its own; read-only, no semaphore can be made there either."""
    mount = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$0" "$@"'
    home = Home(tmp_path, before=[*SPACE, "--mount", "--", "sh", "-c", mount])
    if "ro" not in options:
        shards = home.build(photos)
        assert data(shards) == ordinary
        home.environment["PYTHONWARNINGS"] = "ignore::FutureWarning"  # of torch, about DistributedDataParallel
        home.train(shards, "--decode", "dali", "--processes", 2, "--parallel", "data")
        return
    _, err = home.run(
        "prep", "build-lmdb", photos, "--out", tmp_path / "shards", "--val-share", 0, "--workers", 2, code=1
    )
    assert err.startswith("error: ") and "/dev/shm" in err


@SLOW
def test_a_limit_of_addresses_is_told_and_costs_nothing(photos, ordinary, tmp_path):
    """`ulimit -v`: LMDB reserves addresses, not memory, for the largest shard that there could be."""
    home = Home(tmp_path, limits=[(resource.RLIMIT_AS, 4 << 30)], OPENBLAS_NUM_THREADS="1")
    build = ("prep", "build-lmdb", photos, "--out", tmp_path / "shards", *homes.BUILD)
    _, err = home.run(*build, "--workers", 2, code=1)
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
    assert err == "error: the current folder no longer exists: No such file or directory\n"


@pytest.fixture
def nobody_reads():
    """The end of a pipe that is written to, whose other end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def test_a_reader_that_leaves(ordinary_shards, tmp_path, nobody_reads):
    """`... | head -1`, `... 2>&1 | head -1`, and an output that is full: the work is done all the same."""
    home = Home(tmp_path, keywords={"stdout": nobody_reads})
    home.run("prep", "info", "--shards", ordinary_shards)
    home.keywords = {"stdout": nobody_reads, "stderr": nobody_reads}
    home.run("prep", "info", "--shards", tmp_path / "nowhere", code=2)
    with open("/dev/full", "wb") as full:
        home = Home(tmp_path, keywords={"stdout": full})
        _, err = home.run("prep", "info", "--shards", ordinary_shards, code=1)
    assert "No space left on device" in err


@SLOW
def test_a_reader_that_leaves_a_training(ordinary_shards, tmp_path, nobody_reads):
    home = Home(tmp_path, keywords={"stdout": nobody_reads})
    home.run("train", "--list-recipes")
    home.run("train", "--shards", ordinary_shards, "--run", tmp_path / "run", *homes.SMALL, *homes.STEP)
    assert (tmp_path / "run" / "last.pt").exists()


@SLOW
@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_outputs_that_are_closed(ordinary_shards, tmp_path, closing):
    shards = shutil.copytree(ordinary_shards, tmp_path / "shards")
    home = Home(tmp_path, before=["sh", "-c", f'exec "$0" "$@" {closing}'])
    home.run("prep", "info", "--shards", shards)
    if "2>&-" in closing:  # where progress is shown
        home.run("prep", "pca-stats", "--shards", shards)


def test_every_command_begins_by_taking_names_as_utf8(monkeypatch):
    def begin():
        raise InterruptedError

    monkeypatch.setattr(console, "ensure_utf8", begin)
    scripts = [
        entry.value for entry in entry_points(group="console_scripts") if entry.value.startswith("alexnet_dali.")
    ]
    assert len(scripts) == 7
    for script in scripts:
        module, name = script.split(":")
        with pytest.raises(InterruptedError):
            getattr(import_module(module), name)()


@pytest.mark.parametrize("options", [(), ("-E",), ("-X", "utf8=0")])
def test_a_command_starts_once_more_and_not_for_ever(tmp_path, options):
    """Python's own options are stronger than the environment; then it is as it is."""
    log = tmp_path / "log"
    home = Home(tmp_path, options=options, **watched.environment(tmp_path / "python", log), **ASCII)
    assert "version" in home.run("prep", "--version")[0]
    assert [what for what, _ in watched.read(log)] == ([] if options == ("-E",) else ["os.exec"])
