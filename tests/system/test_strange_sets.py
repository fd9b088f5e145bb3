"""Shard sets that are not what dataset.json says, or change while they are read: named, or as before; never a crash.

What would kill a process is done in one of its own: this file, run with the name of a function and its arguments.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
import pytest
import stored
from alexnet_dali.pipeline.errors import AlexnetError, ShardError
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.shards.lmdb_shard import Shard
from alexnet_dali.pipeline.shards.manifest import open_shard_set, read_manifest
from alexnet_dali.pipeline.shards.shard_check import Rules, check_shard
from alexnet_dali.pipeline.shards.verify import verify_shards
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.stream import record_reader
from alexnet_dali.pipeline.stream.autotune import DECODERS
from alexnet_dali.pipeline.stream.record_reader import RecordReader
from alexnet_dali.tools.prep.sample_photos import make_photos
from PIL import Image
from stored import PAGE, Here, page_kinds

FLIPS = int(os.environ.get("STRANGE_FLIPS", "60"))  # in each kind of page
CUTS = int(os.environ.get("STRANGE_CUTS", "12"))
KINDS = ("meta", "branch", "leaf", "overflow", "payload")
SLOW = pytest.mark.slow
SHARD = "train/00000.lmdb"


def apart(name, *arguments, timeout=120):
    """Call a function of this file in a process of its own; its lines. Fails if a signal ends it."""
    command = [sys.executable, __file__, name, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # where conftest and stored are
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout, env=environment)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.returncode, lines[-1:], done.stderr[-500:])
    return lines


@pytest.fixture(scope="module")
def paged(tmp_path_factory):
    """A raw set with one shard of 200 records, 40x40 pixels each: pages of every kind."""
    folder = tmp_path_factory.mktemp("strange")
    random = np.random.default_rng(3)
    for k in range(200):
        path = folder / "photos" / f"class{k % 3}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    build_shards(
        find_photos(folder / "photos", split="train"), folder / "out", BuildOptions(size=40, encoding="raw"), Here()
    )
    return folder / "out"


# Damaged on the disk


def everything(root):
    """What a loader finds: for each record its pixels and label, or the message."""
    feed, found = RecordReader(open_shard_set(root), "train"), []
    for record in range(len(feed)):
        try:
            payloads = feed.read(np.array([record]))
            found.append((payloads.data[0].tobytes(), int(payloads.labels[0])))
        except ShardError as error:
            assert SHARD in error.message and "verify" in error.hint
            found.append(error.message)
    return found


def flips(root, kinds, seed, count):
    """Flip one bit, count times in each kind of page; print what a loader makes of it and whether a check names it."""
    for kind in kinds.split(","):
        flips_of(root, kind, seed, count)


def flips_of(root, kind, seed, count):
    root, random = Path(root), np.random.default_rng(int(seed))
    path, (_, file) = root / SHARD / "data.mdb", read_manifest(root).splits["train"].shards[0]
    whole, good = path.read_bytes(), everything(root)
    for number in range(int(count)):
        page = int(random.choice(page_kinds(whole)[kind]))
        start, end = 0, PAGE
        if kind in ("branch", "leaf") and number % 2:  # where the nodes are
            start = struct.unpack_from("=H", whole, page * PAGE + 14)[0]
        elif number % 3 == 0:  # the head, and of a meta page all that is used
            end = 152 if kind == "meta" else 16
        place, bit = page * PAGE + int(random.integers(start, end)), int(random.integers(8))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.with_name("new").write_bytes(damaged)
        os.replace(path.with_name("new"), path)
        print(json.dumps({"about to read": [place, bit]}), flush=True)
        found = everything(root)
        named = bool(check_shard(root, SHARD, file, Rules(40, "crop", False, 3, False)))
        refused = sum(isinstance(one, str) for one in found)
        other = sum(one != was for one, was in zip(found, good, strict=True)) - refused
        print(
            json.dumps({"kind": kind, "place": [place, bit], "refused": refused, "other": other, "named": named}),
            flush=True,
        )
    path.write_bytes(whole)


@pytest.mark.parametrize(("kinds", "count"), [(KINDS, 6), *(pytest.param([kind], FLIPS, marks=SLOW) for kind in KINDS)])
def test_a_flipped_bit_kills_no_loader_and_leads_to_no_other_record(paged, tmp_path, kinds, count):
    copy = shutil.copytree(paged, tmp_path / "copy")
    lines = [line for line in apart("flips", copy, ",".join(kinds), 5, count) if "place" in line]
    for kind in kinds:
        found = [line for line in lines if line["kind"] == kind]
        assert len(found) == count and all(line["named"] for line in found)
        # Within a picture's own bytes a flip is a changed pixel, or label, of that one record: its hash alone tells.
        most = 0 if kind in ("meta", "branch", "leaf") else 1
        assert max(line["other"] for line in found) == most
        if kind in ("meta", "leaf"):
            assert any(line["refused"] for line in found)


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=SLOW)])
def test_a_record_does_not_go_by_another_s_number(paged, tmp_path, every):
    """Two bits of a key's last digit: LMDB's search finds the picture under a neighbour's number."""
    path = shutil.copytree(paged, tmp_path / "copy") / SHARD / "data.mdb"
    whole, known = path.read_bytes(), everything(paged)
    leaves = b"".join(whole[page * PAGE : (page + 1) * PAGE] for page in page_kinds(whole)["leaf"])
    for key in (b"%08d" % record for record in range(100, 140, every)):
        assert leaves.count(key) == 1
        for bit in (1, 2):
            damaged = bytearray(whole)
            damaged[next(places_of(whole, key)) + 7] ^= 1 << bit
            path.with_name("new").write_bytes(damaged)
            os.replace(path.with_name("new"), path)
            found = everything(tmp_path / "copy")
            assert all(one == was or isinstance(one, str) for one, was in zip(found, known, strict=True)), key


def places_of(whole, key):
    """Where a key stands in the leaves."""
    for page in page_kinds(whole)["leaf"]:
        at = whole.find(key, page * PAGE, (page + 1) * PAGE)
        if at >= 0:
            yield at


def cut(root, every):
    """Cut data.mdb off at every so many pages, with dataset.json as it was and then telling the new size."""
    root = Path(root)
    path, manifest = root / SHARD / "data.mdb", json.loads((root / "dataset.json").read_text())
    shard = manifest["splits"]["train"]["shards"][0]
    for pages in range(shard["bytes"] // PAGE - 1, -1, -int(every)):
        os.truncate(path, pages * PAGE)
        said = []
        for size in (shard["bytes"], pages * PAGE):
            shard_now = shard | {"bytes": size}
            manifest["splits"]["train"]["shards"] = [shard_now]
            (root / "dataset.json").write_text(json.dumps(manifest))
            try:
                RecordReader(open_shard_set(root), "train").read(np.array([0]))
                said.append("")
            except ShardError as error:
                said.append(error.message)
        print(json.dumps(said), flush=True)


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=SLOW)])
def test_cut_off_at_every_page_no_loader_reads_it(paged, tmp_path, every):
    copy = shutil.copytree(paged, tmp_path / "copy")
    lines = apart("cut", copy, every)
    pages = (paged / SHARD / "data.mdb").stat().st_size // PAGE
    assert len(lines) == -(-pages // every) and pages > 400
    for honest, lying in lines:
        assert "missing, or its size is not" in honest
        assert f"{copy}/{SHARD}" in lying


# Other parts


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Another raw set, with shards of the same sizes as those of `raw_shards`."""
    folder = tmp_path_factory.mktemp("foreign")
    make_photos(folder / "photos", train=60, val=20, classes=4, seed=9, side=(100, 300))
    build_shards(find_photos(folder / "photos"), folder / "set", BuildOptions(shard_records=16, encoding="raw"), Here())
    return folder / "set"


def swap(copy, _):
    a, b = copy / "train/00000", copy / "train/00001"
    for ending in (".lmdb", ".csv"):
        a.with_suffix(ending).rename(copy / "aside")
        b.with_suffix(ending).rename(a.with_suffix(ending))
        (copy / "aside").rename(b.with_suffix(ending))


def rename(copy, _):
    (copy / "train/00001.lmdb").rename(copy / "train/00009.lmdb")


def lose(copy, _):
    shutil.rmtree(copy / "train/00001.lmdb")


def mix(copy, foreign):
    for path in ("train/00001.lmdb/data.mdb", "train/00001.csv"):
        shutil.copy(foreign / path, copy / path)


def manifest_of_another(copy, foreign):
    shutil.copy(foreign / "dataset.json", copy)


def newer(copy, _):
    """A shard in LMDB's newer format, of which dataset.json says the right size."""
    data = copy / "train/00001.lmdb/data.mdb"
    data.unlink()
    newest = {"map_size": 1 << 26, "lock": False, "lib_version": 1}
    with lmdb.open(str(data.parent), **newest) as environment, environment.begin(write=True) as writing:
        writing.put(b"00000000", b"value")
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest["splits"]["train"]["shards"][1]["bytes"] = data.stat().st_size
    (copy / "dataset.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "damaged", "said"),
    [
        (swap, ("train/00000.lmdb", "train/00001.lmdb"), "the SHA-256 of data.mdb is "),
        (rename, ("train/00001.lmdb",), "data.mdb: No such file or directory"),
        (lose, ("train/00001.lmdb",), "data.mdb: No such file or directory"),
        (mix, ("train/00001.lmdb",), "the SHA-256 of data.mdb is "),
        (manifest_of_another, (), "the SHA-256 of data.mdb is "),
        (newer, ("train/00001.lmdb",), "LMDB format 3, which DALI and Caffe cannot read"),
    ],
)
def test_other_parts_are_named_by_the_check(raw_shards, foreign, tmp_path, change, damaged, said):
    copy = shutil.copytree(raw_shards.root, tmp_path / "copy")
    change(copy, foreign)
    report = verify_shards(copy, Here())
    every = tuple(
        folder.relative_to(copy).as_posix() for s in read_manifest(copy).splits.values() for folder, _ in s.shards
    )
    assert report.damaged_shards == (damaged or every)
    assert any(said in damage.reason for damage in report.damages)
    assert bool(report.notes) == (change is rename)


@pytest.mark.parametrize("change", [swap, rename, lose, mix, manifest_of_another, newer])
def test_of_other_parts_a_loader_refuses_what_it_sees_and_gives_no_picture_another_s_label(
    raw_shards, foreign, tmp_path, change
):
    """A part of another set with the right size and records is found by its hash alone, so by a read of all of it."""
    copy = shutil.copytree(raw_shards.root, tmp_path / "copy")
    change(copy, foreign)
    if change in (rename, lose, newer):
        with pytest.raises(ShardError, match=r"train/00001\.lmdb.*(missing|LMDB format 3)"):
            RecordReader(open_shard_set(copy), "train").read(np.array([16]))
        return
    known = {
        record.pixels.tobytes(): record.label
        for root in (raw_shards.root, foreign)
        for record in stored.records(root, "train")
    }
    payloads = RecordReader(open_shard_set(copy), "train").read(np.arange(60))
    for pixels, label in zip(payloads.data, payloads.labels.tolist(), strict=True):
        assert known[pixels.tobytes()] == label
    if change is manifest_of_another:
        with pytest.raises(AlexnetError, match="of another shard set"):
            stats.load_stats(open_shard_set(copy))


# Changed while it is read


def stream_of(root, decode, batch=20):
    from alexnet_dali.pipeline.stream.streams import train_stream  # torch and DALI, which most processes do without

    shard_set = open_shard_set(root)
    plan = Plan(60, batch, 0, shard_set.size, Augmentation(crop=40))
    return train_stream(shard_set, stats.load_stats(shard_set), plan, decode=decode, dtype="uint8", threads=1)


def truncate(data, size=0):
    os.truncate(data, size)


def cut_in_half(data):
    os.truncate(data, data.stat().st_size // 2)


def grow(data):
    with open(data, "ab") as file:
        file.write(bytes(PAGE))


def write_over(data):
    """As `cp` does it: the file stays, its bytes are others'."""
    with open(data, "r+b") as file:
        middle = file.seek(data.stat().st_size // 2)
        file.write(os.urandom(data.stat().st_size - middle))


def replace(data):
    shutil.copy(data.parents[1] / "00001.lmdb/data.mdb", data.with_name("new"))
    os.replace(data.with_name("new"), data)


def delete(data):
    data.unlink()


def delete_the_set(data):
    shutil.rmtree(data.parents[2])


PAIRS = [(encoding, decode) for encoding in ("jpeg", "raw") for decode in DECODERS]
IN_PLACE, AWAY = [truncate, cut_in_half, grow, write_over], [replace, delete, delete_the_set]


def changing(root, decode, into):
    """Change a shard under a stream in every way; print how each ended. Pictures must be those of before."""
    with stream_of(Path(root), decode) as stream:
        good = [batch.images.numpy().tobytes() for batch in islice(stream, 12)]
    for change in (*IN_PLACE, *AWAY):
        copy, batches = shutil.copytree(root, Path(into) / change.__name__), 0
        message = hint = ""
        with stream_of(copy, decode) as stream:
            try:
                for batch in islice(stream, 12):
                    assert batch.images.numpy().tobytes() == good[batches], f"other pictures in batch {batches}"
                    batches += 1
                    if batches == 3:  # an epoch: every shard is open
                        time.sleep(0.5)  # what is under way comes to its end
                        change(copy / SHARD / "data.mdb")
            except ShardError as error:
                message, hint = error.message, error.hint
        print(json.dumps([change.__name__, batches, message, hint]), flush=True)


@pytest.fixture(scope="module", params=["jpeg", "raw"])
def small(request, photos, tmp_path_factory):
    """The photos as 64x64 pictures, with statistics."""
    from conftest import build_set

    out = tmp_path_factory.mktemp("changed") / "set"
    return build_set(photos, out, size=64, shard_records=16, encoding=request.param)


@pytest.mark.parametrize(
    ("small", "decode"),
    [("jpeg", "dali"), *(pytest.param(*both, marks=SLOW) for both in PAIRS if both != ("jpeg", "dali"))],
    indirect=["small"],
)
def test_a_shard_that_changes_under_a_loader_ends_it_by_name_or_is_read_on_as_it_was(small, tmp_path, decode):
    """Written to in place, it is named; replaced or removed, the old file lives as long as it is read."""
    ends = {name: end for name, *end in apart("changing", small.root, decode, tmp_path, timeout=300)}
    assert list(ends) == [change.__name__ for change in (*IN_PLACE, *AWAY)]
    for change in IN_PLACE:
        batches, message, hint = ends[change.__name__]
        data = tmp_path / change.__name__ / SHARD / "data.mdb"
        said = f"{data}: changed while it was being read: {data.stat().st_size:,} bytes, "
        assert 3 <= batches < 12 and message.startswith(said), change
        assert "into another folder than the old one" in hint
    for change in AWAY:
        assert ends[change.__name__] == [12, "", ""], change


def cutting(root, decode, into, rounds):
    """Cut a shard short under a stream that runs flat out, each time at another moment; print how it ended."""
    random = np.random.default_rng(7)
    for number in range(int(rounds)):
        copy = shutil.copytree(root, Path(into) / f"{decode}{number}")
        cut = threading.Timer(random.uniform(0, 0.2), os.truncate, (copy / SHARD / "data.mdb", 4096))
        try:
            with stream_of(copy, decode) as stream:
                next(stream)
                cut.start()
                for _ in stream:
                    pass
        except ShardError as error:
            print(json.dumps(error.message), flush=True)
        cut.join()
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    ("small", "decode", "rounds"),
    [("jpeg", "threads", 4), *(pytest.param(*both, CUTS, marks=SLOW) for both in PAIRS)],
    indirect=["small"],
)
def test_a_shard_that_is_cut_short_at_any_moment_ends_no_process(small, tmp_path, decode, rounds):
    lines = apart("cutting", small.root, decode, tmp_path, rounds, timeout=60 + 5 * rounds)
    assert len(lines) == rounds
    for line in lines:
        assert f"{SHARD}/data.mdb: changed while it was being read: 4,096 bytes, " in line


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("by", ["compiled", "python"])
def test_a_batch_in_whose_reading_a_shard_is_written_to_is_not_given_out(small, tmp_path, monkeypatch, decode, by):
    """Nor is any of it told to be damaged: by whom it was written to is what has to be looked for."""
    owner, name = {"compiled": (record_reader, "_compiled"), "python": (Shard, "read")}[by]
    if by == "python":
        monkeypatch.setattr(record_reader, "_compiled", None)
    elif record_reader._compiled is None:
        pytest.skip("not compiled")
    read, records = getattr(owner, name), [0]

    def written_to(first, count, *given):
        records.append(records[-1] + (count if by == "compiled" else 1))
        if records[-2] < 70 <= records[-1]:  # in the second epoch, when all is open
            write_over(tmp_path / "copy" / SHARD / "data.mdb")
        return read(first, count, *given)

    shutil.copytree(small.root, tmp_path / "copy")
    with stream_of(tmp_path / "copy", decode) as stream:
        undisturbed = [batch.images.numpy().tobytes() for batch in islice(stream, 4)]
    monkeypatch.setattr(owner, name, written_to)
    given = []
    said = pytest.raises(ShardError, match="changed while it was being read")
    with stream_of(tmp_path / "copy", decode) as stream, said:
        for batch in stream:
            given.append(batch.images.numpy().tobytes())
    assert given == undisturbed[: len(given)] and len(given) < 4  # of 20 each: the fourth is the one


def test_a_whole_shard_has_not_changed(shards, tmp_path):
    copy = shutil.copytree(shards.root, tmp_path / "copy")
    folder, file = open_shard_set(copy).split("train").shards[0]
    shard = Shard(folder, file)
    for path in (copy / "dataset.json", copy / "train/00000.csv"):
        path.unlink()
    (folder / "lock.mdb").touch()  # as Caffe does
    os.link(folder / "data.mdb", copy / "link")
    os.chmod(folder / "data.mdb", 0o400)
    shard.check()
    os.utime(folder / "data.mdb")
    with pytest.raises(ShardError, match="changed while it was being read"):
        shard.check()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
