"""What TensorBoard and Weights & Biases get of a run: read back with their own readers."""

import subprocess
import sys
import time
from io import BytesIO

import numpy as np
import pytest
import tiny
from alexnet_dali.model.training import kernel_snapshots, metrics
from alexnet_dali.pipeline.errors import ShardError
from alexnet_dali.tools import console
from alexnet_dali.tools.figures import predictions
from alexnet_dali.tools.train import tracking
from alexnet_dali.tools.train.cli import train
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

pytestmark = pytest.mark.usefixtures("small_nets")
SHORT = ("--epochs", "2", "--batch-size", "2", "--log-every", "1", "--precision", "fp32", "--device", "cpu")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return tiny.few_shards(tmp_path_factory.mktemp("few"))


def run_train(*arguments):
    with pytest.raises(SystemExit) as left:
        console.run(train, [str(argument) for argument in arguments])
    return left.value.code


def events(run):
    read = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    return read


def curve(read, name):
    return {event.step: pytest.approx(event.value) for event in read.Scalars(name)}


def test_events_are_the_metrics_of_a_run_that_was_stopped_and_resumed(few, tmp_path):
    run = tmp_path / "run"
    assert run_train("--shards", few.root, "--run", run, *SHORT, "--steps", 4) == 0
    # What a killed run has written beyond its checkpoint is not shown once it has gone on.
    beyond = SummaryWriter(str(run))
    beyond.add_scalar("loss", 99.0, 5)
    beyond.close()
    time.sleep(1)  # files are read in the order of their names: the second, then the writer's number as text
    assert run_train("--run", run, "--resume", "--steps", 0, "--device", "cpu") == 0
    read, lines = events(run), metrics.read(run / "metrics.jsonl")
    steps = [line for line in lines if line["kind"] == "step"]
    assert curve(read, "loss") == {line["step"]: line["loss"] for line in steps} and len(steps) == 6
    for name in ("top1_error", "rate", "images_per_second", "stall_percent"):
        assert set(curve(read, name)) == {1, 2, 3, 4, 5, 6}
    epochs = [line for line in lines if line["kind"] == "epoch"]
    for name in ("val_loss", "val_top1_error", "val_top5_error"):
        assert curve(read, name) == {line["step"]: line[name] for line in epochs}


def test_events_of_a_run_that_was_killed_before_its_first_checkpoint_are_not_shown(few, tmp_path):
    run = tmp_path / "run"
    left = SummaryWriter(str(run))
    for step in range(1, 6):
        left.add_scalar("loss", 99.0, step)
    left.close()
    time.sleep(1)
    assert run_train("--shards", few.root, "--run", run, *SHORT, "--steps", 2) == 0
    steps = [line for line in metrics.read(run / "metrics.jsonl") if line["kind"] == "step"]
    assert curve(events(run), "loss") == {line["step"]: line["loss"] for line in steps} and len(steps) == 2


def test_kernels_and_predictions_are_pictures(few, tmp_path):
    run = tmp_path / "run"
    assert run_train("--shards", few.root, "--run", run, *SHORT) == 0
    read = events(run)
    assert [event.step for event in read.Images("kernels")] == [0, 3, 6]
    assert [event.step for event in read.Images("predictions")] == [3, 6]
    last = read.Images("kernels")[-1]
    assert (last.width, last.height) == (3 * (16 * 12 - 1), 3 * (6 * 12 - 1))
    pixels = np.asarray(Image.open(BytesIO(last.encoded_image_string)))
    weights = kernel_snapshots.read(run)[2]
    brightest = np.unravel_index(np.abs(weights[17]).argmax(), weights[17].shape)  # second row, second kernel
    channel, y, x = (int(place) for place in brightest)
    seen = pixels[3 * (12 + y), 3 * (12 + x), channel]
    assert seen == (255 if weights[17][brightest] > 0 else 0)


@pytest.mark.parametrize("error", [ShardError("val/00000.lmdb: damaged", "verify"), OSError(5, "disk")])
def test_what_cannot_be_drawn_is_told_once_and_the_run_goes_on(few, tmp_path, monkeypatch, capfd, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(predictions, "stored_photos", fails)
    monkeypatch.setattr(kernel_snapshots, "read", fails)
    run = tmp_path / "run"
    assert run_train("--shards", few.root, "--run", run, *SHORT) == 0
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: no more pictures")]
    assert sorted(said) == [f"warning: no more pictures of {name}: {error}; the run continues" for name in (
        "kernels", "predictions")]  # fmt: skip
    read = events(run)
    assert len(curve(read, "loss")) == 6 and read.Tags()["images"] == [], "the curves go on"


def test_without_tensorboard_nothing_is_written_and_without_wandb_it_is_said(few, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    run = tmp_path / "run"
    assert run_train("--shards", few.root, "--run", run, *SHORT, "--steps", 1) == 0
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "kernels", "last.pt", "metrics.jsonl"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run_train("--shards", few.root, "--run", tmp_path / "other", *SHORT, "--wandb") == 2
    assert "error: --wandb: wandb is not installed\n  try: pip install wandb" in capfd.readouterr().err


def test_neither_is_imported_where_it_is_not_used():
    asked = "import sys, alexnet_dali.tools.train.run; print([n for n in ('wandb', 'tensorboard') if n in sys.modules])"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def test_wandb_gets_the_run_and_goes_on_with_it(few, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    assert run_train("--shards", few.root, "--run", run, *SHORT, "--steps", 4, "--wandb") == 0
    own = (run / tracking.WANDB_ID).read_text()
    assert run_train("--run", run, "--resume", "--steps", 0, "--device", "cpu", "--wandb") == 0
    assert (run / tracking.WANDB_ID).read_text() == own
    folders = sorted((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(folder.name.endswith(own) for folder in folders)
    media = [path.name for path in (run / "wandb").rglob("*.png")]
    assert any("kernels" in name for name in media) and any("predictions" in name for name in media)
