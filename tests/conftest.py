"""Photos and shard sets that many tests read and none may write: made once, in this process.

A test that changes a set copies it first (`shutil.copytree`).
"""

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tiny
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.tools import console
from alexnet_dali.tools.prep.sample_photos import make_photos
from hypothesis import settings
from PIL import Image

settings.register_profile("shared machine", deadline=None)  # how long one example takes is the neighbours' affair
settings.load_profile("shared machine")

# A shell's background job ignores Ctrl-C, and so would every command that the tests start from it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Mark the tests of tests/system, and begin with them: their files take longest, and a file is one process's."""
    folder = Path(__file__).parent / "system"
    for item in items:
        if folder in item.path.parents:
            item.add_marker("system")
    items.sort(key=lambda item: item.get_closest_marker("system") is None)


def build_set(photos, out, **options):
    """Build a shard set from a folder of photos, in this process, with its statistics."""
    with ThreadPoolExecutor(1) as executor:
        shard_set, _ = build_shards(find_photos(photos), out, BuildOptions(**options), executor)
        stats.save_stats(stats.measure_stats(shard_set, executor), out)
    return shard_set


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """The folder of 60 training and 20 validation photos of 4 classes, sides from 100 to 300 pixels."""
    folder = tmp_path_factory.mktemp("shared") / "photos"
    make_photos(folder, train=60, val=20, classes=4, seed=1, side=(100, 300))
    return folder


@pytest.fixture(scope="session")
def shards(photos, tmp_path_factory):
    """The photos as a JPEG shard set of 256x256: 4 shards of 16, 16, 16 and 12 records to train on, 2 of 16 and 4."""
    return build_set(photos, tmp_path_factory.mktemp("shared") / "shards", shard_records=16)


@pytest.fixture(scope="session")
def raw_shards(photos, tmp_path_factory):
    """The same photos as raw pixels."""
    return build_set(photos, tmp_path_factory.mktemp("shared") / "raw", shard_records=16, encoding="raw")


@pytest.fixture(scope="session")
def odd_photos(tmp_path_factory):
    """The folder of 24 photos of odd shapes: wide, tall, square, smaller and larger than 256."""
    folder = tmp_path_factory.mktemp("shared") / "odd"
    random = np.random.default_rng(5)
    sides = [(300, 401), (401, 300), (256, 256), (256, 515), (90, 91), (700, 311), (257, 258), (128, 512)]
    for k in range(24):
        height, width = sides[k % len(sides)]
        coarse = random.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
        path = folder / ("train" if k < 16 else "val") / f"class{k % 2}" / f"{height}x{width}_{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=92)
    return folder


@pytest.fixture(scope="session")
def short_side_shards(odd_photos, tmp_path_factory):
    """The odd photos whole, as JPEG, their short side 256: `--fit short-side`."""
    return build_set(odd_photos, tmp_path_factory.mktemp("shared") / "short_side", shard_records=6, fit="short-side")


@pytest.fixture
def in_process(capsys):
    """Run a command here as a shell would: exit code, standard output, standard error; never a traceback."""

    def calling(command, *arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            console.run(command, [str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return ended.value.code, said.out, said.err

    return calling


@pytest.fixture
def threads_for_workers(monkeypatch):
    """Let threads of this process be the workers of a command's module."""

    @contextmanager
    def threads(workers):
        with ThreadPoolExecutor(workers or 1) as executor:
            yield executor

    return lambda module: monkeypatch.setattr(f"alexnet_dali.tools.{module}.worker_pool", threads)


@pytest.fixture(scope="module")
def small_nets():
    """Make nets of few hidden units, see tiny.py."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink(patch)
        yield
