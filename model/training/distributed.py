"""The processes of one run: rank and size, small collectives, and which process failed.

In:  the environment that `alexnet-train --processes` or torchrun sets.  Out: a Team, of one process without it.

A Team communicates through gloo on the CPU, next to the backend of the gradients (NCCL on GPUs), so that agreeing to
stop never waits for a GPU. When a process dies or hangs, the others fail: at once with a connection error, or after
the time-out. Each then reports to the launcher's store, and the error names the ranks that do not.
"""

import os
import re
import time
from collections.abc import Sequence
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


@dataclass
class Team:
    """The processes of one run; `Team()` is one process, whose collectives return their argument.

    The methods `sum`, `previous_vote`, `broadcast` and `check_same` are collective: every process must call them, in
    the same order. They raise torch's errors when a process is missing; see `diagnose`.

    Attributes:
        rank, ranks: index of this process, 0..ranks-1, and number of processes.
        local_rank, local_ranks: the same among the processes of this machine.
        timeout: seconds to wait for the other processes.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1
    timeout: float = TIMEOUT
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

    def diagnose(self, error: RuntimeError) -> Exception:
        """Find out which ranks are missing after a failed collective. Takes up to `ROLL_CALL` seconds.

        Each process that calls this reports to the store of the rendezvous and waits for the reports of the others.

        Returns:
            A TrainingError that names the ranks without a report; or `error` itself, if it is not about a connection.
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
        return TrainingError(
            f"{names} {are} gone{hung} ({message})",
            f"see the last message of {'that rank' if missing else 'each rank'}; then continue with --resume from the "
            "last checkpoint",
        )

    def leave(self) -> None:
        """Close the connections to the other processes."""
        if self.ranks > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join(device: torch.device, timeout: float = TIMEOUT) -> Team:
    """Join the other processes of the run, which the environment names as torchrun does.

    Args:
        device: of the training: `cpu`, or `cuda` for the card of this process.
        timeout: seconds to wait for the other processes, here and in each collective.
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
        torch.cuda.set_device(own_device(device, local_rank))
    try:
        dist.init_process_group(
            backend_of(device, local_ranks), timeout=timedelta(seconds=timeout), rank=rank, world_size=ranks
        )
    except (RuntimeError, ValueError) as error:  # torch's own errors are RuntimeErrors
        raise TrainingError(
            f"rank {rank} of {ranks} cannot reach the other ranks: {' '.join(str(error).split())[:200]}",
            "check that MASTER_ADDR and MASTER_PORT are the same and reachable everywhere, and that all ranks run",
        ) from None
    return Team(rank, ranks, local_rank, local_ranks, timeout)


def backend_of(device: torch.device, local_ranks: int) -> str:
    """Return torch's name of the backend: gloo on the CPU; NCCL on GPUs, or gloo if processes share a card."""
    if device.type == "cpu":
        return "gloo"
    return "cpu:gloo,cuda:nccl" if torch.cuda.device_count() >= local_ranks else "cpu:gloo,cuda:gloo"


def own_device(device: torch.device, local_rank: int) -> torch.device:
    """Return the device of a process: of GPUs the one of its local rank; processes share cards if there are fewer."""
    return device if device.type == "cpu" else torch.device("cuda", local_rank % torch.cuda.device_count())
