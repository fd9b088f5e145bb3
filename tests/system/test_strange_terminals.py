"""Commands whose terminal is dumb, hangs up, or stops them and lets them go on."""

import errno
import os
import pty
import signal
import subprocess
import time

import homes
import pytest
from homes import Home, data


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight photos to train on and four to test."""
    return homes.strange_photos(tmp_path_factory.mktemp("ordinary") / "photos")


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory):
    """They as a set."""
    return Home(tmp_path_factory.mktemp("set")).build(photos)


def on_a_terminal(home, tool, *arguments) -> str:
    """Run a command on a terminal of its own, to its end; what that has been sent."""
    ours, its = pty.openpty()
    try:
        process = subprocess.Popen(
            home.words(tool, *arguments),
            env=home.environment,
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
        os.close(its)
        said = b""
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError as error:  # that is how a terminal ends on Linux
                assert error.errno == errno.EIO
                break
            if not piece:
                break
            said += piece
        assert process.wait(120) == 0, said
    finally:
        os.close(ours)
    return said.decode()


@pytest.mark.slow
def test_a_dumb_terminal(photos, shards, tmp_path):
    home = Home(tmp_path, TERM="dumb", COLUMNS=None, LINES=None)
    said = on_a_terminal(home, "prep", "build-lmdb", photos, "--out", tmp_path / "shards", *homes.BUILD, "--workers", 2)
    assert "12 photos in = 12 records + 0 rejected" in said
    said += on_a_terminal(home, "prep", "pca-stats", "--shards", tmp_path / "shards")
    assert data(tmp_path / "shards") == data(shards)
    run = tmp_path / "run"
    said += on_a_terminal(home, "train", "--shards", shards, "--run", run, *homes.SMALL, *homes.STEP)
    assert "last checkpoint" in said and "Traceback" not in said and "\x1b" not in said


LATE = """
import os
if "LATE" in os.environ:
    import time
    import alexnet_dali.pipeline.shards.lmdb_shard as shards
    real = shards.write_shard
    shards.write_shard = lambda *given: time.sleep(2) or real(*given)
"""


def begun(home, photos):
    """A build that is under way, and takes its time for each shard."""
    out, python = home.place / "shards", home.place / "python"
    python.mkdir()
    (python / "sitecustomize.py").write_text(LATE)
    late = {"LATE": "1", "PYTHONPATH": f"{python}:{os.environ.get('PYTHONPATH', '')}"}
    words = home.words("prep", "build-lmdb", photos, "--out", out, *homes.BUILD, "--workers", 2)
    process = subprocess.Popen(
        words,
        env={**os.environ, **home.environment, **late},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509, nohup ignores it
    )
    while not (out / ".build" / "photos.csv").exists():
        assert process.poll() is None
        time.sleep(0.001)
    return process, out


def test_a_terminal_that_hangs_up(photos, shards, tmp_path):
    """SIGHUP ends a build at once, as any other; the same command finishes it."""
    home = Home(tmp_path)
    process, out = begun(home, photos)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(60) == -signal.SIGHUP
    assert not (out / "dataset.json").exists()
    assert data(home.build(photos)) == data(shards)


def test_a_build_that_is_stopped_and_goes_on(photos, shards, tmp_path):
    """Ctrl-Z and fg: the whole group; and one that a scheduler stops alone, its workers going on."""
    home = Home(tmp_path)
    process, out = begun(home, photos)
    for stop in (os.killpg, os.kill):
        stop(process.pid, signal.SIGSTOP)
        time.sleep(0.5)
        assert process.poll() is None and not (out / "dataset.json").exists()
        stop(process.pid, signal.SIGCONT)
    assert process.wait(60) == 0
    assert data(home.build(photos)) == data(shards)
