"""Kaggle's folder: the photos of the class folders from any folder on the way; its tables in every odd form."""

import shutil

import ilsvrc
import pytest
from alexnet_dali.pipeline.errors import SourceError, UsageError
from alexnet_dali.pipeline.sources.find import find_photos
from forms import left_out
from ilsvrc import ORDER, TRAIN, VAL, WNIDS, WORDS, everything

SOLUTION = "LOC_val_solution.csv"
TOP = "ILSVRC/Data/CLS-LOC"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return ilsvrc.class_folders(tmp_path_factory.mktemp("ilsvrc"))


@pytest.fixture
def root(photos, tmp_path):
    return ilsvrc.kaggle(photos, tmp_path / "kaggle")


def refused(root, error=SourceError, **options):
    with pytest.raises(error) as caught:
        find_photos(root, **options)
    return caught.value


def test_kaggles_folder_holds_the_photos_of_the_class_folders(photos, root):
    source, folders = find_photos(root), find_photos(photos)
    assert everything(source) == everything(folders) and len(everything(source)) == TRAIN + VAL
    assert source.kind == "ImageNet 2012, Kaggle" and source.notes == () and source.classes == WNIDS
    assert source.words == dict(zip(WNIDS, WORDS, strict=True))
    assert source.splits["val"][0].path.startswith(f"{TOP}/val/ILSVRC2012_val_")


@pytest.mark.parametrize("place", ["ILSVRC", "ILSVRC/Data", TOP])
def test_found_from_any_folder_on_the_way(photos, root, place):
    error = refused(root / place, UsageError)  # the labels are above what was named
    assert error.message == f"{root}/{TOP}/val: 7 photos without labels: {SOLUTION} is missing"
    assert error.hint == f"it is in {root}: choose that folder, or omit val with --split train"
    for name in (SOLUTION, "LOC_synset_mapping.txt"):
        shutil.copy(root / name, root / place)
    source = find_photos(root / place)
    assert everything(source) == everything(find_photos(photos)) and source.words[WNIDS[0]] == WORDS[0]
    assert source.root == root / place


def test_the_tables_on_the_way(photos, root):
    (root / SOLUTION).rename(root / "ILSVRC" / SOLUTION)
    (root / "LOC_synset_mapping.txt").rename(root / "ILSVRC/Data/LOC_synset_mapping.txt")
    assert everything(find_photos(root)) == everything(find_photos(photos))
    assert find_photos(root).words[WNIDS[0]] == WORDS[0]


def test_the_table_beside_train_and_val_is_enough(photos, root, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(root / TOP, plain)
    assert refused(plain, UsageError).message == f"{plain}/val: 7 photos without a class folder, and so without labels"
    shutil.copy(root / SOLUTION, plain)
    assert everything(find_photos(plain)) == everything(find_photos(photos))


def test_val_in_class_folders_needs_no_table(photos, root):
    shutil.rmtree(root / TOP / "val")
    shutil.copytree(photos / "val", root / TOP / "val")
    (root / SOLUTION).unlink()
    assert everything(find_photos(root)) == everything(find_photos(photos))
    (root / TOP / "val/loose.JPEG").write_bytes(b"?")
    assert "1 photo without a class folder, beside class folders" in refused(root, UsageError).message


def test_without_the_table(root):
    (root / SOLUTION).unlink()
    for split in (None, "val"):
        error = refused(root, UsageError, split=split)
        assert error.message == f"{root}/{TOP}/val: 7 photos without labels: {SOLUTION} is missing"
        assert error.hint == f"put it into {root}, or omit val with --split train"
    assert len(find_photos(root, split="train").splits["train"]) == TRAIN


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n".join(f'"{a}","{b}"' for a, b in (line.split(",") for line in text.splitlines())),
        lambda text: "\n".join(f"{b},{a},x" for a, b in (line.split(",") for line in text.splitlines())),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace(" 85 1 499 272", ""),
        lambda text: text + text.splitlines()[1] + "\n",
        lambda text: "\ufeff" + text.replace("\n", "\r\n").replace(",", ", "),
    ],
)
def test_the_table_in_other_forms(photos, root, change):
    table = root / SOLUTION
    table.write_bytes(change(table.read_text()).encode())
    assert everything(find_photos(root)) == everything(find_photos(photos))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda lines: [], ": no columns ImageId and PredictionString; the header is ''"),
        (
            lambda lines: ["id,class", *lines[1:]],
            ": no columns ImageId and PredictionString; the header is 'id, class'",
        ),
        (lambda lines: [*lines[:2], "only"], ", line 3: 1 columns instead of 2"),
        (lambda lines: [*lines[:2], "a,b c"], ", line 3: 'b' is not a class of LOC_synset_mapping.txt"),
        (lambda lines: [*lines[:2], "a,"], ", line 3: '' is not a class of LOC_synset_mapping.txt"),
        (
            lambda lines: [*lines[:2], "a,n99999999 1 2"],
            ", line 3: 'n99999999' is not a class of LOC_synset_mapping.txt",
        ),
        (
            lambda lines: [*lines, "a,n01440764", "a,n01443537"],
            ", line 10: a is n01443537, but n01440764 in an earlier line",
        ),
        (lambda lines: [*lines, 'a,"' + "n" * 200_000], ", line 9: field larger than field limit (131072)"),
    ],
)
def test_a_table_that_is_damaged(root, change, text):
    lines = (root / SOLUTION).read_text().splitlines()
    (root / SOLUTION).write_text("\n".join(change(lines)))
    assert refused(root).message == f"{root}/{SOLUTION}{text}"


def test_an_unknown_class_without_the_mapping(root):
    (root / "LOC_synset_mapping.txt").unlink()
    lines = (root / SOLUTION).read_text().splitlines()
    (root / SOLUTION).write_text("\n".join([*lines[:2], "a,tench"]))
    assert refused(root).message == f"{root}/{SOLUTION}, line 3: 'tench' is not a class"


def test_photos_and_lines_that_do_not_match(root):
    val = root / TOP / "val"
    lines = (root / SOLUTION).read_text().splitlines(keepends=True)
    gone = "ILSVRC2012_val_00000003"
    (root / SOLUTION).write_text("".join(line for line in lines if gone not in line))
    assert refused(root).message == f"{root}/{SOLUTION}: 1 photos of {val} have no line, first {gone}"
    (root / SOLUTION).write_text("".join(lines))
    (val / f"{gone}.JPEG").unlink()
    assert refused(root).message == f"{root}/{SOLUTION}: 1 lines have no photo in {val}, first {gone}"
    (val / "ILSVRC2012_val_00000099.JPEG").write_bytes(b"?")
    assert refused(root).message == (
        f"{root}/{SOLUTION}: 1 photos of {val} have no line, first ILSVRC2012_val_00000099; "
        f"1 lines have no photo in {val}, first {gone}"
    )
    assert len(find_photos(root, split="train").splits["train"]) == TRAIN


def test_a_split_alone_has_the_labels_of_the_whole(photos, root):
    whole = find_photos(root)
    for split in ("train", "val"):
        source = find_photos(root, split=split)
        assert source.splits == {split: whole.splits[split]} and source.classes == WNIDS and source.notes == ()
    shutil.rmtree(root / TOP / "train")
    lines = (root / SOLUTION).read_text().splitlines()
    one_class = [lines[0], *(f"{line.split(',')[0]},{WNIDS[1]}" for line in lines[1:])]
    (root / SOLUTION).write_text("\n".join(one_class))
    source = find_photos(root, split="val")
    assert source.classes == WNIDS and {photo.label for photo in source.splits["val"]} == {1}
    assert refused(root, UsageError).message == f"{root}/{TOP}/train: no photos in class folders"


def test_a_class_of_few_photos(photos, root):
    shutil.rmtree(root / TOP / "train" / WNIDS[2])
    assert find_photos(root).classes_without_training() == [WNIDS[2]]


def test_missing_val_photos(root):
    shutil.rmtree(root / TOP / "val")
    assert refused(root, UsageError).message == f"{root}/{TOP}/val: no photos"
    assert len(find_photos(root, split="train").splits["train"]) == TRAIN


def test_test_photos_only_where_they_are_asked_for(root):
    test = root / TOP / "test"
    test.mkdir()
    (test / "ILSVRC2012_test_00000001.JPEG").write_bytes(b"t")
    source = find_photos(root)
    assert list(source.splits) == ["train", "val"]
    assert left_out(source) == [(f"{TOP}/test", 1, "without labels (--split test builds them)")]
    assert [photo.label for photo in find_photos(root, split="test").splits["test"]] == [-1]


def test_the_devkit_beside_gives_its_order(photos, root):
    assert "no devkit found" in refused(root, UsageError, label_order="devkit").message
    ilsvrc.devkit_2012(photos, root)
    assert find_photos(root, label_order="devkit").classes == ORDER
    assert everything(find_photos(root)) == everything(find_photos(photos))


def test_the_table_of_the_boxes_is_never_the_list_of_photos(root):
    (root / "LOC_train_solution.csv").write_text("ImageId,PredictionString\nn01440764_10026,n01443537 1 2 3 4\n")
    assert len(find_photos(root).splits["train"]) == TRAIN


def test_asked_for_where_it_is_not(tmp_path):
    error = refused(tmp_path, UsageError, layout="kaggle")
    assert error.message == f"{tmp_path}: contains no {TOP}"
