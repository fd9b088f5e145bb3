"""Kill a run with SIGKILL at random moments, again and again, and see that it is the run that nothing disturbed.

    python tests/system/soak/training.py --kills 50 --seed 0

In:  the number of kills.  Out: counts; exit code 1 with what differed. Not collected by pytest: it takes minutes.

Under one process, two columns and two data-parallel processes in turn: the run goes on after each kill, unasked in the
split that it was in, until it ends; then loss curve, weights and velocities are those of the undisturbed run in that
split, bit for bit, and no half file and no process is left. One kill in four hits the launcher alone, or one rank.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))
import tiny
from alexnet_dali.model.training import checkpoint

SPLITS = {
    "one process": ["--processes", "1"],
    "columns": ["--processes", "2", "--parallel", "columns"],
    "data parallel": ["--processes", "2", "--parallel", "data"],
}
# Four epochs of three steps; a checkpoint every step, or a run that is killed often would never end.
OPTIONS = ["--epochs", "4", "--batch-size", "2", "--rate", "0.0005", "--save-every", "1", "--log-every", "1"]
OPTIONS += ["--device", "cpu", "--decode", "threads"]


@dataclass
class Counts:
    """What was done in one split."""

    kills: int = 0
    before_a_step: int = 0  # of them, those in which the killed process had saved nothing new
    resumes: int = 0
    runs: int = 0


def main() -> None:
    """Parse, kill, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="in all, shared by the three splits")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    choose, began = random.Random(given.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        place = prepared(Path(folder))
        counts = {name: Counts() for name in SPLITS}
        for name, options in SPLITS.items():
            took = ended(start(place, place / f"whole {name}", options), time.monotonic())
            print(f"{name}: undisturbed in {took:.0f} s", flush=True)
            share = given.kills // 3 + (list(SPLITS).index(name) < given.kills % 3)
            while counts[name].kills < share:
                one_run(place, name, options, took, share, counts[name], choose)
            print(f"{name}: {counts[name]}", flush=True)
    total = {key: sum(vars(each)[key] for each in counts.values()) for key in vars(Counts())}
    print(f"nothing lost; {total}, {time.monotonic() - began:.0f} s, seed {given.seed}")


def prepared(folder: Path) -> Path:
    """Six photos, and a Python that makes small nets in every process."""
    tiny.few_shards(folder)
    (folder / "python").mkdir()
    (folder / "python" / "sitecustomize.py").write_text(
        f"import sys\nif 'train' in ' '.join(sys.orig_argv):\n"
        f"    import alexnet_dali.model.nets.alexnet as alexnet\n    alexnet.HIDDEN = {tiny.HIDDEN}\n"
    )
    return folder


def one_run(place: Path, name: str, options: list[str], took: float, share: int, counts: Counts, choose: random.Random):
    """Kill a run up to six times, let it end, and compare it with the undisturbed one."""
    run = place / f"run {counts.runs} {name}"
    for _ in range(min(6, share - counts.kills)):
        before, at = steps_done(run), saved_at(run)
        process = start(place, run, options)
        # A moment of the work, not of the imports, which a run that had to begin twelve times would mostly be.
        deadline = time.monotonic() + 300
        while process.poll() is None and saved_at(run) == at and time.monotonic() < deadline:
            if choose.random() < 0.0005:
                break
            time.sleep(0.05)
        time.sleep(choose.random() * took / 12)
        if not kill(process, choose):  # it came to its end first
            break
        counts.kills += 1
        counts.before_a_step += steps_done(run) == before
        counts.resumes += steps_done(run) > 0
        nobody_left(run)
    while steps_done(run) < 12 or checkpoint.load(run / "last.pt")["epoch"] < 4:
        ended(start(place, run, options), time.monotonic())
    tiny.assert_same_run(run, place / f"whole {name}")
    left = [path for path in run.rglob(".*") if path.is_file()]
    assert not left, f"left behind: {left}"
    counts.runs += 1


def start(place: Path, run: Path, options: list[str]) -> subprocess.Popen:
    """Begin the run, or go on with it."""
    environment = {**os.environ, "PYTHONPATH": f"{place / 'python'}:{os.environ.get('PYTHONPATH', '')}"}
    environment["OMP_NUM_THREADS"] = "1"  # sums in one order, however busy the machine
    command = [sys.executable, "-m", "alexnet_dali.tools.train.cli", "--run", str(run), "--timeout", "120"]
    if (run / "last.pt").exists():
        command += ["--resume"]
    else:
        command += ["--shards", str(place / "shards"), *OPTIONS, *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(process: subprocess.Popen, began: float) -> float:
    """Wait for a process that has to succeed; the seconds since."""
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, f"exit code {process.returncode}: {said}"
    return time.monotonic() - began


def kill(process: subprocess.Popen, choose: random.Random) -> bool:
    """SIGKILL to all at once, as when the power goes; one time in four to one alone, as when memory is short.

    Returns:
        Whether it came in time.
    """
    family = [process.pid, *children(process.pid)]
    for victim in family if choose.random() < 0.75 else [choose.choice(family)]:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    process.communicate(timeout=300)
    return process.returncode != 0


def children(parent: int) -> list[int]:
    """The ranks that a launcher has started."""
    try:
        return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []


def nobody_left(run: Path) -> None:
    """Ranks end on their own when their launcher is gone; give them a minute."""
    deadline = time.monotonic() + 60
    while any(str(run).encode() in command_of(process) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline, f"a process of {run} is left"
        time.sleep(0.1)


def command_of(process: Path) -> bytes:
    """Its command line."""
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def saved_at(run: Path) -> int:
    """When the last checkpoint was written, without reading it."""
    return (run / "last.pt").stat().st_mtime_ns if (run / "last.pt").exists() else 0


def steps_done(run: Path) -> int:
    """As the last checkpoint has it; whatever moment it is, that loads."""
    return checkpoint.load(run / "last.pt")["steps_done"] if (run / "last.pt").exists() else 0


if __name__ == "__main__":
    main()
