"""One loader in a process of its own, standing still until it is its turn.

In:  the name of a case and the folder of forms.  Out: images a second of a round, or the words why there are none.
A loader that crashes, hangs or changes its process takes nobody with it; one that goes on prefetching when its turn
is over is stopped together with its workers (SIGSTOP to their process group).

    python -m alexnet_dali.tools.bench.loader.process CASE FOLDER BATCH_SIZE WORKERS DECODE     what LoaderProcess runs

A round begins with batches that are not counted, until what was prefetched while nobody looked is used up. Where a
loader's epoch ends inside a round, the clock stands still while the next one starts, for as many batches again: in
favour of those that restart slowly.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ....pipeline.errors import StreamError
from .cases import CROP, Job, images_of

PATIENCE = 900  # seconds for a rival to write its form and start, or to do a round; then it hangs
PAGE = 4096  # bytes
LEAVE = 20.0  # seconds to end by itself, shared memory tidied


class LoaderFailedError(Exception):
    """A loader's failure in one line; nobody's mistake, so no AlexnetError."""


class LoaderProcess:
    """A case's process, seen from outside. The constructor returns when its first batch has been looked at.

    Args:
        decode: who decodes in a case of ours.
        patience: seconds until it hangs.
    Attributes:
        decode: who does, and `chosen`, the words why, in a case of ours.
    Raises:
        LoaderFailedError: it failed, died or hung; so do the rounds.
    """

    def __init__(
        self,
        case: str,
        folder: Path,
        batch_size: int,
        workers: int,
        decode: str = "auto",
        patience: float = PATIENCE,
    ):
        self._patience, self._leave = patience, LEAVE
        self._known: set[int] = set()  # itself and its workers, when it was let go
        self._log = folder / f"{case}.log"
        arguments = [case, str(folder), str(batch_size), str(workers), decode]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            self.decode, self.chosen = self._answer()
            self._stand_still()
        except BaseException:
            self.close()
            raise

    def round(self, batches: int, seconds: float) -> float:
        """Go on for so many batches and at least so many seconds: images a second."""
        try:
            os.killpg(self._process.pid, signal.SIGCONT)
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps([batches, seconds]).encode() + b"\n")
            self._process.stdin.flush()
            images, took = self._answer()
            self._stand_still()
        except OSError:  # it died while it stood still
            raise self._died() from None
        return images / took

    def let_go(self) -> None:
        """Ask it to end, and do not wait: many may end at the same time."""
        self._known |= _members(self._process.pid)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGCONT)
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def close(self) -> None:
        """Let it end, or end it; and remove what DataLoader's workers leave in shared memory when they end too soon."""
        self.let_go()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._leave)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its workers too, if any are left
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        for pid in self._known:
            for left in Path("/dev/shm").glob(f"torch_{pid}_*"):
                left.unlink(missing_ok=True)

    def _stand_still(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def _answer(self) -> Any:
        """What the process says next."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + self._patience
        while not select.select([self._process.stdout], [], [], 1.0)[0]:
            if self._process.poll() is not None:
                raise self._died()
            if time.monotonic() > deadline:
                self._leave = 0.0
                raise LoaderFailedError(f"nothing heard of it for {self._patience:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        answer = json.loads(line)
        if "error" in answer:
            raise LoaderFailedError(answer["error"])
        return answer["ok"]

    def _died(self) -> LoaderFailedError:
        try:
            code = self._process.wait(LEAVE)
        except subprocess.TimeoutExpired:
            return LoaderFailedError("it answers no more")
        lines = self._log.read_text(errors="replace").strip().splitlines()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return LoaderFailedError(f"its process ended with {how}{': ' + lines[-1][:200] if lines else ''}")


def _members(group: int) -> set[int]:
    """The processes of a process group."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(folder.name)) == group:
                found.add(int(folder.name))
    return found


class Rounds:
    """Measures an iterable of batches, inside the process.

    Args:
        loader: may be iterated over again and again, or have no end.
        lead: batches that are not counted, at the beginning of a round and of an epoch.
        clock: seconds.
    """

    def __init__(self, loader: Any, lead: int, *, clock: Callable[[], float] = time.perf_counter):
        self._loader, self._lead, self._clock = loader, lead, clock
        self._batches: Iterator[Any] = iter(loader)

    def first(self) -> Any:
        """A batch to look at."""
        return next(self._batches)

    def run(self, batches: int, seconds: float) -> tuple[int, float]:
        """Take so many batches and as many as come in so many seconds; images, and the seconds they took."""
        self._run_in()
        images, taken, took = 0, 0, 0.0
        while taken < batches or took < seconds:
            began = self._clock()
            try:
                images += touch(next(self._batches))
            except StopIteration:
                self._batches = iter(self._loader)
                self._run_in()
                continue
            took += self._clock() - began
            taken += 1
        return images, took

    def _run_in(self) -> None:
        for _ in range(self._lead):
            try:
                touch(next(self._batches))
            except StopIteration:  # a set of fewer batches than that; but no epoch's first batch is ever counted
                self._batches = iter(self._loader)
                touch(next(self._batches))
                return


def lead_of(workers: int) -> int:
    """Batches that are not counted: what DataLoader's workers keep ready, two each, and a few more."""
    return 2 * workers + 4


def touch(batch: Any) -> int:
    """Read one element in each 4 KiB page of the images and say how many images there are.

    What has not been read may not have been written: memory is shared with workers, or mapped, or filled when it is
    first used.
    """
    if isinstance(batch, int):  # the limit hands over nothing
        return batch
    images = images_of(batch)
    # As the numbers lie in memory, whatever the order of the axes.
    images.as_strided((images.numel(),), (1,))[:: PAGE // images.element_size()].sum()
    return len(images)


def main(case: str, folder: str, batch_size: str, workers: str, decode: str) -> None:
    """The process: one line of JSON in for each round, one out."""
    os.setpgid(0, 0)  # with its workers to come, to be stopped together
    answers: IO[str] = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        from .cases import CASES, Job

        job = Job(CASES[case], Path(folder), int(batch_size), int(workers), decode)
        loader = job.case.loader(job)
        rounds = Rounds(loader, lead_of(job.workers))
        checked(rounds.first(), job)
        about = [getattr(loader, name) if job.case.is_ours else "" for name in ("decode", "chosen")]
        answers.write(json.dumps({"ok": about}) + "\n")
        for line in sys.stdin:
            answers.write(json.dumps({"ok": rounds.run(*json.loads(line))}) + "\n")
    except Exception as error:
        traceback.print_exc()
        words = " ".join(str(error).split())[:300]
        answers.write(
            json.dumps({"error": f"{type(error).__name__}: {words}" if words else type(error).__name__}) + "\n"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])


def checked(batch: Any, job: Job) -> None:
    """Look at a first batch: the right shape and type, dense, and values as they must be on average.

    Raises:
        StreamError: it is not what the case promises, so its rate would mean nothing.
    """
    if not job.case.output:
        return
    import torch

    images = images_of(batch)
    dtype = {"f32": torch.float32, "u8": torch.uint8}[job.case.output]
    shape = (job.batch_size, 3, CROP, CROP)
    span = 1 + sum((size - 1) * stride for size, stride in zip(images.shape, images.stride(), strict=True))
    if images.dtype != dtype or tuple(images.shape) != shape or span != images.numel():
        raise StreamError(f"a batch is {images.dtype} {tuple(images.shape)}, not {dtype} {shape}, dense")
    middle = images.to(torch.float32).mean(dim=(0, 2, 3)).numpy()
    expected = job.mean() if job.case.output == "u8" else np.zeros(3)
    if np.abs(middle - expected).max() > 64:  # a batch of few pictures may be that dark; scaled to 0..1 it is 120 away
        raise StreamError(f"a batch's mean colour is {middle.round()}, expected about {expected.round()}")
