"""`--processes N`: start N ranks, pass signals on, and report the rank that failed first.

In:  a command line.  Out: N processes of it with the environment that torchrun sets, and one exit code.

The rendezvous store is in this process, so that it outlives every rank. Each rank has a process group of its own: the
terminal's Ctrl-C reaches this process alone, which passes it on once. A rank also stops when this process is killed:
its standard input then reaches end of file (`stop_with_launcher`).
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import click
import torch.distributed as dist

from ...pipeline.workers import available_cores
from ..process import PARENT

GRACE = 15.0  # seconds for the other ranks after one has failed: they find and report the missing rank
TOGETHER = 3.0  # seconds within which ranks end by one error that all have; to find that a rank is gone takes longer


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen
    output: list[str] = field(default_factory=list)  # last lines of standard error; rank 0 writes to the user's


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `alexnet-train` with these arguments in several processes until all have ended.

    Returns:
        0; 130 or 143 after a signal; otherwise the exit code of the rank that failed first, or 1 where it was killed.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=300))
    shared = {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # torch's name for: the launcher has the store
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, available_cores() // processes))),
        PARENT: str(os.getpid()),
    }
    ranks: list[_Rank] = []
    received: list[int] = []  # signals

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        for rank in ranks:
            if rank.process.poll() is None:
                rank.process.send_signal(number if len(received) == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in range(processes):
            if received:
                break
            process = subprocess.Popen(
                [sys.executable, "-m", "alexnet_dali.tools.train.cli", *arguments],
                env={**shared, "RANK": str(number), "LOCAL_RANK": str(number)},
                stdin=subprocess.PIPE,
                stdout=None if number == 0 else subprocess.DEVNULL,
                stderr=None if number == 0 else subprocess.PIPE,
                start_new_session=True,
                text=True,
            )
            ranks.append(_Rank(number, process))
            if number:
                threading.Thread(target=_listen, args=(ranks[-1],), daemon=True).start()
        return _watch(ranks, received)
    finally:
        for rank in ranks:
            if rank.process.poll() is None:
                rank.process.kill()
            rank.process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_with_launcher(stop: Callable[[], object]) -> None:
    """In a rank: call `stop` when the launcher has ended, so that the run is saved and no process is left."""
    if os.environ.get(PARENT) is None:
        return

    def wait() -> None:
        while os.read(0, 1):  # sys.stdin's lock would be held at the interpreter's shutdown
            pass
        stop()

    threading.Thread(target=wait, daemon=True).start()


def _watch(ranks: list[_Rank], received: list[int]) -> int:
    """Wait for all ranks; after a failure, give the others time to report it, then kill them. Returns the exit code."""
    failed: _Rank | None = None
    deadline, between = 0.0, 0.0  # seconds from the first failure to the end of rank 0
    while any(rank.process.poll() is None for rank in ranks):
        time.sleep(0.05)
        if failed is not None and ranks[0].process.poll() is None:
            between += 0.05
        if failed is None:
            failed = next((rank for rank in ranks if rank.process.poll() not in (None, 0)), None)
            if failed is not None:
                usage = failed.process.returncode == 2
                deadline = time.monotonic() + (1.0 if usage or (received and failed.process.returncode < 0) else GRACE)
        elif time.monotonic() > deadline:
            for rank in ranks:
                if rank.process.poll() is None:
                    rank.process.kill()
    if failed is None:
        failed = next((rank for rank in ranks if rank.process.returncode != 0), None)
    if failed is None:
        return 128 + received[0] if received and not ranks else 0
    code = failed.process.returncode
    if received and (code < 0 or code == 128 + received[0]):  # ended by the signal, before or after it could save
        return 128 + received[0]
    if failed.number and (between > TOGETHER or ranks[0].process.returncode != code):  # else rank 0 has said the same
        for line in failed.output[-20:]:
            click.echo(f"rank {failed.number}: {line}", err=True)
    if code < 0:
        click.echo(f"error: rank {failed.number} was killed by {signal.Signals(-code).name}", err=True)
        click.echo("  try: --resume, which continues from the last checkpoint", err=True)
        return 1
    return code


def _listen(rank: _Rank) -> None:
    assert rank.process.stderr is not None
    for line in rank.process.stderr:
        rank.output.append(line.rstrip("\n"))
        del rank.output[:-200]
