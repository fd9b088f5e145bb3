"""The n-th thing that a run does to its files fails, or is the last it does: n = 1, 2, 3, ... until a run succeeds.

After each, last.pt and best.pt are old or new, nothing half written has a final name, the message names a file and what
to do, and the run goes on to the bytes of one that nothing disturbed. `FAULT_KILLS=1000` kills at each, not at a few.
"""

import errno
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from alexnet_dali.model.training import checkpoint, kernel_snapshots, metrics, trainer
from alexnet_dali.pipeline.errors import TrainingError
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream.record_reader import RecordReader
from alexnet_dali.tools import console
from alexnet_dali.tools.train import tracking
from alexnet_dali.tools.train.cli import train
from faults import ERRORS, SHORT, SMALL, Faults, doubling, small_shards

KILLS = int(os.environ.get("FAULT_KILLS", "8"))
SLOW = pytest.mark.slow
HARMLESS = ("link ", "mkdir kernels")  # a copy takes its place; the folder is there already


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return small_shards(tmp_path_factory.mktemp("few"))


def without_tensorboard(patch):
    found = tracking.importlib.util.find_spec
    patch.setattr(
        tracking.importlib.util, "find_spec", lambda name, *more: None if name == "tensorboard" else found(name, *more)
    )


@pytest.fixture
def command(few, capfd, monkeypatch):
    """alexnet-train over them, or with --resume; its code and what it said on standard error. TensorBoard is absent."""
    without_tensorboard(monkeypatch)

    def call(run, *options):
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            console.run(train, arguments(few, run, *options))
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return left.value.code, said.err

    return call


def arguments(few, run, *options):
    """What is typed: of a run that saved nothing, the same again; else --resume."""
    if (run / "last.pt").exists():
        return ["--run", str(run), "--resume", "--device", "cpu", *options]
    return ["--shards", str(few.root), "--run", str(run), *SMALL, *SHORT, *options]


@pytest.fixture(scope="module")
def whole(few, tmp_path_factory):
    """The run that nothing disturbs. To be read, not written."""
    run = tmp_path_factory.mktemp("undisturbed") / "whole"
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(SystemExit) as left,
        redirect_stderr(io.StringIO()) as err,
    ):
        without_tensorboard(patch)
        console.run(train, arguments(few, run))
    assert (left.value.code, err.getvalue()) == (0, "")
    return run


def sound(run, killed=False):
    """All files with a final name are whole; what is beside them belongs to a killed process alone."""
    for path in (path for path in run.rglob("*") if path.is_file()):
        if path.name.startswith("."):
            assert killed and path.name.endswith(".part"), path
        elif path.suffix == ".pt":
            checkpoint.load(path)
        elif path.suffix == ".npy":
            assert np.load(path).shape[1] == 3
        elif path.name == "config.json":
            json.loads(path.read_text())
        else:
            assert path.name == "metrics.jsonl" or path.name.startswith("events.out"), path


def assert_whole(run, whole):
    """Nothing tells that it was disturbed: the same batches, and one process with as many threads."""
    tiny.assert_same_run(run, whole)
    one, two = (checkpoint.load(each / "best.pt") for each in (run, whole))
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in two["model"])
    names = [sorted(str(path.relative_to(each)) for path in each.rglob("*")) for each in (run, whole)]
    assert names[0] == names[1]
    for name in ("config.json", *(f"kernels/{file.name}" for file in (whole / "kernels").iterdir())):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def told(err, run):
    """The message is two lines: a file of the run, and what to do."""
    first, second = err.splitlines()
    assert re.match(rf"error: {re.escape(str(run))}\S*: ", first) and second.startswith("  try: "), err
    assert "--resume" in second or "check its permissions" in second or "then run the same command again" in second, err


# --- one save of each kind, every operation, every error --------------------------------------------------------------


def state(number):
    values = torch.full((40, 7), float(number))
    return {"config": {}, "model": {"a": values, "b": values[0]}, "velocity": {"a": values, "b": None}, "step": number}


def one_epoch(run, number):
    """What an epoch writes, and what going on after the one before it does first."""
    metrics.cut(run / "metrics.jsonl", number - 1, number - 1)
    kernel_snapshots.drop_after(run, number - 1)
    log = metrics.Metrics(run)
    try:
        log.write({"kind": "epoch", "epoch": number, "step": number})
        log.sync()
        kernel_snapshots.keep(run, number, {"conv1.weight": torch.full((2, 3, 4, 4), float(number))})
        checkpoint.save(run / "best.pt", state(number))
        checkpoint.hard_link(run / "best.pt", run / "last.pt")
    finally:
        log.close()


def contents(run):
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def begun(folder):
    """A run after its first epoch, with kernels beyond it, as a killed second one leaves them."""
    folder.mkdir()
    one_epoch(folder, 1)
    kernel_snapshots.keep(folder, 2, {"conv1.weight": torch.zeros(2, 3, 4, 4)})
    return folder


def no_links(*_):
    raise OSError(errno.EPERM, "no hard links here")


@pytest.mark.parametrize(
    "error, links",
    [
        *(pytest.param(error, True, marks=[] if error == errno.ENOSPC else SLOW) for error in ERRORS),
        (None, True),
        (errno.ENOSPC, False),
        pytest.param(None, False, marks=SLOW),
    ],
    ids=[*(errno.errorcode[error] for error in ERRORS), "killed", "no links, ENOSPC", "no links, killed"],
)
def test_whatever_operation_of_a_save_fails_all_is_old_or_new(tmp_path, monkeypatch, error, links):
    if not links:
        monkeypatch.setattr(checkpoint.os, "link", no_links)
    before, after = begun(tmp_path / "before"), begun(tmp_path / "after")
    old = contents(before)
    with Faults(after, writes=10**9) as undisturbed:
        one_epoch(after, 2)
    new, count = contents(after), len(undisturbed.seen)
    assert {seen.split()[0] for seen in undisturbed.seen} >= {"open", "write", "flush", "fsync", "rename", "unlink"}
    assert ("link best.pt" in undisturbed.seen) is links and count > 60
    for number in range(1, count + 1):
        # Of a kill, all but the middle of torch's hundred writes: a process is copied for each.
        if error is None and undisturbed.seen[number - 1].startswith("write") and number % 8:
            continue
        run = shutil.copytree(before, tmp_path / "run")
        if error is None:
            assert killed_at(run, number) == signal.SIGKILL
        elif undisturbed.seen[number - 1].startswith(HARMLESS):
            with Faults(run, number, error, writes=10**9):
                one_epoch(run, 2)
        else:
            with Faults(run, number, error, writes=10**9) as faults, pytest.raises(TrainingError) as caught:
                one_epoch(run, 2)
            assert faults.met and caught.value.message.startswith(f"{run}/") and "--resume" in caught.value.hint
        for name, data in contents(run).items():
            if name == "metrics.jsonl":  # its lines are read up to a torn one
                assert data.startswith(old[name]) and (old | new)[name].startswith(data), (number, name)
            elif not Path(name).name.startswith("."):
                assert data in (old.get(name), new[name]), f"{undisturbed.seen[number - 1]}: half of {name}"
            else:
                assert error is None, f"{undisturbed.seen[number - 1]}: {name} is left"
        assert set(old) - {"kernels/00002.npy"} <= set(contents(run))
        if error in (errno.ENOSPC, None):  # what is left does not depend on the error's number
            one_epoch(run, 2)
            assert contents(run) == new
        shutil.rmtree(run)


def killed_at(run, number):
    """Another process does it and is killed there; the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            with Faults(run, number, None, writes=10**9):
                one_epoch(run, 2)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def test_a_copy_in_place_of_a_link_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.os, "link", no_links)
    checkpoint.save(tmp_path / "best.pt", state(1))
    with Faults(tmp_path) as faults:
        checkpoint.hard_link(tmp_path / "best.pt", tmp_path / "last.pt")
    kinds = [seen for seen in faults.seen if seen.split()[0] in ("fsync", "rename")]
    assert kinds == ["fsync .last.pt.part", "rename .last.pt.part", f"fsync {tmp_path.name}"]


# --- the whole command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=SLOW)], ids=["1, 2, 4, 8, ...", "each"])
def test_whatever_operation_of_the_command_fails_it_says_so_and_goes_on(few, whole, tmp_path, command, all_of_them):
    """The errors in turn; of each checkpoint's writes the first two."""
    kinds, number = set(), 1
    while True:
        run = tmp_path / "run"
        with Faults(run, number, ERRORS[number % len(ERRORS)]) as faults:
            code, err = command(run)
        if not faults.met:
            assert (code, err) == (0, "")
            break
        kinds.add(failed := faults.seen[number - 1])
        if code == 0:
            assert failed.startswith(HARMLESS), failed
        else:
            assert code == 1, failed
            told(err, run)
        if run.exists():
            sound(run)
        assert command(run)[0] == 0
        assert_whole(run, whole)
        shutil.rmtree(run)
        number = number + 1 if all_of_them else 2 * number
    assert number > 60
    if all_of_them:
        assert {kind.split()[0] for kind in kinds} >= {"open", "write", "flush", "fsync", "rename", "mkdir"}
        files = {kind.split()[1] for kind in kinds}
        assert files >= {".config.json.part", "metrics.jsonl", ".00001.npy.part", ".last.pt.part", ".best.pt.part"}


@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=SLOW)], ids=["1, 2, 4, 8, ...", "each"])
def test_whatever_operation_of_going_on_fails_it_says_so_and_goes_on(few, whole, tmp_path, command, all_of_them):
    """From a process that was killed beyond its checkpoint, up to its first line."""
    begun = tmp_path / "begun"
    assert command(begun, "--steps", "1")[0] == 0
    shutil.copy(whole / "metrics.jsonl", begun)
    shutil.copy(whole / "kernels/00001.npy", begun / "kernels")
    run = shutil.copytree(begun, tmp_path / "run")
    with Faults(run) as faults:
        assert command(run, "--steps", "0")[0] == 0
    shutil.rmtree(run)
    kinds = faults.seen
    kinds = kinds[: 1 + next(k for k, kind in enumerate(kinds) if kind.startswith("write metrics.jsonl"))]
    assert len(kinds) > 15 and "unlink 00001.npy" in kinds
    for number in range(1, len(kinds) + 1) if all_of_them else doubling(len(kinds)):
        run = shutil.copytree(begun, tmp_path / "run")
        with Faults(run, number, ERRORS[number % len(ERRORS)]) as faults:
            code, err = command(run, "--steps", "0")
        assert faults.seen[:number] == kinds[:number]
        if code == 0:
            assert kinds[number - 1].startswith(("mkdir run", *HARMLESS)), kinds[number - 1]
        else:
            assert code == 1
            told(err, run)
        sound(run)
        assert command(run, "--steps", "0")[0] == 0
        assert_whole(run, whole)
        shutil.rmtree(run)


@pytest.mark.parametrize("first", ["write .last.pt.part", "write .best.pt.part", "write metrics.jsonl"])
def test_a_disk_that_stays_full(few, whole, tmp_path, command, first):
    """Nothing can be written from then on, to no file: one message, and the last checkpoint is kept."""
    run = tmp_path / "run"
    with Faults(tmp_path / "undisturbed") as faults:
        assert command(tmp_path / "undisturbed")[0] == 0
    with Faults(run, 1 + faults.seen.index(first), on=True):
        code, err = command(run)
    assert code == 1 and "No space left" in err and "make room" in err
    told(err, run)
    sound(run)
    assert command(run)[0] == 0
    assert_whole(run, whole)


class Events(Faults):
    """Faults at what TensorBoard's writer does to its file, in whatever thread."""

    def at_work(self, what, path, before=lambda: None, **more):
        if "events.out" in str(path):
            self._thread = threading.get_ident()
            super().at_work(what, path, before, **more)


@pytest.mark.parametrize("number", [1, 4], ids=["from the first", "later"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_is_full_for_tensorboard_alone_costs_the_run_nothing(
    few, whole, tmp_path, capfd, monkeypatch, number
):
    """Its events are for looking at; nothing depends on them."""
    monkeypatch.undo()  # it is there
    run = tmp_path / "run"
    with Events(run, number, on=True) as faults, pytest.raises(SystemExit) as left:
        console.run(train, arguments(few, run))
    said = capfd.readouterr().err
    assert faults.met and left.value.code == 0
    assert said.count("warning: TensorBoard failed and is off for this run: [Errno 28] No space left on device") == 1
    for events in run.glob("events.out*"):
        events.unlink()
    assert_whole(run, whole)


@SLOW
def test_a_file_that_may_grow_no_further_is_a_full_disk(few, whole, tmp_path):
    """The system's own error: no checkpoint is half there, and with room again the run goes on."""
    run = tmp_path / "run"
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += f"resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, {resource.RLIM_INFINITY}))\n"
    code = f"{limit}from alexnet_dali.tools.train.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments(few, run)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {run / 'last.pt'}: cannot be written: " in done.stderr and "make room" in done.stderr
    sound(run)
    assert not list(run.glob("*.pt"))


FORKED = """
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
import test_faults_training as ours
ours.killed(sys.argv[2:])
"""


def killed(given):
    """In a process that has computed nothing yet, so that its copies can: train to the n-th operation and die there."""
    folder, shards, points = Path(given[0]), Path(given[1]), [int(point) for point in given[2].split(",")]
    tracking.importlib.util.find_spec = lambda name: None
    for point in points:
        child = os.fork()
        if child == 0:
            run = folder / str(point)
            with Faults(run, point, None):
                console.run(train, ["--shards", str(shards), "--run", str(run), *SMALL, *SHORT])
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, point


@pytest.mark.parametrize("kills", [1, pytest.param(KILLS, marks=SLOW)])
def test_killed_at_any_operation_of_the_command_it_goes_on(few, whole, tmp_path, command, kills):
    with Faults(tmp_path / "undisturbed") as faults:
        assert command(tmp_path / "undisturbed")[0] == 0
    count = len(faults.seen)
    points = range(1, count + 1) if count <= kills else np.linspace(1, count, kills).astype(int)
    points = [count // 2] if kills == 1 else points
    asked = [str(tmp_path), str(few.root), ",".join(map(str, points))]
    subprocess.run(
        [sys.executable, "-c", FORKED, os.pathsep.join(sys.path), *asked], check=True, timeout=900, capture_output=True
    )
    for point in points:
        run = tmp_path / str(point)
        if run.exists():
            sound(run, killed=True)
        assert command(run)[0] == 0, faults.seen[point - 1]
        assert_whole(run, whole)


# --- signals and numbers that are none --------------------------------------------------------------------------------


def at_the(place, monkeypatch, number):
    """Have a signal come once: in the first step, while the evaluation looks at a batch, or while a file is saved."""
    owner, name = {
        "first step": (trainer.Trainer, "_update"),
        "validation": (trainer.Trainer, "_see"),
        "save": (torch, "save"),
        "renaming": (os, "replace"),
    }[place]
    real, came = getattr(owner, name), []

    def once(*given):
        wanted = place != "renaming" or str(given[1]).endswith(".pt")
        if wanted and not came:
            came.append(place)
            signal.raise_signal(number)
        return real(*given)

    monkeypatch.setattr(owner, name, once)
    return came


@pytest.mark.parametrize(
    "place, number, code",
    [
        ("first step", signal.SIGTERM, 143),
        ("save", signal.SIGINT, 130),
        pytest.param("first step", signal.SIGINT, 130, marks=SLOW),
        pytest.param("save", signal.SIGTERM, 143, marks=SLOW),
        *(
            pytest.param(place, number, code, marks=SLOW)
            for place in ("validation", "renaming")
            for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143))
        ),
    ],
)
def test_a_signal_at_any_place_saves_once_and_ends(few, whole, tmp_path, command, monkeypatch, place, number, code):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        came = at_the(place, patch, number)
        left, err = command(run)
    assert came and left == code
    steps = checkpoint.load(run / "last.pt")["steps_done"]
    # The step, or the save, is finished; asked within the first save, which follows the first step, it ends the second.
    assert steps == {"first step": 1, "validation": 2}.get(place, 2)
    assert err == f"stopped and saved after step {steps}; continue with: alexnet-train --run {run} --resume\n"
    sound(run)
    assert command(run)[0] == 0
    assert_whole(run, whole)


def broken_image(patch):
    """The second batch has a pixel that is no number; the record of its picture, once it has."""
    real, blamed = trainer.Trainer._update, []

    def update(self, batch):
        if self.steps_done == 1:
            batch.images[1, 2, 3, 4] = float("nan")
            blamed.append(int(batch.records[1]))
        return real(self, batch)

    patch.setattr(trainer.Trainer, "_update", update)
    return blamed


def broken_gradient(patch):
    """The second step's gradient is infinite, its loss is a number."""
    real = trainer.Trainer._update

    def update(self, batch):
        parameter = next(self.net.parameters())
        hook = parameter.register_hook(lambda gradient: gradient * float("inf") if self.steps_done == 1 else gradient)
        try:
            return real(self, batch)
        finally:
            hook.remove()

    patch.setattr(trainer.Trainer, "_update", update)


@pytest.mark.parametrize(
    "broken, said",
    [
        (broken_image, r"the loss is nan at step 2; its photos are not finite numbers: (\S+, record \d+)"),
        (broken_gradient, r"\S+\.weight is not finite after step 2"),
    ],
)
def test_numbers_that_are_none_end_the_run_and_the_last_good_is_kept(
    few, whole, tmp_path, command, monkeypatch, broken, said
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        blamed = broken(patch)
        code, err = command(run)
    found = re.search(f"error: {said}\n  try: ", err)
    assert code == 1 and found and "the last checkpoint is from before" in err
    if blamed:
        assert found[1] == RecordReader(few, "train").name(blamed[0])
    saved = checkpoint.load(run / "last.pt")
    assert saved["steps_done"] == 1 and all(tensor.isfinite().all() for tensor in saved["model"].values())
    assert command(run)[0] == 0  # as after an error of the machine: the numbers are sound this time
    assert_whole(run, whole)


def test_a_mean_image_of_no_numbers_is_refused_before_the_first_step(few, tmp_path, command):
    measured = stats.load_stats(few)
    root = shutil.copytree(few.root, tmp_path / "shards")
    broken_mean = measured.mean_image.copy()
    broken_mean[5, 6, 1] = np.nan
    stats.save_stats(replace(measured, mean_image=broken_mean), root)
    code, err = command(tmp_path / "run", "--shards", str(root))
    assert code == 1 and f"{root / 'stats.npz'}: damaged: it holds values that are not finite" in err
    assert not (tmp_path / "run").exists()
