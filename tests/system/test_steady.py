"""A stream for weeks: memory, handles, threads and /dev/shm stay as they are, and whatever ends it ends it in seconds.

The numbers below are for every run of the tests; docs/reliability.md says how to ask for the long one.
"""

import ctypes
import gc
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context

import numpy as np
import pytest
import stored
from alexnet_dali.pipeline.errors import StreamError
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.shards import datum, stats
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.shards.shard_check import Rules, check_shard
from alexnet_dali.pipeline.stream.autotune import DECODERS
from alexnet_dali.pipeline.stream.prefetch import THREADS
from alexnet_dali.pipeline.stream.streams import train_stream, views_stream
from conftest import build_set

BATCHES = int(os.environ.get("STEADY_BATCHES", "400"))  # of 30 pictures
STREAMS = int(os.environ.get("STEADY_STREAMS", "30"))
LEAK = 5  # kB a batch: so much, and it is one
SMALL = Augmentation(crop=48)


SLOW = pytest.mark.slow


@pytest.fixture(scope="module", params=["jpeg", pytest.param("raw", marks=SLOW)])
def shard_set(request, photos, tmp_path_factory):
    """The photos as 64x64 pictures."""
    out = tmp_path_factory.mktemp("steady") / "set"
    return build_set(photos, out, size=64, shard_records=16, encoding=request.param)


def streamed(shard_set, decode, batch_size=30, **options):
    plan = Plan(shard_set.split("train").records, batch_size, 0, shard_set.size, SMALL)
    return train_stream(shard_set, stats.load_stats(shard_set), plan, decode=decode, **options)


def resident():
    """This process's memory in kB, without what its allocator keeps for later."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e3


def objects():
    """How many objects Python keeps account of."""
    gc.collect()
    return len(gc.get_objects())


def held():
    """What this process holds: open handles, threads, maps of shards, and its own of /dev/shm."""
    gc.collect()
    with open("/proc/self/maps") as file:
        lines = file.readlines()
    maps, shared = (sum(part in line for line in lines) for part in (".mdb", "/dev/shm"))
    shared += sum(str(os.getpid()) in name for name in os.listdir("/dev/shm"))  # other programs have theirs there too
    counts = {kind: len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task")}
    return {"maps": maps, "shared": shared, **counts}


def growth(batches, count):
    """Growth of the memory in kB a batch over so many, in general of either sign: between the least of the first half
    and the least of the second. Buffers under way are some MB more or less from moment to moment; the least is not."""
    least = []
    for _ in range(2):
        seen = []
        for _ in range(10):
            for _ in islice(batches, count // 20):
                pass
            seen.append(resident())
        least.append(min(seen))
    return (least[1] - least[0]) / (count / 2)


def assert_no_more(after, warm):
    """The kernel counts a thread for a moment after it was joined."""
    end = time.monotonic() + 5
    while any(after[kind] > warm[kind] for kind in warm) and time.monotonic() < end:
        time.sleep(0.05)
        after = held()
    assert {kind: after[kind] for kind in warm if after[kind] > warm[kind]} == {}


@pytest.mark.parametrize("decode", ["fused", pytest.param("threads", marks=SLOW), pytest.param("dali", marks=SLOW)])
def test_batches_without_end_leave_nothing(shard_set, decode):
    """In a process of its own: what other tests have left in this one's heap moves its memory by megabytes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(leaves_nothing, shard_set, decode).result()


def leaves_nothing(shard_set, decode):
    with streamed(shard_set, decode) as stream:
        for _ in islice(stream, 50):
            pass
        warm, known = held(), objects()
        warm["task"] += THREADS  # of reading ahead: each begins when it is first needed
        for _ in range(4):  # a leak is one each time; what the neighbours or a late thread do to memory is not
            grown = growth(stream, BATCHES)
            if grown < LEAK:
                break
        assert grown < LEAK
        assert objects() - known < BATCHES / 4
        assert_no_more(held(), warm)


@pytest.mark.parametrize("kilobytes", [10, 60])
def test_a_leak_would_be_seen(kilobytes):
    """Of as little as this a batch, beside batches of a hundred times as much."""
    kept = []

    def leaking():
        while True:
            kept.append(np.ones(kilobytes * 1000, np.uint8))
            yield np.ones(1_000_000, np.uint8)

    known = objects()
    assert LEAK < growth(leaking(), BATCHES) < 2 * kilobytes
    kept.extend([] for _ in range(BATCHES))
    assert objects() - known > BATCHES / 4


@pytest.mark.parametrize("decode", DECODERS)
def test_streams_without_end_leave_nothing(shard_set, decode):
    def made_and_dropped(count):
        for k in range(count):
            if k % 2:
                stream = streamed(shard_set, decode, 4)
            else:
                way = "threads" if decode == "fused" else decode
                stream = views_stream(shard_set, stats.load_stats(shard_set), "val", crop=48, batch_size=4, decode=way)
            next(stream)
            if k % 3 == 0:
                stream.close()
            if k % 5 == 0:
                stream.myself = stream  # lost in a cycle
        del stream
        return held(), resident(), objects()

    warm, memory, known = made_and_dropped(6)
    after, more_memory, more = made_and_dropped(STREAMS)
    assert more_memory - memory < 40_000
    assert more - known < STREAMS
    assert_no_more(after, warm)


@pytest.mark.parametrize("end", [b"", bytes(3000) + b"\xff\xd9"], ids=["cut short", "zeros inside"])
def test_a_torn_photo_stops_threads_and_may_not_stop_dali(shards, tmp_path, end):
    """What docs/reliability.md says of it; the check names the record, whoever decodes."""
    good = stored.values(shards.root / "train" / "00001.lmdb")[7]
    data, height, width, _ = stored.parts(good)
    torn = datum.encode(data=data[: len(data) // 2] + end, height=height, width=width, label=0, encoded=True)
    folder = stored.damaged(shards.root, tmp_path / "copy", "train", 1, 7, torn)
    torn_set = open_shard_set(tmp_path / "copy")
    plan = Plan(60, 30, 0, 256, Augmentation(crop=227))

    def pictures(decode):
        with train_stream(torn_set, stats.load_stats(torn_set), plan, decode=decode, dtype="uint8") as stream:
            batches = list(islice(stream, 2))
        return {r: image for batch in batches for r, image in zip(batch.records.tolist(), batch.images, strict=True)}

    for decode in DECODERS if not end else ["fused", "threads"]:
        with pytest.raises(StreamError, match=f"{folder}, record 7: its JPEG does not decode"):
            pictures(decode)
    if end:
        found = pictures("dali")
        assert len(found) == 60
        assert (found[16 + 7][:, -20:] == found[16 + 7][:, -1:, -1:]).all()  # below the tear all is one grey
    rules = Rules(256, "crop", True, len(torn_set.classes), False)
    damages = check_shard(torn_set.root, "train/00001.lmdb", torn_set.split("train").shards[1][1], rules)
    assert any(damage.record == 7 for damage in damages)


ENDING = """
import sys, time
from pathlib import Path
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream.streams import train_stream
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.shards.manifest import open_shard_set

root, decode, how = sys.argv[1:]
shard_set = open_shard_set(Path(root))
plan = Plan(shard_set.split("train").records, 20, 0, shard_set.size, Augmentation(48))
stream = train_stream(shard_set, stats.load_stats(shard_set), plan, decode=decode)
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


@pytest.mark.parametrize(
    ("how", "decode"),
    [
        ("damaged", "threads"),
        pytest.param("exit", "dali", marks=SLOW),
        pytest.param("broken", "dali", marks=SLOW),
        pytest.param("damaged", "dali", marks=SLOW),
        pytest.param("broken", "threads", marks=SLOW),
        pytest.param("exit", "threads", marks=SLOW),
    ],
)
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
