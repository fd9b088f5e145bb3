"""Build, verify, measure, train, resume, evaluate, again and again, while something goes wrong at random moments.

    python tests/system/soak/everything.py --minutes 60 --seed 0

In:  minutes, a seed of the faults.  Out: counts; exit code 1 with what was lost. Not collected by pytest.

Each round is the whole way from 18 photos to a tested net, by the commands that people type. Before each command comes
to its end, something stops it, up to three times: SIGKILL, SIGTERM or SIGINT at a random moment, a disk that takes no
more than so many bytes of a file (RLIMIT_FSIZE). Between the commands a shard is damaged or cut short, the statistics
are deleted. Then the same command is run again. At its end a round has the bytes of the round that nothing disturbed.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))
import tiny
from alexnet_dali.tools.prep.sample_photos import make_photos
from faults import SMALL

TRAIN = ("--epochs", "2", "--batch-size", "4", "--save-every", "1", "--log-every", "1", "--rate", "0.001")
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
FULL = "full disk"
CODES = {0, 1, 2, 130, 143, -signal.SIGKILL, -signal.SIGTERM}  # SIGTERM before a command listens to it is as always


class Round:
    """The way from photos to a tested net in a folder of its own; `choose` None, undisturbed."""

    def __init__(self, place: Path, folder: Path, choose: random.Random | None, seconds: dict, counts: Counter):
        self.place, self.folder, self.choose, self.seconds, self.counts = place, folder, choose, seconds, counts
        self.shards, self.run = folder / "shards", folder / "run"

    def whole(self) -> None:
        """All commands, each until it has succeeded."""
        self.folder.mkdir()
        self.until_done("build", self.build)
        if self.choose:
            self.damage()
        self.until_done("verify", lambda: ["prep", "verify", "--workers", "1", "--shards", str(self.shards)])
        self.until_done("measure", self.measure)
        if self.choose and self.choose.random() < 0.5:
            self.forget_statistics()
        self.until_done("train", self.train)
        self.until_done("evaluate", self.evaluate)

    def build(self) -> list[str]:
        options = ["--size", "64", "--shard-records", "4", "--workers", "2", "--val-share", "0"]
        return ["prep", "build-lmdb", str(self.place / "photos"), "--out", str(self.shards), *options]

    def measure(self) -> list[str]:
        return ["prep", "pca-stats", "--shards", str(self.shards)]

    def train(self) -> list[str]:
        if (self.run / "last.pt").exists():
            return ["train", "--run", str(self.run), "--resume"]
        return ["train", "--run", str(self.run), "--shards", str(self.shards), *SMALL, *TRAIN]

    def evaluate(self) -> list[str]:
        return ["evaluate", str(self.run / "last.pt"), "--device", "cpu", "--json", str(self.folder / "result.json")]

    def until_done(self, name: str, command) -> None:
        """Run a command up to three times with a fault, then without."""
        for _ in range(self.choose.randrange(4) if self.choose else 0):
            fault = self.choose.choice([*SIGNALS, FULL])
            code = self.disturbed(command(), fault, self.choose.random() * self.seconds[name])
            self.counts[f"{fault} in {name}" if code else "came too late"] += 1
            if not code and name != "build":
                return
        began = time.monotonic()
        code, said = call(command(), self.place)
        assert code == 0, f"{self.folder.name}: {name} did not succeed afterwards: exit code {code}\n{said}"
        self.seconds.setdefault(name, time.monotonic() - began)

    def disturbed(self, command: list[str], fault: str, moment: float) -> int:
        """Run a command into a fault; its exit code, 0 where it was done first."""
        if fault == FULL:
            most = int(10 ** self.choose.uniform(2, 6.8))  # bytes: a line of metrics to a whole checkpoint
            code, said = call(command, self.place, most)
        else:
            process = start(command, self.place)
            time.sleep(moment)
            os.killpg(process.pid, SIGNALS[fault]) if self.choose.random() < 0.5 else process.send_signal(
                SIGNALS[fault]
            )
            said, code = process.communicate(timeout=300)[0], process.returncode
        assert code in CODES or (fault == "SIGINT" and code == -signal.SIGINT), (command, fault, code, said)
        if fault == FULL or code == 1:
            assert "Traceback" not in said, (command, fault, said)
        nobody_left(self.folder)
        return code

    def damage(self) -> None:
        """Flip a byte of a shard or cut it short; verify has to name it, and repair to bring it back."""
        victim = self.choose.choice(sorted(self.shards.rglob("data.mdb")))
        before = victim.read_bytes()
        at = self.choose.randrange(len(before))
        flipped = before[:at] + bytes([before[at] ^ (1 << self.choose.randrange(8))]) + before[at + 1 :]
        victim.write_bytes(before[:at] if self.choose.random() < 0.3 else flipped)
        verify = ["prep", "verify", "--workers", "1", "--shards", str(self.shards)]
        code, said = call(verify, self.place)
        shard = victim.parent.relative_to(self.shards)
        assert code == 1 and str(shard) in said, f"byte {at} of {victim}: exit code {code}\n{said}"
        self.until_done("verify", lambda: [*verify, "--repair"])
        assert victim.read_bytes() == before, victim
        self.counts["damaged shard"] += 1

    def forget_statistics(self) -> None:
        """Delete them; training says which command makes them."""
        (self.shards / "stats.npz").unlink()
        code, said = call(self.train(), self.place)
        assert code == 1 and "pca-stats" in said and "Traceback" not in said, (code, said)
        self.until_done("measure", self.measure)
        self.counts["deleted statistics"] += 1

    def check(self, other: "Round") -> None:
        """Compare with the undisturbed one, byte by byte; what a temporary file would be called is left nowhere."""
        mine, theirs = contents(self.shards), contents(other.shards)
        assert mine.keys() == theirs.keys(), mine.keys() ^ theirs.keys()
        assert not (unequal := [name for name in mine if mine[name] != theirs[name]]), unequal
        tiny.assert_same_run(self.run, other.run)
        mine, theirs = (json.loads((each.folder / "result.json").read_text()) for each in (self, other))
        assert result(mine) == result(theirs), (mine, theirs)
        left = [path for path in self.folder.rglob("*") if re.search(r"\.part|\.tmp|^\.", path.name) and path.is_file()]
        assert not (left := [path for path in left if path.name != ".lock"]), f"left behind: {left}"


def main() -> None:
    """Do rounds until the time is over, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    given = parser.parse_args()
    counts, choose, began = Counter(), random.Random(given.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        place = Path(name)
        (place / "tmp").mkdir()
        make_photos(place / "photos", train=14, val=4, classes=4, seed=2, side=(60, 90))
        calm = Round(place, place / "calm", None, {}, Counter())
        calm.whole()
        shared, handles, highest = stray(), len(os.listdir("/proc/self/fd")), most_memory()
        print("undisturbed: " + ", ".join(f"{name} {took:.1f} s" for name, took in calm.seconds.items()), flush=True)
        rounds = 0
        while time.monotonic() - began < given.minutes * 60:
            one = Round(place, place / f"round{rounds}", choose, calm.seconds, counts)
            one.whole()
            one.check(calm)
            left = [path for path in (place / "tmp").iterdir() if not path.name.startswith("torchinductor_")]
            assert not left, f"temporary files: {left}"  # but torch's own cache
            assert not (left := stray() - shared), f"/dev/shm: {left}"
            shutil.rmtree(one.folder)
            rounds += 1
            print(f"round {rounds}: {counts.total()} faults", flush=True)
        now = len(os.listdir("/proc/self/fd"))
        assert now == handles, f"{handles} handles open at first, {now} at last"
    faults = counts.total() - counts["came too late"]
    print("\n".join(f"  {count:5} {what}" for what, count in sorted(counts.items())))
    minutes = (time.monotonic() - began) / 60
    print(f"nothing lost: {rounds} rounds, {faults} faults, {minutes:.0f} min, seed {given.seed}; {now} handles")
    print(f"the largest process: {highest >> 10} MB undisturbed, {most_memory() >> 10} MB since")


def start(command: list[str], place: Path, most: int = 0) -> subprocess.Popen:
    """Begin a command in a group of its own; it writes no file longer than `most` bytes."""
    environment = {**os.environ, "TMPDIR": str(place / "tmp"), "OMP_NUM_THREADS": "1"}
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most)) if most else None
    return subprocess.Popen(
        [sys.executable, "-m", f"alexnet_dali.tools.{command[0]}", *command[1:]],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=limit,  # noqa: PLW1509 (there are no threads here)
    )


def call(command: list[str], place: Path, most: int = 0) -> tuple[int, str]:
    """Run a command to its end; its exit code and what it said."""
    process = start(command, place, most)
    said = process.communicate(timeout=300)[0]
    return process.returncode, said


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a shard set but LMDB's locks, which hold process ids."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("lock.mdb", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def result(found: object) -> str:
    """What an evaluation found, without where the run stands and how long it took."""
    return re.sub(r'"[^"]*(/round\d+/|/calm/)[^"]*"', '""', re.sub(r'"\w*seconds\w*": [\d.e-]+', "", json.dumps(found)))


def nobody_left(folder: Path) -> None:
    """Workers end on their own when their parent is gone; give them a minute."""
    deadline = time.monotonic() + 60
    while alive := [pid for pid in Path("/proc").glob("[0-9]*") if of_ours(pid, folder)]:
        assert time.monotonic() < deadline, f"processes of {folder} are left: {alive}"
        time.sleep(0.1)


def of_ours(process: Path, folder: Path) -> bool:
    """Whether a process was started with our folder for temporary files: workers name no other."""
    try:
        return f"TMPDIR={folder.parent / 'tmp'}".encode() in (process / "environ").read_bytes()
    except OSError:
        return False


def stray() -> set[str]:
    """What stands in shared memory under names that Python or torch give.

    But semaphores (sem.mp-*, 32 bytes): Python removes them in a process of its own, which dies with a killed group.
    """
    return {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "torch_"))}


def most_memory() -> int:
    """kB of the largest process that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


if __name__ == "__main__":
    main()
