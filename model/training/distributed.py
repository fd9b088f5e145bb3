"""The processes of one run: rank and size, small collectives, and which process failed.

In:  the environment that `alexnet-train --processes` or torchrun sets.  Out: a Team, of one process without it.

A Team communicates through gloo on the CPU, next to the backend of the gradients (NCCL on GPUs), so that agreeing to
stop never waits for a GPU. When a process dies or hangs, the others fail: at once with a connection error, or after
the time-out. Each then reports to the launcher's store, and the error names the ranks that do not. It is said before
anything else happens: closing a stream or NCCL's connections may wait for the GPU, and the GPU for the missing rank.

NCCL's own watchdog ends a process without a word to the user, so its time-out is longer than gloo's (`NCCL_LATER`); a
broken connection between machines it may notice first, and then the launcher names the rank that died. It stays on:
where all processes live and only their GPUs wait for each other, nothing else would end the run, and a process whose
collective was aborted must not go on to save the weights.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ...pipeline.errors import TrainingError, UsageError
from ...pipeline.workers import available_cores
from ..recipes.config import TIMEOUT

CONNECTION = r"(?i)gloo|nccl|connection|socket|store|timed? ?out|pair|recv"  # in torch's messages of a broken one
HUNG = r"(?i)timed out|timeout"
ROLL_CALL = 5.0  # seconds to wait for the reports of the other ranks: their errors do not come at the same time
NCCL_LATER = 60.0  # seconds after gloo's time-out: the roll call, the message, and closing the stream come first


class GoneError(TrainingError):
    """Another process of the run is gone, or hangs."""


@dataclass
class Team:
    """The processes of one run; `Team()` is one process, whose collectives return their argument.

    The methods `sum`, `previous_vote`, `broadcast` and `check_same` are collective: every process must call them, in
    the same order. They raise torch's errors when a process is missing; see `diagnose`.

    Attributes:
        rank, ranks: index of this process, 0..ranks-1, and number of processes.
        local_rank, local_ranks: the same among the processes of this machine.
        timeout: seconds to wait for the other processes.
        say: called with the error of a missing process as soon as it is known; see `reporting`.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1
    timeout: float = TIMEOUT
    say: Callable[[GoneError], object] | None = field(default=None, repr=False, compare=False)
    _pending: tuple[torch.Tensor, Any] | None = field(default=None, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the process that writes files and prints."""
        return self.rank == 0

    @property
    def threads(self) -> int:
        """Number of CPU threads for this process."""
        return max(1, available_cores() // self.local_ranks)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of values over all processes, in float64, element by element."""
        if self.ranks == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def previous_vote(self, wish: bool) -> bool:
        """Return the outcome of the previous call (did any process wish so?), and cast this process's vote, `wish`.

        The one-call delay lets the votes travel while a step is computed, so that no process waits. The outcome is the
        same in all processes. The first call returns false. After an outcome of true nothing is pending: the votes of
        that call are discarded, and the next call returns false. In a team of one there is no delay: its own vote is
        returned.
        """
        if self.ranks == 1:
            return wish
        pending, self._pending = self._pending, None
        if pending is not None:
            votes, work = pending
            work.wait()
            if votes.item():
                return True
        votes = torch.tensor([int(wish)], dtype=torch.int32)
        self._pending = votes, dist.all_reduce(votes, dist.ReduceOp.MAX, async_op=True)
        return False

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value in every process; the values of the others are ignored. It must be picklable."""
        if self.ranks == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def check_same(self, facts: dict[str, Any]) -> None:
        """Check that all processes belong to the same run.

        Args:
            facts: plain values by the names that the error shows; the same keys in every process.
        Raises:
            TrainingError: a value differs in another process; the error names both ranks and the value.
        """
        if self.ranks == 1:
            return
        everyone: list[dict | None] = [None] * self.ranks
        dist.all_gather_object(everyone, facts)
        for rank, other in enumerate(everyone):
            assert other is not None
            differing = [
                f"{name} {other.get(name)}, not {facts[name]}" for name in facts if other.get(name) != facts[name]
            ]
            if differing:
                raise TrainingError(
                    f"rank {rank} belongs to another run than rank {self.rank}: {'; '.join(differing)}",
                    "start all processes with the same command, on the same shards and statistics",
                )

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Return a context in which an error that another process causes is said first; then connections are cut.

        Yields:
            nothing.
        Raises:
            GoneError: another process is missing; it has been given to `say`.
        """
        try:
            yield
        except RuntimeError as error:  # torch's own errors are RuntimeErrors
            diagnosed = self.diagnose(error)
            if not isinstance(diagnosed, GoneError):
                raise
            if self.say is not None:
                self.say(diagnosed)
            with suppress(Exception):  # not destroy_process_group, which waits for what is under way
                dist.distributed_c10d._abort_process_group()
            raise diagnosed from error

    def diagnose(self, error: RuntimeError) -> Exception:
        """Find out which ranks are missing after a failed collective. Takes up to `ROLL_CALL` seconds.

        Each process that calls this reports to the store of the rendezvous and waits for the reports of the others.

        Returns:
            A GoneError that names the ranks without a report; or `error` itself, if it is not about a connection.
        """
        message = " ".join(str(error).split())[:160]
        if self.ranks == 1 or not (isinstance(error, dist.DistError) or re.search(CONNECTION, message)):
            return error
        try:
            store = dist.distributed_c10d._get_default_store()
            store.set(f"waiting/{self.rank}", "")
            deadline = time.monotonic() + ROLL_CALL
            missing = others = [rank for rank in range(self.ranks) if rank != self.rank]
            while missing and time.monotonic() < deadline:
                time.sleep(0.1)
                missing = [rank for rank in others if not store.check([f"waiting/{rank}"])]
        except Exception:  # the process that has the store is gone
            missing = [0]
        names = " and ".join(f"rank {rank}" for rank in missing) or "a connection between the processes"
        are, have = ("are", "have") if len(missing) > 1 else ("is", "has")
        hung = f", or {have} hung for {self.timeout:g} s" if re.search(HUNG, message) else ""
        return GoneError(
            f"{names} {are} gone{hung} ({message})",
            f"see the last message of {'that rank' if missing else 'each rank'}; then continue with --resume from the "
            "last checkpoint",
        )

    def leave(self) -> None:
        """Close the connections to the other processes, at the end of a run; may wait for them."""
        if self.ranks > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join(device: torch.device, timeout: float = TIMEOUT, say: Callable[[GoneError], object] | None = None) -> Team:
    """Join the other processes of the run, which the environment names as torchrun does.

    Args:
        device: of the training: `cpu`, or `cuda` for the card of this process.
        timeout: seconds to wait for the other processes, here and in each collective.
        say: see `Team`.
    Returns:
        The team; Team() if WORLD_SIZE is not set, or 1.
    Raises:
        UsageError: the environment is incomplete.
        TrainingError: the other processes cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Team()
    try:
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank, local_ranks = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"WORLD_SIZE is set, but other variables of torchrun are missing or invalid: {error}",
            "start with alexnet-train --processes N, or with torchrun; unset WORLD_SIZE to train in one process",
        ) from None
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":  # torchrun's default
        torch.set_num_threads(max(1, available_cores() // local_ranks))
    if device.type == "cuda":
        device = own_device(device, local_rank, local_ranks)
        torch.cuda.set_device(device)
    limit = timedelta(seconds=timeout)
    try:
        store, _, _ = next(dist.rendezvous("env://", rank, ranks, timeout=limit))
        store.set_timeout(limit)
        backend = backend_of(device, store, rank, ranks)
        dist.init_process_group(backend, store=store, timeout=limit, rank=rank, world_size=ranks)
    except (RuntimeError, ValueError) as error:  # torch's own errors are RuntimeErrors
        raise TrainingError(
            f"rank {rank} of {ranks} cannot reach the other ranks: {' '.join(str(error).split())[:200]}",
            "check that MASTER_ADDR and MASTER_PORT are the same and reachable everywhere, and that all ranks run",
        ) from None
    if "nccl" in backend:
        assert dist.group.WORLD is not None, "the group was just made"
        nccl = dist.group.WORLD._get_backend(device)
        nccl._set_default_timeout(timedelta(seconds=timeout + NCCL_LATER))
    return Team(rank, ranks, local_rank, local_ranks, timeout, say)


def backend_of(device: torch.device, store: dist.Store, rank: int, ranks: int) -> str:
    """Return torch's name of the backend: gloo on the CPU; NCCL on GPUs, or gloo if two processes share a card.

    Collective. The number of visible cards says nothing: each process may see only its own.

    Args:
        device: of this process.
        store: of the rendezvous, where the processes tell each other their cards.
    """
    if device.type == "cpu":
        return "gloo"
    store.set(f"card/{rank}", card_of(device))
    cards = {store.get(f"card/{other}") for other in range(ranks)}
    return "cpu:gloo,cuda:nccl" if len(cards) == ranks else "cpu:gloo,cuda:gloo"


def card_of(device: torch.device) -> str:
    """Return the UUID of a GPU: one card has it in every process, and no other card, here or on another machine."""
    return str(torch.cuda.get_device_properties(device).uuid)


def own_device(device: torch.device, local_rank: int = 0, local_ranks: int = 1) -> torch.device:
    """Return the device of a process: of a machine's processes each has the GPU of its local rank, or shares one.

    The only process of a machine keeps the GPU that `device` names; without a number, torch's current one.
    """
    if device.type == "cpu":
        return device
    if local_ranks > 1:
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
