"""The plan: an epoch as a pure function of (seed, epoch, place). NumPy in and out; no files, no DALI, no torch.

A place is a position in an epoch's order. The record at each place, its crop, its reflection, its lighting and the
units that dropout keeps depend on those three numbers and on nothing else: not on batch size, ranks, threads, device
or interruptions. `docs/plan.md` specifies the same in words, enough for another language.

Every draw is computed from Philox words (philox.py): integers, uniforms and Gaussians by formulas.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import PlanError
from .philox import CROP, FLIP, LIGHT, RESIZED, OrderPrefetch, dropout_bits, permutation, philox_words
from .resized_crop import RESIZED_WORDS, ResizedCrop

LIGHT_WORDS = 4  # of a place: two Box-Muller pairs, of whose four Gaussians the first three are used
SLOW_ORDER = 1 << 17  # records from which on the order is computed in a thread, late in the previous epoch
_GAUSSIAN_GRID = 2.0**20  # Gaussians are rounded to this grid, which hides last-bit differences of log and cos


@dataclass(frozen=True)
class Augmentation:
    """How training pictures are augmented (paper, section 4.1).

    Attributes:
        crop: side of the output, pixels: a window of that size, or one that is resized to it.
        random_crop: draw the window's position; otherwise the centre.
        shared: consecutive places that share one crop and one flip: 1 in the paper, 32 in the program of 2012.
        resized: draw windows of random size, to be resized to crop x crop; None, the paper's crop.
        flips: reflect half of the pictures; otherwise none.
    Raises:
        PlanError: crop or shared is below 1, or resized crops without random_crop.
    """

    crop: int = 224
    random_crop: bool = True
    shared: int = 1
    resized: ResizedCrop | None = None
    flips: bool = True

    def __post_init__(self):
        if self.crop < 1 or self.shared < 1:
            raise PlanError(f"crop {self.crop} and shared {self.shared} must be 1 or more")
        if self.resized and not self.random_crop:
            raise PlanError("resized crops are always random, never the centre", "omit random_crop=False")


@dataclass(frozen=True)
class BatchPlan:
    """One rank's share of one global batch.

    Attributes:
        epoch: of the run, from 0.
        step: of the epoch, from 0.
        start: place of the share's first record in the epoch.
        batch_size: of the whole global batch, all ranks together; the loss is divided by it.
        records: int64 (n,), indices of records in the split, 0..records-1.
        left, top: int64 (n,), the crop's offset in pixels, 0..size-crop; all 0 where crops are resized.
        flip: uint8 (n,), 1 to reflect left and right.
        gaussians: float32 (n, 3), the lighting's draws from N(0, 1), largest component first.
        resized: uint64 (n, 11), words that `resized_windows` turns into windows, given the pictures' sizes; None where
            crops are not resized.
    """

    epoch: int
    step: int
    start: int
    batch_size: int
    records: np.ndarray
    left: np.ndarray
    top: np.ndarray
    flip: np.ndarray
    gaussians: np.ndarray
    resized: np.ndarray | None = None


@dataclass(frozen=True)
class Plan:
    """All epochs of a training run over one split: a pure function of the seed.

    Attributes:
        records: number of records in the split, 1 or more.
        batch_size: of the global batch, at least `ranks`.
        seed: 0..2^64-1.
        size: short side of the stored pictures, pixels.
        augmentation: how pictures are augmented.
        rank, ranks: this process and the number of processes that share each batch.
    Raises:
        PlanError: no records, an impossible share, seed or crop.
    Example:
        plan = Plan(records=1_281_167, batch_size=128)
        batch = next(plan.batches(epoch=3, step=17))
    """

    records: int
    batch_size: int
    seed: int = 0
    size: int = 256
    augmentation: Augmentation = Augmentation()
    rank: int = 0
    ranks: int = 1

    def __post_init__(self):
        if self.records < 1:
            raise PlanError("no records to train on", "build the shards from a folder that has training photos")
        if not 0 <= self.rank < self.ranks:
            raise PlanError(f"invalid rank {self.rank} of {self.ranks} ranks")
        if self.batch_size < self.ranks:
            raise PlanError(
                f"a batch of {self.batch_size} cannot be shared by {self.ranks} processes",
                f"choose --batch-size {self.ranks} or more",
            )
        if self.records < self.ranks:
            raise PlanError(
                f"{self.records} records cannot be shared by {self.ranks} processes",
                f"use {self.records} processes or fewer",
            )
        if not 0 <= self.seed < 1 << 64:
            raise PlanError(f"seed {self.seed} is not in 0..2^64-1")
        if self.augmentation.crop > self.size and not self.augmentation.resized:
            raise PlanError(
                f"a {self.augmentation.crop}x{self.augmentation.crop} window does not fit into "
                f"{self.size}x{self.size} pictures",
                f"build the shards with --size {self.augmentation.crop + 32} or more",
            )

    @property
    def steps(self) -> int:
        """Number of global batches in an epoch. The short last batch is dropped unless it is the only one."""
        return max(1, self.records // self.batch_size)

    def batches(self, epoch: int = 0, step: int = 0) -> Iterator[BatchPlan]:
        """Plan this rank's batches from (epoch, step) on, epoch after epoch, without end.

        Args:
            epoch: 0..2^64-1.
            step: 0..steps; `steps` is the end of the epoch, so the first batch is that of the next.
        Returns:
            an endless iterator of BatchPlan.
        Raises:
            PlanError: epoch or step is out of range.
        """
        if not 0 <= epoch < 1 << 64:
            raise PlanError(f"epoch {epoch} is not in 0..2^64-1")
        if not 0 <= step <= self.steps:
            raise PlanError(
                f"step {step} is not in an epoch of {self.steps:,} steps",
                f"start at a step from 0 to {self.steps}, with the same batch size and ranks as before",
            )
        return self._batches(epoch, step)

    def _batches(self, epoch: int, step: int) -> Iterator[BatchPlan]:
        order = permutation(self.records, self.seed, epoch)
        while True:
            following: OrderPrefetch | None = None
            try:
                for k in range(step, self.steps):
                    if following is None and self.records >= SLOW_ORDER and k >= 3 * self.steps // 4:
                        following = OrderPrefetch(self.records, self.seed, epoch + 1)
                    yield self._batch(order, epoch, k)
            finally:
                if following is not None:
                    following.finish()
            epoch, step = epoch + 1, 0
            made = following.made if following is not None else None
            order = permutation(self.records, self.seed, epoch) if made is None else made

    def _batch(self, order: np.ndarray, epoch: int, step: int) -> BatchPlan:
        whole = min(self.batch_size, self.records)
        first, last = rank_share(whole, self.rank, self.ranks)
        start, count = step * self.batch_size + first, last - first
        left, top, flip = crop_and_flip(self.seed, epoch, start, count, self.size, self.augmentation)
        return BatchPlan(
            epoch,
            step,
            start,
            whole,
            order[start : start + count],
            left,
            top,
            flip,
            lighting_gaussians(self.seed, epoch, start, count),
            resized_draws(self.seed, epoch, start, count, self.augmentation.shared)
            if self.augmentation.resized
            else None,
        )


def evaluation_batches(records: int, batch_size: int, rank: int = 0, ranks: int = 1) -> Iterator[np.ndarray]:
    """Plan a pass over every record exactly once, in order, on any number of ranks; the last batch may be short.

    Args:
        records: number of records in the split.
        batch_size: records in each of this rank's batches, 1 or more.
        rank, ranks: this process and the number of processes; each gets a contiguous share.
    Returns:
        an iterator of record indices, int64 (n,) each, n <= batch_size.
    Raises:
        PlanError: rank or batch size is out of range.
    """
    if not 0 <= rank < ranks:
        raise PlanError(f"invalid rank {rank} of {ranks} ranks")
    if batch_size < 1:
        raise PlanError(f"batch size {batch_size} is below 1", "choose a batch size of 1 or more")
    first, last = rank_share(records, rank, ranks)
    return (np.arange(k, min(k + batch_size, last), dtype=np.int64) for k in range(first, last, batch_size))


def rank_share(count: int, rank: int, ranks: int) -> tuple[int, int]:
    """Compute the half-open range of 0..count of a rank; the first `count % ranks` ranks take one more."""
    each, more = divmod(count, ranks)
    return rank * each + min(rank, more), (rank + 1) * each + min(rank + 1, more)


def crop_and_flip(
    seed: int, epoch: int, start: int, count: int, size: int, augmentation: Augmentation
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw window and reflection for the places start..start+count-1.

    One crop word for each group of `shared` places: its high half gives left, its low half top, each
    (half * choices) >> 32. One flip word: its highest bit; 0 without flips.

    Args:
        size: short side of the stored pictures, pixels.
    Returns:
        left, top: int64 (count,), 0..size-crop, or all 0 where crops are resized; flip: uint8 (count,).
    """
    first, groups, group = _groups(start, count, augmentation.shared)
    flip = np.zeros(count, np.uint8)
    if augmentation.flips:
        flip = (philox_words(seed, epoch, FLIP, first, groups)[group] >> np.uint64(63)).astype(np.uint8)
    far = size - augmentation.crop
    if augmentation.resized or not augmentation.random_crop:
        middle = np.full(count, 0 if augmentation.resized else far // 2, dtype=np.int64)
        return middle, middle.copy(), flip
    word = philox_words(seed, epoch, CROP, first, groups)[group]
    choices, half = np.uint64(far + 1), np.uint64(32)
    left = ((word >> half) * choices) >> half
    top = ((word & np.uint64(0xFFFFFFFF)) * choices) >> half
    return left.astype(np.int64), top.astype(np.int64), flip


def resized_draws(seed: int, epoch: int, start: int, count: int, shared: int = 1) -> np.ndarray:
    """Draw the words of resized crops for the places start..start+count-1: eleven for each group of `shared` places.

    Returns:
        uint64 (count, 11), for `resized_windows`.
    """
    first, groups, group = _groups(start, count, shared)
    drawn = philox_words(seed, epoch, RESIZED, first * RESIZED_WORDS, groups * RESIZED_WORDS)
    return drawn.reshape(groups, RESIZED_WORDS)[group]


def lighting_gaussians(seed: int, epoch: int, start: int, count: int) -> np.ndarray:
    """Draw three Gaussians for each of the places start..start+count-1, by the Box-Muller transform.

    Of the place's four words a, b, c, d: u = ((a >> 11) + 1) / 2^53 in (0, 1], v = (b >> 11) / 2^53,
    g0 = sqrt(-2 ln u) cos(2 pi v), g1 = sqrt(-2 ln u) sin(2 pi v); g2 is the cosine of (c, d).

    Returns:
        float32 (count, 3), N(0, 1) rounded to multiples of 2^-20.
    """
    word = philox_words(seed, epoch, LIGHT, start * LIGHT_WORDS, count * LIGHT_WORDS).reshape(count, 2, 2)
    unit = (word >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(unit[:, :, 0] + 2.0**-53))
    angle = 2.0 * np.pi * unit[:, :, 1]
    gaussians = np.stack(
        [radius[:, 0] * np.cos(angle[:, 0]), radius[:, 0] * np.sin(angle[:, 0]), radius[:, 1] * np.cos(angle[:, 1])],
        axis=1,
    )
    return (np.rint(gaussians * _GAUSSIAN_GRID) / _GAUSSIAN_GRID).astype(np.float32)


def dropout_keeps(seed: int, epoch: int, start: int, count: int, units: int) -> np.ndarray:
    """Return which units dropout keeps (`dropout_bits`) at the places start..start+count-1, bool (count, units)."""
    bits = dropout_bits(seed, epoch, start, count, units)
    return np.unpackbits(bits, axis=1, bitorder="little").view(bool)


def _groups(start: int, count: int, shared: int) -> tuple[int, int, np.ndarray]:
    """Return the first group of some places, the number of groups, and each place's group, relative to the first."""
    first = start // shared
    group = np.arange(start, start + count) // shared - first
    return first, int(group[-1]) + 1 if count else 0, group
