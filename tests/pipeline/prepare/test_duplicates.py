"""Photos that a source has twice: counted and named, the same after any interruption, never a wrong number."""

import json
import shutil
from concurrent.futures import Executor, Future

import forms
import numpy as np
import pytest
from alexnet_dali.pipeline.errors import ShardError
from alexnet_dali.pipeline.prepare import duplicates
from alexnet_dali.pipeline.prepare.build import build_shards, notes_on
from alexnet_dali.pipeline.prepare.duplicates import (
    HashedShard,
    duplicate_lines,
    find_duplicates,
    hash_of,
    write_hashes,
)
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.sources.find import find_photos
from pictures import saved

SMALL = BuildOptions(size=16, shard_records=4)


class Here(Executor):
    """Does each job at once; stops before job number `stop`, counted from 1, as Ctrl-C would."""

    def __init__(self, stop=0):
        self.stop, self.jobs = stop, 0

    def submit(self, function, /, *arguments, **keywords):
        self.jobs += 1
        if self.jobs == self.stop:
            raise KeyboardInterrupt
        future: Future = Future()
        future.set_result(function(*arguments, **keywords))
        return future


def photo(number):
    """A photo of its own."""
    return saved(np.random.default_rng(number).integers(0, 255, (20, 24, 3)).astype(np.uint8), "PNG")


TREE = {  # path: number of the photo
    **{f"train/{name}/{k}.png": 10 * c + k for c, name in enumerate(("ant", "bee", "cat")) for k in range(4)},
    **{f"val/{name}/{k}.png": 100 + 10 * c + k for c, name in enumerate(("ant", "bee", "cat")) for k in range(2)},
    "val/ant/leak.png": 0,  # train/ant/0.png, in val
    "val/bee/leak.png": 11,  # train/bee/1.png, in val
    "train/cat/also.png": 1,  # train/ant/1.png, as another class
    "val/cat/both.png": 2,  # train/ant/2.png, in val and as another class
    "train/bee/again.png": 12,  # train/bee/2.png again, which is neither
}


@pytest.fixture
def tree(tmp_path):
    for path, number in TREE.items():
        place = tmp_path / "photos" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(photo(number))
    return tmp_path / "photos"


def expected(paths=TREE):
    """Sets of the paths of photos in several splits, and in several classes, by comparing the numbers."""
    same: dict = {}
    for path, number in paths.items():
        same.setdefault(number, set()).add(path)
    by = [[len({path.split("/")[k] for path in some}) > 1 for some in same.values()] for k in (0, 1)]
    return [[some for some, found in zip(same.values(), one, strict=True) if found] for one in by]


def check(manifest, paths=TREE):
    found = manifest["duplicates"]
    across = expected(paths)
    assert [found["across_splits"], found["across_classes"]] == [len(one) for one in across] and all(across)
    named = [{path for *_, path in one} for one in found["examples"]]
    assert all(one in [*across[0], *across[1]] for one in named)
    assert len(named) == sum(min(3, len(one)) for one in across)
    for one in found["examples"]:
        assert all(path.startswith(f"{split}/{name}/") for split, name, path in one) and len(one) > 1


def test_counted_and_named(tree, tmp_path):
    built, _ = build_shards(find_photos(tree), tmp_path / "out", SMALL, Here())
    assert [len(one) for one in expected()] == [3, 2]
    check(built.manifest)
    assert sum(split.records for split in built.splits.values()) == len(TREE)  # nothing is removed
    splits, classes = duplicate_lines(built.manifest)
    assert splits.startswith("3 photos are in more than one split, by a hash of the files, such as ")
    assert classes.startswith("2 photos are in more than one class, by a hash of the files, such as ")
    assert " = " in classes and "(train, ant)" in classes and "cat)" in classes
    assert notes_on(built.manifest) == [splits, classes]
    assert not (tmp_path / "out/.build").exists()


@pytest.mark.parametrize("stop", range(1, 9))
def test_the_same_after_an_interruption(tree, tmp_path, stop):
    source = find_photos(tree)
    whole, _ = build_shards(source, tmp_path / "whole", SMALL, Here())
    assert len([shard for split in whole.splits.values() for shard in split.shards]) == 7
    if stop < 8:
        with pytest.raises(KeyboardInterrupt):
            build_shards(source, tmp_path / "out", SMALL, Here(stop))
    built, _ = build_shards(source, tmp_path / "out", SMALL, Here())
    assert built.manifest == whole.manifest
    check(built.manifest)


def test_from_tables_that_are_read_in_order(tree, tmp_path):
    """The hash comes from the cache there; and a cache without it is made again."""
    table = forms.make_parquet(tree, tmp_path / "table")
    with pytest.raises(KeyboardInterrupt):
        build_shards(find_photos(table), tmp_path / "out", SMALL, Here(stop=3))
    index = next((tmp_path / "out/.build/spool").glob("*.npy"))
    rows = np.load(index)
    np.save(index, rows[[name for name in rows.dtype.names if name != "hash"]])
    built, _ = build_shards(find_photos(table), tmp_path / "out", SMALL, Here())
    found = built.manifest["duplicates"]
    assert [found["across_splits"], found["across_classes"]] == [3, 2]


def test_a_set_that_is_repaired_keeps_its_counts(tree, tmp_path):
    built, _ = build_shards(find_photos(tree), tmp_path / "out", SMALL, Here())
    shutil.rmtree(tmp_path / "out/train/00001.lmdb")
    again, fresh = build_shards(find_photos(tree), tmp_path / "out", SMALL, Here())
    assert fresh == 4 and again.manifest == built.manifest
    check(again.manifest)


def test_a_set_that_is_other_than_before_is_not_counted(tree, tmp_path):
    """A photo comes back, or an older version has not counted: the other shards' hashes are not known."""
    source = find_photos(tree)
    (tree / "val/cat/both.png").rename(tmp_path / "away")
    first, _ = build_shards(source, tmp_path / "out", SMALL, Here())
    check(first.manifest, {path: number for path, number in TREE.items() if path != "val/cat/both.png"})
    (tmp_path / "away").rename(tree / "val/cat/both.png")
    built, fresh = build_shards(source, tmp_path / "out", SMALL, Here())
    assert fresh and built.manifest["duplicates"] == {"across_splits": None, "across_classes": None, "examples": []}
    assert duplicate_lines(built.manifest) == [
        "photos that are there twice were not counted: some shards were built anew after the set was finished"
    ]
    manifest = json.loads((tmp_path / "out/dataset.json").read_text())
    del manifest["duplicates"], manifest["empty"]
    assert duplicate_lines(manifest) == notes_on(manifest) == []  # of an older version
    for shard in manifest["splits"]["train"]["shards"]:
        del shard["empty"], shard["empty_photos"]
    (tmp_path / "out/dataset.json").write_text(json.dumps(manifest))
    shutil.rmtree(tmp_path / "out/val/00000.lmdb")
    built, _ = build_shards(source, tmp_path / "out", SMALL, Here())
    assert built.manifest["duplicates"]["across_splits"] is None and built.manifest["empty"]["count"] is None


def test_a_lost_or_damaged_file_of_hashes_is_never_a_number(tree, tmp_path):
    source = find_photos(tree)
    for name, damage in (
        ("lost", lambda path: path.unlink()),
        ("empty", lambda path: path.write_bytes(b"")),
        ("cut", lambda path: path.write_bytes(path.read_bytes()[:-5])),
        ("another", lambda path: np.save(path.open("wb"), np.zeros(4))),
        ("short", lambda path: write_hashes(path, [1], [0])),
    ):
        out = tmp_path / name
        with pytest.raises(KeyboardInterrupt):
            build_shards(source, out, SMALL, Here(stop=4))
        damage(out / ".build/train-00001.hashes")
        built, _ = build_shards(source, out, SMALL, Here())
        assert built.manifest["duplicates"]["across_splits"] is None


def test_any_hashes(tmp_path):
    """Against a plain count, with unlabelled records, many copies, empty shards and sets without any."""
    rng = np.random.default_rng(0)
    for case in range(30):
        shards, everything = [], []
        for number in range(rng.integers(0, 6)):
            count = int(rng.integers(0, 12))
            hashes = rng.integers(0, 2**64, 20, dtype=np.uint64)[rng.integers(0, 20, count)] if case % 2 else []
            hashes = list(map(int, hashes)) or rng.integers(0, 15, count).tolist()
            labels = rng.integers(-1, 3, count).tolist()
            split = ("train", "val", "test")[number % 3]
            path = tmp_path / f"{case}-{number}.hashes"
            write_hashes(path, hashes, labels)
            shards.append(HashedShard(tmp_path / "none.lmdb", path, split, count))
            everything += [(one, split, label) for one, label in zip(hashes, labels, strict=True)]
        found = find_duplicates(shards, ("a", "b", "c"))
        splits = {one: {split for other, split, _ in everything if other == one} for one, *_ in everything}
        classes = {one: {c for other, _, c in everything if other == one and c >= 0} for one, *_ in everything}
        assert found.across_splits == sum(len(some) > 1 for some in splits.values())
        assert found.across_classes == sum(len(some) > 1 for some in classes.values())
        assert found.examples == []  # there is no CSV to name them by


def test_the_hash_is_of_the_whole_file():
    data = np.random.default_rng(0).integers(0, 256, 50_000).astype(np.uint8).tobytes()
    seen = {hash_of(data), hash_of(data[:-1]), hash_of(data + b"\0"), hash_of(b""), hash_of(b"\0")}
    for place in (0, 1, 1023, 1024, 5_000, 24_999, 25_000, 26_024, 40_000, 48_975, 48_976, 49_999):
        seen.add(hash_of(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]))
    assert len(seen) == 17 and all(0 <= one < 2**64 for one in seen)
    assert hash_of(bytes(data)) == hash_of(data) == hash_of(bytearray(data))


def test_hashes_need_their_csv_for_names_only(tree, tmp_path, monkeypatch):
    def unreadable(folder):
        raise ShardError("no")

    monkeypatch.setattr(duplicates, "read_listing", unreadable)
    built, _ = build_shards(find_photos(tree), tmp_path / "out", SMALL, Here())
    assert built.manifest["duplicates"] == {"across_splits": 3, "across_classes": 2, "examples": []}
    assert duplicate_lines(built.manifest)[0] == "3 photos are in more than one split, by a hash of the files"


def test_pictures_that_show_nothing_are_named(tree, tmp_path):
    black = saved(np.zeros((20, 24, 3), np.uint8), "PNG")
    for k in range(30):
        (tree / f"train/ant/black-{k}.png").write_bytes(black)
    options = BuildOptions(size=16, shard_records=64)
    built, _ = build_shards(find_photos(tree), tmp_path / "out", options, Here())
    [shard] = built.manifest["splits"]["train"]["shards"]
    assert shard["empty"] == 30 and len(shard["empty_photos"]) == 20
    empty = built.manifest["empty"]
    assert empty["count"] == 30 and empty["photos"] == shard["empty_photos"]
    assert all(path.startswith("train/ant/black-") and reason == "one colour" for path, reason in empty["photos"])
    assert notes_on(built.manifest)[-1].startswith("30 pictures are perhaps empty, such as train/ant/black-")
    shutil.rmtree(tmp_path / "out/val/00000.lmdb")
    again, _ = build_shards(find_photos(tree), tmp_path / "out", options, Here())
    assert again.manifest == built.manifest
