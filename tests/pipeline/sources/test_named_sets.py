"""Well-known sets as they are unpacked: every photo in its split with its label, checked against its colour."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from alexnet_dali.pipeline.errors import SourceError, UsageError
from alexnet_dali.pipeline.sources import named_sets
from alexnet_dali.pipeline.sources.find import LAYOUTS, find_photos
from coloured import counted, lay
from scipy.io import savemat

WNIDS = ("n01443537", "n01629819", "n01641577")
BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")
BREEDS = ("Abyssinian", "american_bulldog", "Birman")


def refused(root, error=SourceError, **options):
    with pytest.raises(error) as caught:
        find_photos(root, **options)
    return caught.value


def left_out(source):
    return {one.path: (one.photos, one.why) for one in source.account.left_out}


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def mat(**variables):
    file = io.BytesIO()
    savemat(file, variables)
    return file.getvalue()


def tiny_imagenet(root):
    """Four photos of each class in train, two in val, and three in test, which has no labels."""
    photos = {f"train/{name}/images/{name}_{k}.JPEG": c for c, name in enumerate(WNIDS) for k in range(4)}
    photos |= {f"val/images/val_{k}.JPEG": k % 3 for k in range(6)}
    photos |= {f"test/images/test_{k}.JPEG": k for k in range(3)}
    texts = {f"train/{name}/{name}_boxes.txt": f"{name}_0.JPEG\t0\t0\t9\t9\n" for name in WNIDS}
    texts["val/val_annotations.txt"] = "".join(f"val_{k}.JPEG\t{WNIDS[k % 3]}\t0\t32\t44\t62\n" for k in range(6))
    texts |= {"wnids.txt": "\n".join(reversed(WNIDS)) + "\n", "words.txt": "n01443537\tgoldfish, Carassius\n"}
    return lay(root, photos, texts)


TINY = {name: c for c, name in enumerate(WNIDS)}


@pytest.mark.parametrize("wrapped", [False, True])
def test_tiny_imagenet(tmp_path, wrapped):
    tiny_imagenet(tmp_path / "tiny-imagenet-200")
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(b"?")
    source = find_photos(tmp_path if wrapped else tmp_path / "tiny-imagenet-200")
    assert counted(source, TINY) == {"train": dict.fromkeys(WNIDS, 4), "val": dict.fromkeys(WNIDS, 2)}
    assert source.kind == "Tiny ImageNet, train, val" and source.classes == WNIDS
    assert source.words == {"n01443537": "goldfish, Carassius"}
    test = "tiny-imagenet-200/test" if wrapped else "test"
    assert left_out(source)[test] == (3, "without labels (--split test builds them)")


def test_tiny_imagenets_test_where_it_is_asked_for(tmp_path):
    source = find_photos(tiny_imagenet(tmp_path), split="test")
    assert counted(source, TINY) == {"test": {"": 3}} and source.classes == WNIDS


def test_tiny_imagenet_in_the_order_of_its_own_list(tmp_path):
    source = find_photos(tiny_imagenet(tmp_path), label_order="source")
    assert source.classes == WNIDS[::-1] and counted(source, TINY)["val"] == dict.fromkeys(WNIDS, 2)


def test_tiny_imagenet_without_its_list_of_classes(tmp_path):
    (tiny_imagenet(tmp_path) / "wnids.txt").unlink()
    assert counted(find_photos(tmp_path), TINY)["val"] == dict.fromkeys(WNIDS, 2)
    change(tmp_path / "val/val_annotations.txt", WNIDS[1], "n99999999")
    assert refused(tmp_path).message == (
        f"{tmp_path}/val/val_annotations.txt, line 2: 'n99999999': {tmp_path}/train has no such class"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("val_1.JPEG\tn01629819", "val_1.JPEG\tn99999999", ", line 2: 'n99999999': wnids.txt has no such class"),
        ("val_1.JPEG\tn01629819", "val_1.JPEG", ", line 2: '0': wnids.txt has no such class"),
        ("val_1.JPEG", "val_0.JPEG", ", line 2: val_0.JPEG is already named by ROOT/val/val_annotations.txt, line 1"),
        ("val_1.JPEG", "val_9.JPEG", ", line 2: val_9.JPEG is not in ROOT/val/images"),
        ("val_5.JPEG\tn01641577\t0\t32\t44\t62\n", "", ": 1 photos of ROOT/val/images have no line, first val_5.JPEG"),
    ],
)
def test_tiny_imagenets_annotations_and_photos_must_correspond(tmp_path, old, new, message):
    change(tiny_imagenet(tmp_path) / "val/val_annotations.txt", old, new)
    assert refused(tmp_path).message == f"{tmp_path}/val/val_annotations.txt" + message.replace("ROOT", str(tmp_path))


def test_a_class_that_tiny_imagenets_list_lacks(tmp_path):
    change(tiny_imagenet(tmp_path) / "wnids.txt", WNIDS[1], "n00000001")
    assert refused(tmp_path).message == f"{tmp_path}/wnids.txt: has no {WNIDS[1]}, a class of train"


def test_tiny_imagenet_whose_val_was_sorted_into_class_folders(tmp_path):
    tiny_imagenet(tmp_path)
    for k in range(6):
        place = tmp_path / "val" / WNIDS[k % 3] / f"val_{k}.JPEG"
        place.parent.mkdir(exist_ok=True)
        (tmp_path / f"val/images/val_{k}.JPEG").rename(place)
    source = find_photos(tmp_path)
    assert source.kind.startswith("class folders") and counted(source, TINY)["val"] == dict.fromkeys(WNIDS, 2)


def birds(root):
    """Four photos of each species; the first and the last are for training."""
    paths = {f"{name}/{name[4:]}_{k}.jpg": c for c, name in enumerate(BIRDS) for k in range(4)}
    numbers = {path: k for k, path in enumerate(paths, 1)}
    photos = {f"images/{path}": c for path, c in paths.items()}
    photos |= {f"segmentations/{path[:-4]}.png": 11 for path in paths}
    texts = {
        "images.txt": "".join(f"{k} {path}\n" for path, k in numbers.items()),
        "image_class_labels.txt": "".join(f"{k} {paths[path] + 1}\n" for path, k in numbers.items()),
        "train_test_split.txt": "".join(f"{k} {int(k % 4 < 2)}\n" for k in numbers.values()),
        "classes.txt": "".join(f"{c} {name}\n" for c, name in enumerate(BIRDS, 1)),
        "bounding_boxes.txt": "1 60.0 27.0 325.0 304.0\n",
        "attributes/class_attribute_labels_continuous.txt": "0.0\n",
        "parts/parts.txt": "1 back\n",
        "README": "Caltech-UCSD Birds-200-2011\n",
    }
    return lay(root, photos, texts)


CUB = {name: c for c, name in enumerate(BIRDS)}
HALVES = {"train": dict.fromkeys(BIRDS, 2), "test": dict.fromkeys(BIRDS, 2)}


@pytest.mark.parametrize("wrapped", [False, True])
def test_cub_is_split_by_its_own_table(tmp_path, wrapped):
    birds(tmp_path / "CUB_200_2011")
    lay(tmp_path, {}, {"attributes.txt": "1 has_bill_shape::curved\n", "CUB_200_2011.tgz": "?"})
    source = find_photos(tmp_path if wrapped else tmp_path / "CUB_200_2011")
    assert counted(source, CUB) == HALVES and source.classes == BIRDS and source.words == {}
    assert source.kind == "CUB-200-2011, train, test"
    masks = [one for one in source.account.left_out if one.why == "masks beside photos"]
    assert [one.photos for one in masks] == [12] and masks[0].path.endswith("segmentations")
    trained = {photo.path.rpartition("_")[2] for photo in source.splits["train"]}
    assert trained == {"0.jpg", "3.jpg"}


def test_cubs_masks_beside_the_folder(tmp_path):
    birds(tmp_path / "CUB_200_2011")
    (tmp_path / "CUB_200_2011/segmentations").rename(tmp_path / "segmentations")
    assert counted(find_photos(tmp_path), CUB) == HALVES


def test_nabirds_has_the_same_tables(tmp_path):
    """Its folders are numbers, its photos have UUIDs, and its names are in classes.txt."""
    paths = {f"{c:04d}/{c}{k}a7e21f.jpg": c for c in (2, 10) for k in range(2)}
    lay(
        tmp_path,
        {f"images/{path}": c for path, c in paths.items()},
        {
            "images.txt": "".join(f"{path[5:12]}-e5 {path}\n" for path in paths),
            "image_class_labels.txt": "".join(f"{path[5:12]}-e5 {c}\n" for path, c in paths.items()),
            "train_test_split.txt": "".join(f"{path[5:12]}-e5 {k % 2}\n" for k, path in enumerate(paths)),
            "classes.txt": "0 Birds\n2 Cormorants\n10 Black Swan (adult)\n",
        },
    )
    source = find_photos(tmp_path)
    assert counted(source, {"0002": 2, "0010": 10}) == {
        "train": {"0002": 1, "0010": 1},
        "test": {"0002": 1, "0010": 1},
    }
    assert source.words == {"0002": "Cormorants", "0010": "Black Swan (adult)"}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("train_test_split.txt", "3 0", "3 2", "train_test_split.txt: photo 3: '2' is neither 0 nor 1"),
        ("train_test_split.txt", "3 0\n", "", "train_test_split.txt: no line for the photo 3 of images.txt"),
        ("train_test_split.txt", "3 0", "2 0", "train_test_split.txt, line 3: 2 is there twice"),
        ("image_class_labels.txt", "3 1", "99 1", "image_class_labels.txt: no line for the photo 3 of images.txt"),
        ("image_class_labels.txt", "3 1\n", "3 1\n99 1\n", "image_class_labels.txt: 99 is no photo of images.txt"),
        (
            "image_class_labels.txt",
            "3 1",
            "3 2",
            f"image_class_labels.txt: {BIRDS[0]}/Black_footed_Albatross_2.jpg has the label 2, "
            "but others of its class or label have the label 1",
        ),
        (
            "images.txt",
            "3 001.",
            "3 002.",
            "image_class_labels.txt: 002.Black_footed_Albatross/Black_footed_Albatross_2.jpg has the label 1, "
            f"but others of its class or label have the class {BIRDS[0]}",
        ),
        ("images.txt", "_2.jpg", "_1.jpg", "Albatross_1.jpg is already named by ROOT/images.txt, photo 2"),
        ("images.txt", "_2.jpg", "_9.jpg", f"photo 3: {BIRDS[0]}/Black_footed_Albatross_9.jpg is not in ROOT/images"),
    ],
)
def test_cubs_tables_must_agree(tmp_path, name, old, new, message):
    change(birds(tmp_path) / name, old, new)
    assert message.replace("ROOT", str(tmp_path)) in refused(tmp_path).message


def test_a_photo_that_cubs_tables_lack(tmp_path):
    lay(birds(tmp_path), {f"images/{BIRDS[0]}/copy.jpg": 0})
    message = f"{tmp_path}/images.txt: 1 photos of {tmp_path}/images have no line, first {BIRDS[0]}/copy.jpg"
    assert refused(tmp_path).message == message
    assert counted(find_photos(tmp_path, ignore=("copy.jpg",)), CUB) == HALVES
    (tmp_path / f"images/{BIRDS[0]}/copy.jpg").unlink()
    (tmp_path / f"images/{BIRDS[1]}/Laysan_Albatross_0.jpg").unlink()
    assert "Laysan_Albatross_0.jpg is not in" in refused(tmp_path).message


def test_a_listed_photo_that_is_ignored(tmp_path):
    source = find_photos(birds(tmp_path), ignore=("Laysan_Albatross_0.jpg",))
    assert counted(source, CUB)["train"] == dict.fromkeys(BIRDS, 2) | {BIRDS[1]: 1}


def test_cub_without_a_table_says_which(tmp_path):
    (birds(tmp_path) / "train_test_split.txt").unlink()
    error = refused(tmp_path, UsageError)
    tables = "images.txt, image_class_labels.txt, but no train_test_split.txt"
    assert error.message == f"{tmp_path}: {tables}: CUB-200-2011 is incomplete" and "--layout folders" in error.hint
    source = find_photos(tmp_path, layout="folders", val_share=0)
    assert counted(source, CUB)["train"] == dict.fromkeys(BIRDS, 4)


def test_a_named_set_that_is_not_there(tmp_path):
    lay(tmp_path, {"cat/1.jpg": 1, "dog/2.jpg": 2}, {"images.txt": "1 cat/1.jpg\n"})
    assert f"{tmp_path}: not Tiny ImageNet, " in refused(tmp_path, UsageError, layout="named").message
    assert find_photos(tmp_path, split="train").kind == "class folders, all train"


def test_two_sets_are_not_mixed(tmp_path):
    tiny_imagenet(tmp_path / "tiny")
    birds(tmp_path / "birds")
    assert refused(tmp_path, UsageError).message == f"{tmp_path}: birds and tiny are two sets"


def pets(root):
    """Four photos of each breed, two in trainval.txt; one is in no list."""
    photos = {f"images/{name}_{k}.jpg": c for c, name in enumerate(BREEDS) for k in range(4)}
    photos["images/Birman_99.jpg"] = 2
    photos |= {f"annotations/trimaps/{name}_{k}.png": 11 for name in BREEDS for k in range(4)}
    lines = {half: [f"{b}_{k} {c} 1 1\n" for c, b in enumerate(BREEDS, 1) for k in half] for half in ((0, 1), (2, 3))}
    texts = {
        "annotations/list.txt": "#Image CLASS-ID SPECIES BREED ID\n" + "".join(lines[0, 1] + lines[2, 3]),
        "annotations/trainval.txt": "".join(lines[0, 1]),
        "annotations/test.txt": "".join(lines[2, 3]),
        "annotations/xmls/Abyssinian_1.xml": "<annotation></annotation>",
        "images/Abyssinian_100.mat": "?",
        "images.tar.gz": "?",
    }
    return lay(root, photos, texts)


def test_oxfords_pets(tmp_path):
    source = find_photos(pets(tmp_path))
    halves = dict.fromkeys(BREEDS, 2)
    assert counted(source, {name: c for c, name in enumerate(BREEDS)}) == {"train": halves, "test": halves}
    assert {photo.path[-5] for photo in source.splits["train"]} == {"0", "1"}  # those of trainval.txt
    assert source.classes == ("Abyssinian", "Birman", "american_bulldog")
    assert find_photos(tmp_path, label_order="source").classes == BREEDS
    assert left_out(source) == {
        "annotations": (12, "masks beside photos"),
        "images": (1, "in neither trainval.txt nor test.txt"),
        "images.tar.gz": (-1, "an archive of Oxford-IIIT Pet, which is unpacked here"),
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Birman_0 3", "Birman_0 2", "Birman_0.jpg has the label 2, but others"),
        ("Birman_0 3", "Birman_2 3", "test.txt, line 5: Birman_2.jpg is already named by "),
        ("Birman_0 3 1 1", "Birman_0", "trainval.txt, line 5: no class ID in 'Birman_0'"),
        ("Birman_0", "Birman_50", "trainval.txt, line 5: Birman_50.jpg is not in "),
    ],
)
def test_oxfords_pets_with_wrong_lists(tmp_path, old, new, message):
    change(pets(tmp_path) / "annotations/trainval.txt", old, new)
    assert message in refused(tmp_path).message


def flowers(root, train=(1, 4), val=(2, 5), test=(3, 6), labels=(10, 10, 10, 2, 2, 2)):
    photos = {f"jpg/image_{k:05d}.jpg": c for k, c in enumerate((10, 10, 10, 2, 2, 2), 1)}
    photos |= {f"segmim/segmim_{k:05d}.jpg": 11 for k in range(1, 7)}
    ids = {"trnid": np.array([train], np.uint16), "valid": np.array([val]), "tstid": np.array([test], float)}
    return lay(root, photos, {"imagelabels.mat": mat(labels=np.array([labels], np.uint8)), "setid.mat": mat(**ids)})


def test_oxfords_flowers(tmp_path):
    source = find_photos(flowers(tmp_path))
    assert counted(source, {"2": 2, "10": 10}) == {split: {"2": 1, "10": 1} for split in ("train", "val", "test")}
    numbers = {split: [photo.path[-5] for photo in photos] for split, photos in source.splits.items()}
    assert numbers == {"train": ["1", "4"], "val": ["2", "5"], "test": ["3", "6"]} and source.classes == ("2", "10")
    assert left_out(source) == {"segmim": (6, "masks beside photos")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": (1, 7)}, "setid.mat: trnid: 7 is not one of the 6 photos"),
        ({"train": (1, 0)}, "setid.mat: trnid: 0 is not one of the 6 photos"),
        ({"train": (1, 3)}, "image_00003.jpg is already named by"),
        ({"labels": (10, 10)}, "setid.mat: trnid: 4 is not one of the 2 photos"),
    ],
)
def test_oxfords_flowers_with_wrong_numbers(tmp_path, options, message):
    assert message in refused(flowers(tmp_path, **options)).message


def test_a_flower_in_no_split_and_a_damaged_table(tmp_path):
    assert left_out(find_photos(flowers(tmp_path, train=(1,))))["jpg"] == (1, "in no split of setid.mat")
    (tmp_path / "setid.mat").write_bytes(b"?" * 300)
    error = refused(tmp_path)
    assert error.message == f"{tmp_path}/setid.mat: not a MATLAB file of version 5"
    assert error.hint == "download the file again"


DOGS = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel")


def dogs(root, lists="lists/"):
    photos = {f"Images/{name}/{name[:9]}_{k}.jpg": c for c, name in enumerate(DOGS) for k in range(3)}
    texts = {f"Annotation/{name}/{name[:9]}_{k}": "<annotation></annotation>" for name in DOGS for k in range(3)}
    for split, some in (("train", (0, 2)), ("test", (1,))) if lists is not None else ():
        names = np.array([[f"{name}/{name[:9]}_{k}.jpg"] for name in DOGS for k in some], object)
        texts[f"{lists}{split}_list.mat"] = mat(file_list=names, labels=np.ones((len(names), 1)))
    return lay(root, photos, texts)


@pytest.mark.parametrize("lists", ["", "lists/"])
def test_stanfords_dogs_are_split_by_their_lists(tmp_path, lists):
    source = find_photos(dogs(tmp_path, lists))
    assert counted(source, {name: c for c, name in enumerate(DOGS)}) == {
        "train": dict.fromkeys(DOGS, 2),
        "test": dict.fromkeys(DOGS, 1),
    }


def test_stanfords_dogs_without_lists_are_class_folders(tmp_path):
    """As on Kaggle, one level deeper: images/Images/CLASS and annotations/Annotation/CLASS."""
    dogs(tmp_path / "a", None)
    (tmp_path / "b/images").mkdir(parents=True)
    shutil.move(tmp_path / "a/Images", tmp_path / "b/images/Images")
    (tmp_path / "b/annotations").mkdir()
    shutil.move(tmp_path / "a/Annotation", tmp_path / "b/annotations/Annotation")
    source = find_photos(tmp_path / "b", val_share=0)
    assert counted(source, {name: c for c, name in enumerate(DOGS)})["train"] == dict.fromkeys(DOGS, 3)


def test_stanfords_dogs_with_one_list_are_incomplete(tmp_path):
    (dogs(tmp_path) / "lists/test_list.mat").unlink()
    message = f"{tmp_path}: lists/train_list.mat, but no test_list.mat: Stanford Dogs is incomplete"
    assert refused(tmp_path, UsageError).message == message


def test_imagenet_v2_is_numbered_by_number(tmp_path):
    root = tmp_path / "imagenetv2-matched-frequency-format-val"
    lay(root, {f"{c}/{k:x}4dc.jpeg": c for c in range(12) for k in range(2)})
    names = {str(c): c for c in range(12)}
    source = find_photos(root, split="val")
    assert source.classes == tuple(names) and counted(source, names) == {"val": dict.fromkeys(names, 2)}
    assert counted(find_photos(tmp_path), names) == {"val": dict.fromkeys(names, 2)}  # by the folder's name
    assert any("whole numbers" in note for note in source.notes)


def test_sun397_has_classes_of_two_and_three_levels(tmp_path):
    root = tmp_path / "SUN397"
    classes = {"a/abbey": 0, "a/apartment_building/outdoor": 1, "b/bakery/shop": 2, "b/barn": 3}
    lay(
        root,
        {f"{name}/sun_a{k}.jpg": c for name, c in classes.items() for k in range(2)},
        {"ClassName.txt": "".join(f"/{name}\n" for name in classes), "README.txt": "SUN"},
    )
    for place in (root, tmp_path):
        assert counted(find_photos(place, val_share=0), classes)["train"] == dict.fromkeys(classes, 2)


def test_places365_by_letter(tmp_path):
    classes = {"a/airfield": 0, "a/apartment_building/outdoor": 1, "b/bar": 2}
    lay(
        tmp_path / "data_large_standard", {f"{name}/0000000{k}.jpg": c for name, c in classes.items() for k in range(2)}
    )
    assert counted(find_photos(tmp_path, val_share=0), classes)["train"] == dict.fromkeys(classes, 2)


@pytest.mark.parametrize("above", ["a", "data/z"])
def test_splits_below_a_folder_of_one_letter_are_no_classes(tmp_path, above):
    paths = {f"{above}/{split}/{name}/1.jpg": c for split in ("train", "val") for c, name in enumerate(("cat", "dog"))}
    source = find_photos(lay(tmp_path, paths))
    assert counted(source, {"cat": 0, "dog": 1}) == {split: {"cat": 1, "dog": 1} for split in ("train", "val")}
    lay(tmp_path, {f"b/{path.partition('/')[2]}": c for path, c in paths.items()})
    refused(tmp_path, UsageError)


def test_places365_in_the_easy_form(tmp_path):
    classes = {"airfield": 0, "apartment_building-outdoor": 1}
    splits = {"train": 3, "val": 2}
    lay(
        tmp_path / "places365_standard",
        {f"{split}/{name}/{k}.jpg": c for split, n in splits.items() for name, c in classes.items() for k in range(n)},
    )
    assert counted(find_photos(tmp_path), classes) == {name: dict.fromkeys(classes, n) for name, n in splits.items()}


def test_caltech_101(tmp_path):
    classes = {"BACKGROUND_Google": 0, "Faces": 1, "accordion": 2}
    lay(
        tmp_path / "caltech-101",
        {f"101_ObjectCategories/{name}/image_000{k}.jpg": c for name, c in classes.items() for k in range(2)},
        {"Annotations/Faces_2/annotation_0001.mat": "?", "101_ObjectCategories/BACKGROUND_Google/tmp": "tmp"},
    )
    assert counted(find_photos(tmp_path, val_share=0), classes)["train"] == dict.fromkeys(classes, 2)


def test_inaturalist_2021_is_class_folders(tmp_path):
    classes = {"00000_Animalia_Annelida_Clitellata_a": 0, "02912_Animalia_Chordata_Amphibia_b": 1}
    lay(
        tmp_path,
        {f"{split}/{name}/{k}.jpg": c for split in ("train", "val") for name, c in classes.items() for k in range(2)},
    )
    assert counted(find_photos(tmp_path), classes) == dict.fromkeys(("train", "val"), dict.fromkeys(classes, 2))


def test_the_sets_that_were_looked_for_are_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no photos here")
    error = refused(tmp_path, UsageError)
    assert "or Oxford Flowers: photos with these sets' own tables: none there" in repr(vars(error))


def test_every_layout_and_named_set_is_in_the_docs():
    page = (Path(__file__).parents[3] / "docs/layouts.md").read_text()
    table = page.partition("## The layouts")[2]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(LAYOUTS)
    assert not [one.name for one in named_sets.SETS if one.name not in page]
