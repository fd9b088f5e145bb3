"""Reading ahead: where records lie is what LMDB says; what is asked for is in memory afterwards; nothing breaks."""

import ctypes
import mmap
import os
import shutil
import time

import lmdb
import numpy as np
import pytest
from alexnet_dali.pipeline.errors import ShardError
from alexnet_dali.pipeline.shards.lmdb_pages import extents
from alexnet_dali.pipeline.shards.lmdb_shard import write_shard
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.stream import prefetch
from alexnet_dali.pipeline.stream.prefetch import CALM, ReadAhead
from alexnet_dali.pipeline.stream.record_reader import RecordReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def values(folder):
    """Every value by LMDB's own cursor."""
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [bytes(value) for _, value in transaction.cursor()]


def found(folder):
    """Every value by its extent."""
    handle = os.open(folder / "data.mdb", os.O_RDONLY)
    try:
        return [os.pread(handle, length, offset) for offset, length in extents(handle).tolist()]
    finally:
        os.close(handle)


def lengths(kind):
    random = np.random.default_rng(1)
    return {
        "one": [5000],
        "none": [],
        "within pages": [40] * 3000,  # several values a page, and pages of pages
        "mixed": random.integers(0, 9000, 700).tolist(),
        "around half a page": list(range(1900, 2100)),
        "whole pages": [4096 * k - 16 + d for k in (1, 2, 3) for d in (-1, 0, 1)] * 9,
        "many": [2100] * 2500,  # a tree of three levels
    }[kind]


@pytest.mark.parametrize("kind", ["one", "none", "within pages", "mixed", "around half a page", "whole pages", "many"])
def test_extents_are_where_lmdb_has_the_values(tmp_path, kind):
    random = np.random.default_rng(0)
    written = [random.bytes(length) for length in lengths(kind)]
    write_shard(tmp_path / "a.lmdb", written)
    assert found(tmp_path / "a.lmdb") == written == values(tmp_path / "a.lmdb")


def test_extents_of_real_sets(shards, raw_shards, short_side_shards, tmp_path):
    for number, shard_set in enumerate((shards, raw_shards, short_side_shards)):
        for folder, file in shard_set.split("train").shards:
            copy = shutil.copytree(folder, tmp_path / f"{number}" / folder.name)
            assert len(found(copy)) == file.records
            assert found(copy) == values(copy)


@pytest.fixture(scope="module")
def small_shard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readahead") / "a.lmdb"
    random = np.random.default_rng(0)
    write_shard(folder, [random.bytes(int(length)) for length in random.integers(1, 6000, 60)])
    return (folder / "data.mdb").read_bytes()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nonsense_gives_nothing_outside_the_file(small_shard, tmp_path, data):
    spoiled = bytearray(small_shard)
    for _ in range(data.draw(st.integers(1, 8))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    spoiled = spoiled[: data.draw(st.integers(0, len(spoiled)))] if data.draw(st.booleans()) else spoiled
    (tmp_path / "data.mdb").write_bytes(spoiled)
    handle = os.open(tmp_path / "data.mdb", os.O_RDONLY)
    try:
        places = extents(handle)
    except ShardError:
        return
    finally:
        os.close(handle)
    assert places.shape in ((60, 2), (0, 2)) and (places >= 0).all() and (places.sum(axis=1) <= len(spoiled)).all()


@pytest.mark.parametrize(
    "offset, value", [(0, b"\xff\xff"), (2, b"\xff\x7f"), (16, b"\xff\xff\xff\xff"), (23, b"\xff")]
)
def test_a_value_beyond_the_end_makes_all_nonsense(tmp_path, offset, value):
    """Its length, or the page that it begins on."""
    write_shard(tmp_path / "a.lmdb", [b"a" * 5000] * 3)
    data = bytearray((tmp_path / "a.lmdb" / "data.mdb").read_bytes())
    leaf = int.from_bytes(data[4096 + 128 : 4096 + 136], "little") * 4096
    node = leaf + int.from_bytes(data[leaf + 16 : leaf + 18], "little")
    data[node + offset : node + offset + len(value)] = value
    (tmp_path / "data.mdb").write_bytes(data)
    handle = os.open(tmp_path / "data.mdb", os.O_RDONLY)
    with pytest.raises(ShardError, match="its pages do not lead to its records"):
        extents(handle)
    os.close(handle)


@pytest.mark.parametrize("pages", [None, 1 << 60])
def test_a_tree_with_a_loop_ends(tmp_path, small_shard, pages):
    spoiled = bytearray(small_shard)
    if pages:  # the tree says that it has so many: branches, of the second meta page's second tree
        spoiled[4096 + 96 : 4096 + 104] = pages.to_bytes(8, "little")
    root = int.from_bytes(spoiled[4096 + 128 : 4096 + 136], "little")
    for start in range(16, 16 + 8, 2):  # every child of the root is the root
        node = int.from_bytes(spoiled[root * 4096 + start : root * 4096 + start + 2], "little")
        spoiled[root * 4096 + node : root * 4096 + node + 4] = root.to_bytes(4, "little")
    (tmp_path / "data.mdb").write_bytes(spoiled)
    handle = os.open(tmp_path / "data.mdb", os.O_RDONLY)
    with pytest.raises(ShardError, match="its pages do not lead to its records"):
        extents(handle)
    os.close(handle)


# In memory or not


def resident(path):
    """bool (pages,): which of a file's pages are in memory, by mincore."""
    size = path.stat().st_size
    pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
        at = np.frombuffer(mapped, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        assert (
            libc.mincore(ctypes.c_void_p(at.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data))
            == 0
        )
        del at
    return (pages & 1).astype(bool)


@pytest.fixture
def cold(raw_shards, tmp_path):
    """A feed of a copy of a raw set that nobody has read yet."""
    copy = open_shard_set(shutil.copytree(raw_shards.root, tmp_path / "copy"))
    drop(copy)
    return RecordReader(copy, "train")


def drop(shard_set):
    """Ask the kernel to forget the pages of a set; a file system that lives in memory will not."""
    for folder, _ in shard_set.split("train").shards:
        handle = os.open(folder / "data.mdb", os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def all_resident(feed):
    """bool (pages of all shards,)"""
    return np.concatenate([resident(folder / "data.mdb") for folder, _ in feed.split.shards])


def pages_of(feed, record):
    """The file and the pages of a record."""
    number, index = feed.locate(record)
    offset, length = feed.shard(number).places[index].tolist()
    first, last = offset // mmap.PAGESIZE, (offset + length - 1) // mmap.PAGESIZE
    return feed.shard(number).data, slice(first, last + 1)


def test_what_is_wanted_is_in_memory_afterwards_and_was_counted(cold, monkeypatch):
    def by_mincore(shard, offset):
        return bool(resident(shard.data)[offset // mmap.PAGESIZE])

    monkeypatch.setattr(prefetch, "_in_memory", by_mincore)  # the kernel's own answer depends on how fast the disk is
    wanted = [3, 17, 18, 40, 59]
    places = [pages_of(cold, record) for record in wanted]
    absent = sum(not resident(path)[pages][0] for path, pages in places)
    reader = ReadAhead(cold)
    assert reader.want(np.array(wanted)).result(timeout=30) == absent
    for record, (path, pages) in zip(wanted, places, strict=True):
        assert resident(path)[pages].all(), record
    assert reader.want(np.array(wanted)).result(timeout=30) == 0  # the second time all is there
    reader.close()


def test_the_kernel_is_asked_what_is_in_memory(cold, monkeypatch):
    """What is there it always knows; what is not may, of a fast disk, have come by the time it answers."""
    places = [(cold.shard(number), offset) for number in range(4) for offset, _ in cold.shard(number).places.tolist()]
    there = [resident(shard.data)[offset // mmap.PAGESIZE] for shard, offset in places]
    said = [prefetch._in_memory(shard, offset) for shard, offset in places]
    cold.read(np.arange(60))
    if any(prefetch._in_memory(shard, offset) for shard, offset in places):  # not every file system can tell
        assert all(yes for yes, is_there in zip(said, there, strict=True) if is_there)
        assert all(prefetch._in_memory(shard, offset) for shard, offset in places)

    def would_wait(handle, buffers, offset, flags):
        assert flags == os.RWF_NOWAIT
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "preadv", would_wait)
    assert not any(prefetch._in_memory(shard, offset) for shard, offset in places)


def test_only_what_is_wanted_is_read(cold):
    """A record must not drag in its neighbours: sets larger than memory are read once an epoch, not ten times."""
    before = all_resident(cold).sum()
    reader = ReadAhead(cold)
    reader.want(np.array([5, 25, 45])).result(timeout=30)
    reader.close()
    assert all_resident(cold).sum() - before <= 3 * 50 + 4 * 16  # 49 pages a record, and the pages of the trees


def test_reading_itself_drags_in_no_neighbours_either(cold):
    before = all_resident(cold).sum()
    cold.read(np.array([5, 25, 45]))
    assert all_resident(cold).sum() - before <= 3 * 50 + 4 * 16


def test_a_calm_reader_asks_about_fewer_and_wakes_up(cold, monkeypatch):
    asked = []
    there = prefetch._in_memory
    monkeypatch.setattr(prefetch, "_in_memory", lambda shard, offset: asked.append(offset) or there(shard, offset))
    reader, everything = ReadAhead(cold), np.arange(60)
    reader.want(everything).result(timeout=30)
    for _ in range(CALM + 1):
        asked.clear()
        assert reader.want(everything).result(timeout=30) == 0
        assert len(asked) == 60
    asked.clear()
    reader.want(everything).result(timeout=30)
    assert len(asked) == 8  # of a set that is in memory
    monkeypatch.setattr(prefetch, "_in_memory", lambda *_: False)
    assert reader.want(everything).result(timeout=30) == 60
    reader.close()


@pytest.mark.parametrize("fault", ["missing", "not lmdb", "empty", "no such call"])
def test_what_cannot_be_read_ahead_is_left_alone(cold, fault, monkeypatch):
    folder, _ = cold.split.shards[1]
    if fault == "missing":
        shutil.rmtree(folder)
    elif fault in ("not lmdb", "empty"):
        (folder / "data.mdb").write_bytes(b"nothing of the kind" * 1000 if fault == "not lmdb" else b"")
    else:
        monkeypatch.setattr(prefetch, "_IN_MEMORY_ONLY", 0)

        def refused(*_):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(os, "posix_fadvise", refused)
    reader = ReadAhead(cold)
    assert reader.want(np.array([0, 16, 31, 58])).result(timeout=30) >= 0
    reader.close()
    if fault == "no such call":
        assert len(cold.read(np.array([0, 16, 31, 58])).data) == 4
    else:
        with pytest.raises(ShardError, match="00001"):
            cold.read(np.array([0, 16, 31, 58]))


def files_open(folder):
    """How many files of a folder this process holds open."""
    names = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return sum(name.startswith(f"{folder}/") for name in names)


def test_closing_lets_go_of_threads_at_once_and_the_feed_of_files(cold, tmp_path, monkeypatch):
    reader = ReadAhead(cold)
    reader.want(np.arange(60)).result(timeout=30)
    cold.read(np.arange(60))
    assert files_open(tmp_path) == 4  # one a shard, whoever reads

    def slow(*_):
        time.sleep(0.02)

    monkeypatch.setattr(prefetch, "_in_memory", lambda *_: False)
    monkeypatch.setattr(prefetch, "_wait", slow)
    wanted = [reader.want(np.arange(60)) for _ in range(50)]
    began = time.monotonic()
    reader.close()
    assert time.monotonic() - began < 10 < 50 * 60 * 0.02 / prefetch.THREADS
    assert all(future.done() for future in wanted)
    del wanted
    cold.close()
    assert files_open(tmp_path) == 0
