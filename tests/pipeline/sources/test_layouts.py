"""Whatever way the photos are laid out, a build makes the same records at the same places, byte for byte."""

import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import forms
import ilsvrc
import pytest
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.sources.find import LAYOUTS, find_photos

SMALL = BuildOptions(size=24, shard_records=5)
KINDS = ["folders", "imagenet2012", "unpacked2012", "kaggle", "list", "list-by-name", "parquet", "webdataset", "tars"]


def laid_out(kind, photos, out):
    """The photos in another layout, and the layout's name in `--layout`."""
    if kind in ("list", "list-by-name"):
        folder = shutil.copytree(photos, out)
        return forms.make_lists(folder, by_name=kind == "list-by-name"), "list"
    make = {
        "folders": lambda: shutil.copytree(photos, out),
        "imagenet2012": lambda: ilsvrc.official_2012(photos, out),
        "unpacked2012": lambda: ilsvrc.unpacked_2012(photos, out),
        "kaggle": lambda: ilsvrc.kaggle(photos, out),
        "parquet": lambda: forms.make_parquet(photos, out),
        "webdataset": lambda: forms.make_webdataset(photos, out),
        "tars": lambda: forms.make_tars(photos, out),
    }
    return make[kind](), kind.replace("unpacked", "imagenet")


def built(source, out):
    """The bytes of every data.mdb by its place."""
    with ThreadPoolExecutor(1) as executor:
        shard_set, fresh = build_shards(find_photos(source), out, SMALL, executor)
    assert fresh == sum(split.records for split in shard_set.splits.values())
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("data.mdb")}, shard_set


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Class folders of photos that are called as ImageNet's."""
    return ilsvrc.class_folders(tmp_path_factory.mktemp("layouts"))


@pytest.fixture(scope="module")
def records(photos, tmp_path_factory):
    """What is built of the class folders."""
    return built(photos, tmp_path_factory.mktemp("layouts") / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_gives_the_same_records(photos, records, tmp_path, kind):
    source, layout = laid_out(kind, photos, tmp_path / "source")
    before = sorted(tmp_path.rglob("*"))
    data, shard_set = built(source, tmp_path / "out")
    assert data == records[0]
    assert shard_set.classes == records[1].classes and shard_set.manifest["label_order"] == "sorted class names"
    assert shard_set.manifest["source"]["request"]["layout"] == layout
    assert [path for path in sorted(tmp_path.rglob("*")) if tmp_path / "out" not in (path, *path.parents)] == before


def test_the_set_of_2010(tmp_path):
    photos = ilsvrc.class_folders(tmp_path, 2010)
    some = [path.name for split in ("train", "val", "test") for path in sorted((photos / split).rglob("*.JPEG"))[2:4]]
    archives = ilsvrc.official_2010(photos, tmp_path / "archives", broken=tuple(some))
    (data, shard_set), (wanted, _) = built(archives, tmp_path / "a"), built(photos, tmp_path / "b")
    assert data == wanted
    assert {name: split.records for name, split in shard_set.splits.items()} == {
        "train": ilsvrc.TRAIN,
        "val": ilsvrc.VAL,
        "test": ilsvrc.TEST,
    }


def test_every_layout_is_tried_here():
    assert Counter(kind.split("-")[0].replace("unpacked2012", "imagenet2012") for kind in KINDS).keys() == (
        LAYOUTS.keys() - {"imagenet2010", "named", "cifar", "coco"}  # sets of their own: tested in files of their names
    )


@pytest.mark.parametrize("kind", ["imagenet2012", "kaggle"])
def test_words_and_the_devkits_order_are_written_down(photos, tmp_path, kind):
    source, _ = laid_out(kind, photos, tmp_path / "source")
    ilsvrc.devkit_2012(photos, source)
    with ThreadPoolExecutor(1) as executor:
        shard_set, _ = build_shards(find_photos(source, label_order="devkit"), tmp_path / "out", SMALL, executor)
    assert shard_set.manifest["label_order"] == "ILSVRC devkit (ILSVRC ID minus 1)"
    words = dict(zip(ilsvrc.WNIDS, ilsvrc.WORDS, strict=True))
    assert shard_set.manifest["classes"] == [{"name": wnid, "words": words[wnid]} for wnid in ilsvrc.ORDER]


def test_an_unlabelled_test_set_is_built_by_name(photos, tmp_path):
    """Label -1, in any layout that has one; here Kaggle's."""
    source = ilsvrc.kaggle(photos, tmp_path / "source")
    test = source / "ILSVRC/Data/CLS-LOC/test"
    test.mkdir()
    for k, path in enumerate(sorted((photos / "val").rglob("*.JPEG"))[:3]):
        shutil.copy(path, test / f"ILSVRC2012_test_{k:08d}.JPEG")
    assert "test" not in built(source, tmp_path / "out")[1].splits
    with ThreadPoolExecutor(1) as executor:
        shard_set, _ = build_shards(find_photos(source, split="test"), tmp_path / "test", SMALL, executor)
    assert shard_set.splits.keys() == {"test"} and shard_set.split("test").records == 3
    rows = (tmp_path / "test/test/00000.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["-1"] * 3
