"""One process, two columns, two data-parallel processes, stopped, killed, resumed, also in another split: one run.

The real command in real processes, which gloo connects; the net's fully connected layers have few units.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import tiny
import torch
from alexnet_dali.model.training import checkpoint, metrics

STEPS = 5  # of 6: two epochs of three batches of two photos
SLOW = pytest.mark.slow  # of each kind `make test` has one case: a split, a kill, a resume
SPLITS = {
    "one": ["--processes", "1"],
    "columns": ["--processes", "2"],
    "data": ["--processes", "2", "--parallel", "data"],
}

# In the process of rank 0, where AT names one of them: it says that it is there, and waits until the test says go.
PLACES = """
    import os, time
    if "AT" in os.environ and os.environ.get("RANK") == "0":
        import torch, alexnet_dali.model.training.trainer as trainer
        owner, name = {
            "first step": (trainer.Trainer, "_update"),
            "validation": (trainer.Trainer, "_see"),
            "save": (torch, "save"),
        }[os.environ["AT"]]
        real = getattr(owner, name)
        def waiting(*given, **more):
            if not os.path.exists(os.environ["FLAG"]):
                open(os.environ["FLAG"], "w").close()
                for _ in range(6000):
                    if os.path.exists(os.environ["FLAG"] + ".go"):
                        break
                    time.sleep(0.01)
            return real(*given, **more)
        setattr(owner, name, waiting)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Six photos, and a Python that makes small nets in every process."""
    folder = tmp_path_factory.mktemp("same")
    tiny.few_shards(folder)
    (folder / "python").mkdir()
    (folder / "python" / "sitecustomize.py").write_text(
        f"import sys\nif 'train' in ' '.join(sys.orig_argv):\n"
        f"    import alexnet_dali.model.nets.alexnet as alexnet\n    alexnet.HIDDEN = {tiny.HIDDEN}\n" + PLACES
    )
    return folder


def start(place, run, *options, shards="shards", group=False, **more):
    environment = {**os.environ, "PYTHONPATH": f"{place / 'python'}:{os.environ.get('PYTHONPATH', '')}", **more}
    environment["OMP_NUM_THREADS"] = "1"  # sums in one order, however many processes share the machine
    command = [sys.executable, "-m", "alexnet_dali.tools.train.cli", "--shards", str(place / shards), "--run", str(run)]
    command += ["--log-every", "1", "--timeout", "60", *options]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=group, **said)


NEW = ("--batch-size", "2", "--rate", "0.0005", "--epochs", "2", "--decode", "threads", "--steps", str(STEPS))


def finish(process, code=0):
    said, aside = process.communicate(timeout=300)
    assert process.returncode == code, (process.returncode, said, aside)
    return said, aside


@pytest.fixture(scope="module")
def undisturbed(place):
    """The folder of the run that nothing disturbs, by split."""

    def of(split):
        run = place / split
        if not run.exists():
            finish(start(place, run, *NEW, *SPLITS[split]))
        return run

    return of


def curve(run):
    return [line["loss"] for line in metrics.read(run / "metrics.jsonl") if line["kind"] == "step"]


def assert_same(run, other, exactly):
    """Exactly: in one split, each process has the same batches and one thread, so every sum has its order."""
    one, two = (checkpoint.load(each / "last.pt") for each in (run, other))
    assert len(curve(run)) == len(curve(other)) == STEPS
    for part in ("model", "velocity"):
        assert one[part].keys() == two[part].keys()
        for name, tensor in one[part].items():
            if exactly:
                assert torch.equal(tensor, two[part][name]), (part, name)
            else:
                # Rounding: sums over 55 x 55 places that cancel leave some 1e-7 in conv1, and of two equal maxima
                # another may be taken.
                away = float((two[part][name] - tensor).norm())
                assert away <= 1e-2 * float(tensor.norm()) + 1e-7 * tensor.numel() ** 0.5, (part, name, away)
    if exactly:
        assert curve(run) == curve(other)
    else:
        assert curve(run) == pytest.approx(curve(other), rel=1e-4)


@SLOW
@pytest.mark.parametrize("split", ["columns", "data"])
def test_every_split_gives_one_loss_curve_and_one_state(undisturbed, split):
    one = undisturbed("one")
    assert max(curve(one)) - min(curve(one)) > 0.01  # it moves
    assert_same(one, undisturbed(split), exactly=False)


@SLOW
@pytest.mark.parametrize("split", ["columns", "data"])
def test_stopped_and_resumed_it_is_the_same_bit_for_bit(place, undisturbed, tmp_path, split):
    finish(start(place, tmp_path / "run", *NEW, *SPLITS[split], "--steps", "2"))
    said, _ = finish(start(place, tmp_path / "run", "--resume", "--steps", str(STEPS)))
    assert f"2 processes, --parallel {split}" in said  # as it was, unasked
    assert_same(undisturbed(split), tmp_path / "run", exactly=True)


@SLOW
@pytest.mark.parametrize("before, after", [("one", "columns"), ("columns", "data"), ("data", "one")])
def test_resumed_in_another_split(place, undisturbed, tmp_path, before, after):
    finish(start(place, tmp_path / "run", *NEW, *SPLITS[before], "--steps", "2"))
    finish(start(place, tmp_path / "run", "--resume", "--steps", str(STEPS), *SPLITS[after]))
    assert_same(undisturbed("one"), tmp_path / "run", exactly=False)


def ranks_of(launcher):
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return sorted(int(child) for child in children)


def wait_for_step(process, run, step):
    while not any(line["step"] >= step for line in metrics.read(run / "metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def kill_and_resume(place, run, split, victim):
    process = start(place, run, *NEW, *SPLITS[split], "--save-every", "1")
    wait_for_step(process, run, 2)
    os.kill(ranks_of(process)[victim], signal.SIGKILL)
    _, aside = finish(process, 1)
    assert f"rank {victim} " in aside and "--resume" in aside
    assert not [pid for pid in Path("/proc").glob("[0-9]*") if str(run).encode() in _command(pid)]
    finish(start(place, run, "--resume"))


def test_two_columns_one_of_which_is_killed_and_resumed_are_the_run_of_one_process(place, undisturbed, tmp_path):
    """A small case of the two above and of the one below."""
    kill_and_resume(place, tmp_path / "run", "columns", 1)
    assert max(curve(undisturbed("one"))) - min(curve(undisturbed("one"))) > 0.01
    assert_same(undisturbed("one"), tmp_path / "run", exactly=False)


@SLOW
@pytest.mark.parametrize("split", ["columns", "data"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_others_and_resuming_is_the_same_run(place, undisturbed, tmp_path, split, victim):
    kill_and_resume(place, tmp_path / "run", split, victim)
    assert_same(undisturbed(split), tmp_path / "run", exactly=True)


def _command(process):
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@SLOW
@pytest.mark.parametrize("whom", ["launcher", "rank"])
def test_a_signal_to_one_stops_and_saves_all(place, undisturbed, tmp_path, whom):
    run = tmp_path / "run"
    process = start(place, run, *NEW, *SPLITS["columns"])
    wait_for_step(process, run, 1)
    os.kill(process.pid if whom == "launcher" else ranks_of(process)[1], signal.SIGTERM)
    _, aside = finish(process, 128 + signal.SIGTERM)
    assert "stopped and saved after step" in aside
    finish(start(place, run, "--resume"))
    assert_same(undisturbed("columns"), run, exactly=True)


@SLOW
@pytest.mark.parametrize(
    "at, number", [("first step", signal.SIGTERM), ("validation", signal.SIGTERM), ("save", signal.SIGINT)]
)
def test_a_signal_to_the_group_at_any_place_stops_and_saves_once(place, undisturbed, tmp_path, at, number):
    """As a terminal's Ctrl-C comes, to the launcher's group; or systemd's SIGTERM, to the launcher and all ranks."""
    run, flag = tmp_path / "run", tmp_path / "there"
    process = start(place, run, *NEW, *SPLITS["columns"], "--save-every", "1", group=True, AT=at, FLAG=str(flag))
    while not flag.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    ranks = ranks_of(process)
    os.killpg(process.pid, number)
    if number == signal.SIGTERM:
        time.sleep(0.1)  # the ranks have had the launcher's
        for rank in ranks:
            with suppress(ProcessLookupError):
                os.kill(rank, number)
    time.sleep(0.1)  # the launcher has passed on its own
    flag.with_name("there.go").touch()
    _, aside = finish(process, 128 + number)
    steps = checkpoint.load(run / "last.pt")["steps_done"]
    assert aside.count(f"stopped and saved after step {steps}") == 1 and aside.count("stopped") == 1
    assert steps in {"first step": (1, 2), "validation": (3,), "save": (2, 3)}[at]  # all agree with the next step
    assert not [rank for rank in ranks if Path(f"/proc/{rank}").exists()]
    if at != "first step":
        finish(start(place, run, "--resume"))
        assert_same(undisturbed("columns"), run, exactly=True)


@SLOW
def test_stopped_and_continued_it_goes_on(place, undisturbed, tmp_path):
    """SIGSTOP and SIGCONT: of all, as a scheduler pauses a job; of one rank, for less than the others wait."""
    run, flag = tmp_path / "run", tmp_path / "there"
    process = start(place, run, *NEW, *SPLITS["columns"], AT="first step", FLAG=str(flag))
    while not flag.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    ranks = ranks_of(process)
    for paused in ([process.pid, *ranks], ranks[1:]):
        for one in paused:
            os.kill(one, signal.SIGSTOP)
        if paused == ranks[1:]:
            flag.with_name("there.go").touch()  # rank 0 goes on, and waits for the other
        time.sleep(1)
        assert process.poll() is None
        for one in paused:
            os.kill(one, signal.SIGCONT)
    _, aside = finish(process)
    assert "rank" not in aside
    assert_same(undisturbed("columns"), run, exactly=True)


@SLOW
def test_a_rank_of_another_set_is_refused_at_the_start(place, tmp_path):
    """Two machines whose --shards lead to different sets: nobody trains a step, and who is of another is said."""
    tiny.few_shards(tmp_path, train=8)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        team = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    team |= {"LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    ours = start(place, tmp_path / "run", *NEW, "--parallel", "data", RANK="0", **team)
    other = start(place, tmp_path / "run", *NEW, "--parallel", "data", shards=tmp_path / "shards", RANK="1", **team)
    said = [finish(process, 1)[1] for process in (ours, other)]
    assert "error: rank 1 belongs to another run than rank 0: " in said[0]
    assert not (tmp_path / "run" / "last.pt").exists() and not metrics.read(tmp_path / "run" / "metrics.jsonl")


@SLOW
def test_a_signal_before_the_first_step_is_a_signal(place, tmp_path):
    process = start(place, tmp_path / "run", *NEW, *SPLITS["columns"])
    while len(ranks_of(process)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, aside = finish(process, 128 + signal.SIGTERM)
    assert "--resume" not in aside and not (tmp_path / "run" / "last.pt").exists()  # nothing to go on from


@SLOW
def test_a_second_ctrl_c_ends_all_at_once(place, tmp_path):
    run = tmp_path / "run"
    process = start(place, run, *NEW, *SPLITS["columns"])
    wait_for_step(process, run, 1)
    stopped = ranks_of(process)[1]
    os.kill(stopped, signal.SIGSTOP)  # or all would be saved before the second comes
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    finish(process, 128 + signal.SIGINT)
    assert not Path(f"/proc/{stopped}").exists()


@SLOW
def test_a_rank_that_hangs_is_named(place, tmp_path):
    run = tmp_path / "run"
    process = start(place, run, *NEW, *SPLITS["columns"], "--timeout", "20")
    wait_for_step(process, run, 1)
    os.kill(ranks_of(process)[1], signal.SIGSTOP)
    _, aside = finish(process, 1)
    assert "rank 1 is gone, or has hung for 20 s" in aside


@SLOW
def test_ranks_end_when_the_launcher_was_killed(place, tmp_path):
    run = tmp_path / "run"
    process = start(place, run, *NEW, *SPLITS["columns"])
    wait_for_step(process, run, 1)
    ranks = ranks_of(process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{rank}/cmdline").exists() and _command(Path(f"/proc/{rank}")) for rank in ranks):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert checkpoint.load(run / "last.pt")["steps_done"] >= 1


@SLOW
def test_torchrun_is_the_same(place, undisturbed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{place / 'python'}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += [
        "-m",
        "alexnet_dali.tools.train.cli",
        "--",
        "--shards",
        str(place / "shards"),
        "--run",
        str(tmp_path / "run"),
    ]
    command += ["--log-every", "1", "--parallel", "columns", *NEW]
    environment["OMP_NUM_THREADS"] = "1"
    subprocess.run(command, env=environment, check=True, timeout=300)
    assert_same(undisturbed("columns"), tmp_path / "run", exactly=True)


@pytest.mark.parametrize(
    "options, words, code",
    [
        (["--processes", "3", "--parallel", "columns"], "--parallel columns requires 2 processes, not 3", 2),
        pytest.param(
            ["--recipe", "one-gpu", "--processes", "2", "--parallel", "columns"],
            "one-gpu does not have two columns",
            2,
            marks=SLOW,
        ),
        pytest.param(["--processes", "3", "--parallel", "data"], "cannot be shared by 3 processes", 1, marks=SLOW),
    ],
)
def test_what_cannot_be_shared_is_said_once(place, tmp_path, options, words, code):
    _, aside = finish(start(place, tmp_path / "run", *NEW, *options), code)
    assert aside.count(words) == 1 and "Traceback" not in aside
