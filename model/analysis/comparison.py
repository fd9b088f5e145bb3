"""What a comparison of two small nets is, and its arithmetic: which rate is best, when an error is reached.

In:  rates and errors.  Out: a choice, a number of epochs.  No nets, no files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...pipeline.errors import TrainingError, UsageError
from ...pipeline.shards.manifest import ShardSet
from ..nets.small_net import SIDES


@dataclass(frozen=True)
class Variant:
    """One of the two nets that are compared.

    Attributes:
        name: of its files.
        activation, norm: see SmallNet.
        decay: with the layer file's weight decay; figure 1's nets are not regularised in any way.
    """

    name: str
    activation: str = "relu"
    norm: bool = False
    decay: bool = False


@dataclass
class Curve:
    """A net's way at one rate.

    Attributes:
        errors: of each epoch, 0..1: of the training photos while it was trained, as the program of 2012 printed it.
        val_errors: behind each epoch, of the validation photos; empty where nobody asked.
        broken: its loss, or its weights, were not finite in the epoch after.
    """

    kind: str
    rate: float
    errors: list[float]
    val_errors: list[float]
    broken: bool = False


@dataclass(frozen=True)
class Settings:
    """What all nets of a comparison have in common.

    Attributes:
        rates: to try.
        epochs: of each net in the end.
        try_epochs: of each rate before one is chosen.
        target: a net ends with the epoch whose training error is this or less; None, none does.
        validate: measure the validation error behind each epoch, and choose the rate by it.
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
            raise UsageError("no rate to try", "such as --rates 0.001,0.003,0.01")
        wrong = [rate for rate in self.rates if not (math.isfinite(rate) and rate > 0)]
        if wrong:
            raise UsageError(f"a rate of {wrong[0]:g} is not a number above 0", "such as --rates 0.001,0.003,0.01")
        if len(set(self.rates)) < len(self.rates):
            raise UsageError("a rate is there twice", "name each once in --rates")
        if self.target is not None and not 0 < self.target < 1:
            raise UsageError(f"a target of {self.target:g} is not an error between 0 and 1", "the paper's is 0.25")


def choose(curves: Sequence[Curve], settings: Settings) -> Curve:
    """The best rate: the least error behind the last of `try_epochs`, or sooner at the target; of equals the smaller.

    The error is that of validation where it is measured, else that of training. Broken ones are out.

    Raises:
        TrainingError: all are broken.
    """
    sound = [curve for curve in curves if not curve.broken]
    if not sound:
        tried = ", ".join(f"{curve.rate:g}" for curve in curves)
        raise TrainingError(
            f"{curves[0].kind}: at no rate of {tried} does the loss stay finite", "try smaller ones with --rates"
        )

    def rank(curve: Curve) -> tuple[float, float, float]:
        seen = (curve.val_errors if settings.validate else curve.errors)[: settings.try_epochs]
        return len(seen), seen[-1], curve.rate  # fewer epochs: it was at the target already

    return min(sound, key=rank)


def epochs_to(errors: Sequence[float], target: float) -> float | None:
    """Epochs until an error is the target, along straight lines between epochs; None where it never is.

    Args:
        errors: behind epoch 1, 2 and so on. Nothing is known of before, so at once is after one epoch.
    """
    for place, error in enumerate(errors):
        if error <= target:
            before = errors[place - 1] if place else error
            return place + 1 - (target - error) / (before - error) if before > error else float(place + 1)
    return None


def check_size(shard_set: ShardSet) -> None:
    """Check that the small net is one for a set's pictures.

    Raises:
        UsageError: they are too small or too large.
    """
    least, most = SIDES
    if not least <= shard_set.size <= most:
        raise UsageError(
            f"{shard_set.root}: pictures of {shard_set.size}x{shard_set.size}, but the four-layer net is for 32x32 "
            f"({least} to {most} will do)",
            "build a set of small ones: alexnet-prep build-lmdb PHOTOS --size 32 --out small, then "
            "alexnet-prep pca-stats --shards small",
        )
