"""Loaders for any training loop: (images, labels) by the epoch, like a DataLoader.

In:  a shard set, with statistics unless mean="imagenet".  Out: iterables with a length, of images on the device and
int64 labels.

`batch_size` is the global one: under torch.distributed each process gets its share of every batch, and the records and
draws of all together are the same on any number of processes. `state_dict()` is the position of the next batch.
"""

import itertools
import math
import warnings
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
from ..shards.manifest import ShardSet, open_shard_set
from ..shards.stats import Stats, load_stats
from .autotune import FUSED
from .finish import why_not_fused
from .stream import Stream
from .streams import train_stream, views_stream

Pair = tuple[torch.Tensor, torch.Tensor]  # float32 (n, 3, crop, crop) in channels_last memory; int64 (n,)


@dataclass(frozen=True)
class EpochSampler:
    """The part of a DataLoader's sampler that training loops use: `loader.sampler.set_epoch(epoch)`."""

    set_epoch: Callable[[int], None]


class _Loader:
    """Common to both loaders: the shard set, its statistics, the options of their streams."""

    def __init__(self, shards: ShardSet | Path | str, stats: Stats | None, options: dict[str, Any]):
        self.shard_set = shards if isinstance(shards, ShardSet) else open_shard_set(Path(shards))
        self._options = options
        if stats is not None:
            self.stats = stats
        self._stats()  # missing statistics are an error here, not in the middle of a run

    @cached_property
    def stats(self) -> Stats:
        """Statistics of the set, read at the first access; StatsError if they are missing or damaged."""
        return load_stats(self.shard_set)

    def _stats(self) -> Stats | None:
        """The statistics that the streams need: None with mean="imagenet" and without lighting."""
        light = self._options.get("light", Lighting("none"))
        return None if self._options["mean"] == "imagenet" and light.scale == "none" else self.stats


class TrainLoader(_Loader):
    """Training batches: one epoch for each iteration, in the plan's order, with the plan's draws.

    The first iteration is epoch 0, each further one the next epoch, also where the previous one was left early. The
    stream continues across epochs, so that no epoch waits for its first batch. Batches are (images, labels): float32
    (n, 3, crop, crop), RGB, pixels of 0..255 less the mean, channels_last, on the device; int64 (n,).

    Args:
        shards: a shard set or its folder.
        batch_size: of the global batch, all processes together.
        seed: of order and draws, 0..2^64-1.
        augmentation: how pictures are augmented.
        light, mean: as for `train_stream`; by default no lighting and one mean for each channel. `imagenet` without
            lighting needs no statistics.
        stats: of the set; by default read from its stats.npz.
        rank, ranks: this process and the number of processes; by default torch.distributed's when an epoch begins.
        options: others of `train_stream`: device, threads, dtype, layout, decode.
    Attributes:
        stats: the statistics; `stats.mean_rgb` (or `stats.mean_image`) is subtracted.
        sampler: has `set_epoch`, which Lightning calls at the beginning of each epoch.
    Raises:
        UsageError: no shard set in the folder, or only one of rank and ranks is given.
        ShardError: the set is incomplete, or has no training records.
        StatsError: the statistics are missing or damaged.
        PlanError: an impossible batch size, seed, crop or rank.
    Example:
        loader = TrainLoader("out", batch_size=256, device="cuda")
        for epoch in range(90):
            for images, labels in loader: ...  # each iteration is the next epoch
    """

    batch_sampler = None  # Lightning requires it beside a sampler

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
        self._epoch = self._step = 0  # of the next batch
        self._started = False  # batches of this epoch were returned, so the next iteration is the next epoch
        self._stream: Stream | None = None
        self._ahead: tuple[int, int, Plan] | None = None  # of the stream's next batch: epoch, step, plan
        self._turns = itertools.count()
        self._turn = next(self._turns)
        self._plan()  # an impossible plan is an error here, not in the middle of a run

    def __len__(self) -> int:
        """Number of batches in an epoch; the short last one is dropped unless it is the only one."""
        return self._plan().steps

    def __iter__(self) -> Iterator[Pair]:
        if self._started:
            self._epoch, self._step, self._started = self._epoch + 1, 0, False
        self._turn = next(self._turns)
        return self._rest_of_epoch(self._turn, self._plan())

    @property
    def sampler(self) -> EpochSampler:
        """An object with `set_epoch`, like a DataLoader's sampler."""
        return EpochSampler(self.set_epoch)

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch of the next iteration; a step in it that `load_state_dict` has set is kept.

        An iteration that has returned no batch yet is kept too: Lightning begins it before it calls this.
        """
        if self._started or epoch != self._epoch:
            turn = next(self._turns) if self._started else self._turn
            self._go_to(epoch, 0, turn)

    def state_dict(self) -> dict[str, Any]:
        """Return epoch and step of the next batch, from 0, and what identifies the batches.

        `decode` is the decoder in use, once there is a stream: on a GPU pixels differ between decoders.
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
        """Continue there in the next iteration, to the end of its epoch, with the same decoder.

        Args:
            state: from `state_dict`; epoch and step suffice. Where its decoder is `fused`, which is not possible here,
                a warning says so, and the pixels differ by rounding.
        Raises:
            PlanError: no such step, or another seed, batch size, shard set or decoder.
        """
        current = {**self.state_dict(), "decode": self._decode}
        for name in ("seed", "batch_size", "fingerprint", "decode"):
            saved, own = state.get(name, current[name]), current[name]
            if saved != own and not (name == "decode" and "auto" in (saved, own)):
                raise PlanError(
                    f"the state has {name} {saved}, the loader {own}: the batches would differ",
                    "open the shard set of the state" if name == "fingerprint" else f"give {name}={saved!r}",
                )
        self._go_to(int(state["epoch"]), int(state["step"]), next(self._turns))
        saved = state.get("decode", "auto")
        if saved not in ("auto", self.state_dict()["decode"]):
            reason = self._why_not_fused() if saved == FUSED else ""
            if reason:
                warnings.warn(f"the state was decoded by fused, which is not possible: {reason}", stacklevel=2)
            self._options["decode"] = "auto" if reason else saved
            self._ahead = None  # the running stream uses the other decoder

    def _why_not_fused(self) -> str:
        options = {name: self._options[name] for name in ("dtype", "layout") if name in self._options}
        on_cpu = torch.device(self._options.get("device", "cpu")).type == "cpu"
        return why_not_fused(on_cpu, resized=self.augmentation.resized is not None, **options)

    def _go_to(self, epoch: int, step: int, turn: int) -> None:
        if epoch < 0 or not 0 <= step < len(self):
            raise PlanError(f"no epoch {epoch}, step {step}: an epoch has {len(self):,} steps")
        self._epoch, self._step, self._started, self._turn = epoch, step, False, turn

    def close(self) -> None:
        """Stop the stream; dropping the loader does the same."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._turn = None, next(self._turns)

    def _rest_of_epoch(self, turn: int, plan: Plan) -> Iterator[Pair]:
        while True:
            if turn != self._turn:
                raise PlanError(
                    "this iteration has ended: the loader was closed, moved, or began another iteration",
                    "create one loader for each concurrent loop",
                )
            batch = next(self._stream_at(plan))
            self._step, self._started = self._step + 1, True
            last = self._step == plan.steps
            if last:
                self._epoch, self._step, self._started = self._epoch + 1, 0, False
            self._ahead = (self._epoch, self._step, plan)
            yield batch.images, batch.labels
            if last:
                return

    def _stream_at(self, plan: Plan) -> Stream:
        """Return the stream of the next batch: the running one if it is at that position, else a new one."""
        if self._stream is None or self._ahead != (self._epoch, self._step, plan):
            if self._stream is not None:
                self._stream.close()
            self._stream = train_stream(
                self.shard_set, self._stats(), plan, epoch=self._epoch, step=self._step, **self._options
            )
        return self._stream

    def _plan(self) -> Plan:
        records, size = self.shard_set.split("train").records, self.shard_set.size
        share = _place(self._rank, self._ranks)
        return Plan(records, self.batch_size, self.seed, size, self.augmentation, *share)


class EvalLoader(_Loader):
    """Evaluation batches: every record of a split once for each iteration; the last batch may be short.

    Batches are (images, labels): float32 (n, 3, crop, crop), or (n, views, 3, crop, crop) for more than one view, RGB,
    pixels of 0..255 less the mean, channels_last, on the device; int64 (n,), -1 for none.

    Args:
        shards, stats, mean: as for TrainLoader.
        split: `train`, `val` or `test`.
        batch_size: records in each of this process's batches.
        crop: side of the windows, pixels.
        views: windows of each record: 1, the centre; 10, the paper's; others, see `views_of`.
        rank, ranks: this process and the number of processes; each gets a share of the records, which may differ by
            one; by default torch.distributed's.
        options: others of `views_stream`: device, threads, resize, dtype, layout, decode.
    Raises:
        UsageError, ShardError, StatsError, PlanError: as TrainLoader.
    Example:
        for images, labels in EvalLoader("out", "val", device="cuda"): ...  # every record once
    """

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
            raise PlanError(f"batch size {batch_size} is below 1", "choose a batch size of 1 or more")
        self._rank, self._ranks = rank, ranks
        self._records = self.shard_set.split(split).records

    def __len__(self) -> int:
        """Number of batches of this process."""
        first, last = rank_share(self._records, *_place(self._rank, self._ranks))
        return math.ceil((last - first) / self.batch_size)

    def __iter__(self) -> Iterator[Pair]:
        rank, ranks = _place(self._rank, self._ranks)
        options = {**self._options, "batch_size": self.batch_size, "rank": rank, "ranks": ranks}
        with views_stream(self.shard_set, self._stats(), self.split, **options) as stream:
            for batch in stream:
                yield batch.images[:, 0] if self.views == 1 else batch.images, batch.labels


def _place(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """Return rank and ranks as given, else torch.distributed's, else (0, 1)."""
    if (rank is None) != (ranks is None):
        raise UsageError(f"rank is {rank}, ranks is {ranks}", "give both, or neither for torch.distributed's")
    if rank is not None and ranks is not None:
        return rank, ranks
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
