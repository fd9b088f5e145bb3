"""Sets that cannot be trained on, or not in every way: one class alone, no val, a val of few or of other classes."""

import json
import shutil

import pytest
import tiny
from alexnet_dali.model.training import checkpoint
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.tools.evaluate import evaluate_runs
from alexnet_dali.tools.figures.cli import figures
from alexnet_dali.tools.prep.sample_photos import make_photos
from alexnet_dali.tools.train.cli import train
from conftest import build_set

pytestmark = pytest.mark.usefixtures("small_nets")
SHORT = ("--device", "cpu", "--epochs", 1, "--batch-size", 6)
NO_VAL = (
    "no photos in val: no evaluation after epochs, and nothing to choose the best checkpoint by: only the last one is "
    "kept"
)


@pytest.fixture
def fit(in_process, tmp_path):
    """Run alexnet-train into tmp_path/run."""
    return lambda shard_set, *options: in_process(
        train, "--shards", shard_set.root, "--run", tmp_path / "run", *SHORT, *options
    )


def set_of(folder, keep):
    """A set of those photos of four classes, 12 in train and 12 in val, whose split and class `keep` accepts."""
    make_photos(folder / "photos", train=12, val=12, classes=4, seed=2, side=(60, 90))
    for split in ("train", "val"):
        for label, path in enumerate(sorted((folder / "photos" / split).iterdir())):
            if not keep(split, label):
                shutil.rmtree(path)
    return build_set(folder / "photos", folder / "shards", shard_records=6)


@pytest.fixture(scope="module")
def four_classes(tmp_path_factory):
    return set_of(tmp_path_factory.mktemp("four"), lambda split, label: True)


@pytest.fixture(scope="module")
def tested(four_classes, tmp_path_factory):
    """A set of train and test without val: the photos of val as test."""
    root = shutil.copytree(four_classes.root, tmp_path_factory.mktemp("tested") / "shards")
    (root / "val").rename(root / "test")
    text = (root / "dataset.json").read_text()
    manifest = json.loads(text)
    manifest["splits"]["test"] = manifest["splits"].pop("val")
    for shard in manifest["splits"]["test"]["shards"]:
        shard["path"] = shard["path"].replace("val/", "test/")
    (root / "dataset.json").write_text(json.dumps(manifest))
    return open_shard_set(root)


# --- one class -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_class(tmp_path_factory):
    return set_of(tmp_path_factory.mktemp("one"), lambda split, label: label == 1)


@pytest.fixture(scope="module")
def one_of_two(tmp_path_factory):
    """Two classes, of which only one is in train."""
    return set_of(tmp_path_factory.mktemp("two"), lambda split, label: label == 1 or (split, label) == ("val", 2))


@pytest.mark.parametrize("name", ["one_class", "one_of_two"])
def test_one_class_is_refused(name, request, fit, tmp_path):
    lonely = request.getfixturevalue(name)
    code, out, err = fit(lonely)
    assert (code, out) == (2, "") and not (tmp_path / "run").exists()
    assert f"{lonely.root}: all training photos are of one class ({lonely.classes[0]}): there is nothing to tell" in err
    assert f"alexnet-figures index RUN --shards {lonely.root}" in err


def test_the_photos_of_one_class_are_compared_by_another_nets_features(one_class, four_classes, tmp_path, in_process):
    run, index = tmp_path / "run", tmp_path / "index"
    tiny.trainer_of(four_classes, run, steps=1).train()
    of_the_set = ("--shards", one_class.root, "--device", "cpu", "--out")
    code, out, _ = in_process(figures, "index", run, *of_the_set, index)
    assert code == 0 and f"{one_class.split('train').records} vectors" in out
    code, out, _ = in_process(figures, "neighbours", run, *of_the_set, tmp_path, "--index", index, "--count", 1)
    assert code == 0 and "neighbours are of the photo's own class" in out and (tmp_path / "neighbours.png").exists()
    code, _, err = in_process(evaluate_runs, run, "--shards", one_class.root)
    assert code == 1 and "trained on 4 classes" in err  # its errors would be of other classes


def test_lost_record_lists_do_not_stop_a_run(four_classes, fit, tmp_path):
    copy = shutil.copytree(four_classes.root, tmp_path / "copy")
    for path in (copy / "train").glob("*.csv"):
        path.unlink()
    assert fit(open_shard_set(copy), "--steps", 1)[0] == 0


# --- no val ----------------------------------------------------------------------------------------------------------


def test_without_val_the_last_checkpoint_is_kept_and_test_can_be_evaluated(tested, fit, tmp_path, in_process):
    code, out, _ = fit(tested)
    run = tmp_path / "run"
    assert code == 0 and out.count("no photos in val") == 1
    assert f"{NO_VAL}; evaluate it with alexnet-eval {run} --split test\n" in out
    assert out.splitlines()[-1] == f"last checkpoint {run / 'last.pt'}" and not (run / "best.pt").exists()
    code, out, _ = in_process(evaluate_runs, run, "--split", "test", "--device", "cpu")
    assert code == 0 and "12 photos of" in out and "top-1 error" in out
    code, out, err = in_process(evaluate_runs, run, "--device", "cpu")
    assert (code, out) == (1, "") and "no records in a split 'val'; available: train (12), test (12)" in err
    assert "try: evaluate the split that it has: --split test" in err


@pytest.mark.parametrize(
    "options, said",
    [
        (("--recipe", "paper"), "but the schedule plateau lowers the rate by the validation error"),
        (("--schedule", "plateau"), "but the schedule plateau lowers the rate by the validation error"),
        (("--model", "resnet18", "--crop", 64), "but the schedule plateau lowers the rate by the validation error"),
        (("--early-stop", 3), "no photos in val, so no validation error could ever stop the run"),
    ],
    ids=["paper", "plateau", "another net", "early stop"],
)
def test_without_val_nothing_is_chosen_by_its_error(tested, fit, tmp_path, options, said):
    code, out, err = fit(tested, *options)
    assert (code, out) == (2, "") and said in err and "alexnet-prep build-lmdb --val-share 0.1" in err
    assert ("--schedule steps or one-cycle" in err) == ("schedule" in said) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("schedule", ["steps", "one-cycle"])
def test_schedules_that_need_no_val(tested, fit, tmp_path, schedule):
    assert fit(tested, "--recipe", "paper", "--schedule", schedule, "--steps", 1)[0] == 0
    code, _, err = fit(tested, "--resume", "--early-stop", 3)
    assert code == 2 and "could ever stop the run" in err


def test_a_run_that_began_without_val_on_a_plateau_goes_on(tested, tmp_path, in_process):
    """0.2.0 began such runs; their rate is constant, which is said."""
    run = tmp_path / "run"
    tiny.trainer_of(tested, run, recipe="paper", steps=1).train()
    code, out, _ = in_process(train, "--run", run, "--resume", "--steps", 2)
    assert code == 0 and "constant rate: without val there is no validation error to lower it by" in out
    assert checkpoint.load(run / "last.pt")["steps_done"] == 2


# --- a val of few or other classes -----------------------------------------------------------------------------------


def test_a_val_of_few_classes(tmp_path, fit):
    """train has 0, 1, 2; val 0 and 3, which no net of these photos will ever predict."""
    few = set_of(tmp_path, lambda split, label: label in ((0, 1, 2) if split == "train" else (0, 3)))
    code, out, _ = fit(few, "--steps", 1)
    assert code == 0
    assert (
        f"warning: 1 class has no training photos and will never be predicted: {few.classes[3]}; 3 of the 6 photos of "
        "val are of such classes, so its error will be at least 50.0%\n"
    ) in out
    assert "warning: val has photos of only 1 of the 3 classes of train, and the best checkpoint is chosen by " in out


def test_a_val_of_half_of_the_classes_is_usual(tmp_path, fit):
    few = set_of(tmp_path, lambda split, label: split == "train" or label < 2)
    code, out, _ = fit(few, "--steps", 1)
    assert code == 0 and "warning" not in out
