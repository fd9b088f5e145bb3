"""A stream for weeks: memory, handles, threads and /dev/shm stay as they are, and whatever ends it ends it in seconds.

The numbers below are for every run of the tests; docs/benchmarks.md has what 5,000 batches and 100 streams gave.
"""

import gc
import os
import subprocess
import sys
import time
from itertools import islice

import pytest
import stored
from alexnet_dali.pipeline import stats
from alexnet_dali.pipeline.choice import WAYS
from alexnet_dali.pipeline.loader import train_stream, views_stream
from alexnet_dali.pipeline.plan import Augmentation, Plan
from conftest import build_set

BATCHES = 400  # of 30 pictures
STREAMS = 30
SMALL = Augmentation(crop=48)


@pytest.fixture(scope="module", params=["jpeg", "raw"])
def shard_set(request, photos, tmp_path_factory):
    """The photos as 64x64 pictures."""
    out = tmp_path_factory.mktemp("steady") / "set"
    return build_set(photos, out, size=64, shard_records=16, encoding=request.param)


def streamed(shard_set, decode, batch_size=30, **options):
    plan = Plan(shard_set.split("train").records, batch_size, 0, shard_set.size, SMALL)
    return train_stream(shard_set, stats.load(shard_set), plan, decode=decode, **options)


def held():
    """What this process holds: memory in MB, open handles, threads, maps of shards, and its own of /dev/shm."""
    gc.collect()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    with open("/proc/self/maps") as file:
        lines = file.readlines()
    maps, shared = (sum(part in line for line in lines) for part in (".mdb", "/dev/shm"))
    shared += sum(str(os.getpid()) in name for name in os.listdir("/dev/shm"))  # other programs have theirs there too
    counts = {kind: len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task")}
    return {"memory": resident, "maps": maps, "shared": shared, **counts}


def assert_no_more(after, warm):
    """The kernel counts a thread for a moment after it was joined."""
    end = time.monotonic() + 5
    while any(after[kind] > warm[kind] for kind in warm) and time.monotonic() < end:
        time.sleep(0.05)
        after = held()
    assert {kind: after[kind] for kind in warm if after[kind] > warm[kind]} == {}


@pytest.mark.parametrize("decode", WAYS)
def test_batches_without_end_leave_nothing(shard_set, decode):
    with streamed(shard_set, decode) as stream:
        for _ in islice(stream, 50):
            pass
        warm = held()
        for batch in islice(stream, BATCHES):
            each = batch.images.nbytes / 1e6
        after = held()
    grown = after.pop("memory") - warm.pop("memory")
    assert grown < 40 < BATCHES * each / 5  # MB; kept, they would be 332
    assert_no_more(after, warm)


@pytest.mark.parametrize("decode", WAYS)
def test_streams_without_end_leave_nothing(shard_set, decode):
    def made_and_dropped(count):
        for k in range(count):
            if k % 2:
                stream = streamed(shard_set, decode, 4)
            else:
                stream = views_stream(shard_set, stats.load(shard_set), "val", crop=48, batch_size=4, decode=decode)
            next(stream)
            if k % 3 == 0:
                stream.close()
            if k % 5 == 0:
                stream.myself = stream  # lost in a cycle
        del stream
        return held()

    warm = made_and_dropped(6)
    after = made_and_dropped(STREAMS)
    assert after.pop("memory") - warm.pop("memory") < 40
    assert_no_more(after, warm)


ENDING = """
import sys, time
from pathlib import Path
from alexnet_dali.pipeline import stats
from alexnet_dali.pipeline.loader import train_stream
from alexnet_dali.pipeline.plan import Augmentation, Plan
from alexnet_dali.pipeline.shardset import open_shard_set

root, decode, how = sys.argv[1:]
shard_set = open_shard_set(Path(root))
plan = Plan(shard_set.split("train").records, 20, 0, shard_set.size, Augmentation(48))
stream = train_stream(shard_set, stats.load(shard_set), plan, decode=decode)
first = next(stream)
if how == "exit":
    raise SystemExit("left in the middle")
if how == "broken":
    def numbers(*_):
        raise ValueError("a fault in the callback")
    stream._source._numbers = numbers
for batch in stream:
    pass
"""


@pytest.mark.parametrize("decode", WAYS)
@pytest.mark.parametrize("how", ["damaged", "broken", "exit"])
def test_a_program_ends_in_seconds_and_says_why(shard_set, tmp_path, how, decode):
    root, said = shard_set.root, {"broken": "a fault in the callback", "exit": "left in the middle"}
    if how == "damaged":
        good = stored.values(root / "train" / "00002.lmdb")[5]
        begin = good.index(b"\xff\xd8") + 2 if shard_set.encoding == "jpeg" else 0
        noise = bytes(range(250)) * len(good)  # a JPEG's beginning, and nothing that decodes
        bad = good[:begin] + noise[: len(good) - 8 - begin] + good[-8:] if begin else good[:-300]
        folder = stored.damaged(root, tmp_path / "copy", "train", 2, 5, bad)
        root, said["damaged"] = tmp_path / "copy", f"{folder}, record 5: "
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ENDING, root, decode, how], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and time.monotonic() - began < 30  # most of it imports
    last = done.stderr.strip().splitlines()[-1]
    assert said[how] in last
    if how == "damaged":
        assert last.endswith(" --repair finds and rebuilds what is damaged")
