"""One loader in a process of its own, which is stopped between its rounds.

In:  the name of a case and the folder of crops.  Out: images per second of a round, or an error.
A loader that crashes, hangs or changes global state does not affect the others. Between rounds its process group is
stopped with SIGSTOP, so that it cannot prefetch during other loaders' rounds.

    python -m alexnet_dali.tools.bench.loader.process CASE FOLDER BATCH_SIZE WORKERS DECODE     run by LoaderProcess

A round begins with uncounted batches, which consume what was prefetched. If an epoch ends within a round, the clock is
paused while the next epoch starts, for the same number of batches, in favour of loaders that restart slowly.
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

PATIENCE = 900  # seconds until a loader that does not answer counts as hanging; its writer's time is included
PAGE = 4096  # bytes
LEAVE = 20.0  # seconds to exit and clean up shared memory before it is killed


class LoaderFailedError(Exception):
    """A loader's failure in one line; not a user's error, and so not an AlexnetError."""


class LoaderProcess:
    """The process of a case, controlled from outside. The constructor returns after its first batch is checked.

    Args:
        decode: requested decoder, for our cases.
        patience: seconds without an answer until it counts as hanging.
    Attributes:
        decode, chosen: in our cases, the decoder in use and the reason for it.
    Raises:
        LoaderFailedError: it failed, died or hung; the rounds raise it too.
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
        self._known: set[int] = set()  # its process and worker ids when it was asked to exit
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
            self._stop()
        except BaseException:
            self.close()
            raise

    def round(self, batches: int, seconds: float) -> float:
        """Measure at least `batches` batches and `seconds` seconds; returns images per second."""
        try:
            os.killpg(self._process.pid, signal.SIGCONT)
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps([batches, seconds]).encode() + b"\n")
            self._process.stdin.flush()
            images, took = self._answer()
            self._stop()
        except OSError:  # it died while it was stopped
            raise self._died() from None
        return images / took

    def ask_to_exit(self) -> None:
        """Ask the process to exit, without waiting, so that several can exit at the same time."""
        self._known |= _members(self._process.pid)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGCONT)
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def close(self) -> None:
        """Wait until the process exits, or kill it; delete the shared memory that killed DataLoader workers leave."""
        self.ask_to_exit()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._leave)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with remaining workers
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        for pid in self._known:
            for left in Path("/dev/shm").glob(f"torch_{pid}_*"):
                left.unlink(missing_ok=True)

    def _stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def _answer(self) -> Any:
        """Read the process's next answer."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + self._patience
        while not select.select([self._process.stdout], [], [], 1.0)[0]:
            if self._process.poll() is not None:
                raise self._died()
            if time.monotonic() > deadline:
                self._leave = 0.0
                raise LoaderFailedError(f"no answer for {self._patience:.0f} s")
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
            return LoaderFailedError("it closed its output and keeps running")
        lines = self._log.read_text(errors="replace").strip().splitlines()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return LoaderFailedError(f"its process ended with {how}{': ' + lines[-1][:200] if lines else ''}")


def _members(group: int) -> set[int]:
    """Return the process ids of a process group."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(folder.name)) == group:
                found.add(int(folder.name))
    return found


class Rounds:
    """Measures an iterable of batches, inside the process.

    Args:
        loader: endless, or iterable several times.
        lead: uncounted batches at the beginning of a round and of an epoch.
        clock: returns seconds.
    """

    def __init__(self, loader: Any, lead: int, *, clock: Callable[[], float] = time.perf_counter):
        self._loader, self._lead, self._clock = loader, lead, clock
        self._batches: Iterator[Any] = iter(loader)

    def first(self) -> Any:
        """Return the first batch, to be checked."""
        return next(self._batches)

    def run(self, batches: int, seconds: float) -> tuple[int, float]:
        """Take at least `batches` batches and `seconds` seconds; returns the images and the seconds they took."""
        self._warm_up()
        images, taken, took = 0, 0, 0.0
        while taken < batches or took < seconds:
            started = self._clock()
            try:
                images += touch(next(self._batches))
            except StopIteration:
                self._batches = iter(self._loader)
                self._warm_up()
                continue
            took += self._clock() - started
            taken += 1
        return images, took

    def _warm_up(self) -> None:
        for _ in range(self._lead):
            try:
                touch(next(self._batches))
            except StopIteration:  # fewer batches than the lead; an epoch's first batch is never counted
                self._batches = iter(self._loader)
                touch(next(self._batches))
                return


def lead_of(workers: int) -> int:
    """Return the number of uncounted batches: two per DataLoader worker, which they prefetch, and a few more."""
    return 2 * workers + 4


def touch(batch: Any) -> int:
    """Read one element in each 4 KiB page of the images; returns the number of images.

    Memory that is never read may never be written: it may be shared with workers, mapped, or filled at first use.
    """
    if isinstance(batch, int):  # the limit returns only a number of images
        return batch
    images = images_of(batch)
    # In memory order, whatever the order of the axes.
    images.as_strided((images.numel(),), (1,))[:: PAGE // images.element_size()].sum()
    return len(images)


def main(case: str, folder: str, batch_size: str, workers: str, decode: str) -> None:
    """Run the loader's process: for each round, one line of JSON in and one out."""
    os.setpgid(0, 0)  # a process group with its future workers, which are stopped together
    answers: IO[str] = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    try:
        from .cases import CASES, Job

        job = Job(CASES[case], Path(folder), int(batch_size), int(workers), decode)
        loader = job.case.loader(job)
        rounds = Rounds(loader, lead_of(job.workers))
        check_batch(rounds.first(), job)
        about = [getattr(loader, name) if job.case.is_ours else "" for name in ("decode", "chosen")]
        answers.write(json.dumps({"ok": about}) + "\n")
        for line in sys.stdin:
            answers.write(json.dumps({"ok": rounds.run(*json.loads(line))}) + "\n")
    except Exception as error:
        traceback.print_exc()
        message = " ".join(str(error).split())[:300]
        answers.write(json.dumps({"error": f"{type(error).__name__}: {message}".removesuffix(": ")}) + "\n")


def check_batch(batch: Any, job: Job) -> None:
    """Check the first batch: shape, type, dense memory, and a plausible mean.

    Raises:
        StreamError: the batch is not what the case promises, so its rate would be meaningless.
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
    if np.abs(middle - expected).max() > 64:  # small batches vary by less; scaled to 0..1 it is 120 away
        raise StreamError(f"a batch's mean colour is {middle.round()}, expected about {expected.round()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
