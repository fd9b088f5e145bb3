"""Batches for other people's loops: (images, labels) by the epoch, as a DataLoader gives them.

In:  a shard set with statistics.  Out: iterables with a length, of float tensors on the device and int64 labels.

    loader = TrainLoader("out", batch_size=256, device="cuda")
    for epoch in range(90):
        for images, labels in loader: ...       # one epoch; the next time, the next
    for images, labels in TestLoader("out", "val", device="cuda"): ...       # every record once

`batch_size` is the global one: under torch.distributed each process gets its share of every batch, the same records
and draws in all on any number of processes. `state_dict()` is (epoch, step), and all that resuming needs.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from . import stats as statistics
from .errors import PlanError, UsageError
from .loader import Light, train_stream, views_stream
from .plan import Augmentation, Plan, rank_share
from .shardset import ShardSet, open_shard_set
from .stats import Stats
from .stream import Stream

Pair = tuple[torch.Tensor, torch.Tensor]  # float32 (n, 3, crop, crop) in channels_last memory; int64 (n,)


class TrainLoader:
    """One epoch an iteration, in the plan's order, with the plan's draws.

    The first iteration is epoch 0, each further one the next epoch, also where the last was left early. The stream goes
    on behind the turn of an epoch, so that no epoch waits for its first batch.

    Args:
        shards: a shard set or its folder.
        batch_size: of the global batch, all processes together.
        seed: of order and draws.
        augmentation: how pictures are varied.
        light, mean: as for `train_stream`; here no lighting and one mean a channel.
        stats: of the set; by default what pca-stats left there.
        rank, ranks: this process and how many share each batch; by default torch.distributed's when an epoch begins.
        options: others of `train_stream`: device, threads.
    Attributes:
        stats: what was subtracted is `stats.mean_rgb` (or `stats.mean_image`).
    Raises:
        UsageError, ShardError, StatsError, PlanError.
    """

    def __init__(
        self,
        shards: ShardSet | Path | str,
        batch_size: int = 128,
        *,
        seed: int = 0,
        augmentation: Augmentation = Augmentation(),
        light: Light = Light("none"),
        mean: str = "rgb",
        stats: Stats | None = None,
        rank: int | None = None,
        ranks: int | None = None,
        **options: Any,
    ):
        self.shard_set, self.stats = _opened(shards, stats)
        self.batch_size, self.seed, self.augmentation = batch_size, seed, augmentation
        self._options = {**options, "light": light, "mean": mean}
        self._rank, self._ranks = rank, ranks
        self._epoch = self._step = 0  # of the batch to be given next
        self._begun = False  # batches of this epoch were given, so the next iteration is of the next epoch
        self._stream: Stream | None = None
        self._ahead: tuple[int, int, Plan] | None = None  # what the stream gives next: epoch, step, plan
        self._turns = itertools.count()
        self._turn = next(self._turns)
        self._plan()  # what cannot be planned is said here, not in the middle of a run

    def __len__(self) -> int:
        """Steps of an epoch; the short last batch is left out unless it is the only one."""
        return self._plan().steps

    def __iter__(self) -> Iterator[Pair]:
        if self._begun:
            self._epoch, self._step, self._begun = self._epoch + 1, 0, False
        self._turn = next(self._turns)
        return self._rest_of_epoch(self._turn, self._plan())

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be this epoch; a step that `load_state_dict` has set within it stays."""
        if self._begun or epoch != self._epoch:
            self.load_state_dict({"epoch": epoch, "step": 0})

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands: epoch, and step within it."""
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration go on from there, to its epoch's end.

        Raises:
            PlanError: no such step.
        """
        epoch, step = int(state["epoch"]), int(state["step"])
        if epoch < 0 or not 0 <= step < len(self):
            raise PlanError(f"there is no epoch {epoch}, step {step}, of {len(self):,} steps an epoch")
        self._epoch, self._step, self._begun = epoch, step, False
        self._turn = next(self._turns)

    def close(self) -> None:
        """Stop the stream; dropping the loader will do too."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._turn = None, next(self._turns)

    def _rest_of_epoch(self, turn: int, plan: Plan) -> Iterator[Pair]:
        while True:
            if turn != self._turn:
                raise PlanError(
                    "this iteration is over: the loader was closed, was told another place, or began another iteration",
                    "make a loader for each loop that runs at the same time",
                )
            batch = next(self._stream_at(plan))
            self._step, self._begun = self._step + 1, True
            last = self._step == plan.steps
            if last:
                self._epoch, self._step, self._begun = self._epoch + 1, 0, False
            self._ahead = (self._epoch, self._step, plan)
            yield batch.images, batch.labels
            if last:
                return

    def _stream_at(self, plan: Plan) -> Stream:
        """The stream that gives the next batch: the one that runs, where it stands there."""
        here = (self._epoch, self._step, plan)
        if self._stream is None or self._ahead != here:
            if self._stream is not None:
                self._stream.close()
            self._stream = train_stream(
                self.shard_set, self.stats, plan, epoch=self._epoch, step=self._step, **self._options
            )
        return self._stream

    def _plan(self) -> Plan:
        rank, ranks = _place(self._rank, self._ranks)
        return Plan(
            self.shard_set.split("train").records,
            self.batch_size,
            self.seed,
            self.shard_set.size,
            self.augmentation,
            rank,
            ranks,
        )


class TestLoader:
    """Every record of a split once an iteration, as its centre; the last batch may be short.

    Args:
        batch_size: of this process: nothing is updated, so there is no global batch here.
        crop: side of the centre window, pixels.
        rank, ranks: each process takes its share of the records; shares may differ by one.
        shards, stats, mean: as for TrainLoader.
        options: others of `views_stream`: device, threads.
    """

    __test__ = False  # pytest, this is no test

    def __init__(
        self,
        shards: ShardSet | Path | str,
        split: str = "val",
        batch_size: int = 128,
        *,
        crop: int = 224,
        mean: str = "rgb",
        stats: Stats | None = None,
        rank: int | None = None,
        ranks: int | None = None,
        **options: Any,
    ):
        self.shard_set, self.stats = _opened(shards, stats)
        self.split, self.batch_size = split, batch_size
        self._options = {**options, "crop": crop, "mean": mean}
        if batch_size < 1:
            raise PlanError(f"a batch of {batch_size} has no pictures")
        self._rank, self._ranks = rank, ranks
        self._records = self.shard_set.split(split).records

    def __len__(self) -> int:
        """Batches of this process."""
        first, last = rank_share(self._records, *_place(self._rank, self._ranks))
        return math.ceil((last - first) / self.batch_size)

    def __iter__(self) -> Iterator[Pair]:
        rank, ranks = _place(self._rank, self._ranks)
        with views_stream(
            self.shard_set,
            self.stats,
            self.split,
            batch_size=self.batch_size,
            rank=rank,
            ranks=ranks,
            **self._options,
        ) as stream:
            for batch in stream:
                yield batch.images[:, 0], batch.labels


def _opened(shards: ShardSet | Path | str, stats: Stats | None) -> tuple[ShardSet, Stats]:
    shard_set = shards if isinstance(shards, ShardSet) else open_shard_set(Path(shards))
    return shard_set, stats or statistics.load(shard_set)


def _place(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """This process among those that share the work: as said, else torch.distributed's, else alone."""
    if (rank is None) != (ranks is None):
        raise UsageError(f"rank {rank} of {ranks} ranks", "give both, or neither to ask torch.distributed")
    if rank is not None and ranks is not None:
        return rank, ranks
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
