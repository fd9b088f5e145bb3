"""`--processes N`: start them, pass on Ctrl-C, and say which of them failed first.

In:  a command line.  Out: N processes of it with the environment that torchrun sets, and one exit code.

The rendezvous is in this process, so that it outlives every rank. Each rank has a process group of its own: the
terminal's Ctrl-C reaches this process alone, which passes it on, once. A rank ends when this process is gone, also
when that was killed: its standard input ends then (`ended_with_parent`).
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

GRACE = 15.0  # seconds that the others have after one has failed: they call the roll and say who is missing
PARENT = "ALEXNET_DALI_LAUNCHER"  # set in the ranks that this file has started


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen
    said: list[str] = field(default_factory=list)  # on standard error; the first one's goes straight to the user's


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `alexnet-train` with these arguments in so many processes, to the end.

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
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # torch's own word for: the store is the launcher's
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, available_cores() // processes))),
        PARENT: str(os.getpid()),
    }
    ranks: list[_Rank] = []
    asked: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        asked.append(number)
        for rank in ranks:
            if rank.process.poll() is None:
                rank.process.send_signal(number if len(asked) == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in range(processes):
            if asked:
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
        return _watch(ranks, asked)
    finally:
        for rank in ranks:
            if rank.process.poll() is None:
                rank.process.kill()
            rank.process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def ended_with_parent(stop: Callable[[], object]) -> None:
    """In a rank: call `stop` when the launcher is gone, so that the run is saved and nothing is left behind."""
    if os.environ.get(PARENT) is None:
        return

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held when Python ends
            pass
        stop()

    threading.Thread(target=wait, daemon=True).start()


def _watch(ranks: list[_Rank], asked: list[int]) -> int:
    """Wait for all; where one fails, give the others time to say so, and end them."""
    failed: _Rank | None = None
    deadline = 0.0
    while any(rank.process.poll() is None for rank in ranks):
        time.sleep(0.05)
        if failed is None:
            failed = next((rank for rank in ranks if rank.process.poll() not in (None, 0)), None)
            if failed is not None:
                usage = failed.process.returncode == 2
                deadline = time.monotonic() + (1.0 if usage or (asked and failed.process.returncode < 0) else GRACE)
        elif time.monotonic() > deadline:
            for rank in ranks:
                if rank.process.poll() is None:
                    rank.process.kill()
    if failed is None:
        failed = next((rank for rank in ranks if rank.process.returncode != 0), None)
    if failed is None:
        return 128 + asked[0] if asked and not ranks else 0
    code = failed.process.returncode
    if asked and (code < 0 or code == 128 + asked[0]):  # before it could save, or after
        return 128 + asked[0]
    if failed.number:
        for line in failed.said[-20:]:
            click.echo(f"rank {failed.number}: {line}", err=True)
    if code < 0:
        click.echo(f"error: rank {failed.number} was ended by {signal.Signals(-code).name}", err=True)
        click.echo("  try: --resume, which goes on from the last checkpoint", err=True)
        return 1
    return code


def _listen(rank: _Rank) -> None:
    assert rank.process.stderr is not None
    for line in rank.process.stderr:
        rank.said.append(line.rstrip("\n"))
        del rank.said[:-200]
