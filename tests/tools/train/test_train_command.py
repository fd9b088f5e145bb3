"""alexnet-train and alexnet-eval as people type them: exit codes, texts, signals, a killed process."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout

import pytest
import tiny
import torch
from alexnet_dali.model.recipes.recipe import RECIPES
from alexnet_dali.model.training import checkpoint, metrics
from alexnet_dali.model.training.evaluate import EvalOptions, evaluate
from alexnet_dali.model.weights.trained import load_trained
from alexnet_dali.pipeline.files import locked
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.tools import console
from alexnet_dali.tools.evaluate import evaluate_runs
from alexnet_dali.tools.train.cli import train
from conftest import build_set
from faults import Faults
from tiny import assert_same_run
from waiting import waiting_at_most

# Two epochs of three steps of two photos.
SHORT = ("--device", "cpu", "--epochs", "2", "--batch-size", "2", "--log-every", "2")


pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return tiny.few_shards(tmp_path_factory.mktemp("few"))


@pytest.fixture
def run_command(capfd):
    """Run a command to its exit: its code, and what it said on both outputs."""

    def run(command, *arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            console.run(command, [str(argument) for argument in arguments])
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return left.value.code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def trained_and_said(few, tmp_path_factory):
    """A run of six steps that nothing stopped, by the command, and what that printed on standard output."""
    run, out, err = tmp_path_factory.mktemp("trained") / "run", io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit) as left, redirect_stdout(out), redirect_stderr(err):
        console.run(train, ["--shards", str(few.root), "--run", str(run), *SHORT])
    assert (left.value.code, err.getvalue()) == (0, "")
    return run, out.getvalue()


@pytest.fixture(scope="module")
def trained(trained_and_said):
    return trained_and_said[0]


def bytes_of(run):
    """All that a run has written but its configuration."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "config.json"}


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of that run to spoil."""
    return shutil.copytree(trained, tmp_path / "copied")


def test_training_says_what_it_does(few, trained_and_said):
    run, out = trained_and_said
    lines = out.splitlines()
    assert lines[0].startswith("source2012: what ran in 2012")
    assert re.fullmatch(r".+/shards: 6 photos of 4 classes, 3 in val", lines[1])
    assert lines[2] == f"2 epochs of 3 steps; global batch 2, fp32 on cpu, run {run}"
    assert lines[3] == (
        "rate 0.0006325: 0.01 x sqrt(4 / 1,000), since the rate of 2012 is tuned for 1,000 classes and diverges with "
        "few; --rate overrides"
    )
    assert lines[4] == (
        "the diary of params 145, ILSVRC-2012: epoch 1 rate x 0.1; epoch 1 rate x 0.01; epoch 1 conv1 x 0.001, "
        "lighting off; epoch 2 conv1 frozen; epoch 2 rate x 0.001"
    )
    threads = len(os.sched_getaffinity(0))
    assert re.fullmatch(
        rf"input: {threads} threads? read, decode, crop, mirror and normalise; DALI cuts the evaluation views "
        r"\(decode fused: the fastest on a CPU\)",
        lines[5],
    )
    step = r"  loss \d\.\d{4}  error \d+\.\d%  [\d,]+ images/s  stall \d+\.\d%  (\d+ s|\d+ min \d\d s) left"
    val = (
        r"  loss \d\.\d{4}  error \d+\.\d%  val loss \d\.\d{4}, top-1 \d+\.\d%, top-5 0\.0%  [\d,]+ images/s  stall .*%"
    )
    for line, pattern in zip(
        lines[6:11],
        (
            rf"epoch 1/2  step 2/6{step}",
            rf"epoch 1 done{val}",
            rf"epoch 2/2  step 4/6{step}",
            rf"epoch 2/2  step 6/6{step}",
            rf"epoch 2 done{val}",
        ),
        strict=True,
    ):
        assert re.fullmatch(pattern, line), line
    assert re.fullmatch(
        r"\d+ s: 12 images, [\d,]+ images/s, stalled \d+\.\d\d% of the time \(start-up \d+\.\d s\)", lines[11]
    )
    assert lines[12] == f"last checkpoint {run / 'last.pt'}, best {run / 'best.pt'}"
    assert len(lines) == 13
    written = json.loads((run / "config.json").read_text())
    assert written["rate"] == pytest.approx(0.01 * 0.004**0.5) and written["recipe"]["name"] == "source2012"
    assert written["batch_size"] == 2 and written["shards"] == str(few.root.resolve())


def test_a_terminal_has_one_live_line(few, tmp_path, monkeypatch, run_command):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, _ = run_command(
        train, "--shards", few.root, "--run", tmp_path / "run", *SHORT, "--log-every", 1, "--decode", "threads"
    )
    assert code == 0
    live = out.partition("(--decode threads)\n")[2].partition("epoch 1 done")[0]
    assert live.count("\r\033[K") == 4 and "\n" not in live


def test_a_rate_that_was_asked_for_is_used(few, tmp_path, run_command):
    run = tmp_path / "run"
    code, out, _ = run_command(
        train, "--shards", few.root, "--run", run, *SHORT, "--rate", 0.002, "--steps", 1, "--recipe", "paper"
    )
    assert code == 0 and "\nrate 0.002\n" in out
    assert "rate/10 when the validation error has not improved for 1 epoch, three times" in out
    config = checkpoint.load(run / "last.pt")["config"]
    assert (config["rate"], config["recipe"], config["steps"]) == (0.002, "paper", 1)


def test_the_rate_of_1000_classes_needs_no_reason(few, tmp_path, run_command, monkeypatch):
    monkeypatch.setattr("alexnet_dali.tools.train.configure.first_rate", lambda classes: 0.01)
    monkeypatch.setattr("alexnet_dali.tools.train.run_summary.first_rate", lambda classes: 0.01)
    monkeypatch.setattr("alexnet_dali.tools.train.run_summary.CLASSES_2012", 4)
    code, out, _ = run_command(train, "--shards", few.root, "--run", tmp_path / "run", *SHORT, "--steps", 1)
    assert code == 0 and "\nrate 0.01\n" in out


def test_defaults_are_the_recipes(few, tmp_path, run_command, monkeypatch):
    """runs/RECIPE in the present folder; 91 epochs of 128; a batch larger than the split is the split."""
    monkeypatch.chdir(tmp_path)
    code, out, _ = run_command(train, "--shards", os.path.relpath(few.root), "--steps", 1, "--device", "cpu")
    assert code == 0 and "91 epochs of 1 steps; global batch 6, fp32 on cpu, run runs/source2012" in out
    config = checkpoint.load(tmp_path / "runs/source2012/last.pt")["config"]
    assert config == {
        "shards": str(few.root.resolve()),  # usable from any folder
        "recipe": "source2012",
        "epochs": 91,
        "batch_size": 128,
        "rate": pytest.approx(0.01 * 0.004**0.5),
        "precision": "fp32",
        "device": "cpu",
        "steps": 1,
        "decode": "auto",
        "seed": 0,
        "log_every": 20,
        "save_every": 1000,
        "model": "alexnet",
        "crop": 224,
        "processes": 1,
        "parallel": "alone",
        "schedule": "diary",
        "early_stop": 0,
        "init_from": "",
        "deterministic": False,
    }


def test_recipes_are_listed(run_command):
    code, out, err = run_command(train, "--list-recipes")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(RECIPES)
    assert all(RECIPES[line.split()[0]]().summary in line for line in out.splitlines())
    assert out.splitlines()[0].endswith("  [40.7 / 18.2 val 2012, ten views]") and "[]" not in out


def test_another_schedule_than_the_recipes(few, tmp_path, run_command):
    run = tmp_path / "run"
    code, out, _ = run_command(
        train, "--shards", few.root, "--run", run, *SHORT, "--schedule", "steps", "--steps", 1, "--log-every", 1
    )
    assert code == 0 and "rate/10 after each third of the run" in out and "diary" not in out.partition("\n")[2]
    code, _, err = run_command(train, "--run", run, "--resume", "--schedule", "one-cycle")
    assert code == 2 and "--schedule was steps, not one-cycle" in err
    code, _, err = run_command(train, "--shards", few.root, "--model", "resnet18", "--schedule", "diary")
    assert code == 2 and "--schedule diary: the diaries are for alexnet, not for resnet18" in err


def test_the_modern_recipe_brings_its_rate_and_precision(few, tmp_path, run_command):
    run = tmp_path / "run"
    code, out, _ = run_command(
        train, "--shards", few.root, "--run", run, *SHORT, "--recipe", "modern", "--steps", 1, "--batch-size", 4
    )
    assert code == 0 and "\nrate 0.01\n" in out and "bf16 on cpu" in out
    assert "one cycle: the rate rises for 20% of the run, then falls to 0" in out
    config = checkpoint.load(run / "last.pt")["config"]
    assert (config["rate"], config["precision"], config["recipe"]) == (0.01, "bf16", "modern")


def test_a_run_begins_with_the_weights_of_another(few, trained, tmp_path, run_command):
    """The diary and the length are those of the fine-tuned net; --resume goes on without asking for it again."""
    run = tmp_path / "run"
    options = ("--shards", few.root, "--run", run, "--device", "cpu", "--batch-size", 6, "--recipe", "six-conv")
    code, out, _ = run_command(train, *options, "--init-from", trained, "--steps", 1)
    best = (trained / "best.pt").resolve()
    assert code == 0 and f"initial weights from {best}; newly initialised: conv6, fc8\n" in out
    assert "54 epochs of 1 steps" in out
    assert "the diary of params 146-2012-2011" in out
    saved = checkpoint.load(run / "last.pt")
    assert (saved["config"]["init_from"], saved["config"]["epochs"]) == (str(best), 54)
    code, out, _ = run_command(train, "--run", run, "--resume", "--device", "cpu", "--steps", 2)
    assert code == 0 and "the diary of params 146-2012-2011" in out and "resuming after step 1" in out
    code, _, err = run_command(train, "--run", run, "--resume", "--device", "cpu", "--init-from", trained / "last.pt")
    assert code == 2 and f"--init-from was {best}, not {(trained / 'last.pt').resolve()}" in err


def test_the_weights_of_nothing(few, tmp_path, run_command):
    arguments = ("--shards", few.root, "--run", tmp_path / "run", *SHORT, "--init-from", tmp_path / "none")
    code, _, err = run_command(train, *arguments)
    assert code == 2 and f"{tmp_path / 'none'}: no such checkpoint" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "every, steps",
    [(3, [3]), pytest.param(1, [1, 2, 3, 4, 5], marks=pytest.mark.slow), pytest.param(100, [], marks=pytest.mark.slow)],
)
def test_lines_come_every_log_every_steps(few, tmp_path, run_command, every, steps):
    run = tmp_path / "run"
    arguments = ("--shards", few.root, "--run", run, *SHORT[:-1], every, "--steps", 5)
    assert run_command(train, *arguments)[0] == 0
    written = metrics.read(run / "metrics.jsonl")
    assert [line["step"] for line in written if line["kind"] == "step"] == steps
    assert [line["step"] for line in written if line["kind"] == "epoch"] == [3]


def test_the_whole_net_trains(few, tmp_path, run_command, monkeypatch):
    """In full size, once: 4,096 hidden units."""
    from alexnet_dali.model.nets import alexnet

    monkeypatch.setattr(alexnet, "HIDDEN", 4096)
    run = tmp_path / "run"
    code, _, err = run_command(train, "--shards", few.root, "--run", run, *SHORT, "--steps", 1)
    assert (code, err) == (0, "")
    assert (
        sum(tensor.numel() for tensor in checkpoint.load(run / "last.pt")["model"].values()) == 60_965_224 - 996 * 4097
    )
    shutil.rmtree(run)  # 450 MB


def test_an_empty_val_is_said_and_has_no_best(tmp_path, run_command):
    unseen = tiny.few_shards(tmp_path, val=0)
    run = tmp_path / "run"
    code, out, _ = run_command(train, "--shards", unseen.root, "--run", run, *SHORT)
    assert code == 0 and "no photos in val: no evaluation after epochs, and nothing to choose the best" in out
    assert "in val" not in out.splitlines()[1] and "val loss" not in out and "best " not in out.splitlines()[-1]
    assert not (run / "best.pt").exists() and (run / "last.pt").exists()
    assert all("val_loss" not in line for line in metrics.read(run / "metrics.jsonl"))


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_no_shard_set(tmp_path, run_command):
    code, out, err = run_command(train, "--shards", tmp_path / "none", "--run", tmp_path / "run", *SHORT)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"error: {tmp_path / 'none'}: no shard set there (no dataset.json)",
        f"  try: build one: alexnet-prep build-lmdb PHOTOS --out {tmp_path / 'none'}",
    ]
    assert not (tmp_path / "run").exists()


def test_no_statistics(few, tmp_path, run_command):
    shards = shutil.copytree(few.root, tmp_path / "shards")
    (shards / "stats.npz").unlink()
    code, _, err = run_command(train, "--shards", shards, "--run", tmp_path / "run", *SHORT)
    assert code == 1 and "no statistics yet" in err
    assert f"alexnet-prep pca-stats --shards {shards}" in err
    assert not (tmp_path / "run").exists()


def test_statistics_of_another_set(few, shards, tmp_path, run_command):
    copy = shutil.copytree(few.root, tmp_path / "shards")
    shutil.copy(shards.root / "stats.npz", copy / "stats.npz")
    code, _, err = run_command(train, "--shards", copy, "--run", tmp_path / "run", *SHORT)
    assert code == 1 and f"{copy / 'stats.npz'}: these statistics are of another shard set" in err
    assert f"alexnet-prep pca-stats --shards {copy}" in err


def test_a_run_is_not_written_over(few, trained, run_command):
    before = bytes_of(trained)
    code, _, err = run_command(train, "--shards", few.root, "--run", trained, *SHORT)
    assert code == 2 and f"error: {trained}: already holds a run" in err and "--resume" in err
    assert bytes_of(trained) == before


def test_nothing_to_resume(few, tmp_path, run_command):
    code, _, err = run_command(train, "--shards", few.root, "--run", tmp_path / "run", *SHORT, "--resume")
    assert code == 2 and f"{tmp_path / 'run'}: no last.pt to resume from" in err
    assert "start a new run without --resume" in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options, told",
    [
        (("--rate", "0.1"), "--rate was 0.000632455532033675"),
        (("--batch-size", "3"), "--batch-size was 2, not 3"),
        (("--recipe", "paper"), "--recipe was source2012, not paper"),
        (("--seed", "7"), "--seed was 0, not 7"),
        (("--precision", "bf16"), "--precision was fp32, not bf16"),
    ],
    ids=str,
)
def test_resume_refuses_other_options_by_name(trained, run_command, options, told):
    before = bytes_of(trained)
    code, _, err = run_command(train, "--run", trained, "--device", "cpu", "--resume", *options)
    assert code == 2 and "error: --resume cannot change these options of the run: " in err and told in err
    assert "omit them, or start a new run" in err
    assert bytes_of(trained) == before


def test_resume_of_a_finished_run_has_nothing_to_do(trained, run_command):
    before = bytes_of(trained)
    code, out, _ = run_command(train, "--run", trained, "--device", "cpu", "--resume")
    assert code == 0 and f"{trained}: all 6 steps are done; continue with more --epochs or --steps" in out
    assert bytes_of(trained) == before


def test_resume_with_more_epochs_goes_on(copied, run_command):
    code, out, _ = run_command(train, "--run", copied, "--device", "cpu", "--resume", "--epochs", 3, "--log-every", 1)
    assert code == 0 and "resuming after step 6 (epoch 3)" in out
    assert json.loads((copied / "config.json").read_text())["epochs"] == 3
    assert [line["step"] for line in metrics.read(copied / "metrics.jsonl")] == [2, 3, 4, 6, 6, 7, 8, 9, 9]


def test_more_epochs_lift_an_earlier_limit_of_steps(few, tmp_path, run_command):
    run = tmp_path / "run"
    code, _, _ = run_command(train, "--shards", few.root, "--run", run, *SHORT, "--steps", 3)
    assert code == 0
    code, out, _ = run_command(train, "--run", run, "--resume", "--epochs", 2)
    assert code == 0 and "all 6 steps" not in out and metrics.read(run / "metrics.jsonl")[-1]["step"] == 6


def test_resume_stays_on_its_device(copied, run_command, monkeypatch):
    """A run of the CPU does not move to a GPU because there is one."""
    asked = []
    monkeypatch.setattr(
        "alexnet_dali.tools.train.run.pick_device", lambda name: asked.append(name) or torch.device("cpu")
    )
    run_command(train, "--run", copied, "--resume")
    run_command(train, "--run", copied, "--resume", "--device", "auto")
    assert asked == ["cpu", "auto"]


def test_resume_of_a_recipe_that_has_changed(copied, run_command):
    saved = checkpoint.load(copied / "last.pt")
    saved["recipe"]["lighting"] = "none"
    checkpoint.save(copied / "last.pt", saved)
    code, _, err = run_command(train, "--run", copied, "--resume", "--epochs", 3)
    assert code == 1 and "recipe source2012 differs in this version (lighting)" in err


def test_a_live_line_is_no_wider_than_the_terminal(few, tmp_path, run_command, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = run_command(train, "--shards", few.root, "--run", tmp_path / "run", *SHORT, "--steps", 2)
    live = [part.split("\r")[0].split("\n")[0] for part in out.split("\r\033[K") if part.startswith("epoch 1/2")]
    assert live and all(len(line) <= 39 for line in live)


def test_eval_names_a_missing_folder_before_it_begins(trained, tmp_path, run_command):
    file = tmp_path / "no" / "x.json"
    code, out, err = run_command(evaluate_runs, trained, "--device", "cpu", "--json", file)
    assert code == 2 and f"{file}: its folder does not exist" in err and "top-1" not in out


def test_a_run_that_is_a_file(few, tmp_path, run_command):
    (tmp_path / "run").write_text("")
    code, _, err = run_command(train, "--shards", few.root, "--run", tmp_path / "run", *SHORT)
    assert code == 2 and f"{tmp_path / 'run'}: not a folder" in err


def test_resume_on_another_set_of_the_same_classes(copied, shards, run_command):
    code, _, err = run_command(train, "--run", copied, "--device", "cpu", "--resume", "--shards", shards.root)
    assert code == 1 and f"{copied / 'last.pt'}: trained on another shard set than {shards.root}" in err
    assert "name its shard set with --shards" in err


@pytest.fixture(scope="module")
def other_classes(photos, tmp_path_factory):
    """A set of three of the four classes."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(photos, folder / "photos")
    for split in ("train", "val"):
        shutil.rmtree(sorted((folder / "photos" / split).iterdir())[-1])
    return build_set(folder / "photos", folder / "shards")


def test_resume_on_other_classes(copied, few, other_classes, run_command):
    code, _, err = run_command(train, "--run", copied, "--device", "cpu", "--resume", "--shards", other_classes.root)
    first = ", ".join(few.classes[:3])
    assert code == 1 and f"trained on 4 classes ({first}, ...), but {other_classes.root} has 3" in err


def test_resume_of_a_damaged_checkpoint_names_another(copied, run_command):
    content = bytearray((copied / "last.pt").read_bytes())
    content[len(content) // 2] ^= 4
    (copied / "last.pt").unlink()  # it may be another name of the best
    (copied / "last.pt").write_bytes(content)
    code, _, err = run_command(train, "--run", copied, "--device", "cpu", "--resume")
    assert code == 1 and f"{copied / 'last.pt'}: damaged, or not a checkpoint" in err
    assert f"use another checkpoint of that run: {copied / 'best.pt'}" in err


def test_resume_of_another_net(copied, run_command):
    saved = checkpoint.load(copied / "last.pt")
    del saved["model"]["conv4.weight"], saved["format"], saved["version"]
    checkpoint.save(copied / "last.pt", saved)
    code, _, err = run_command(train, "--run", copied, "--device", "cpu", "--resume")
    assert code == 1 and f"{copied / 'last.pt'}: does not fit this net: " in err and "conv4.weight" in err


def test_one_process_a_run(few, tmp_path, run_command):
    with locked(tmp_path / "run"):
        code, _, err = run_command(train, "--shards", few.root, "--run", tmp_path / "run", *SHORT)
    assert code == 1 and "another process is at work there" in err


@pytest.mark.parametrize(
    "options, told",
    [
        (("--recipe", "caffe"), "'caffe' is not one of"),
        (("--epochs", "0"), "0 is not in the range x>=1"),
        (("--rate", "fast"), "'fast' is not a valid float"),
        (("--rate", "0"), "--rate 0.0 is not between 0 and 100"),
        (("--precision", "tf32"), "--precision tf32 needs a GPU"),
        (("--precison", "fp32"), "--precison"),
        (("--seed", str(1 << 63)), "out of range"),
    ],
    ids=str,
)
def test_a_wrong_option(few, tmp_path, run_command, options, told):
    code, _, err = run_command(train, "--shards", few.root, "--run", tmp_path / "run", *SHORT, *options)
    assert code == 2 and told in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", [train, evaluate_runs])
def test_a_gpu_that_is_not_there(few, tmp_path, run_command, monkeypatch, command):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ["--shards", few.root, "--device", "cuda", *([tmp_path] if command is evaluate_runs else [])]
    code, _, err = run_command(command, *arguments)
    assert code == 1 and "--device cuda: no usable GPU on this machine" in err
    assert "alexnet-prep doctor" in err and "--device cpu" in err


def test_a_loss_that_is_no_number_ends_the_command(few, tmp_path, run_command):
    run = tmp_path / "run"
    code, _, err = run_command(train, "--shards", few.root, "--run", run, *SHORT, "--rate", 99, "--epochs", 9)
    assert code == 1 and re.search(r"error: (the loss is (nan|inf)|\w+\.\w+ is not finite)", err)
    assert "start again with a smaller --rate" in err


# --- stopped and killed -----------------------------------------------------------------------------------------------


def start(*arguments):
    """alexnet-train in a process of its own, its net as small as ours."""
    return subprocess.Popen(
        [sys.executable, "-c", tiny.COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_kill_9_then_resume_is_the_undisturbed_run(few, trained, tmp_path, run_command):
    run = tmp_path / "run"
    process = start("--shards", few.root, "--run", run, *SHORT, "--save-every", 1)
    try:
        deadline = time.monotonic() + 60
        while not (run / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed_at = checkpoint.load(run / "last.pt")["steps_done"]
    assert 1 <= killed_at < 6
    code, out, _ = run_command(train, "--run", run, "--device", "cpu", "--resume")
    assert code == 0 and f"resuming after step {killed_at} (epoch {1 + killed_at // 3})" in out
    assert_same_run(run, trained)
    assert checkpoint.load(run / "best.pt")["epoch"] == checkpoint.load(trained / "best.pt")["epoch"]


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_signal_finishes_the_step_and_saves(few, trained, tmp_path, run_command, number, code):
    run = tmp_path / "run"
    process = start("--shards", few.root, "--run", run, *SHORT[:-1], 1)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "step 1/6" in line:
                process.send_signal(number)
                break
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    steps = checkpoint.load(run / "last.pt")["steps_done"]
    assert 1 <= steps < 6
    advice = f"alexnet-train --run {run} --resume"
    assert err.splitlines() == [f"stopped and saved after step {steps}; continue with: {advice}"]
    # Exactly as advised, with one word more: this machine may have a GPU.
    ended, _, _ = run_command(train, *advice.split()[1:], "--device", "cpu", "--log-every", 2)
    assert ended == 0
    # Bit for bit: the same batches, and as many threads in the other process as in this one.
    one, two = (checkpoint.load(each / "last.pt") for each in (run, trained))
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in two["model"])
    assert all(torch.equal(one["velocity"][name], two["velocity"][name]) for name in two["velocity"])


# --- alexnet-eval -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def second(few, tmp_path_factory):
    """Another run on the same set: of another seed, so that the two err differently."""
    run = tmp_path_factory.mktemp("second") / "run"
    with pytest.raises(SystemExit):
        console.run(train, ["--shards", str(few.root), "--run", str(run), *SHORT, "--seed", "1", "--rate", "0.004"])
    return run


@pytest.mark.parametrize("views", [1, 10, *(pytest.param(views, marks=pytest.mark.slow) for views in (5, 8))])
def test_eval_says_and_writes_the_error(few, trained, tmp_path, run_command, views):
    file = tmp_path / "result.json"
    code, out, err = run_command(evaluate_runs, trained, "--views", views, "--json", file, "--device", "cpu")
    assert (code, err) == (0, "")
    net = load_trained(trained / "best.pt").net
    expected = evaluate([net], few, stats.load_stats(few), options=EvalOptions(views=views))
    result = json.loads(file.read_text())
    assert result == {
        "runs": [str(trained / "best.pt")],
        "shards": str(few.root.resolve()),
        "split": "val",
        "views": views,
        "resize": None,
        "images": 3,
        "loss": pytest.approx(expected.loss, rel=1e-5),
        "top1_error": pytest.approx(expected.top1_error),
        "top5_error": 0.0,
    }
    first, last = out.splitlines()
    assert first == f"{trained / 'best.pt'}: 3 photos of {few.root.resolve()}/val, {views} view{'s' * (views > 1)}"
    assert last == (f"top-1 error {100 * expected.top1_error:.2f}%   top-5 error 0.00%   loss {result['loss']:.4f}")


def test_eval_resizes_before_the_views_are_cut(few, trained, tmp_path, run_command):
    file = tmp_path / "result.json"
    code, out, _ = run_command(evaluate_runs, trained, "--resize", 232, "--views", 5, "--json", file, "--device", "cpu")
    assert code == 0 and "5 views of 232x232\n" in out
    net = load_trained(trained / "best.pt").net
    expected = evaluate([net], few, stats.load_stats(few), options=EvalOptions(views=5, resize=232, mean="rgb"))
    result = json.loads(file.read_text())
    assert (result["resize"], result["loss"]) == (232, pytest.approx(expected.loss, rel=1e-5))
    assert (
        abs(result["loss"] - evaluate([net], few, stats.load_stats(few), options=EvalOptions(views=5, mean="rgb")).loss)
        > 1e-6
    )


@pytest.mark.parametrize("options", [["--views", "3"], ["--views", "10", "--resize", "200"]])
def test_eval_of_views_that_cannot_be(trained, run_command, options):
    code, _, err = run_command(evaluate_runs, trained, *options, "--device", "cpu")
    assert code == 1 and ("unsupported number of views: 3" in err or "does not fit into 200x200" in err)


def test_eval_of_two_runs_averages_them(few, trained, second, tmp_path, run_command):
    file = tmp_path / "result.json"
    code, out, _ = run_command(
        evaluate_runs, trained, second / "last.pt", "--json", file, "--device", "cpu", "--split", "train"
    )
    assert code == 0 and out.startswith(f"{trained / 'best.pt'}, {second / 'last.pt'}: 6 photos of ")
    nets = [load_trained(path).net for path in (trained / "best.pt", second / "last.pt")]
    measured = stats.load_stats(few)
    both = evaluate(nets, few, measured, split="train")
    alone = [evaluate([net], few, measured, split="train").loss for net in nets]
    loss = json.loads(file.read_text())["loss"]
    assert loss == pytest.approx(both.loss, rel=1e-5)
    assert all(abs(loss - one) > 1e-4 for one in alone)


def test_eval_uses_the_shards_that_were_trained_on_from_any_folder(trained, tmp_path, run_command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run_command(evaluate_runs, os.path.relpath(trained), "--device", "cpu")
    assert code == 0 and "3 photos of" in out


def test_eval_brings_the_statistics_with_it(few, trained, tmp_path, run_command):
    """Another set of the same classes needs none of its own: the net wants the mean it was trained with."""
    copy = shutil.copytree(few.root, tmp_path / "shards")
    (copy / "stats.npz").unlink()
    code, _, _ = run_command(evaluate_runs, trained, "--shards", copy, "--device", "cpu")
    assert code == 0


def test_eval_on_other_classes(trained, other_classes, run_command):
    code, _, err = run_command(evaluate_runs, trained, "--shards", other_classes.root, "--device", "cpu")
    assert code == 1 and f"{trained / 'best.pt'}: trained on 4 classes" in err and "has 3" in err


def test_eval_on_pictures_of_another_size(few, trained, tmp_path, run_command):
    small = build_set(few.root.parent / "photos", tmp_path / "small", size=240)
    code, _, err = run_command(evaluate_runs, trained, "--shards", small.root, "--device", "cpu")
    assert code == 1 and f"{trained / 'best.pt'}: trained on pictures of 256x256" in err and "has 240x240" in err
    assert "--size 256" in err


def test_eval_of_runs_on_different_photos(trained, shards, tmp_path, run_command):
    run = tmp_path / "run"
    assert run_command(train, "--shards", shards.root, "--run", run, *SHORT, "--steps", 1)[0] == 0
    code, _, err = run_command(evaluate_runs, trained, run, "--device", "cpu")
    assert code == 1 and f"{run / 'last.pt'}: trained on other photos" in err
    assert "average runs that were trained on one shard set" in err


def test_eval_of_nothing(tmp_path, run_command):
    code, _, err = run_command(evaluate_runs, "--device", "cpu")
    assert code == 2 and "Missing argument 'RUNS...'" in err
    code, _, err = run_command(evaluate_runs, tmp_path / "none", "--device", "cpu")
    assert code == 2 and f"{tmp_path / 'none'}: no such checkpoint" in err and "runs/source2012" in err


def test_eval_where_the_shards_are_gone(few, copied, tmp_path, run_command):
    shards, run = shutil.copytree(few.root, tmp_path / "moved"), tmp_path / "run"
    assert run_command(train, "--shards", shards, "--run", run, *SHORT, "--steps", 1)[0] == 0
    shards.rename(tmp_path / "elsewhere")
    code, _, err = run_command(evaluate_runs, run, "--device", "cpu")
    assert code == 2 and f"its shard set {shards} does not exist" in err and "name its folder: --shards" in err
    assert run_command(evaluate_runs, run, "--device", "cpu", "--shards", tmp_path / "elsewhere")[0] == 0


def test_eval_of_a_split_that_is_not_there(trained, run_command):
    code, _, err = run_command(evaluate_runs, trained, "--split", "test", "--device", "cpu")
    assert code == 1 and "no records in a split 'test'; available: train (6), val (3)" in err


def test_eval_sets_its_precision(trained, run_command, monkeypatch):
    """cuDNN's convolutions take TF32 unless told not to."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert run_command(evaluate_runs, trained, "--device", "cpu")[0] == 0
    assert torch.backends.cudnn.allow_tf32 is False
    code, _, err = run_command(evaluate_runs, trained, "--device", "cpu", "--precision", "tf32")
    assert code == 2 and "--precision tf32 needs a GPU" in err


def test_the_set_that_was_trained_on_is_the_one_named(few, trained):
    assert open_shard_set(load_trained(trained / "best.pt").shards).classes == few.classes


@pytest.mark.parametrize(
    "strange",
    [
        pytest.param(b"\xff\xfe", id="bytes"),
        pytest.param(b'{"kind": "step", "epoch": 1, "step": "y"}\n', id="text", marks=pytest.mark.slow),
        pytest.param(b'{"kind": "step", "epoch": 1, "step": null}\n', id="null", marks=pytest.mark.slow),
        pytest.param(b"[" * 200_000 + b"\n", id="deep"),
        pytest.param(b'{"kind": "step", "epoch": 1, "step": 1e400}\n', id="infinite", marks=pytest.mark.slow),
    ],
)
def test_damaged_metrics_do_not_stop_a_resume(trained, copied, run_command, strange):
    """The checkpoint is whole: nothing but the damaged lines is lost, and how many is said once."""
    whole = (copied / "metrics.jsonl").read_bytes()
    (copied / "metrics.jsonl").write_bytes(whole + strange)
    code, _, err = run_command(train, "--run", copied, "--device", "cpu", "--resume", "--epochs", 3)
    assert code == 0
    assert err.count("warning: ") == err.count("1 line is damaged or foreign, and removed") == strange.count(b"\n")
    after = (copied / "metrics.jsonl").read_bytes()
    assert after.startswith(whole) and len(after) > len(whole) and strange not in after


@pytest.mark.parametrize("name", ["metrics.jsonl", "last.pt"])
def test_a_pipe_in_a_runs_folder_is_refused_and_not_waited_for(copied, run_command, name):
    (copied / name).unlink()
    os.mkfifo(copied / name)
    with waiting_at_most(60):
        code, _, err = run_command(train, "--run", copied, "--device", "cpu", "--resume", "--epochs", 3)
    assert code == 1 and f"error: {copied / name}: a pipe or a device, not a file" in err


def test_resume_of_weights_that_are_no_numbers(copied, run_command):
    saved = checkpoint.load(copied / "last.pt")
    saved["velocity"]["conv1.weight"][0, 0, 0, 0] = float("nan")
    checkpoint.save(copied / "last.pt", saved)
    code, _, err = run_command(train, "--run", copied, "--device", "cpu", "--resume", "--epochs", 3)
    assert code == 1 and f"{copied / 'last.pt'}: velocity.conv1.weight has values that are not finite" in err


def test_beginning_with_weights_that_are_no_numbers(few, copied, tmp_path, run_command):
    saved = checkpoint.load(copied / "best.pt")
    saved["model"]["conv1.bias"][0] = float("inf")
    checkpoint.save(copied / "best.pt", saved)
    new = ("--run", tmp_path / "new", "--init-from", copied)
    code, _, err = run_command(train, "--shards", few.root, *new, *SHORT)
    assert code == 1 and f"{copied / 'best.pt'}: model.conv1.bias has values that are not finite" in err
    assert not (tmp_path / "new" / "last.pt").exists()


@pytest.mark.parametrize("name", [".", "train", "train/00000.lmdb"])
def test_a_run_is_not_put_into_a_shard_set(few, tmp_path, run_command, name):
    copy = shutil.copytree(few.root, tmp_path / "set")
    before = sorted(copy.rglob("*"))
    code, _, err = run_command(train, "--shards", copy, "--run", copy / name, *SHORT)
    said = "lies in a shard" if name.endswith(".lmdb") else "is a shard set or a part of one"
    assert code == 2 and said in err and "try: choose" in err
    assert sorted(copy.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", b'{"loss": 1.0, "step": 3}\n{"loss": 0.5, "step": 4}\n'),
        ("metrics.jsonl", b'{"loss": 1.0}'),
        ("config.json", b'{"hidden": 3, "epochs": 4}\n'),
        ("config.json", b"[1, 2]"),
        ("config.json", b"epochs: 4"),
    ],
)
def test_a_new_run_takes_nobody_s_files_for_its_own(few, tmp_path, run_command, name, content):
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_bytes(content)
    code, out, err = run_command(train, "--shards", few.root, "--run", run, *SHORT)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"error: {run / name}: exists and is not a file of alexnet-train; refusing to overwrite",
        "  try: choose another --run, or move the file",
    ]
    assert [path.name for path in run.iterdir()] == [name] and (run / name).read_bytes() == content


@pytest.mark.parametrize(
    "lines",
    [
        None,
        *(pytest.param(torn, marks=pytest.mark.slow) for torn in (b"", b'{"ki', b'{"kind": "step", "epo', b"\0" * 40)),
    ],
)
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(few, trained, tmp_path, run_command, lines):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(trained / "config.json", run)
    whole = (trained / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(whole.splitlines(keepends=True)[0] + b'{"k' if lines is None else lines)
    code, _, err = run_command(train, "--shards", few.root, "--run", run, *SHORT)
    assert (code, err) == (0, "")
    assert_same_run(run, trained)


def test_a_first_command_on_a_full_disk_names_no_checkpoint(few, tmp_path, run_command):
    with Faults(tmp_path / "run", 1, on=True):
        code, _, err = run_command(train, "--shards", few.root, "--run", tmp_path / "run", *SHORT)
    assert code == 1 and f"error: {tmp_path / 'run'}: cannot be written: No space left on device" in err
    assert "try: make room; then run the same command again" in err and "--resume" not in err


def test_class_names_command_no_terminal(few, tmp_path, run_command):
    """Of a stranger's shard set, one of whose classes has no photos."""
    copy = shutil.copytree(few.root, tmp_path / "set")
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest["classes"].append({"name": "\x1b[2J\x1b]0;owned\x07"})
    manifest.pop("classes_sha256", None)
    (copy / "dataset.json").write_text(json.dumps(manifest))
    code, out, err = run_command(train, "--shards", copy, "--run", tmp_path / "run", *SHORT, "--steps", 1)
    assert code == 0, err
    assert "never be predicted: \\x1b[2J\\x1b]0;owned\\x07" in out and "\x1b" not in out + err


@pytest.mark.parametrize("option", ["--rate", "--lr"])
def test_the_learning_rate_has_two_names(option):
    context = train.make_context("alexnet-train", [option, "0.5"])
    assert context.params["rate"] == 0.5


@pytest.mark.parametrize("wing", ["train", "prep", "bench", "demo", "figures"])
def test_a_wing_runs_as_a_module(wing):
    """As torchrun starts it; docs/training.md."""
    command = [sys.executable, "-m", f"alexnet_dali.tools.{wing}", "--version"]
    assert "version" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
