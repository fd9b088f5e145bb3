"""Batches for other people's loops: (images, labels) by the epoch, as a DataLoader gives them.

In:  a shard set, with statistics but for mean="imagenet".  Out: iterables with a length, of pictures on the device and
int64 labels.

    loader = TrainLoader("out", batch_size=256, device="cuda")
    for epoch in range(90):
        for images, labels in loader: ...       # one epoch; the next time, the next
    for images, labels in TestLoader("out", "val", device="cuda"): ...       # every record once

`batch_size` is the global one: under torch.distributed each process gets its share of every batch, the same records
and draws in all on any number of processes. `state_dict()` is the place of the next batch, and what it is a place in.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from ..errors import PlanError, UsageError
from ..plan.lighting import Lighting
from ..plan.plan import Augmentation, Plan, rank_share
from ..shards import stats as statistics
from ..shards.manifest import ShardSet, open_shard_set
from ..shards.stats import Stats
from .stream import Stream
from .streams import train_stream, views_stream

Pair = tuple[torch.Tensor, torch.Tensor]  # float32 (n, 3, crop, crop) in channels_last memory; int64 (n,)


@dataclass(frozen=True)
class EpochSampler:
    """What others look for at a DataLoader to say which epoch begins: `loader.sampler.set_epoch(epoch)`."""

    set_epoch: Callable[[int], None]


class _Loader:
    """What both loaders have: the set, its statistics, the options of their streams."""

    def __init__(self, shards: ShardSet | Path | str, stats: Stats | None, options: dict[str, Any]):
        self.shard_set = shards if isinstance(shards, ShardSet) else open_shard_set(Path(shards))
        self._options = options
        if stats is not None:
            self.stats = stats
        self._stats()  # what is missing is said here, not in the middle of a run

    @cached_property
    def stats(self) -> Stats:
        """Of the set; read when first asked for, since not everybody needs them.

        Raises:
            StatsError: there are none.
        """
        return statistics.load_stats(self.shard_set)

    def _stats(self) -> Stats | None:
        """What the streams are given: nothing where neither mean nor light is of the set."""
        light = self._options.get("light", Lighting("none"))
        return None if self._options["mean"] == "imagenet" and light.scale == "none" else self.stats


class TrainLoader(_Loader):
    """One epoch an iteration, in the plan's order, with the plan's draws.

    The first iteration is epoch 0, each further one the next epoch, also where the last was left early. The stream goes
    on behind the turn of an epoch, so that no epoch waits for its first batch.

    Args:
        shards: a shard set or its folder.
        batch_size: of the global batch, all processes together.
        seed: of order and draws.
        augmentation: how pictures are varied.
        light, mean: as for `train_stream`; here no lighting and one mean a channel. `imagenet` without lighting wants
            no statistics.
        stats: of the set; by default what pca-stats left there.
        rank, ranks: this process and how many share each batch; by default torch.distributed's when an epoch begins.
        options: others of `train_stream`: device, threads, dtype, layout, decode.
    Attributes:
        stats: what was subtracted is `stats.mean_rgb` (or `stats.mean_image`).
        sampler: has `set_epoch`, which Lightning calls at the beginning of each epoch.
    Raises:
        UsageError, ShardError, StatsError, PlanError.
    """

    batch_sampler = None  # Lightning looks for it where there is a sampler

    def __init__(
        self,
        shards: ShardSet | Path | str,
        batch_size: int = 128,
        *,
        seed: int = 0,
        augmentation: Augmentation = Augmentation(),
        light: Lighting = Lighting("none"),
        mean: str = "rgb",
        stats: Stats | None = None,
        rank: int | None = None,
        ranks: int | None = None,
        **options: Any,
    ):
        super().__init__(shards, stats, {**options, "light": light, "mean": mean})
        self.batch_size, self.seed, self.augmentation = batch_size, seed, augmentation
        self._decode = options.get("decode", "auto")
        self._fingerprint = self.shard_set.split("train").fingerprint()
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

    @property
    def sampler(self) -> EpochSampler:
        """For who looks for a DataLoader's."""
        return EpochSampler(self.set_epoch)

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be this epoch; a step that `load_state_dict` has set within it stays.

        So does an iteration that has given nothing yet: Lightning begins it first, and then says the epoch.
        """
        if self._begun or epoch != self._epoch:
            turn = next(self._turns) if self._begun else self._turn
            self._go_to(epoch, 0, turn)

    def state_dict(self) -> dict[str, Any]:
        """The place of the next batch, epoch and step within it, and what it is a place in.

        `decode` is the way that pictures were decoded, once there were any: on a GPU pixels differ between the ways.
        """
        return {
            "epoch": self._epoch,
            "step": self._step,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "fingerprint": self._fingerprint,
            "decode": self._stream.decode if self._stream else self._options.get("decode", "auto"),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on from there, to its epoch's end, decoded as before.

        Args:
            state: of `state_dict`; epoch and step alone will do.
        Raises:
            PlanError: no such step, or it is of another seed, batch size, shard set or way of decoding.
        """
        here = {**self.state_dict(), "decode": self._decode}
        for name in ("seed", "batch_size", "fingerprint", "decode"):
            saved, own = state.get(name, here[name]), here[name]
            if saved != own and not (name == "decode" and "auto" in (saved, own)):
                raise PlanError(
                    f"this state has {name} {saved}, the loader {own}: it would go on with other batches",
                    "open the shard set that the state is of" if name == "fingerprint" else f"give {name}={saved!r}",
                )
        self._go_to(int(state["epoch"]), int(state["step"]), next(self._turns))
        if state.get("decode", "auto") not in ("auto", self.state_dict()["decode"]):
            self._options["decode"] = state["decode"]
            self._ahead = None  # a stream that runs decodes in the other way

    def _go_to(self, epoch: int, step: int, turn: int) -> None:
        if epoch < 0 or not 0 <= step < len(self):
            raise PlanError(f"there is no epoch {epoch}, step {step}, of {len(self):,} steps an epoch")
        self._epoch, self._step, self._begun, self._turn = epoch, step, False, turn

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
                self.shard_set, self._stats(), plan, epoch=self._epoch, step=self._step, **self._options
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


class EvalLoader(_Loader):
    """Every record of a split once an iteration, as its centre; the last batch may be short.

    Args:
        batch_size: records, of this process: nothing is updated, so there is no global batch here.
        crop: side of the window, pixels.
        views: of each record. 1 gives (n, 3, crop, crop); others, see views.py, (n, views, 3, crop, crop).
        rank, ranks: each process takes its share of the records; shares may differ by one.
        shards, stats, mean: as for TrainLoader.
        options: others of `views_stream`: device, threads, resize, dtype, layout, decode.
    """

    __test__ = False  # pytest, this is no test

    def __init__(
        self,
        shards: ShardSet | Path | str,
        split: str = "val",
        batch_size: int = 128,
        *,
        crop: int = 224,
        views: int = 1,
        mean: str = "rgb",
        stats: Stats | None = None,
        rank: int | None = None,
        ranks: int | None = None,
        **options: Any,
    ):
        super().__init__(shards, stats, {**options, "crop": crop, "views": views, "mean": mean})
        self.split, self.batch_size, self.views = split, batch_size, views
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
            self._stats(),
            self.split,
            batch_size=self.batch_size,
            rank=rank,
            ranks=ranks,
            **self._options,
        ) as stream:
            for batch in stream:
                yield batch.images[:, 0] if self.views == 1 else batch.images, batch.labels


def _place(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """This process among those that share the work: as said, else torch.distributed's, else alone."""
    if (rank is None) != (ranks is None):
        raise UsageError(f"rank {rank} of {ranks} ranks", "give both, or neither to ask torch.distributed")
    if rank is not None and ranks is not None:
        return rank, ranks
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
