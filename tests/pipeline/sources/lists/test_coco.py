"""JSON files in COCO's style: every photo with its only category, and no set for detection taken for one of classes."""

import json

import pytest
from alexnet_dali.pipeline.errors import SourceError, UsageError
from alexnet_dali.pipeline.sources.find import find_photos
from coloured import counted, lay

NUMBERS = {0: "Aves", 7: "Plantae", 11: "Plantae"}  # category and the folder of its kingdom


def refused(root, error=SourceError, **options):
    with pytest.raises(error) as caught:
        find_photos(root, **options)
    return caught.value


def table(names, *, categories=None, **more):
    """A file's content; `names` are (category, file name)."""
    content = {
        "info": {"year": 2018, "nested": {"list": [1, 2]}},
        "images": [{"id": 100 + k, "file_name": name, "width": 800} for k, (_, name) in enumerate(names)],
        "licenses": [{"id": 0, "name": "CC"}],
        "annotations": [
            {"id": k, "image_id": 100 + k, "category_id": number}
            for k, (number, _) in enumerate(names)
            if number is not None
        ],
    }
    return content | ({} if categories is None else {"categories": categories}) | more


def inaturalist(root, words=None, top="train_val2018"):
    """Three photos of each class in train, two in val; two of test, without annotations."""
    every = [(c, f"{top}/{kingdom}/{c}/{k}.jpg") for c, kingdom in NUMBERS.items() for k in range(5)]
    categories = None if words is None else [{"id": c, "name": words[c], "supercategory": NUMBERS[c]} for c in NUMBERS]
    test = [(None, f"test2018/{k}.jpg") for k in range(2)]
    parts = {
        "train2018.json": table([one for one in every if one[1][-5] < "3"], categories=categories),
        "val2018.json": table([one for one in every if one[1][-5] >= "3"], categories=categories),
        "test2018.json": table(test),
        "categories.json": [{"id": 0, "name": "Aves"}],
    }
    del parts["test2018.json"]["annotations"]
    photos = {path: number for number, path in every} | {path: 1 for _, path in test}
    return lay(root, photos, {name: json.dumps(content) for name, content in parts.items()})


def expected(*names):
    return {"train": dict.fromkeys(names, 3), "val": dict.fromkeys(names, 2)}


@pytest.mark.parametrize("words", [None, {0: "0", 7: "7", 11: "11"}, {0: "", 7: "7", 11: ""}])
def test_inaturalist_2018_whose_categories_have_no_names(tmp_path, words):
    source = find_photos(inaturalist(tmp_path, words))
    assert counted(source, {str(number): number for number in NUMBERS}) == expected("0", "7", "11")
    assert source.classes == ("0", "7", "11") and source.kind == "JSON in COCO's style, train, val"
    named = any("named by their numbers" in note for note in source.notes)
    assert named == (words is None or words[0] == "")
    assert [(one.path, one.photos, one.why) for one in source.account.left_out] == [
        ("test2018", 2, "without labels (--split test builds them)")
    ]


NAMES = {0: "Turdus merula", 7: "Rosa canina", 11: "Acer rubrum"}
BY_NAME = {name: number for number, name in NAMES.items()}


def test_inaturalist_2017_has_names(tmp_path):
    source = find_photos(inaturalist(tmp_path, NAMES, top="train_val_images"))
    assert counted(source, BY_NAME) == expected(*NAMES.values())
    assert source.classes == tuple(sorted(NAMES.values()))
    numbered = find_photos(tmp_path, label_order="source")
    assert numbered.classes == tuple(NAMES.values()) and counted(numbered, BY_NAME) == expected(*NAMES.values())


def test_names_that_several_categories_share_are_no_classes(tmp_path):
    source = find_photos(inaturalist(tmp_path, NAMES | {7: "Acer rubrum"}))
    assert source.classes == ("0", "7", "11") and source.words["7"] == source.words["11"] == "Acer rubrum"


def test_the_test_photos_where_they_are_asked_for(tmp_path):
    source = find_photos(inaturalist(tmp_path, NAMES), split="test")
    assert counted(source, BY_NAME) == {"test": {"": 2}} and source.classes == tuple(sorted(NAMES.values()))


def test_one_split_alone_has_the_labels_of_both(tmp_path):
    whole = find_photos(inaturalist(tmp_path))
    for split in ("train", "val"):
        source = find_photos(tmp_path, split=split)
        assert source.classes == whole.classes and source.splits[split] == whole.splits[split]


def test_photos_that_no_file_lists_are_counted(tmp_path):
    lay(inaturalist(tmp_path), {"train_val2018/Aves/0/extra.jpg": 0})
    source = find_photos(tmp_path)
    assert counted(source, {str(number): number for number in NUMBERS}) == expected("0", "7", "11")
    left = {one.path: (one.photos, one.why) for one in source.account.left_out}
    assert (1, "in none of test2018.json, train2018.json, val2018.json") in left.values()


def test_folders_of_categories_are_their_names(tmp_path):
    """As in iNaturalist's files of 2021, so that the classes are those of the class folders."""
    names = {0: "00000_Animalia_a", 1: "00001_Plantae_b"}
    categories = [{"id": c, "name": f"species {c}", "image_dir_name": name} for c, name in names.items()]
    lists = {s: [(c, f"{s}/{name}/{k}.jpg") for c, name in names.items() for k in range(2)] for s in ("train", "val")}
    texts = {f"{split}.json": json.dumps(table(some, categories=categories)) for split, some in lists.items()}
    lay(tmp_path, {path: c for some in lists.values() for c, path in some}, texts)
    source, folders = find_photos(tmp_path), find_photos(tmp_path, layout="folders")
    assert counted(source, {name: c for c, name in names.items()})["val"] == dict.fromkeys(names.values(), 2)
    assert source.classes == folders.classes and source.splits == folders.splits
    assert source.words == {"00000_Animalia_a": "species 0", "00001_Plantae_b": "species 1"}


@pytest.mark.parametrize("layout", ["beside", "annotations", "inside", "images"])
def test_where_the_file_names_begin(tmp_path, layout):
    """Relative to the file, to its parent, or to the split's folder though both have such names."""
    tops = {"beside": "{}/", "annotations": "{}/", "inside": "{}/", "images": "images/{}/"}
    files = {
        "beside": "{}.json",
        "annotations": "annotations/cls_{}2017.json",
        "inside": "{}/_labels.json",
        "images": "{}.json",
    }
    photos, texts = {}, {}
    for shift, split in enumerate(("train", "val")):
        rows = [((c + shift) % 2, f"{c}.jpg") for c in range(4)]
        photos |= {tops[layout].format(split) + name: number for number, name in rows}
        if layout == "images":
            rows = [(number, f"{split}/{name}") for number, name in rows]
        texts[files[layout].format(split)] = json.dumps(table(rows))
    source = find_photos(lay(tmp_path, photos, texts))
    assert counted(source, {"0": 0, "1": 1}) == {split: {"0": 2, "1": 2} for split in ("train", "val")}


def test_the_root_that_was_named(tmp_path):
    rows = [(c % 2, f"/{c}.jpg") for c in range(4)]
    lay(tmp_path, {f"{top}/{c}.jpg": c % 2 + n for n, top in enumerate("ab") for c in range(4)})
    (tmp_path / "train.json").write_text(json.dumps(table(rows)))
    error = refused(tmp_path, UsageError)
    assert error.message == f"{tmp_path}/train.json: 0.jpg is in {tmp_path}/a and in {tmp_path}/b"
    source = find_photos(tmp_path, paths_root=tmp_path / "b", val_share=0)
    assert counted(source, {"0": 1, "1": 2})["train"] == {"0": 2, "1": 2}
    assert "0.jpg is not in" in refused(tmp_path, paths_root=tmp_path / "train.json").message
    assert "is not in" in refused(tmp_path, UsageError, paths_root=tmp_path.parent).message


def broken(root, change, **options):
    inaturalist(root, **options)
    path = root / "val2018.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, 4]), "image 100 has boxes: a set for detection"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2]]), "image 100 has boxes: a set for detection"),
        (
            lambda c: c["annotations"].append({"image_id": 100, "category_id": 7}),
            "image 100 has several categories, 0 and 7",
        ),
        (lambda c: c["annotations"][0].pop("category_id"), "image 100 has an annotation without category_id"),
    ],
)
def test_sets_for_other_tasks_are_refused(tmp_path, change, message):
    error = refused(broken(tmp_path, change), UsageError)
    assert message in error.message and "--ignore 'val2018.json'" in error.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"].pop(), "1 images have no annotation, first 105"),
        (
            lambda c: c["annotations"].append({"image_id": 5, "category_id": 0}),
            "the annotation of image 5 has no image",
        ),
        (lambda c: c["images"].append(c["images"][0]), "image 100: twice"),
        (lambda c: c["images"][0].pop("file_name"), "image 100: no file_name"),
        (lambda c: c["images"][0].pop("id"), "has no id"),
        (lambda c: c["images"][0].update(file_name="train_val2018/Aves/0/77.jpg"), "1 listed photos are missing"),
        (
            lambda c: c["images"][0].update(file_name="train_val2018/Aves/0/0.jpg"),
            "is there twice, or in another split",
        ),
        (lambda c: c["images"][0].update(file_name="../../x.jpg"), "1 listed photos are missing"),
        (lambda c: c["annotations"][0].update(category_id=5), "category 5 is not among the categories"),
        (lambda c: c["categories"][0].update(name="other"), "category 0 has another name than in the other files"),
        (lambda c: c.update(images=[]), "lists no images"),
        (lambda c: c["categories"].append(7), "7 is not one of categories"),
        (lambda c: c["categories"].append({"name": "x"}), "has no id"),
        (lambda c: c["annotations"][0].update(category_id=1.5), "has no category_id"),
    ],
)
def test_files_that_are_inconsistent(tmp_path, change, message):
    assert message in refused(broken(tmp_path, change, words=NAMES)).message


def test_two_files_for_one_split(tmp_path):
    inaturalist(tmp_path)
    (tmp_path / "training.json").write_text((tmp_path / "train2018.json").read_text())
    error = refused(tmp_path, UsageError)
    assert error.message == f"{tmp_path}: train2018.json and training.json are both lists of train photos"
    assert len(find_photos(tmp_path, ignore=("training.json",)).splits["train"]) == 9


def test_a_set_for_detection_beside_class_folders(tmp_path):
    rows = [(c, f"{c}/{c}.jpg") for c in range(2)]
    content = table(rows)
    content["annotations"][1]["bbox"] = [0, 0, 4, 4]
    lay(tmp_path, {path: c for c, path in rows}, {"annotations.json": json.dumps(content)})
    assert "--layout folders" in refused(tmp_path, UsageError).hint
    assert find_photos(tmp_path, layout="folders", split="train").classes == ("0", "1")
    assert find_photos(tmp_path, ignore=("annotations.json",), split="train").classes == ("0", "1")


def test_other_json_files_are_no_lists(tmp_path):
    others = {
        "a.json": "[1, 2]",
        "b.json": '{"images": [{"sentids": [1]}]}',
        "c.json": "{",
        "d.json": '{"classes": []}',
    }
    lay(tmp_path, {"cat/1.jpg": 1, "dog/2.jpg": 2}, others)
    source = find_photos(tmp_path, split="train")
    assert source.kind == "class folders, all train"
    assert counted(source, {"cat": 1, "dog": 2}) == {"train": {"cat": 1, "dog": 1}}


def test_the_file_itself_is_not_enough(tmp_path):
    path = inaturalist(tmp_path) / "train2018.json"
    error = refused(path, UsageError)
    assert error.message == f"{path}: a list of photos, but not their folder" and error.hint == f"choose {tmp_path}"


def test_only_test_photos(tmp_path):
    lay(tmp_path, {"test/1.jpg": 1}, {"test.json": json.dumps(table([(None, "test/1.jpg")]))})
    error = refused(tmp_path, UsageError)
    assert error.message == f"{tmp_path}: only test photos without labels" and "--split test" in error.hint
