"""The build on a Dask cluster: a real scheduler and real workers on loopback, one of which is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from alexnet_dali.pipeline.errors import ShardError, UsageError
from alexnet_dali.pipeline.prepare import dask as cluster
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.dask import cluster_pool
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.prepare.shard_job import at_work
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.tools.prep.sample_photos import make_photos
from distributed import Client
from pictures import slow

SMALL = BuildOptions(size=32, shard_records=4)


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def start(arguments, log, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments], stdout=log, stderr=log, env=os.environ | environment
    )


@contextmanager
def running_scheduler(folder, **environment):
    """Yield the address of a scheduler without workers."""
    file = folder / "scheduler.json"
    with open(folder / "log", "wb") as log:
        arguments = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), "--no-dashboard"]
        process = start(["scheduler", *arguments], log, **environment)
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))  # it is there before it is written
        yield json.loads(file.read_text())["address"]
        process.terminate()
        process.wait(20)


@contextmanager
def running_workers(scheduler, folder, count):
    """Yield so many workers, each a process."""
    with open(folder / "workers.log", "wb") as log:
        one = ["worker", scheduler, "--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        processes = [start([*one, "--local-directory", str(folder / f"worker{k}")], log) for k in range(count)]
        with Client(scheduler, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=30)
        yield processes
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a scheduler without workers."""
    with running_scheduler(tmp_path_factory.mktemp("dask")) as address:
        yield address


@pytest.fixture
def workers(scheduler, tmp_path):
    """Two workers of it; ended after the test."""
    with running_workers(scheduler, tmp_path, 2) as processes:
        yield processes


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """14 training and 6 validation photos of 2 classes."""
    folder = tmp_path_factory.mktemp("cluster") / "photos"
    make_photos(folder, train=14, val=6, classes=2, seed=2, side=(40, 70))
    return folder


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    """The same photos, built in this process."""
    out = tmp_path_factory.mktemp("cluster") / "out"
    with ThreadPoolExecutor(1) as executor:
        build_shards(find_photos(photos), out, SMALL, executor)
    return out


def contents(folder):
    """Every file below a folder with its bytes; the manifest without the photos' path."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest = json.loads(found.pop("dataset.json"))
    manifest["source"].pop("path")
    return found, manifest


def test_without_workers_it_says_so(scheduler, photos, tmp_path):
    with pytest.raises(ShardError) as caught, cluster_pool(scheduler, photos, tmp_path / "out"):
        raise AssertionError("never here")
    assert caught.value.message == "the Dask scheduler has no workers"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_worker_is_killed_and_the_bytes_are_the_same(scheduler, workers, photos, undisturbed, tmp_path):
    copy, out = shutil.copytree(photos, tmp_path / "photos"), tmp_path / "out"
    source = find_photos(copy)
    held = copy / source.splits["train"][7].path
    held.rename(tmp_path / "away")
    held.write_bytes(slow())  # a worker is here until it is killed
    killed = []

    def kill():
        name = str(held.relative_to(copy))
        wait_for(lambda: name in at_work(out).values())
        process = next(process for process, path in at_work(out).items() if path == name)
        (tmp_path / "away").rename(held)
        os.kill(process, signal.SIGKILL)
        killed.append(process)

    killer = threading.Thread(target=kill)
    killer.start()
    with cluster_pool(scheduler, copy, out) as pool:
        shard_set, fresh = build_shards(source, out, SMALL, pool)
    killer.join()
    assert killed and killed[0] in {process.pid for process in workers}
    assert fresh == 20 and shard_set.manifest["rejected"] == 0
    assert contents(out) == contents(undisturbed)


def test_a_photo_that_kills_every_worker_is_named(photos, tmp_path):
    """Dask gives a task up when workers died on it again and again: here, once."""
    copy, out = shutil.copytree(photos, tmp_path / "photos"), tmp_path / "out"
    source = find_photos(copy)
    held = copy / source.splits["train"][7].path
    held.write_bytes(slow())
    name = str(held.relative_to(copy))

    def kill():
        wait_for(lambda: name in at_work(out).values())
        os.kill(next(process for process, path in at_work(out).items() if path == name), signal.SIGKILL)

    with (
        running_scheduler(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as scheduler,
        running_workers(scheduler, tmp_path, 2),  # without a second, Dask waits for one to redo what the dead one did
        pytest.raises(ShardError) as caught,
        cluster_pool(scheduler, copy, out) as pool,
    ):
        threading.Thread(target=kill).start()
        build_shards(source, out, SMALL, pool)
    assert caught.value.message.startswith(f"{out}: a worker process died on ") and name in caught.value.message


def test_the_command_builds_on_the_cluster(scheduler, workers, photos, undisturbed, tmp_path, monkeypatch):
    monkeypatch.chdir(photos.parent)  # relative paths mean the same to workers elsewhere
    command = [
        sys.executable,
        "-m",
        "alexnet_dali.tools.prep.cli",
        "build-lmdb",
        photos.name,
        "--out",
        str(tmp_path / "o"),
    ]
    command += ["--size", "32", "--shard-records", "4", "--scheduler", scheduler]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "20 photos in = 20 records + 0 rejected" in done.stdout and f"with the cluster at {scheduler}" in done.stdout
    assert contents(tmp_path / "o") == contents(undisturbed)


def test_a_lost_photo_folder_is_told_by_a_worker(scheduler, workers, photos, tmp_path):
    with pytest.raises(ShardError) as caught, cluster_pool(scheduler, tmp_path / "not here", tmp_path / "out"):
        raise AssertionError("never here")
    assert f"cannot access {tmp_path / 'not here'}" in caught.value.message


def test_nobody_at_the_address(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 1)
    with (
        pytest.raises(UsageError, match="no Dask scheduler answers at tcp://127"),
        cluster_pool("tcp://127.0.0.1:1", photos, tmp_path / "out"),
    ):
        raise AssertionError("never here")


def test_a_worker_with_other_libraries_is_refused_by_name(scheduler, workers, photos, tmp_path, monkeypatch):
    there = cluster.versions()
    monkeypatch.setattr(cluster, "versions", lambda: there | {"simplejpeg": "99.0"})
    with pytest.raises(ShardError) as caught, cluster_pool(scheduler, photos, tmp_path / "out"):
        raise AssertionError("never here")
    assert f"has simplejpeg {there['simplejpeg']} instead of 99.0" in caught.value.message


def test_a_worker_that_comes_later_with_other_libraries_does_not_work(scheduler, workers, photos, tmp_path):
    with cluster_pool(scheduler, photos, tmp_path / "out") as pool:
        assert pool.submit(abs, -3).result() == 3
        pool._versions = {**pool._versions, "numpy": "0.1"}
        with pytest.raises(ShardError, match=r"instead of 0\.1; install the same versions everywhere"):
            pool.submit(abs, -3).result()


def test_what_a_killed_look_leaves_is_in_nobodys_way(photos, tmp_path, undisturbed):
    (tmp_path / "out/.build").mkdir(parents=True)
    (tmp_path / "out/.build/seen-by-workers-0123abcd").touch()
    with ThreadPoolExecutor(1) as executor:
        build_shards(find_photos(photos), tmp_path / "out", SMALL, executor)
    assert contents(tmp_path / "out") == contents(undisturbed)
