"""The comparison of two small nets: its settings, the choice of a learning rate, the epoch that reaches an error.

In:  learning rates and errors.  Out: a curve, a number of epochs.  No nets, no files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...pipeline.errors import UsageError
from ...pipeline.shards.manifest import ShardSet
from ..nets.small_net import SIDES


@dataclass(frozen=True)
class Variant:
    """One of the two nets of a comparison.

    Attributes:
        name: of its files.
        activation, norm: see `SmallNet`.
        decay: whether the layer file's weight decay is used; figure 1's nets have no regularisation.
    """

    name: str
    activation: str = "relu"
    norm: bool = False
    decay: bool = False


@dataclass
class Curve:
    """The errors of a net trained at one learning rate.

    Attributes:
        kind: name of its Variant.
        rate: learning rate.
        errors: of each epoch, 0..1, on the training photos during training, as the program of 2012 printed it.
        val_errors: after each epoch, 0..1, on the validation photos; empty without validation.
        broken: its loss or weights were not finite in the following epoch.
    """

    kind: str
    rate: float
    errors: list[float]
    val_errors: list[float]
    broken: bool = False


@dataclass(frozen=True)
class Settings:
    """The settings of all nets of a comparison.

    Attributes:
        rates: learning rates to try.
        epochs: of the final training of each net.
        try_epochs: epochs at each rate before the worse half of the rates is dropped.
        target: training error, 0..1, at which a net stops after the epoch that reaches it; None: never.
        validate: whether to measure the validation error after each epoch, and choose the rate by it.
        seed: of weights and order.
        precision: `fp32`, `tf32` or `bf16`.
    Raises:
        UsageError: no rate, a rate that is not positive or given twice, or a target out of range.
    """

    rates: tuple[float, ...]
    epochs: int
    try_epochs: int = 2
    target: float | None = None
    validate: bool = False
    seed: int = 0
    precision: str = "fp32"

    def __post_init__(self):
        if not self.rates:
            raise UsageError("no learning rate given", "for example --rates 0.001,0.003,0.01")
        wrong = [rate for rate in self.rates if not (math.isfinite(rate) and rate > 0)]
        if wrong:
            raise UsageError(f"the rate {wrong[0]:g} is not above 0", "for example --rates 0.001,0.003,0.01")
        if len(set(self.rates)) < len(self.rates):
            raise UsageError("a rate is given twice", "give each once in --rates")
        if self.target is not None and not 0 < self.target < 1:
            raise UsageError(f"the target {self.target:g} is not an error between 0 and 1", "the paper's is 0.25")

    @property
    def most_epochs(self) -> int:
        """Epochs of all nets of a variant together, if none reaches the target."""
        count, epochs = len(self.rates), min(self.try_epochs, self.epochs)
        total = count * epochs
        while epochs < self.epochs:
            count, before = -(-count // 2), epochs
            epochs = min(2 * epochs, self.epochs) if count > 1 else self.epochs
            total += count * (epochs - before)
        return total


def ranked(curves: Sequence[Curve], validate: bool) -> list[Curve]:
    """Return curves of as many epochs, the best first, without the broken ones.

    Best is the one that reached the target after fewer epochs, then the least error after the last of them; of equal
    ones the smaller rate comes first.

    Args:
        validate: whether the validation error counts, not the training error.
    """

    def rank(curve: Curve) -> tuple[float, float, float]:
        errors = curve.val_errors if validate else curve.errors
        return len(errors), errors[-1], curve.rate

    return sorted((curve for curve in curves if not curve.broken), key=rank)


def epochs_to(errors: Sequence[float], target: float) -> float | None:
    """Return the number of epochs until an error reaches a target, interpolated linearly; None if it never does.

    Args:
        errors: after epoch 1, 2 and so on, 0..1; the result is at least 1.
        target: 0..1.
    """
    for place, error in enumerate(errors):
        if error <= target:
            before = errors[place - 1] if place else error
            return place + 1 - (target - error) / (before - error) if before > error else float(place + 1)
    return None


def check_size(shard_set: ShardSet) -> None:
    """Check that the small net fits the size of a set's pictures.

    Raises:
        UsageError: the pictures are too small or too large.
    """
    least, most = SIDES
    if not least <= shard_set.size <= most:
        raise UsageError(
            f"{shard_set.root}: pictures of {shard_set.size}x{shard_set.size}, but the four-layer net requires 32x32 "
            f"({least} to {most} are accepted)",
            "build a set of small pictures: alexnet-prep build-lmdb PHOTOS --size 32 --out small, then "
            "alexnet-prep pca-stats --shards small",
        )
