"""What `info` tells of a set is what is in it, and the contact sheet shows its records."""

import json
import os
import re
import shutil
from collections import Counter
from functools import partial

import numpy as np
import pytest
import stored
from alexnet_dali.pipeline.errors import ShardError
from alexnet_dali.pipeline.shards import contact_sheet as module
from alexnet_dali.pipeline.shards.contact_sheet import (
    CELL,
    MARGIN,
    TITLE,
    choose,
    class_title,
    contact_sheet,
)
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.shards.records_csv import class_counts
from alexnet_dali.tools.prep.cli import prep
from alexnet_dali.tools.prep.info import describe, table
from PIL import Image
from unlabelled import make_unlabelled


@pytest.fixture
def call(in_process):
    """Run alexnet-prep."""
    return partial(in_process, prep)


def edited(root, copy, change):
    shutil.copytree(root, copy)
    manifest = json.loads((copy / "dataset.json").read_text())
    change(manifest)
    (copy / "dataset.json").write_text(json.dumps(manifest))
    return open_shard_set(copy)


def photo_sides(photos):
    return [Image.open(path).size for path in sorted(photos.rglob("*.JPEG"))]


def test_the_facts(shards, photos):
    facts = describe(shards)
    sides = np.array(photo_sides(photos))
    assert facts["photos"]["median"] == [int(side) for side in np.median(sides, axis=0)]
    assert tuple(facts["photos"]["largest"]) in {
        tuple(side) for side in sides.tolist() if side[0] * side[1] == sides.prod(axis=1).max()
    }
    for name in ("train", "val"):
        counts = Counter(record.label for record in stored.records(shards.root, name))
        split = facts["splits"][name]
        assert split["records"] == sum(counts.values()) and split["shards"] == len(shards.splits[name].shards)
        assert split["bytes"] == sum(p.stat().st_size for p in (shards.root / name).glob("*/data.mdb"))
        assert split["per_class"] == {
            "min": min(counts.values()),
            "median": np.median(list(counts.values())),
            "max": max(counts.values()),
        }
        assert class_counts(shards, name).per_class.tolist() == [counts[label] for label in range(4)]
    assert facts["statistics"] == "of this set" and facts["rejected"] == {"photos": 0, "reasons": {}}


def test_the_table(call, shards, photos):
    code, said, aside = call("info", "--shards", shards.root)
    assert (code, aside) == (0, "")
    lines = dict(re.findall(r"^(\w+) +(.*)$", said, re.M))
    assert list(lines) == [
        "set", "pictures", "classes", "train", "val", "rejected", "photos", "source", "versions", "statistics",
    ]  # fmt: skip
    assert lines["set"] == str(shards.root) and lines["pictures"] == "256x256 pixels, JPEG of quality 95"
    assert lines["classes"] == f"4: {', '.join(shards.classes)}"
    assert re.fullmatch(r"60 records in 4 shards, [\d.]+ [kM]B; \d+ to \d+ a class, median \d+(\.5)?", lines["train"])
    assert lines["rejected"] == "0" and lines["statistics"] == "of this set"
    assert lines["source"].startswith(f"{photos} (") and "lmdb " in lines["versions"]


def test_other_sets_in_the_table(raw_shards, short_side_shards):
    assert "pictures    256x256 pixels, raw RGB\n" in table(describe(raw_shards))
    assert "pictures    whole, short side 256 pixels, JPEG of quality 95\n" in table(describe(short_side_shards))


def test_words_rejected_photos_and_no_statistics(shards, tmp_path):
    def change(manifest):
        manifest["classes"] = [{"name": f"n{k}", "words": f"word {k}, other"} for k in range(7)]

    odd = edited(shards.root, tmp_path / "set", change)
    (odd.root / "stats.npz").unlink()
    (odd.root / "rejected.csv").write_text("source_path,reason\na,too large\nb,torn\nc,torn\n")
    said = table(describe(odd))
    assert "classes     7: n0 (word 0, other), n1 (word 1, other), " in said and "n4 (word 4, other), ...\n" in said
    assert "rejected    3: 2 torn; 1 too large\n" in said
    assert said.endswith(f"statistics  none; compute them with alexnet-prep pca-stats --shards {odd.root}")
    assert " 0 to " in said  # classes that have no record


def test_a_set_without_labels(shards, tmp_path):
    out = open_shard_set(make_unlabelled(shards.root, tmp_path / "out"))
    said = table(describe(out))
    assert "classes     0\n" in said and re.search(r"test +20 records in 2 shards, .*; 20 without a label\n", said)
    assert " a class" not in said
    assert contact_sheet(out, "test").size[0] == 1244


def test_statistics_of_another_set(shards, raw_shards, tmp_path):
    odd = edited(shards.root, tmp_path / "set", lambda manifest: None)
    shutil.copy(raw_shards.root / "stats.npz", odd.root)
    assert describe(odd)["statistics"] == "these statistics are of another shard set"


def test_json(call, shards):
    code, said, _ = call("info", "--shards", shards.root, "--json")
    assert code == 0 and json.loads(said) == json.loads(json.dumps(describe(shards)))


def test_a_damaged_list_is_told(call, shards, tmp_path):
    odd = edited(shards.root, tmp_path / "set", lambda manifest: None)
    (odd.root / "val/00000.csv").write_text("key\n")
    code, _, aside = call("info", "--shards", odd.root)
    assert code == 1 and aside.startswith(f"error: {odd.root}/val/00000.csv: no column label")
    (odd.root / "rejected.csv").unlink()
    shutil.copy(shards.root / "val/00000.csv", odd.root / "val/00000.csv")
    code, _, aside = call("info", "--shards", odd.root)
    assert code == 1 and aside.startswith(f"error: {odd.root}/rejected.csv: ")


# The contact sheet


def test_the_same_seed_is_the_same_page(call, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 2)  # 16 of 60 records
    pages = []
    for name, seed in (("a.png", 5), ("b.png", 5), ("deep/c.png", 6)):
        code, said, _ = call("info", "--shards", shards.root, "--contact-sheet", tmp_path / name, "--seed", seed)
        assert code == 0 and said.endswith(f"written: {tmp_path / name}\n")
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    below = [np.array(Image.open(tmp_path / name))[MARGIN + TITLE :] for name in ("a.png", "deep/c.png")]
    assert (below[0] != below[1]).mean() > 0.1  # other records, not only another title
    assert Image.open(tmp_path / "a.png").size == (1244, 2 * MARGIN + TITLE + 2 * (CELL + 24) + 20)


def test_records_are_chosen_once_and_sorted_by_class(shards):
    places = choose(shards, "train", 3)
    assert len(places) == len(set(places)) == 60  # all there are
    many = choose(shards, "val", 1)
    assert len(many) == 20 and [place.label for place in many] == sorted(place.label for place in many)
    labels = {(k, record.index): record.label for k, record in enumerate_shards(shards, "train")}
    assert all(labels[place.shard, place.index] == place.label for place in places)


def enumerate_shards(shard_set, split):
    numbers = {folder: k for k, (folder, _) in enumerate(shard_set.splits[split].shards)}
    return [(numbers[record.shard], record) for record in stored.records(shard_set.root, split)]


def test_few_of_many_are_even(shards, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 2)
    counts = Counter(place.label for place in choose(shards, "train", 0))
    assert sum(counts.values()) == 16 and set(counts.values()) == {4}


def test_the_page_shows_the_records(raw_shards):
    page = np.array(contact_sheet(raw_shards, "val", 2))
    there = {(k, r.index): r.pixels for k, r in enumerate_shards(raw_shards, "val")}
    for k, place in enumerate(choose(raw_shards, "val", 2)):
        left, top = MARGIN + k % 8 * (CELL + 20), MARGIN + TITLE + k // 8 * (CELL + 24 + 20)
        cell = page[top : top + CELL, left : left + CELL].astype(int)
        mean = there[place.shard, place.index].reshape(CELL, 2, CELL, 2, 3).mean(axis=(1, 3))
        assert np.abs(cell - mean).mean() < 12  # Lanczos is sharper than a mean
        below = page[top + CELL + 2 : top + CELL + 24, left : left + CELL]
        assert below.min() < 90 and below.max() == 255  # dark letters on white


def test_whole_pictures_fit_into_their_cells(short_side_shards, tmp_path):
    page = contact_sheet(short_side_shards, "train", 0)
    assert page.size == (1244, 40 + 64 + 2 * (128 + 24) + 20 + 40)
    frame = np.array(page)[MARGIN + TITLE : -MARGIN, :MARGIN]
    assert (frame[:, :-11] == 255).all()  # nothing runs over the margin but, at most, a caption


def test_class_titles(shards, tmp_path):
    def change(manifest):
        manifest["classes"] = [
            {"name": "n1", "words": "tench, Tinca tinca"},
            {"name": "n2"},
            {"name": os.fsdecode(b"caf\xe9") + "x" * 99},
            {"name": "\u9c7c"},
        ]

    odd = edited(shards.root, tmp_path / "set", change)
    assert [class_title(odd, label) for label in (0, 1, -1)] == ["tench", "n2", "no label"]
    contact_sheet(odd, "train", 0)  # draws what is no text, too long, or in no font


def test_another_name_than_png(call, shards, tmp_path):
    code, _, aside = call("info", "--shards", shards.root, "--contact-sheet", tmp_path / "page.jpg")
    assert code == 2 and "not a .png file" in aside


def test_no_such_split(call, shards, tmp_path):
    code, _, aside = call("info", "--shards", shards.root, "--contact-sheet", tmp_path / "a.png", "--split", "test")
    assert code == 1 and "no records in a split 'test'" in aside and not (tmp_path / "a.png").exists()


def test_a_damaged_record_is_named(shards, tmp_path):
    stored.damaged(shards.root, tmp_path / "set", "val", 0, 1, b"no Datum")
    with pytest.raises(ShardError, match=r"val/00000.lmdb, record 1: "):
        contact_sheet(open_shard_set(tmp_path / "set"), "val")
