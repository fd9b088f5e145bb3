"""A set is compared with its photos by today's rules: each kind of difference is counted, and named with both values.

Sets as alexnet-dali 0.1 built them are made from a list of the classes and splits that it took, and a dataset.json
without what later versions record.
"""

import json
from concurrent.futures import Executor, Future
from functools import partial

import pytest
from alexnet_dali.pipeline.errors import ShardError, UsageError
from alexnet_dali.pipeline.prepare.against_source import compare, find_by_todays_rules
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.tools.prep.cli import prep
from coloured import lay

FLAT, SPLITS = "class folders, flat", "class folders, train and val"


class Here(Executor):
    """Does each job at once in this process."""

    def submit(self, function, /, *arguments, **keywords):
        future: Future = Future()
        future.set_result(function(*arguments, **keywords))
        return future


@pytest.fixture
def call(in_process, threads_for_workers):
    """Run alexnet-prep, its workers being threads."""
    threads_for_workers("prep.verify")
    return partial(in_process, prep)


def build(source, out):
    shard_set, _ = build_shards(source, out, BuildOptions(size=32), Here())
    return shard_set


def edit(out, change):
    manifest = json.loads((out / "dataset.json").read_text())
    change(manifest)
    (out / "dataset.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return open_shard_set(out)


def as_of_old(manifest):
    """Leave of a set's request what 0.1 recorded, where the defaults stood as if they had been given."""
    request = manifest["source"]["request"]
    for name in ("rules", "class_folders", "paths_root", "ignore"):
        del request[name]
    request["val_share"] = 0.1 if request["val_share"] is None else request["val_share"]
    request["label_order"] = "sorted"


def old_set(root, out, kind, rows):
    """Build the set that 0.1 took `root` for: split and class by path."""
    listing = out.with_suffix(".csv")
    listing.write_text(
        "path,label,split\n" + "".join(f"{path},{name},{split}\n" for path, (split, name) in rows.items())
    )
    build(find_photos(listing, paths_root=root, val_share=0), out)

    def change(manifest):
        as_of_old(manifest)
        manifest["source"] |= {"kind": kind, "path": str(root)}
        manifest["source"]["request"] |= {"layout": "folders", "val_share": 0.1}

    return edit(out, change)


def compared(shard_set, root):
    return compare(shard_set, find_by_todays_rules(shard_set, root))


def in_short(comparison):
    return {one.what: one.photos for one in comparison.differences}


def photos(*folders, count=4):
    return {f"{folder}/{k}.png": number for number, folder in enumerate(folders) for k in range(count)}


def test_a_share_held_out_by_another_draw_agrees(tmp_path):
    root = lay(tmp_path / "in", photos("cat", "dog", count=10))
    rows = {
        path: ("val" if "/7" in path or "/3" in path else "train", path[:3]) for path in photos("cat", "dog", count=10)
    }
    found = compared(old_set(root, tmp_path / "out", FLAT, rows), root)
    assert (found.same, found.rejected, found.differences, found.notes) == (20, 0, (), ())
    today = find_photos(root)
    assert {one.path for one in today.splits["val"]} != {path for path, (split, _) in rows.items() if split == "val"}


def test_a_val_that_was_not_seen(tmp_path):
    """Of train, valid and test 0.1 took train alone, and held a share of it out."""
    root = lay(tmp_path / "in", photos(*(f"{split}/{name}" for split in ("train", "valid", "test") for name in "ab")))
    rows = {path: ("val" if "/3" in path else "train", path[6]) for path in photos("train/a", "train/b")}
    found = compared(old_set(root, tmp_path / "out", FLAT, rows), root)
    assert in_short(found) == {"in another split": 2, "of SOURCE not in the set": 16} and found.same == 6
    moved, absent = found.differences
    assert sorted(moved.examples) == [f"train/{name}/3.png: val in the set, train in SOURCE" for name in "ab"]
    assert absent.examples == [f"valid/a/{k}.png: val, a" for k in range(3)]
    assert found.notes == (f"SOURCE is read as class folders, train and val today; the set was built from {FLAT}",)


def test_splits_that_were_taken_for_classes(tmp_path):
    root = lay(tmp_path / "in", photos("seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b"))
    paths = photos("seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b")
    rows = {path: ("train", path.partition("/")[0]) for path in paths}
    found = compared(old_set(root, tmp_path / "out", FLAT, rows), root)
    assert in_short(found) == {"of another class": 16, "in another split": 8} and found.same == 0
    for one in found.differences[0].examples:
        folder, name = one.split("/")[:2]
        assert one.endswith(f": {folder} in the set, {name} in SOURCE")
    assert all(": train in the set, test in SOURCE" in one for one in found.differences[1].examples)


def test_thumbnails_that_the_set_has(tmp_path):
    root = lay(tmp_path / "in", photos("cat", "dog", "dog/@eaDir"))
    rows = {path: ("train", path[:3]) for path in photos("cat", "dog", "dog/@eaDir")}
    found = compared(old_set(root, tmp_path / "out", FLAT, rows | {"cat/0.png": ("val", "cat")}), root)
    assert in_short(found) == {"of the set in SOURCE, but left out by today's rules": 4} and found.same == 8
    assert found.differences[0].is_fault and found.differences[0].examples[0].startswith("dog/@eaDir/")


def test_photos_that_are_gone_and_photos_that_were_rejected(call, tmp_path):
    root = lay(
        tmp_path / "in", photos("train/cat", "train/dog", "val/cat", "val/dog"), {"train/cat/torn.jpg": b"\xff\xd8\xff"}
    )
    shard_set = build(find_photos(root), tmp_path / "out")
    assert shard_set.manifest["rejected"] == 1
    found = compared(shard_set, root)
    assert (found.same, found.rejected, found.differences, found.notes) == (16, 1, (), ())
    (root / "val/dog/2.png").unlink()
    found = compared(shard_set, root)
    (gone,) = found.differences
    assert (gone.what, gone.is_fault, gone.examples) == ("no longer in SOURCE", False, ["val/dog/2.png: val, dog"])
    code, said, _ = call("verify", "--shards", tmp_path / "out", "--against", root)
    assert code == 0 and said.endswith(
        "1 photo no longer in SOURCE\n  val/dog/2.png: val, dog\n"
        f"agrees with {root}: 15 photos with the same class and split; 1 in rejected.csv\n"
    )


def test_numbers_in_the_order_of_text(call, tmp_path):
    names = [str(k) for k in range(12)]
    root = lay(tmp_path / "in", photos(*names, count=2))
    shard_set = old_set(
        root, tmp_path / "out", FLAT, {path: ("train", f"c{path[:-6]}") for path in photos(*names, count=2)}
    )
    assert shard_set.classes[2] == "c10"

    def change(manifest):
        for entry in manifest["classes"]:
            entry["name"] = entry["name"][1:]

    found = compared(edit(shard_set.root, change), root)
    (note,) = found.notes
    assert note.startswith(
        "the order of the classes is another today: label 2 is 10 in the set, and would be 2 (class na"
    )
    assert "of another class" not in in_short(found)


def test_a_photo_in_two_splits_of_a_list(tmp_path):
    root = lay(tmp_path / "in", photos("a", "b"))
    for split, paths in {"train": photos("a", "b"), "val": ["a/1.png", "b/1.png"]}.items():
        (root / f"{split}.txt").write_text("".join(f"{path} {path[0]}\n" for path in paths))
    twice = build(find_photos(root), tmp_path / "both")
    assert [split.records for split in twice.splits.values()] == [8, 2]
    found = compared(twice, root)
    assert (found.same, found.differences) == (10, ())
    (root / "val.txt").write_text("a/1.png b\n")
    found = compared(twice, root)
    assert in_short(found) == {"of another class": 1, "of the set in SOURCE, but left out by today's rules": 1}
    assert found.differences[0].examples == ["a/1.png: a in the set, b in SOURCE"]
    (root / "val.txt").write_text("a/1.png a\nb/1.png b\n")
    (root / "train.txt").write_text("".join(f"{path} {path[0]}\n" for path in photos("a", "b") if path != "a/1.png"))
    (left,) = compared(twice, root).differences
    assert left.examples == ["a/1.png: train, a"]  # its other record agrees


def test_todays_sets_are_compared_by_their_own_request(tmp_path):
    root = lay(tmp_path / "in", photos("xx/a", "xx/b", "yy/c", "junk/d", count=5))
    ask = {"class_folders": "leaf", "ignore": ("junk",), "val_share": 0.5, "seed": 3}
    shard_set = build(find_photos(root, **ask), tmp_path / "out")
    assert shard_set.classes == ("xx/a", "xx/b", "yy/c")
    today = find_by_todays_rules(shard_set, root)
    assert today.splits == find_photos(root, **ask).splits
    assert (compare(shard_set, today).same, compare(shard_set, today).differences) == (15, ())


@pytest.mark.parametrize(("given", "held_out"), [(0.1, 0), (0.25, 2)])
def test_the_share_that_old_sets_record_is_given_unless_it_is_the_default(tmp_path, given, held_out):
    root = lay(tmp_path / "in", photos("train/a", "train/b", "test/a", "test/b"))
    shard_set = build(find_photos(root, val_share=given), tmp_path / "out")
    today = find_by_todays_rules(edit(shard_set.root, as_of_old), root)
    assert len(today.splits.get("val", ())) == held_out and today.request["rules"] == 2


def test_what_is_asked_today_is_no_silent_reading(call, tmp_path):
    root = lay(tmp_path / "in", photos("xx/a", "xx/b", "yy/c", "yy/d"))
    rows = {path: ("train", path[:2]) for path in photos("xx/a", "xx/b", "yy/c", "yy/d")}
    shard_set = old_set(root, tmp_path / "out", FLAT, rows)
    with pytest.raises(UsageError) as caught:
        find_by_todays_rules(shard_set, root)
    asked = f"alexnet-dali 0.1 built {tmp_path / 'out'} without a question that is asked now: {root}: xx has no photos"
    assert caught.value.message.startswith(asked)
    assert "--class-folders top for the first" in caught.value.hint and "alexnet-prep info" in caught.value.hint
    code, _, aside = call("verify", "--shards", tmp_path / "out", "--against", root)
    assert code == 2 and caught.value.message in aside


def test_another_source_and_none(call, tmp_path):
    root = lay(tmp_path / "in", photos("a", "b"))
    shard_set = build(find_photos(root), tmp_path / "out")
    other = lay(tmp_path / "other", photos("c", "d"))
    with pytest.raises(UsageError) as caught:
        compared(shard_set, other)
    assert caught.value.message.startswith(
        f"{other} (class folders, flat): none of its photos is in {tmp_path / 'out'}, which has "
    )
    assert caught.value.hint.endswith(str(root))
    edit(tmp_path / "out", as_of_old)
    code, said, aside = call("verify", "--shards", tmp_path / "out", "--against", tmp_path / "nowhere")
    assert code == 2 and said == "" and aside.startswith(f"error: {tmp_path / 'nowhere'}: no such file or folder\n")


def test_sets_that_say_nothing_of_their_source(tmp_path):
    root = lay(tmp_path / "in", photos("a", "b"))
    shard_set = build(find_photos(root), tmp_path / "out")
    later = edit(tmp_path / "out", lambda manifest: manifest["source"]["request"].update(mood="blue"))
    with pytest.raises(ShardError, match="unknown source options: mood; update alexnet-dali"):
        find_by_todays_rules(later, root)
    without = edit(shard_set.root, lambda manifest: manifest.pop("source"))
    with pytest.raises(ShardError, match="does not record the source of the set; build the set again"):
        find_by_todays_rules(without, root)


def test_the_command(call, tmp_path):
    root = lay(tmp_path / "in", photos("train/a", "train/b", "dev/a", "dev/b"))
    rows = {path: ("val" if "/3" in path else "train", path[6]) for path in photos("train/a", "train/b")}
    out = old_set(root, tmp_path / "out", FLAT, rows).root
    code, said, aside = call("verify", "--shards", out)
    assert (
        code == 0
        and f"\nnote: compare the set with its photos: alexnet-prep verify --shards {out} --against {root}\n" in aside
    )
    code, said, aside = call("verify", "--shards", out, "--against", root)
    assert code == 1 and "compare the set with" not in aside
    assert said.startswith("undamaged: 8 records in 2 shards") and "\n2 photos in another split\n  train/" in said
    assert "\n8 photos of SOURCE not in the set\n  dev/a/0.png: val, a\n" in said and said.endswith("  and 5 more\n")
    assert f"error: {out}: 10 differences from {root} as today's rules read it; 6 photos agree\n" in aside
    assert aside.endswith(f"  try: build it again: alexnet-prep build-lmdb {root} --out another-folder\n")


def test_a_repair_from_photos_that_are_read_otherwise_names_the_command(call, tmp_path):
    root = lay(tmp_path / "in", photos("train/a", "train/b", "dev/a", "dev/b"))
    rows = {path: ("val" if "/3" in path else "train", path[6]) for path in photos("train/a", "train/b")}
    out = old_set(root, tmp_path / "out", FLAT, rows).root
    (out / "train/00000.csv").unlink()
    code, _, aside = call("verify", "--shards", out, "--repair")
    assert code == 2 and f"error: {root}: not the photos of {out}: names, classes or sizes differ\n" in aside
    assert f"alexnet-prep verify --shards {out} --against {root} compares them\n" in aside


def test_a_set_whose_layout_was_described_in_other_words_is_repaired(call, tmp_path):
    root = lay(tmp_path / "in", photos("train/a", "train/b", "test/a", "test/b"))
    out = build(find_photos(root, split="test"), tmp_path / "out").root

    def change(manifest):
        as_of_old(manifest)
        assert manifest["source"]["kind"] != "class folders"
        manifest["source"]["kind"] = "class folders"  # as 0.1 did

    edit(out, change)
    listed = (out / "test/00000.csv").read_bytes()
    (out / "test/00000.csv").unlink()
    code, said, _ = call("verify", "--shards", out, "--repair")
    assert code == 0 and "rebuilt: 1 shards, identical byte for byte\n" in said
    assert (out / "test/00000.csv").read_bytes() == listed


def test_damage_is_told_before_differences(call, tmp_path):
    root = lay(tmp_path / "in", photos("a", "b"))
    out = build(find_photos(root), tmp_path / "out").root
    (out / "train/00000.csv").unlink()
    lay(root, photos("new/class"))
    code, said, aside = call("verify", "--shards", out, "--against", root)
    assert code == 1 and "damaged: " in aside and "not in the set" not in said + aside
