"""Labels that are numbers: what the classes are called, when it is certain and when it is not."""

import pytest
from alexnet_dali.pipeline.errors import SourceError
from alexnet_dali.pipeline.sources.label_names import Row, find_classes


def rows(*pairs, **more):
    """Rows of (number, path)."""
    return [Row(number, "", path, 1, **more) for number, path in pairs]


def find(by_split, split=None, names=()):
    return find_classes("made", by_split, split, lambda name, row: f"{name}: {row.path}", names)


def classes_of(found):
    return {split: [entry.class_name for entry in entries] for split, entries in found.entries.items()}


def test_by_folders_in_the_order_of_the_numbers():
    found = find({"train": rows((1, "train/a/1.jpg"), (0, "train/b/2.jpg")), "val": rows((1, "val/3.jpg"))})
    assert found.classes == ("b", "a") and classes_of(found) == {"train": ["a", "b"], "val": ["a"]}
    assert found.kind == "made, train and val" and found.notes == [] and found.words == {}


@pytest.mark.parametrize(
    "pairs",
    [
        [(0, "a/1.jpg"), (1, "a/2.jpg")],  # two numbers in a folder
        [(0, "a/1.jpg"), (0, "b/2.jpg"), (1, "c/3.jpg")],  # a number in two folders
        [(0, "a/1.jpg"), (1, "2.jpg")],  # one without a folder
        [(0, "train/1.jpg"), (1, "../2.jpg")],  # folders that are no class's
    ],
)
def test_folders_that_are_not_one_to_one_with_the_numbers_name_nothing(pairs):
    assert find({"": rows(*pairs)}).classes == ("0", "1")


def test_names_must_reach_for_all_numbers():
    found = find({"train": rows((0, "a/1.jpg"), (1, "b/2.jpg")), "val": rows((2, "3.jpg"))})
    assert found.classes == ("0", "1", "2") and classes_of(found) == {"train": ["0", "1"], "val": ["2"]}


def test_a_folder_of_validation_photos_is_no_other_class():
    found = find({"train": rows((0, "a/1.jpg"), (1, "b/2.jpg")), "val": rows((0, "val_images/3.jpg"))})
    assert found.classes == ("a", "b") and classes_of(found)["val"] == ["a"]


def test_a_class_with_two_numbers_is_refused():
    with pytest.raises(SourceError, match="b has the label 1 in train and 2 in val; use the same class order"):
        find({"train": rows((0, "a/1.jpg"), (1, "b/2.jpg")), "val": rows((2, "b/3.jpg"))})


def test_names_that_the_source_lists():
    by_split = {"train": rows((0, "1.jpg"), (2, "2.jpg"))}
    assert find(by_split, names=["x", "y", "z"]).classes == ("x", "y", "z")
    found = find({"train": rows((0, "b/1.jpg"), (1, "a/2.jpg"))}, names=["x", "y"])
    assert found.classes == ("b", "a") and found.words == {"b": "x", "a": "y"}
    assert find(by_split, names=["x", "", "z"]).classes == ("0", "1", "2")  # no name is not a name


def test_words_of_rows():
    found = find({"train": [Row(0, "n01", "1.jpg", 1, words="tench"), Row(-1, "", "2.jpg", 1, words="x")]}, split="val")
    assert found.words == {"n01": "tench"} and classes_of(found) == {"train": ["n01"]}


def test_labels_that_are_missing_in_a_split_that_is_not_asked_for():
    by_split = {"train": rows((0, "a/1.jpg")), "val": rows((0, "a/2.jpg"), (-1, "a/3.jpg"))}
    assert classes_of(find(by_split, split="train")) == {"train": ["a"], "val": ["a"]}
    for split in (None, "val"):
        with pytest.raises(SourceError, match=r"val: a/3\.jpg: no label; add the labels"):
            find(by_split, split=split)


def test_a_test_split_with_some_labels():
    by_split = {"train": rows((0, "a/1.jpg")), "test": rows((0, "a/2.jpg"), (-1, "a/3.jpg"))}
    assert classes_of(find(by_split, split="test"))["test"] == ["a", ""]
    with pytest.raises(SourceError, match=r"test: a/3\.jpg: no label"):
        find(by_split)


def test_nothing_but_a_test_split_without_labels():
    by_split = {"test": rows((-1, "a/2.jpg"), (-1, "a/3.jpg"))}
    assert classes_of(find(by_split, split="test")) == {"test": ["", ""]}
    with pytest.raises(SourceError, match=r"test: a/2\.jpg: no label; 2 of 2 photos have none; .* --split test"):
        find(by_split)
