"""Tables and lists as people have them: each set's photos say their class by their colour, which is compared."""

import io
import json
import os

import pytest
from alexnet_dali.pipeline.errors import AlexnetError, SourceError, UsageError
from alexnet_dali.pipeline.sources.entries import LeftOut
from alexnet_dali.pipeline.sources.find import find_again, find_photos
from alexnet_dali.pipeline.sources.photo import read_photo
from PIL import Image

NAMES = ("cat", "dog")
UNLABELLED = "without labels: in none of the lists (--split test builds them)"


def draw(path, number):
    """Write a photo whose colour tells its class's number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (40 + 60 * number, 20, 200 - 60 * number)).save(path, {".ppm": "PPM"}.get(path.suffix))


def draw_all(root, form, count=6):
    for k in range(count):
        draw(root / form.format(k), k % 2)


def colour(root, photo):
    red = Image.open(io.BytesIO(read_photo(root, photo))).convert("RGB").getpixel((4, 4))[0]
    return round((red - 40) / 60)


def write(path, *lines, newline="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + newline for line in lines))
    return path


def counts(source):
    return {name: len(photos) for name, photos in source.splits.items()}


def check(source, classes, **wanted):
    """Assert counts of splits, and that every label is that of the photo's colour, with classes in this order."""
    assert counts(source) == wanted and source.classes == classes
    for photos in source.splits.values():
        for photo in photos:
            assert photo.label == colour(source.root, photo)


def refused(path, **options):
    with pytest.raises(AlexnetError) as caught:
        find_photos(path, **options)
    assert caught.value.hint
    return caught.value


def test_a_column_is_the_split(tmp_path):
    draw_all(tmp_path, "img/{}.jpg", 20)
    split = ["train"] * 12 + ["valid"] * 4 + ["Testing"] * 4
    table = write(
        tmp_path / "data.csv", "path,label,split", *(f"img/{k}.jpg,{NAMES[k % 2]},{split[k]}" for k in range(20))
    )
    for path in (table, tmp_path):
        check(find_photos(path), NAMES, train=12, val=4, test=4)
    write(table, *table.read_text().splitlines(), "img/0.jpg,cat,test")
    assert refused(table).message == f"{table}: line 22: img/0.jpg is in the split test, but in train in line 2"
    write(table, "path,label,split", "img/0.jpg,cat,train", "img/1.jpg,dog,train_val")
    assert refused(table).message == f"{table}: line 3: the split 'train_val' (column split) is not known"


@pytest.mark.parametrize(
    ("column", "values", "wanted"),
    [
        ("data set", ["train", "valid", "test"], {"train": 2, "val": 2, "test": 2}),
        ("Usage", ["Training", "PublicTest", "PrivateTest"], {"train": 2, "test": 4}),
        ("is_valid", ["False", "True", "False"], {"train": 4, "val": 2}),
        ("ML_USE", ["TRAINING", "VALIDATION", "TEST"], {"train": 2, "val": 2, "test": 2}),
        ("my own", ["train", "val", "val"], {"train": 2, "val": 4}),
    ],
)
def test_names_of_the_column_of_splits(tmp_path, column, values, wanted):
    draw_all(tmp_path, "{}.jpg")
    write(tmp_path / "x.csv", f"file,{column},class", *(f"{k}.jpg,{values[k // 2]},{NAMES[k % 2]}" for k in range(6)))
    check(find_photos(tmp_path), NAMES, **wanted)


def test_what_is_not_train_may_be_val_or_test(tmp_path):
    draw_all(tmp_path, "{}.jpg")
    table = write(tmp_path / "x.csv", "file,is_train,class", *(f"{k}.jpg,{k % 3},{NAMES[k % 2]}" for k in range(6)))
    assert refused(table).message == f"{table}: line 2: the split '0' (column is_train) is not known"


def test_a_column_called_dataset_that_is_not_the_split(tmp_path):
    draw_all(tmp_path, "{}.jpg")
    write(tmp_path / "m.csv", "image_id,dx,dataset", *(f"{k},{NAMES[k % 2]},vidir{k % 2}" for k in range(6)))
    source = find_photos(tmp_path, split="train")
    check(source, NAMES, train=6)
    assert source.notes == (f"{tmp_path}/m.csv: columns that are not used: dataset",)


def test_train_and_test_lists_without_val(tmp_path):
    for k in range(10):
        draw(tmp_path / NAMES[k % 2] / f"{k}.jpg", k % 2)
    for name, part in (("train", range(6)), ("test", range(6, 10))):
        write(tmp_path / f"{name}.txt", *(f"{NAMES[k % 2]}/{k}.jpg {k % 2}" for k in part))
    source = find_photos(tmp_path)
    check(source, NAMES, train=6, test=4)
    assert source.kind == "list, train and test"


def test_kaggles_dog_breeds(tmp_path):
    draw_all(tmp_path, "train/{:08x}.jpg")
    draw_all(tmp_path, "test/f{:07x}.jpg", 3)
    write(tmp_path / "labels.csv", "id,breed", *(f"{k:08x},{NAMES[k % 2]}" for k in range(6)))
    write(tmp_path / "sample_submission.csv", "id,cat,dog", *(f"f{k:07x},0.5,0.5" for k in range(3)))
    source = find_photos(tmp_path, val_share=0.5)
    check(source, NAMES, train=3, val=3)
    assert source.account.left_out == (LeftOut("test", 3, UNLABELLED),)
    assert {photo.label for photo in find_photos(tmp_path, split="test").splits["test"]} == {-1}
    assert find_photos(tmp_path, split="test").classes == NAMES


def test_kaggles_cassava(tmp_path):
    draw_all(tmp_path, "train_images/{}.jpg")
    draw_all(tmp_path, "test_images/9{}.jpg", 2)
    write(tmp_path / "train.csv", "image_id,label", *(f"{k}.jpg,{k % 2}" for k in range(6)))
    check(find_photos(tmp_path, val_share=0), ("0", "1"), train=6, val=0)


def test_kaggles_cifar(tmp_path):
    draw_all(tmp_path, "train/{}.png")
    for k in range(6):  # the same names, of other photos
        draw(tmp_path / "test" / f"{k}.png", 1 - k % 2)
    write(tmp_path / "trainLabels.csv", "id,label", *(f"{k},{NAMES[k % 2]}" for k in range(6)))
    source = find_photos(tmp_path, val_share=0)
    check(source, NAMES, train=6, val=0)
    assert source.account.left_out == (LeftOut("test", 6, UNLABELLED),)
    (tmp_path / "trainLabels.csv").rename(tmp_path / "labels.csv")  # of which photos? train/0.png or test/0.png
    error = refused(tmp_path)
    assert error.message == f"{tmp_path}/labels.csv: line 2: 0 may be test/0.png or train/0.png"
    check(find_photos(tmp_path, paths_root=tmp_path / "train", split="train"), NAMES, train=6)
    check(find_photos(tmp_path, ignore=("test",), split="train"), NAMES, train=6)


def test_gtsrb_as_kaggle_has_it(tmp_path):
    for k in range(6):
        draw(tmp_path / "Train" / str(k % 2) / f"{k}.png", k % 2)
    draw_all(tmp_path, "Test/{:05d}.png", 4)
    draw_all(tmp_path, "Meta/{}.png", 2)
    header = "Width,Height,Roi.X1,ClassId,Path"
    write(tmp_path / "Train.csv", header, *(f"8,8,1,{k % 2},Train/{k % 2}/{k}.png" for k in range(6)))
    write(tmp_path / "Test.csv", header, *(f"8,8,1,{k % 2},Test/{k:05d}.png" for k in range(4)))
    write(tmp_path / "Meta.csv", "Path,ClassId,ShapeId", *(f"Meta/{k}.png,{k},1" for k in range(2)))
    source = find_photos(tmp_path)
    check(source, ("0", "1"), train=6, test=4)
    assert "not read: Meta.csv; the photos are those of Train.csv and Test.csv" in source.notes
    assert source.account.left_out == (LeftOut("", 2, "in none of the lists"),)


def test_gtsrb_with_semicolons(tmp_path):
    draw_all(tmp_path, "{:05d}.ppm")
    lines = (f"{k:05d}.ppm;64;48;{k % 2}" for k in range(6))
    write(tmp_path / "GT.csv", "Filename;Width;Height;ClassId", *lines, newline="\r\n")
    source = find_photos(tmp_path, split="train")
    check(source, ("0", "1"), train=6)
    assert source.notes[0] == f"{tmp_path}/GT.csv: columns that are not used: Width, Height"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_every_separator_and_quotation_marks(tmp_path, separator, suffix):
    draw_all(tmp_path, f"a{separator if separator != '|' else ','} b{{}}.jpg")
    rows = [["image", "label", "score"]]
    rows += [[f'"a{separator if separator != "|" else ","} b{k}.jpg"', f'"{NAMES[k % 2]}"', "1.5"] for k in range(6)]
    table = write(tmp_path / f"train.{suffix}", *(separator.join(row) for row in rows))
    for path in (table, tmp_path):
        check(find_photos(path, split="train"), NAMES, train=6)


def test_a_header_with_blanks(tmp_path):
    draw_all(tmp_path, "c/{}.jpg")
    lines = (f"{k + 1} {k % 2 + 1} 7 c/{k}.jpg" for k in range(6))
    write(tmp_path / "Ebay_train.txt", "image_id class_id super_class_id path", *lines)
    source = find_photos(tmp_path, split="train")
    check(source, ("1", "2"), train=6)
    assert f"{tmp_path}/Ebay_train.txt: columns that are not used: image_id, super_class_id" in source.notes


def test_quoted_paths_before_a_blank(tmp_path):
    draw_all(tmp_path, "a b{}.jpg")
    write(tmp_path / "train.txt", *(f'"a b{k}.jpg" {NAMES[k % 2]}' for k in range(6)))
    check(find_photos(tmp_path / "train.txt", split="train"), NAMES, train=6)


def test_number_and_name_are_used_together(tmp_path):
    draw_all(tmp_path, "{}.jpg")
    names = ("zebra", "ape")  # not sorted as they are numbered
    rows = (f"{k % 2},{k}.jpg,{names[k % 2]}" for k in range(6))
    table = write(tmp_path / "b.csv", "class id,filepaths,labels", *rows)
    check(find_photos(tmp_path, split="train", label_order="source"), names, train=6)
    assert find_photos(tmp_path, split="train").classes == ("ape", "zebra")
    write(table, "class id,filepaths,labels", "0,0.jpg,ape", "1,1.jpg,bee", "0,2.jpg,bee")
    assert refused(table).message == (
        f"{table}: line 4: the columns class id and labels are both labels, and do not map one to one: '0' with 'bee'"
    )
    write(table, "class id,filepaths,labels", "0,0.jpg,ape", "1,1.jpg,ape")
    assert refused(table).message.endswith("do not map one to one: '1' with 'ape'")


def test_two_names_are_the_class_and_its_words(tmp_path):
    draw_all(tmp_path, "{}.jpg")
    write(tmp_path / "b.csv", "file,wnid,class_name", *(f"{k}.jpg,n0{k % 2},{NAMES[k % 2]}" for k in range(6)))
    source = find_photos(tmp_path, split="train")
    check(source, ("n00", "n01"), train=6)
    assert source.words == {"n00": "cat", "n01": "dog"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["filename,cat,dog", "0.jpg,1,0", "1.jpg,0,1"], "line 2: one-hot: a 0 or 1 for each of cat, dog"),
        (["image,MEL,NV", "0,1.0,0.0", "1,0.0,1.0"], "line 2: one-hot: a 0 or 1 for each of MEL, NV, which may say"),
        (["0.jpg,0,1", "1.jpg,1,0"], "line 1: one-hot: a 0 or 1 for each of 2 columns beside the path, which may say"),
        (["0.jpg,cat,big", "1.jpg,dog,small"], "line 1: which column is the label? There is 2 columns beside the path"),
        (["image,tags", "0.jpg,cat dog", "1.jpg,cat", "2.jpg,dog"], "line 2: several labels of a photo: 'cat dog'"),
        (["fname,labels", "0.jpg,cat", "1.jpg,cat|dog"], "line 3: several labels of a photo: 'cat|dog'"),
        (["fname,labels", "0.jpg,1", '1.jpg,"1, 2"'], "line 3: several labels of a photo: '1, 2'"),
        (["image,colour,size", "0.jpg,red,big", "1.jpg,blue,big"], "line 2: which column is the label?"),
        (["image,caption", *(f"{k}.jpg,photo number {k}" for k in range(6))], "line 2: which column is the label?"),
        (["image,label", "0.jpg,cat", "1.jpg,cat,dog"], "line 3: 3 columns instead of 2"),
    ],
)
def test_what_is_refused_with_its_line(tmp_path, lines, message):
    draw_all(tmp_path, "{}.jpg")
    table = write(tmp_path / "labels.csv", *lines)
    for path in (table, tmp_path):
        error = refused(path)
        assert f"{table}: {message}" in error.message and "1 class" not in error.message


def test_one_hot_beside_one_folder_is_not_one_class(tmp_path):
    draw_all(tmp_path, "images/{}.jpg")
    write(tmp_path / "train.csv", "image_id,healthy,rust", *(f"{k},{k % 2},{1 - k % 2}" for k in range(6)))
    assert "one-hot" in refused(tmp_path).message


@pytest.mark.parametrize("name", ["train.txt", "list.txt"])
def test_several_labels_in_a_line(tmp_path, name):
    draw_all(tmp_path, "{}.jpg")
    table = write(tmp_path / name, *(f"{k}.jpg {k % 2} 1" for k in range(6)))
    assert refused(table).message == f"{table}: line 1: several labels of a photo: 0 1"


def test_json_lines(tmp_path):
    draw_all(tmp_path, "train/{}.jpg")
    draw_all(tmp_path, "test/{}.jpg", 4)
    for split, count in (("train", 6), ("test", 4)):
        rows = [{"file_name": f"{k}.jpg", "label": NAMES[k % 2], "box": {"x": 1}} for k in range(count)]
        write(tmp_path / split / "metadata.jsonl", *map(json.dumps, rows))
    source = find_photos(tmp_path)
    check(source, NAMES, train=6, test=4)
    assert f"{tmp_path}/train/metadata.jsonl: columns that are not used: box" in source.notes
    write(tmp_path / "train" / "metadata.jsonl", '{"file_name": "0.jpg", "label": ["cat", "dog"]}')
    assert "line 1: several labels of a photo: 'cat|dog'" in refused(tmp_path).message
    write(tmp_path / "train" / "metadata.jsonl", '{"file_name": "0.jpg", "label": "cat"}', '{"file_name"')
    assert "metadata.jsonl: line 2: not a JSON object" in refused(tmp_path / "train" / "metadata.jsonl").message


def test_a_table_whose_photos_are_in_the_folders_of_splits(tmp_path):
    for k in range(6):
        draw(tmp_path / ("train" if k < 4 else "valid") / f"{k}.jpg", k % 2)
    rows = [f"{'train' if k < 4 else 'valid'}/{k}.jpg,{NAMES[k % 2]}" for k in range(6)]
    table = write(tmp_path / "metadata.csv", "file_name,label", *rows)
    source = find_photos(tmp_path)
    check(source, NAMES, train=4, val=2)
    assert source.notes == ("the splits are those that the photos' folders are named after",)
    draw(tmp_path / "more" / "9.jpg", 1)
    write(table, "file_name,label", *rows, "more/9.jpg,dog")
    assert "more/9.jpg (line 8) is in none of them" in refused(table).message
    check(find_photos(table, split="train"), NAMES, train=7)


def test_photos_of_a_table_in_two_folders(tmp_path):  # HAM10000
    for k in range(6):
        draw(tmp_path / f"HAM10000_images_part_{k % 2 + 1}" / f"ISIC_{k}.jpg", k % 2)
    rows = (f"HAM_{k // 2},ISIC_{k},{NAMES[k % 2]},50" for k in range(6))
    write(tmp_path / "HAM10000_metadata.csv", "lesion_id,image_id,dx,age", *rows)
    source = find_photos(tmp_path, layout="list", split="train")
    check(source, NAMES, train=6)
    assert source.notes == (f"{tmp_path}/HAM10000_metadata.csv: columns that are not used: lesion_id, age",)


def make_meta(root):
    wnids = ("n01440764", "n01443537")
    for k in range(12):
        draw(root / "train" / wnids[k % 2] / f"{wnids[k % 2]}_{k}.JPEG", k % 2)
    draw_all(root, "val/ILSVRC2012_val_{:08d}.JPEG", 4)
    write(root / "meta" / "train.txt", *(f"{wnids[k % 2]}/{wnids[k % 2]}_{k}.JPEG {k % 2}" for k in range(12)))
    write(root / "meta" / "val.txt", *(f"ILSVRC2012_val_{k:08d}.JPEG {k % 2}" for k in range(4)))
    return wnids


def test_lists_in_meta(tmp_path):
    wnids = make_meta(tmp_path)
    source = find_photos(tmp_path)
    check(source, wnids, train=12, val=4)
    inside = find_photos(tmp_path / "meta")
    check(inside, wnids, train=12, val=4)
    assert inside.fingerprint() == source.fingerprint() and inside.root == tmp_path
    check(find_photos(tmp_path / "meta" / "val.txt"), ("0", "1"), val=4)


def test_a_root_for_the_paths(tmp_path):
    wnids = make_meta(tmp_path / "set")
    lists = tmp_path / "elsewhere" / "train.txt"
    lists.parent.mkdir()
    (tmp_path / "set" / "meta" / "train.txt").rename(lists)
    assert "no such file" in refused(lists).message and "--root DIR" in refused(lists).hint
    for root in ("set/train", "set"):
        check(find_photos(lists, paths_root=tmp_path / root, split="train"), wnids, train=12)
    error = refused(lists, paths_root=tmp_path / "nowhere")
    assert error.message == f"--root {tmp_path}/nowhere: no such folder" and error.exit_code == 2


def make_places(root):
    for k in range(8):
        name = ("b/bar", "b/bathroom/indoor", "c/cave/indoor", "a/alley")[k % 4]
        draw(root / "data_256" / name / f"{k:08d}.jpg", k % 2)
    draw_all(root, "val_256/Places365_val_{:08d}.jpg", 4)
    draw_all(root, "test_256/Places365_test_{:08d}.jpg", 3)
    names = ("/b/bar", "/b/bathroom/indoor", "/c/cave/indoor", "/a/alley")
    write(root / "places365_train_standard.txt", *(f"{names[k % 4]}/{k:08d}.jpg {k % 4}" for k in range(8)))
    write(root / "places365_val.txt", *(f"Places365_val_{k:08d}.jpg {k % 4}" for k in range(4)))
    write(root / "places365_test.txt", *(f"Places365_test_{k:08d}.jpg" for k in range(3)))
    write(root / "categories_places365.txt", *(f"{name} {k}" for k, name in enumerate(names)))


def test_places365_in_place(tmp_path):
    make_places(tmp_path)
    source = find_photos(tmp_path, label_order="source")
    assert counts(source) == {"train": 8, "val": 4}
    assert source.classes == ("b/bar", "b/bathroom/indoor", "c/cave/indoor", "a/alley")
    for photo in source.splits["train"]:
        assert photo.path.startswith(f"data_256/{source.classes[photo.label]}/")
    assert {photo.path: photo.label for photo in source.splits["val"]} == {
        f"val_256/Places365_val_{k:08d}.jpg": k for k in range(4)
    }
    assert source.account.left_out == (LeftOut("test_256", 3, "test, without labels (--split test builds them)"),)
    assert counts(find_photos(tmp_path, split="test")) == {"test": 3}
    draw(tmp_path / "data_large" / "b/bar" / "00000000.jpg", 0)
    error = refused(tmp_path)
    assert "/b/bar/00000000.jpg may be data_256/b/bar/00000000.jpg or data_large/b/bar/00000000.jpg" in error.message
    assert counts(find_photos(tmp_path, ignore=("data_large",))) == {"train": 8, "val": 4}


def test_a_path_that_begins_with_a_slash(tmp_path):
    draw_all(tmp_path, "x/{}.jpg")
    write(tmp_path / "list.txt", *(f"/x/{k}.jpg {NAMES[k % 2]}" for k in range(6)))
    check(find_photos(tmp_path / "list.txt", split="train"), NAMES, train=6)


def test_food101(tmp_path):
    for k in range(10):
        draw(tmp_path / "images" / NAMES[k % 2] / f"{100 + k}.jpg", k % 2)
    for name, part in (("train", range(6)), ("test", range(6, 10))):
        write(tmp_path / "meta" / f"{name}.txt", *(f"{NAMES[k % 2]}/{100 + k}" for k in part))
    write(tmp_path / "meta" / "classes.txt", *NAMES)
    write(tmp_path / "meta" / "train.json", json.dumps({"cat": ["cat/100"]}))
    source = find_photos(tmp_path)
    check(source, NAMES, train=6, test=4)
    assert source.notes[0] == "the lists have no labels: the class is the folder of a photo"
    check(find_photos(tmp_path, split="test"), NAMES, test=4)


def test_val_labels_beside_class_folders_of_train(tmp_path):
    wnids = ("n01440764", "n01443537")
    for k in range(6):
        draw(tmp_path / "train" / wnids[k % 2] / f"{k}.JPEG", k % 2)
    draw_all(tmp_path, "val/ILSVRC2012_val_{:08d}.JPEG")
    table = write(
        tmp_path / "val_labels.csv", "ImageId,Class", *(f"ILSVRC2012_val_{k:08d},{wnids[k % 2]}" for k in range(6))
    )
    source = find_photos(tmp_path)
    check(source, wnids, train=6, val=6)
    assert source.kind == "class folders of train and lists of val"
    write(table, "ImageId,Class", *(f"ILSVRC2012_val_{k:08d},{k % 2}" for k in range(6)))
    assert "val has none of the classes of train: 0, 1" in refused(tmp_path).message


def class_folders(root):
    for k in range(8):
        draw(root / ("train" if k < 6 else "val") / NAMES[k % 2] / f"{k}.jpg", k % 2)
    return [f"{'train' if k < 6 else 'val'}/{NAMES[k % 2]}/{k}.jpg" for k in range(8)]


def test_class_folders_win_over_a_table_that_says_the_same(tmp_path):
    paths = class_folders(tmp_path)
    write(tmp_path / "all.csv", "filepaths,labels", *(f"{path},{path.split('/')[1]}" for path in paths))
    source = find_photos(tmp_path)
    check(source, NAMES, train=6, val=2)
    assert source.kind == "class folders, train and val"


@pytest.mark.parametrize(
    "lines", [["name,age", "bob,3"], ["image,label", "0001.jpg,cat"], ["class,count", "cat,4", "dog,4"], ["x"], []]
)
def test_class_folders_beside_a_table_of_something_else(tmp_path, lines):
    class_folders(tmp_path)
    write(tmp_path / "about.csv", *lines)
    assert find_photos(tmp_path).kind == "class folders, train and val"


def test_a_table_that_says_otherwise_is_asked_about(tmp_path):
    paths = class_folders(tmp_path)
    labels = ["dog" if k == 2 else path.split("/")[1] for k, path in enumerate(paths)]
    table = write(tmp_path / "all.csv", "path,label", *map(",".join, zip(paths, labels, strict=True)))
    error = refused(tmp_path)
    assert isinstance(error, UsageError) and "all.csv" in error.message and "train/cat/2.jpg" in error.message
    assert error.hint == "choose one reading: --layout list, or --layout folders"
    listed, folders = (find_photos(tmp_path, layout=layout, split="train") for layout in ("list", "folders"))
    assert [photo.label for photo in listed.splits["train"]] != [photo.label for photo in folders.splits["train"]]
    write(table, "path,label", *(f"{path},{'pet' if k % 3 else 'bug'}" for k, path in enumerate(paths)))
    assert "the list and the class folders differ" in refused(tmp_path).message
    write(table, "path,label", *(f"{path},pet" for path in paths))  # coarser
    assert "train/dog/1.jpg has the label pet by all.csv, but is in the folder dog; others" in refused(tmp_path).message
    write(table, "path,label", *(f"{path},{path.split('/')[1]}{k % 4 == 0}" for k, path in enumerate(paths)))  # finer
    assert "train/cat/2.jpg is in the folder cat, and has the label catFalse by all.csv" in refused(tmp_path).message
    splits = ["val" if k == 2 else path.split("/")[0] for k, path in enumerate(paths)]
    rows = (f"{path},{path.split('/')[1]},{split}" for path, split in zip(paths, splits, strict=True))
    write(table, "path,label,split", *rows)
    assert "train/cat/2.jpg is in val by all.csv, but in train by its folder" in refused(tmp_path).message


def test_lists_of_caffe_that_say_otherwise(tmp_path):
    paths = class_folders(tmp_path)
    for name in ("train", "val"):
        labels = {path: int(path == paths[2] or "dog" in path) for path in paths if path.startswith(name)}
        write(tmp_path / f"{name}.txt", *(f"{path} {label}" for path, label in labels.items()))
    assert "train/cat/2.jpg" in refused(tmp_path).message
    assert find_photos(tmp_path, layout="list").kind == "list, train and val"


def test_two_tables_of_the_same_photos(tmp_path):
    draw_all(tmp_path, "images/{}.jpg")
    for name in ("one.csv", "two.csv"):
        write(tmp_path / name, "file,label", *(f"{k}.jpg,{NAMES[k % 2]}" for k in range(6)))
    assert "one.csv and two.csv both list the photos" in refused(tmp_path).message
    check(find_photos(tmp_path, ignore=("two.csv",), split="train"), NAMES, train=6)


def test_a_table_of_test_beside_one_without_a_split(tmp_path):
    draw_all(tmp_path, "images/{}.jpg", 10)
    table = write(tmp_path / "labels.csv", "id,label", *(f"{k},{NAMES[k % 2]}" for k in range(6)))
    write(tmp_path / "test.csv", "id,label", *(f"{k},{NAMES[k % 2]}" for k in range(6, 10)))
    source = find_photos(tmp_path)
    check(source, NAMES, train=6, test=4)
    write(table, "id,label", *(f"{k},{NAMES[k % 2]}" for k in range(7)))
    assert "labels.csv and test.csv both list 1 photos, first images/6.jpg" in refused(tmp_path).message
    write(table, "id,label,split", *(f"{k},{NAMES[k % 2]},{'test' if k > 5 else 'train'}" for k in range(10)))
    source = find_photos(tmp_path)
    check(source, NAMES, train=6, test=4)
    assert "not read: test.csv; the photos are those of labels.csv" in source.notes


def test_the_same_lists_are_found_again(tmp_path):
    draw_all(tmp_path, "images/{}.jpg")
    write(tmp_path / "train.txt", "something else")
    write(tmp_path / "labels.csv", "id,label", *(f"{k},{NAMES[k % 2]}" for k in range(6)))
    source = find_photos(tmp_path)
    again = find_again({"source": {"path": str(tmp_path), "request": source.request}})
    assert again.fingerprint() == source.fingerprint() and again.request["layout"] == "list"


def test_a_table_whose_photos_are_elsewhere(tmp_path):
    write(tmp_path / "set" / "train.csv", "image,label", *(f"{k}.jpg,{NAMES[k % 2]}" for k in range(6)))
    draw_all(tmp_path, "photos/{}.jpg")
    error = refused(tmp_path / "set")
    assert "train.csv, whose photos are not there" in "".join(error.details)
    assert error.hint == "say where they are: --root DIR"
    check(find_photos(tmp_path / "set", paths_root=tmp_path / "photos", split="train"), NAMES, train=6)
    error = refused(tmp_path / "set" / "train.csv")
    assert isinstance(error, SourceError) and "line 2: 0.jpg: no such file (6 of 6 photos are missing)" in error.message


def test_one_folder_beside_a_table_of_other_photos_is_not_one_class(tmp_path):
    draw_all(tmp_path, "x/{}.jpg")
    table = write(tmp_path / "data.csv", "path,label", *(f"/home/me/x/{k}.jpg,{NAMES[k % 2]}" for k in range(6)))
    error = refused(tmp_path)
    assert error.message == f"{tmp_path}: there is data.csv, whose photos are not there, and no two class folders"
    assert error.hint == "say where they are: --root DIR; or --layout folders"
    assert find_photos(tmp_path, layout="folders").classes == ("x",)
    write(table, "path,label", *(f"x\\{k}.jpg,{NAMES[k % 2]}" for k in range(6)))
    check(find_photos(tmp_path, split="train"), NAMES, train=6)


def test_a_photo_of_a_table_is_missing(tmp_path):
    draw_all(tmp_path, "images/{}.jpg")
    table = write(tmp_path / "train.csv", "image,label", *(f"{k}.jpg,{NAMES[k % 2]}" for k in range(7)))
    assert f"{table}: line 8: 6.jpg: no such file (1 of 7 photos are missing)" in refused(tmp_path).message


def test_two_photos_fit_an_id(tmp_path):
    draw_all(tmp_path, "images/{}.jpg")
    draw(tmp_path / "images" / "3.png", 0)
    table = write(tmp_path / "train.csv", "id,label", *(f"{k},{NAMES[k % 2]}" for k in range(6)))
    error = refused(tmp_path)
    assert error.message == f"{table}: line 5: 3 may be images/3.jpg or images/3.png"
    check(find_photos(tmp_path, ignore=("3.png",), split="train"), NAMES, train=6)


def test_listed_photos_that_are_ignored(tmp_path):
    draw_all(tmp_path, "images/{}.jpg")
    table = write(tmp_path / "train.csv", "file,label", *(f"images/{k}.jpg,{NAMES[k % 2]}" for k in range(6)))
    source = find_photos(table, ignore=("4.jpg", "images/5*"), split="train")
    check(source, NAMES, train=4)
    assert f"{table}: 2 lines are ignored, as requested" in source.notes
    draw(tmp_path / "more" / "6.jpg", 0)
    write(table, *table.read_text().splitlines(), "more/6.jpg,cat")
    check(find_photos(table, ignore=("more",), split="train"), NAMES, train=6)


def test_a_table_with_row_numbers(tmp_path):
    draw_all(tmp_path, "{}.jpg")
    write(tmp_path / "x.csv", ",path,kind", *(f"{k},{k}.jpg,{NAMES[k % 2]}" for k in range(6)))
    source = find_photos(tmp_path, split="train")
    check(source, NAMES, train=6)
    assert source.notes == (
        f"{tmp_path}/x.csv: the label is the column kind",
        f"{tmp_path}/x.csv: columns that are not used: ''",
    )


def test_whales(tmp_path):  # the column Id is the class
    draw_all(tmp_path, "train/{}.jpg")
    write(tmp_path / "train.csv", "Image,Id", *(f"{k}.jpg,{NAMES[k % 2]}" for k in range(6)))
    check(find_photos(tmp_path, split="train"), NAMES, train=6)


def test_a_test_table_without_labels(tmp_path):
    draw_all(tmp_path, "train/{}.jpg")
    draw_all(tmp_path, "test/{}.jpg", 3)
    write(tmp_path / "train.csv", "id_code,diagnosis", *(f"{k},{NAMES[k % 2]}" for k in range(6)))
    write(tmp_path / "test.csv", "id_code", *map(str, range(3)))
    source = find_photos(tmp_path)
    check(source, NAMES, train=6)
    assert source.account.left_out == (LeftOut("test", 3, "test, without labels (--split test builds them)"),)
    assert [os.path.dirname(photo.path) for photo in find_photos(tmp_path, split="test").splits["test"]] == ["test"] * 3


def test_a_table_with_more_photos_and_folders_with_splits(tmp_path):
    paths = class_folders(tmp_path)
    draw(tmp_path / "more" / "9.jpg", 1)
    write(tmp_path / "all.csv", "path,label", *(f"{path},{path.split('/')[1]}" for path in paths), "more/9.jpg,dog")
    error = refused(tmp_path, split="train")
    assert (
        "all.csv has photos that are in no class folder, first more/9.jpg, but does not say the splits" in error.message
    )
