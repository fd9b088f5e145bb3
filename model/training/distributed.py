"""The processes of one run: who is here, what all agree on, and who is missing.

In:  the environment that `alexnet-train --processes` or torchrun sets.  Out: a Team, of one where there is none.

A Team speaks through gloo on the CPU beside whatever the gradients take (NCCL on GPUs), so that agreeing to stop never
waits for a GPU. A process that dies or hangs ends the others: by an error at once, or after the time-out; each of
them then says where it stands, and who does not is named.
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

CONNECTION = r"(?i)gloo|nccl|connection|socket|store|timed? ?out|pair|recv"  # in what torch says of a broken one
HUNG = r"(?i)timed out|timeout"
ROLL_CALL = 5.0  # seconds between the first error and the last, of processes that wait for the same one


@dataclass
class Team:
    """The processes of one run; a Team() is one process.

    Attributes:
        rank, ranks: this process and how many there are.
        local_rank, local_ranks: the same among those of this machine.
        timeout: seconds that it waits for the others.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1
    timeout: float = TIMEOUT
    _asked: tuple[torch.Tensor, Any] | None = field(default=None, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def threads(self) -> int:
        """Threads of the CPU for this process."""
        return max(1, available_cores() // self.local_ranks)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add up numbers over all processes, in float64; each gets the sums."""
        if self.ranks == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def previous_vote(self, wish: bool) -> bool:
        """Whether any process wished so when all asked the last time: the answer comes while they work, a call late."""
        if self.ranks == 1:
            return wish
        answer = False
        if self._asked is not None:
            flag, work = self._asked
            work.wait()
            answer = bool(flag.item())
        if answer:
            self._asked = None
            return True
        flag = torch.tensor([int(wish)], dtype=torch.int32)
        self._asked = flag, dist.all_reduce(flag, dist.ReduceOp.MAX, async_op=True)
        return False

    def broadcast(self, value: Any) -> Any:
        """Give all processes what the first has."""
        if self.ranks == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def check_same(self, facts: dict[str, Any]) -> None:
        """Check that all processes are of one run.

        Args:
            facts: by what people call them; plain values.
        Raises:
            TrainingError: some process has another; by name.
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
                    f"rank {rank} is of another run than rank {self.rank}: {'; '.join(differing)}",
                    "start all processes with the same command, over the same shards and statistics",
                )

    def diagnose(self, error: RuntimeError) -> Exception:
        """Turn a broken connection into words: call the roll, and name those who do not answer.

        Returns:
            A TrainingError; the error itself where it is of another kind, and this process does not answer the roll.
        """
        said = " ".join(str(error).split())[:160]
        if self.ranks == 1 or not (isinstance(error, dist.DistError) or re.search(CONNECTION, said)):
            return error
        try:
            store = dist.distributed_c10d._get_default_store()
            store.set(f"waiting/{self.rank}", "")
            deadline = time.monotonic() + ROLL_CALL
            absent = others = [rank for rank in range(self.ranks) if rank != self.rank]
            while absent and time.monotonic() < deadline:
                time.sleep(0.1)
                absent = [rank for rank in others if not store.check([f"waiting/{rank}"])]
        except Exception:  # the store's own process is gone
            absent = [0]
        names = " and ".join(f"rank {rank}" for rank in absent) or "a connection between the processes"
        hung = re.search(HUNG, said)
        if len(absent) > 1:
            gone = f"are gone, or have hung for {self.timeout:g} s" if hung else "are gone"
        else:
            gone = f"is gone, or has hung for {self.timeout:g} s" if hung else "is gone"
        return TrainingError(
            f"{names} {gone} ({said})", "see what it said last; then go on with --resume from the last checkpoint"
        )

    def leave(self) -> None:
        """Say goodbye."""
        if self.ranks > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join(device: torch.device, timeout: float = TIMEOUT) -> Team:
    """Join the processes that the environment tells of, as torchrun sets it; alone without.

    Raises:
        UsageError: the environment is not whole, or the others do not come.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Team()
    try:
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank, local_ranks = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"WORLD_SIZE is set, but not all that belongs to it: {error}",
            "start with alexnet-train --processes N, or with torchrun; unset WORLD_SIZE to train in one process",
        ) from None
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":  # torchrun's own, too few
        torch.set_num_threads(max(1, available_cores() // local_ranks))
    if device.type == "cuda":
        torch.cuda.set_device(own_device(device, local_rank))
    try:
        dist.init_process_group(
            backend_of(device, local_ranks), timeout=timedelta(seconds=timeout), rank=rank, world_size=ranks
        )
    except (RuntimeError, ValueError) as error:  # torch's own are RuntimeErrors
        raise TrainingError(
            f"rank {rank} of {ranks} found no others: {' '.join(str(error).split())[:200]}",
            "see that MASTER_ADDR and MASTER_PORT are the same everywhere and reachable, and that all were started",
        ) from None
    return Team(rank, ranks, local_rank, local_ranks, timeout)


def backend_of(device: torch.device, local_ranks: int) -> str:
    """gloo on the CPU; on GPUs NCCL, which wants a card for each process: where there are fewer, gloo there too."""
    if device.type == "cpu":
        return "gloo"
    return "cpu:gloo,cuda:nccl" if torch.cuda.device_count() >= local_ranks else "cpu:gloo,cuda:gloo"


def own_device(device: torch.device, local_rank: int) -> torch.device:
    """The card of a process; several share one where there are fewer."""
    return device if device.type == "cpu" else torch.device("cuda", local_rank % torch.cuda.device_count())
