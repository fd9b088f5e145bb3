"""`--processes N`: start them, pass on Ctrl-C, and say which of them failed first.

In:  a command line.  Out: N processes of it with the environment that torchrun sets, and one exit code.

The rendezvous is in this process, so that it outlives every rank. Each rank has a process group of its own: the
terminal's Ctrl-C reaches this process alone, which passes it on, once. A rank ends when this process is gone, also
when that was killed: its standard input ends then (`ended_with_parent`).
"""

import hashlib
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
import torch
import torch.distributed as dist

from ...model.nets.alexnet import COLUMNS
from ...model.nets.factory import ALEXNET
from ...model.recipes.config import Config, option
from ...model.recipes.recipe import recipe
from ...model.training.parallel import check_parallel, default_parallel
from ...pipeline.errors import UsageError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ...pipeline.workers import available_cores
from ..process import PARENT

GRACE = 15.0  # seconds that the others have after one has failed: they call the roll and say who is missing


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


# --- from tools/train/sharing.py


def shared_work(
    saved: dict | None, processes: int | None, parallel: str | None, device: torch.device, model: str, name: str
) -> dict:
    """How many processes share the work, and how: as asked, as it was, or as many as there are GPUs."""
    outside = world_size()
    if outside and os.environ.get(PARENT) is None and processes not in (None, outside):
        raise UsageError(
            f"--processes {processes}, but WORLD_SIZE says that {outside} were started from outside",
            "leave --processes to torchrun, or unset WORLD_SIZE",
        )
    before = saved["config"] if saved else {}
    cards = torch.cuda.device_count() if device.type == "cuda" else 0
    if outside:
        processes = outside
    elif processes is None:
        processes = before.get("processes") or (2 if parallel == "columns" else cards or 1)
        if cards and processes > cards:  # of a run that several machines began
            processes = cards
    model, name = before.get("model", model), before.get("recipe", name)
    chosen = parallel or default_parallel(processes, model, recipe(name))
    if parallel is None and processes == before.get("processes"):
        chosen = before["parallel"]
    if processes == 1 and parallel is not None:
        raise UsageError(f"--parallel {parallel} is for several processes", f"say how many: --processes {COLUMNS}")
    if processes > 1:
        columns = recipe(name).net.columns if model == ALEXNET else 1
        check_parallel(chosen, processes, name if model == ALEXNET else model, columns)
    return {"processes": processes, "parallel": chosen if processes > 1 else "alone"}


def world_size() -> int:
    """How many processes were started from outside, or by launch.py; 0, none.

    Raises:
        UsageError: WORLD_SIZE is no number.
    """
    said = os.environ.get("WORLD_SIZE", "0")
    if not said.isdigit():
        raise UsageError(f"WORLD_SIZE is {said!r}, no number", "unset it, or start with torchrun")
    return int(said)


def facts(config: Config, shard_set: ShardSet, stats: Stats, saved: dict | None, first: dict | None) -> dict:
    """What all processes of a run must have in common: options, records, statistics, and where they begin.

    Args:
        saved, first: the checkpoints to go on from, or to begin with.
    """
    options = {option(name): value for name, value in config.described().items() if name != "shards"}
    options["--device"] = torch.device(config.device).type
    for name, checkpoint in (("last.pt", saved), ("--init-from", first)):
        if checkpoint:
            options[f"step of {name}"] = checkpoint["steps_done"]
            options[f"weights of {name}"] = _digest(checkpoint["model"])
    splits = {f"records of {name}": split.fingerprint() for name, split in shard_set.splits.items()}
    return {**options, **splits, "statistics": stats.fingerprint, "torch": torch.__version__}


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
