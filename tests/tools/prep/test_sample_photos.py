"""The sample photos: seeded, spread over the classes, as odd as ImageNet's, never written over something else."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from alexnet_dali.pipeline.errors import UsageError
from alexnet_dali.tools.console import run
from alexnet_dali.tools.prep import sample_photos
from alexnet_dali.tools.prep.sample_scene import FIGURES, scene
from click.testing import CliRunner
from PIL import Image

SMALL = {"train": 12, "val": 5, "classes": 4, "seed": 3, "side": (24, 60)}


def contents(folder):
    """Map each file's relative path to its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def photos(folder):
    return {name: data for name, data in contents(folder).items() if name.endswith(".JPEG")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "small"
    sample_photos.make_photos(folder, **SMALL)
    return folder


def test_same_arguments_same_bytes(small, tmp_path):
    sample_photos.make_photos(tmp_path / "again", **SMALL)
    assert contents(tmp_path / "again") == contents(small)


def test_a_new_interpreter_draws_the_same(small):
    # Python's hash() of strings differs from process to process; no draw may come from it.
    code = (
        "import sys; from alexnet_dali.tools.prep.sample_photos import photo; "
        "sys.stdout.buffer.write(photo(3, 'train', 6, 2, (24, 60)))"
    )
    drawn = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, env={"PYTHONHASHSEED": "77"}
    ).stdout
    assert drawn == (small / "train/cross/train_00006.JPEG").read_bytes()


def test_another_seed_split_or_number_is_another_photo():
    first = sample_photos.photo(0, "train", 0, 0, (24, 60))
    others = [sample_photos.photo(*place, 0, (24, 60)) for place in ((1, "train", 0), (0, "val", 0), (0, "train", 1))]
    assert len({first, *others}) == 4


def test_a_longer_set_begins_with_the_shorter_one(small, tmp_path):
    sample_photos.make_photos(tmp_path / "long", **SMALL | {"train": 17, "val": 9})
    longer = photos(tmp_path / "long")
    assert len(longer) == 17 + 9
    assert photos(small).items() <= longer.items()


def test_folders_are_the_classes_evenly_filled(small):
    counts = {
        split: {folder.name: len(list(folder.iterdir())) for folder in (small / split).iterdir()}
        for split in ("train", "val")
    }
    assert counts == {
        "train": {"checker": 3, "crescent": 3, "cross": 3, "dots": 3},
        "val": {"checker": 2, "crescent": 1, "cross": 1, "dots": 1},
    }
    assert json.loads((small / "sample.json").read_text()) == SMALL | {"side": [24, 60]}
    assert len(contents(small)) == 12 + 5 + 1


def test_there_are_ten_classes_in_sorted_order():
    assert len(FIGURES) == 10 and list(FIGURES) == sorted(FIGURES)
    assert all(name.isalpha() and name.islower() for name in FIGURES)


def test_sizes_vary_as_photos_do():
    sizes = [Image.open(io.BytesIO(sample_photos.photo(0, "val", k, k % 10))).size for k in range(40)]
    assert all(200 <= length <= 500 for size in sizes for length in size)
    assert any(width > height for width, height in sizes) and any(width < height for width, height in sizes)
    assert any(min(size) < 256 for size in sizes) and any(min(size) > 300 for size in sizes)


def test_every_photo_decodes_and_a_few_are_odd():
    seen = set()
    for k in range(250):
        image = Image.open(io.BytesIO(sample_photos.photo(0, "train", k, k % 10, (16, 24))))
        image.load()
        seen.add((image.format, image.mode, bool(image.info.get("progressive"))))
    assert seen == {
        ("JPEG", "RGB", False),
        ("JPEG", "RGB", True),
        ("JPEG", "L", False),
        ("JPEG", "CMYK", False),
        ("PNG", "RGB", False),
    }


@pytest.mark.parametrize("kind", ["baseline", "progressive", "cmyk", "png", "grey"])
def test_every_form_keeps_the_picture(kind):
    picture = scene(np.random.default_rng(0), 7, (120, 160))
    decoded = Image.open(io.BytesIO(sample_photos._encode(picture, kind, 95)))
    expected = np.asarray(Image.fromarray(picture).convert("L" if kind == "grey" else "RGB"), np.float32)
    got = np.asarray(decoded if kind == "grey" else decoded.convert("RGB"), np.float32)
    assert got.shape == expected.shape
    assert np.abs(got - expected).mean() < (1e-6 if kind == "png" else 6)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_antialiased_distances(name):
    """Inside and outside both occur, and the distance's slope stays near 1 at the edge, else edges blur or jag."""
    v, u = np.mgrid[-1:1:400j, -1:1:400j]
    distance = FIGURES[name](u, v)
    slope = np.hypot(*np.gradient(distance, 2 / 399))
    assert distance.shape == u.shape
    assert 0.05 < (distance < 0).mean() < 0.7
    assert 0.6 < np.median(slope[np.abs(distance) < 0.02]) < 1.5


def test_made_again_nothing_is_written(small):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    done: list[int] = []
    sample_photos.make_photos(small, **SMALL, advance=done.append)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before
    assert sum(done) == 17


def test_a_stopped_run_goes_on(small, tmp_path):
    done: list[int] = []

    def stop_after_some(count):
        done.append(count)
        if sum(done) == 8:
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        sample_photos.make_photos(out, **SMALL, advance=stop_after_some)
    assert not (out / "sample.json").exists() and len(photos(out)) == 8
    kept = next(out.rglob("*.JPEG"))
    before = kept.stat().st_mtime_ns
    sample_photos.make_photos(out, **SMALL)
    assert contents(out) == contents(small)
    assert kept.stat().st_mtime_ns == before


def test_a_foreign_folder_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError) as caught:
        sample_photos.make_photos(tmp_path, **SMALL)
    assert caught.value.message == f"{tmp_path}: has other contents: thesis.tex"
    assert caught.value.hint == "name a new or an empty folder"
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file: a file, not a folder; name a new folder"):
        sample_photos.make_photos(tmp_path / "file", **SMALL)


def test_another_set_is_refused_by_its_differences(small):
    before = contents(small)
    with pytest.raises(UsageError) as caught:
        sample_photos.make_photos(small, **SMALL | {"train": 20, "seed": 4})
    assert caught.value.message == f"{small}: has a set of other photos: train 12, not 20; seed 3, not 4"
    assert caught.value.hint == f"delete {small}, or name a new folder"
    assert contents(small) == before


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / "sample.json").write_text(text)
    with pytest.raises(UsageError, match=r"sample\.json: damaged, not the settings of a sample set"):
        sample_photos.make_photos(tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": 11}, "--classes 11: out of range; choose --classes 2..10"),
        ({"train": 3}, "--train 3: fewer photos than the 4 classes; choose --train 4 or more"),
        ({"val": -1}, "--val -1, --seed 3: must not be negative; choose 0 or more"),
        ({"side": (60, 24)}, "sides of 60 to 24 pixels: out of range; choose 16 <= low <= high"),
    ],
)
def test_impossible_sets_are_refused(tmp_path, wrong, message):
    with pytest.raises(UsageError) as caught:
        sample_photos.make_photos(tmp_path / "new", **SMALL | wrong)
    assert str(caught.value) == message
    assert not (tmp_path / "new").exists()


def test_the_command_makes_photos_once(tmp_path, in_process):
    arguments = [str(tmp_path / "set"), "--train", "4", "--val", "2", "--classes", "2", "--seed", "5"]
    code, _, said = in_process(sample_photos.sample_photos, *arguments)
    assert code == 0 and said.endswith("set: 4 training and 2 validation photos of 2 classes\n")
    assert len(photos(tmp_path / "set")) == 6
    code, _, said = in_process(sample_photos.sample_photos, *arguments)
    assert code == 0 and said.endswith("set: all 6 photos exist already\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--colour", "red"], "--colour"),
        (["--classes", "11"], "2<=x<=10"),
        (["--train", "9"], "error: --train 9: fewer photos than the 10 classes\n  try: choose --train 10 or more\n"),
    ],
)
def test_a_wrong_option_exits_with_2(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        run(sample_photos.sample_photos, [str(tmp_path / "new"), *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_help_shows_an_example():
    assert (
        "alexnet-prep sample-photos sample --train 1000 --val 200"
        in CliRunner().invoke(sample_photos.sample_photos, ["--help"]).output
    )
