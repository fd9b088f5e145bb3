"""The feed: records across shards against what is stored; damage named by shard and record."""

import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import stored
from alexnet_dali.pipeline.errors import AlexnetError, ShardError
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.shards import datum
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.shards.open_files import OpenFilesError
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.stream import record_reader
from alexnet_dali.pipeline.stream.record_reader import RecordReader
from conftest import build_set
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def held(shards, raw_shards, short_side_shards):
    """What the three sets hold, by their roots."""
    return {s.root: stored.records(s.root, "train") for s in (shards, raw_shards, short_side_shards)}


@pytest.fixture(autouse=True, params=["compiled", "python"])
def by(request, monkeypatch):
    """Who reads usual records."""
    if request.param == "python":
        monkeypatch.setattr(record_reader, "_compiled", None)
    elif record_reader._compiled is None:
        pytest.skip("not compiled")
    return request.param


@pytest.fixture(params=["shards", "raw_shards", "short_side_shards"])
def any_set(request):
    return request.getfixturevalue(request.param)


def pixels_of(payloads, k, encoded):
    if not encoded:
        return payloads.data[k]
    value = datum.encode(payloads.data[k].tobytes(), height=1, width=1, label=0, encoded=True)
    return stored.pixels(value)


def test_every_record_in_any_order(any_set, held):
    expected = held[any_set.root]
    feed = RecordReader(any_set, "train")
    assert len(feed) == len(expected) == any_set.split("train").records
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(feed)), 2))  # each twice
    payloads = feed.read(order)
    assert payloads.labels.dtype == payloads.sides.dtype == np.int64
    assert payloads.labels.tolist() == [expected[r].label for r in order]
    assert payloads.sides.tolist() == [list(expected[r].pixels.shape[:2]) for r in order]
    for k, record in enumerate(order.tolist()):
        found = pixels_of(payloads, k, any_set.encoding == "jpeg")
        np.testing.assert_array_equal(found, expected[record].pixels, err_msg=feed.name(record))


def test_names_say_where_a_record_lies(any_set, held):
    feed = RecordReader(any_set, "train")
    for record, entry in enumerate(held[any_set.root]):
        assert feed.name(record) == f"{entry.shard}, record {entry.index}"
    assert feed.name(0).endswith("train/00000.lmdb, record 0")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_list_of_records_has_its_labels(shards, held, data):
    records = data.draw(st.lists(st.integers(0, len(held[shards.root]) - 1), max_size=40))
    feed = RecordReader(shards, "train")
    payloads = feed.read(np.array(records, np.int64))
    assert payloads.labels.tolist() == [held[shards.root][r].label for r in records]
    assert len(payloads.data) == len(records)


def test_payloads_are_read_only_and_their_own(any_set):
    feed = RecordReader(any_set, "train")
    records = np.array([0, len(feed) - 1, 3])
    first = feed.read(records)
    before = [array.tobytes() for array in first.data]
    for array in first.data:
        assert array.dtype == np.uint8 and not array.flags.writeable
        assert array.ndim == (1 if any_set.encoding == "jpeg" else 3) and array.flags.c_contiguous
        with pytest.raises(ValueError):
            array.flags.writeable = True
    second = feed.read(records[::-1])
    feed.close()
    assert [array.tobytes() for array in first.data] == before == [array.tobytes() for array in second.data[::-1]]


def test_memory_is_used_again_once_it_is_released(any_set):
    feed, records, waited = RecordReader(any_set, "train"), np.arange(12), []
    first = feed.read(records)
    feed.release(first, lambda: waited.append(True))
    second, third = feed.read(records), feed.read(records)
    assert second.memory is first.memory and third.memory is not first.memory and waited == [True]


def test_two_feeds_of_one_set_at_once(shards, held):
    one, other = RecordReader(shards, "train"), RecordReader(open_shard_set(shards.root), "train")
    records = np.arange(len(one))
    first, second = one.read(records), other.read(records[::-1])
    assert [a.tobytes() for a in first.data] == [a.tobytes() for a in second.data[::-1]]
    expected = [bytes(array) for array in second.data]
    del one, first  # one feed's end does not close the other's files
    assert [bytes(array) for array in second.data] == expected
    assert other.read(records).labels.tolist() == [entry.label for entry in held[shards.root]]


def test_splits_are_read_apart(shards):
    expected = stored.records(shards.root, "val")
    feed = RecordReader(shards, "val")
    assert feed.read(np.arange(len(feed))).labels.tolist() == [entry.label for entry in expected]
    assert feed.name(0).endswith("val/00000.lmdb, record 0")


def test_nothing_is_opened_before_the_first_read_and_only_what_is_read(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards.root, copy)
    feed = RecordReader(open_shard_set(copy), "train")
    before = held_open(copy)
    feed.read(np.array([20]))  # of the second shard
    assert before == [] and held_open(copy) == ["train/00001.lmdb"]
    del feed
    assert held_open(copy) == []


def held_open(root):
    """The shards below a folder that this process holds open, or has mapped, which nothing does."""
    names = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    with open("/proc/self/maps") as lines:
        names += [line.rstrip().split(" ", 5)[-1].strip() * 2 for line in lines if str(root) in line]
    return sorted(
        {os.path.relpath(os.path.dirname(name), root) for name in names if name.startswith(f"{root}{os.sep}")}
    )


# Damage


def record_of(value, **changes):
    """A record again, with some fields changed."""
    data, height, width, encoded = stored.parts(value)
    return datum.encode(**{"data": data, "height": height, "width": width, "label": 0, "encoded": encoded, **changes})


def jpeg_as_raw(value):
    return record_of(value, data=bytes(256 * 256 * 3), encoded=False)


DAMAGE = {
    "cut": (lambda value: value[:-200], "not a Datum: field 4 claims "),
    "empty": (lambda value: b"", "incomplete Datum: no channels, height, width, data, label, encoded"),
    "noise": (lambda value: b"\xff" * 64, "not a Datum: unterminated number"),
    "label beyond": (lambda value: record_of(value, label=4), "label 4 in a set of 4 classes"),
    "label far below": (lambda value: record_of(value, label=-2), "label -2 in a set of 4 classes"),
    "other sides": (lambda value: record_of(value, height=255), "256x255 pixels in a set of size 256"),
    "oblong": (lambda value: record_of(value, width=300), "300x256 pixels in a set of size 256"),
    "raw in a JPEG set": (jpeg_as_raw, "raw pixels where dataset.json says a JPEG"),
    "not a JPEG": (
        lambda value: record_of(value, data=b"\x00" * 500),
        "the Datum says JPEG, but its data does not begin like one",
    ),
}


def reordered(value):
    """The same record, its label before its data, and a field that nobody knows."""
    data, height, width, _ = stored.parts(value)
    plain = datum.encode(data, height=height, width=width, label=3, encoded=True)
    end = plain.index(data) + len(data)
    begin = 2 + 2 * (1 + len(datum._varint(height)))
    return plain[:begin] + plain[end : end + 2] + plain[begin:end] + b"\x4a\x03abc" + plain[end + 2 :]


def test_unusual_records_are_read_beside_usual_ones(shards, tmp_path, by, monkeypatch):
    """Only those by Python, where there is the compiled part."""
    good = stored.values(shards.split("train").shards[1][0])[11]
    stored.damaged(shards.root, tmp_path / "copy", "train", 1, 11, reordered(good))
    feed, seen = RecordReader(open_shard_set(tmp_path / "copy"), "train"), []
    parse = datum.parse
    monkeypatch.setattr(datum, "parse", lambda value: seen.append(1) or parse(value))
    payloads = feed.read(np.array([3, 16 + 11, 4, 16 + 12, 16 + 11]))
    assert payloads.labels[[1, 4]].tolist() == [3, 3] and payloads.sides.tolist() == [[256, 256]] * 5
    assert payloads.data[1].tobytes() == payloads.data[4].tobytes() == stored.parts(good)[0]
    assert len(seen) == (2 if by == "compiled" else 5)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_is_named(shards, tmp_path, kind):
    change, reason = DAMAGE[kind]
    good = stored.values(shards.split("train").shards[1][0])[11]
    folder = stored.damaged(shards.root, tmp_path / "copy", "train", 1, 11, change(good))
    feed = RecordReader(open_shard_set(tmp_path / "copy"), "train")
    feed.read(np.arange(16))  # the shard before it is sound
    with pytest.raises(ShardError) as caught:
        feed.read(np.array([3, 16 + 10, 16 + 11]))
    assert caught.value.message.startswith(f"{folder}, record 11: ")
    assert reason in caught.value.message
    assert (
        caught.value.hint
        == f"alexnet-prep verify --shards {tmp_path / 'copy'} --repair finds and rebuilds what is damaged"
    )


def test_a_gap_in_the_keys_is_named(shards, tmp_path):
    """By its index alone, whoever comes behind the gap would be another's picture."""
    folder = stored.damaged(shards.root, tmp_path / "copy", "train", 1, 11, None)
    with pytest.raises(ShardError) as caught:
        RecordReader(open_shard_set(tmp_path / "copy"), "train").read(np.array([16]))
    assert caught.value.message == f"{folder}/data.mdb: damaged: record 11 is missing or out of order"
    assert "--repair" in caught.value.hint


def test_a_jpeg_in_a_raw_set_and_a_short_payload_are_named(shards, raw_shards, tmp_path):
    jpeg = stored.values(shards.split("train").shards[0][0])[0]
    raw = stored.values(raw_shards.split("train").shards[0][0])[0]
    short = record_of(raw, data=bytes(1000))
    for name, value, reason in (
        ("jpeg", jpeg, "a JPEG where dataset.json says raw pixels"),
        ("short", short, "the Datum says raw 256x256 RGB, 196608 bytes, but holds 1000"),
    ):
        folder = stored.damaged(raw_shards.root, tmp_path / name, "train", 3, 2, value)
        with pytest.raises(ShardError) as caught:
            RecordReader(open_shard_set(tmp_path / name), "train").read(np.array([48 + 2]))
        assert caught.value.message == f"{folder}, record 2: {reason}"


def test_a_picture_without_a_label_is_read_only_from_a_test_split(shards, photos, tmp_path):
    with ThreadPoolExecutor(1) as executor:
        loose = find_photos(photos / "val" / shards.classes[0], split="test")
        unlabelled, _ = build_shards(loose, tmp_path / "test", BuildOptions(), executor)
    labels = RecordReader(unlabelled, "test").read(np.arange(5)).labels
    assert labels.tolist() == [-1] * 5
    good = stored.values(shards.split("train").shards[0][0])[5]
    stored.damaged(shards.root, tmp_path / "copy", "train", 0, 5, record_of(good, label=-1))
    with pytest.raises(ShardError, match="record 5: label -1 in a set of 4 classes"):
        RecordReader(open_shard_set(tmp_path / "copy"), "train").read(np.array([5]))


def test_whole_pictures_have_their_short_side(short_side_shards, tmp_path):
    folder = short_side_shards.split("train").shards[0][0]
    good = stored.values(folder)[0]
    stored.damaged(short_side_shards.root, tmp_path / "copy", "train", 0, 0, record_of(good, height=257, width=300))
    with pytest.raises(ShardError, match="record 0: 300x257 pixels in a set of size 256"):
        RecordReader(open_shard_set(tmp_path / "copy"), "train").read(np.array([0]))


def test_a_damaged_page_of_the_tree_is_an_error_of_ours(shards, tmp_path):
    copy = tmp_path / "copy"
    folder = stored.damaged(shards.root, copy, "train", 0, 0, stored.values(shards.split("train").shards[0][0])[0])
    data = folder / "data.mdb"
    content = bytearray(data.read_bytes())
    page = root_page(content)
    content[page * 4096 : (page + 1) * 4096] = b"\xff" * 4096
    data.write_bytes(content)
    said = r"00000\.lmdb/data\.mdb: damaged: its pages do not lead to its records; alexnet-prep verify --shards "
    with pytest.raises(ShardError, match=said):
        RecordReader(open_shard_set(copy), "train").read(np.array([3]))


def root_page(content):
    """The page of the tree's root in the newer of the two meta pages (mdb.c, struct MDB_meta)."""
    pages = [int.from_bytes(content[page * 4096 + 128 : page * 4096 + 136], "little") for page in (0, 1)]
    transactions = [int.from_bytes(content[page * 4096 + 144 : page * 4096 + 152], "little") for page in (0, 1)]
    return pages[transactions[1] > transactions[0]]


def test_a_truncated_shard_and_a_missing_one_are_refused(shards, tmp_path):
    folder = stored.damaged(
        shards.root, tmp_path / "copy", "train", 0, 0, stored.values(shards.split("train").shards[0][0])[0]
    )
    opened = open_shard_set(tmp_path / "copy")
    feed = RecordReader(opened, "train")
    os.truncate(folder / "data.mdb", 4096 * 3)  # after the set was opened
    with pytest.raises(ShardError, match=r"00000\.lmdb/data\.mdb: 12,288 bytes, but dataset\.json says"):
        feed.read(np.array([0]))
    (folder / "data.mdb").unlink()
    with pytest.raises(AlexnetError, match=r"00000\.lmdb/data\.mdb: No such file or directory"):
        feed.read(np.array([0]))


def test_an_empty_split_is_refused(shards):
    with pytest.raises(ShardError, match=r"no records in a split 'test'; available: train \(60\), val \(20\)"):
        RecordReader(shards, "test")


# Many shards: each is an open file

MANY = """
import os, resource, sys
from pathlib import Path
import numpy as np
from alexnet_dali.pipeline.stream import record_reader
from alexnet_dali.pipeline.stream.record_reader import RecordReader
from alexnet_dali.pipeline.stream.prefetch import ReadAhead
from alexnet_dali.pipeline.shards.manifest import open_shard_set

root, soft, hard = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
shard_set = open_shard_set(root)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    feed = RecordReader(shard_set, "train")
    reader = ReadAhead(feed)
    records = np.arange(len(feed))
    reader.want(records).result()
    read = feed.read(records)
    handles = [os.readlink(f"/dev/fd/{name}") for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")]
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    print(len(read.data), sum(name.endswith("data.mdb") for name in handles), limit)
except Exception as error:
    print(f"{type(error).__name__}: {error.message}; {error.hint}")
"""


@pytest.fixture(scope="module")
def many_shards(photos, tmp_path_factory):
    """The photos, each in a shard of its own: 60 to train on."""
    return build_set(photos, tmp_path_factory.mktemp("many") / "set", size=64, shard_records=1)


@pytest.mark.parametrize(
    ("soft", "hard"),
    [
        (1024, 4096),
        (50, 4096),  # the limit is raised
        (100, 100),  # it cannot be, and is just enough
    ],
)
def test_many_shards_under_a_limit_of_open_files(many_shards, soft, hard):
    read, opened, limit = (int(number) for number in under_a_limit(many_shards, soft, hard).split())
    assert (read, opened) == (60, 60)
    assert limit == soft if soft in (1024, hard) else 60 < limit < 240


def test_too_many_open_files_are_not_taken_for_damage(many_shards):
    said = under_a_limit(many_shards, 40, 40)
    assert said.startswith("OpenFilesError: ") and ".lmdb" in said and ": Too many open files; " in said
    assert "ulimit -n" in said and "--shard-records" in said and "--repair" not in said


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_the_last_handle_may_go_to_the_look_at_the_head(shards, monkeypatch, number):
    opened = os.open

    def full(path, *arguments, **options):
        if str(path).endswith("data.mdb"):
            raise OSError(number, os.strerror(number))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(
        OpenFilesError, match=rf"^{shards.root}/train/00000\.lmdb/data.mdb: Too many open files.*; .*ulimit"
    ):
        RecordReader(shards, "train").read(np.array([0]))


def under_a_limit(shard_set, soft, hard):
    """What MANY says."""
    command = [sys.executable, "-c", MANY, str(shard_set.root), str(soft), str(hard)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=180).stdout
