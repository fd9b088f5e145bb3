"""What alexnet-dali 0.1 may have read wrongly is said of its sets, and of no others."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.tools.prep.cli import prep
from alexnet_dali.tools.prep.doubts import doubts

FLAT, SPLITS = "class folders, flat", "class folders, train and val"
NOT_SEEN = "folders of splits by names other than train, val and test"


def old(kind, *names, label_order="sorted class names", **more):
    request = {"layout": "folders", "split": None, "val_share": 0.1, "seed": 0, "label_order": "sorted"}
    source = {"kind": kind, "path": "/data/photos", "request": request}
    return {"source": source, "classes": [{"name": name} for name in names], "label_order": label_order, **more}


def said(kind, *names, **more):
    return doubts(old(kind, *names, **more))


@pytest.mark.parametrize(
    ("kind", "names", "text"),
    [
        (FLAT, ["Test", "Training", "a"], "classes have names of splits, .*: Test, Training$"),
        (FLAT, ["a", "b"], "all classes are single letters, .*: a, b$"),
        (SPLITS, ["images", "n01440764"], "classes have names of folders of photos, .*: images$"),
        (FLAT, ["@eaDir", "cat", "lost+found"], "that systems leave behind: @eaDir, lost[+]found$"),
        (SPLITS, ["1", "2", "n01440764"], r"some classes are numbers \(1, 2\) and some are not \(n01440764\)"),
        (FLAT, ["0", "1", "10", "2"], "10 before 2: label 2 is the class 10$"),
        ("parquet, flat", ["0", "1", "10", "2"], "10 before 2: label 2 is the class 10$"),
        (FLAT, ["imagenet"], "^there is one class alone, imagenet: "),
        ("list, flat", ["imagenet"], "^there is one class alone, imagenet: "),
        (FLAT, ["Cat", "cat"], "differ only in case"),
        (FLAT, ["cat", "dog"], f"^{NOT_SEEN}"),
        (SPLITS, ["cat", "dog"], f"^{NOT_SEEN}"),
        ("list, train and val", ["cat", "dog"], "^a column of splits was ignored, and so was test.txt without val.txt"),
        ("parquet, all val", ["cat", "dog"], "partial-train were left out$"),
    ],
)
def test_each_kind_is_said(kind, names, text):
    assert sum(bool(re.search(text, line)) for line in said(kind, *names)) == 1, said(kind, *names)


@pytest.mark.parametrize(
    ("kind", "names", "more"),
    [
        ("ImageNet 2012, archives", ["n01440764", "n01443537"], {}),
        ("ImageNet 2012, Kaggle", ["n01440764", "n01443537"], {}),
        ("WebDataset, train and val", ["0", "1", "2", "10"], {}),
        ("WebDataset, flat", ["10", "2"], {"label_order": "as the source numbers them"}),
    ],
)
def test_nothing_is_said_where_no_kind_applies(kind, names, more):
    assert said(kind, *names, **more) == []


def test_single_digits_and_some_letters_are_classes():
    assert len(said(FLAT, *"0123456789")) == len(said(FLAT, "a", "bee")) == 1


def test_deep_photos():
    splits = {"train": {"shards": [{"forms": {"JPEG": 9, "PNG grey 16 bit": 2}}, {"forms": {"PNG grey 16 bit": 1}}]}}
    assert said("WebDataset, flat", "a", "b", splits=splits) == [
        "3 photos have more than 8 bits a sample (PNG grey 16 bit) and may be stored black: see alexnet-prep info "
        "--contact-sheet, or build the set again"
    ]


def test_todays_sets_and_sets_of_others_are_not_doubted(shards):
    assert shards.manifest["source"]["request"]["rules"] == 2 and doubts(shards.manifest) == []
    by_today = old(FLAT, "train", "test")
    by_today["source"]["request"]["rules"] = 2
    assert doubts(by_today) == []
    assert doubts({"classes": [{"name": "train"}]}) == []


def test_a_repaired_set_of_old_rules_is_doubted_still():
    repaired = old(FLAT, "train", "test")
    repaired["source"]["request"]["rules"] = 1  # which a repair records
    assert len(doubts(repaired)) == 2


def test_info_and_verify_say_it_with_the_command(in_process, threads_for_workers, shards, tmp_path):
    threads_for_workers("prep.verify")
    call = partial(in_process, prep)
    out = shutil.copytree(shards.root, tmp_path / "old set")
    manifest = json.loads((out / "dataset.json").read_text())
    del manifest["source"]["request"]["rules"]
    (out / "dataset.json").write_text(json.dumps(manifest))
    source = Path(open_shard_set(out).manifest["source"]["path"])
    for command in ("info", "verify"):
        code, _, aside = call(command, "--shards", out)
        lines = [line for line in aside.splitlines() if line.startswith("note: ")]
        assert code == 0 and lines[0].startswith(f"note: built by the rules of alexnet-dali 0.1: {NOT_SEEN}")
        assert lines[1:] == [
            f"note: compare the set with its photos: alexnet-prep verify --shards '{out}' --against {source}"
        ]
    code, printed, _ = call("info", "--shards", out, "--json")
    assert [f"note: {line}" for line in json.loads(printed)["doubts"]] == lines
    code, printed, _ = call("verify", "--shards", out, "--against", source)
    assert code == 0 and printed.endswith(f"agrees with {source}: 80 photos with the same class and split\n")
