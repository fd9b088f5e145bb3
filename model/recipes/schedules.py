"""The rates of each layer at each step: the diaries of 2012, the text's plateau, steps, one cycle.

In:  a place in the run.  Out: Rates. Schedules know nothing of nets, data or devices.
The diaries are in diaries.py. A resumed run goes on in the middle of what its schedule has seen.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .rates import Place, Rates, Schedule


@dataclass
class Plateau(Schedule):
    """The text's schedule: divide the rate by 10 when the validation error stops improving, three times.

    The text does not say how long to wait; `patience` epochs without a better error is ours.
    """

    patience: int = 5
    drops: int = 0
    best: float = float("inf")
    waited: int = 0

    MOST_DROPS = 3

    def rates(self, rate: float, place: Place) -> Rates:
        """The present rates: weights and biases alike."""
        return Rates(rate * 0.1**self.drops)

    def see(self, error: float) -> None:
        """Take note of an epoch's validation error, 0..1."""
        if error < self.best:
            self.best, self.waited = error, 0
            return
        self.waited += 1
        if self.waited >= self.patience and self.drops < self.MOST_DROPS:
            self.drops, self.waited = self.drops + 1, 0

    def state(self) -> dict[str, Any]:
        """What it has seen, as plain values."""
        return asdict(self)

    def restore(self, seen: Mapping[str, Any]) -> None:
        """Go on from what it had seen."""
        vars(self).update(seen)


@dataclass(frozen=True)
class Steps(Schedule):
    """A tenth of the rate after each third of the run: torchvision's reference, 30 epochs of 90."""

    parts: int = 3

    def rates(self, rate: float, place: Place) -> Rates:
        """The rates at a place of a run: the same for a whole epoch."""
        return Rates(rate * 0.1 ** min(self.parts * place.epoch // place.epochs, self.parts - 1))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From a small rate up to the highest and down to nothing, step by step (Smith and Topin, 2018).

    Attributes:
        rise: share of the run in which the rate rises, along a line.
        start: part of the highest rate to begin with; the end is zero, along half a cosine.
    """

    rise: float = 0.2
    start: float = 0.04

    def rates(self, rate: float, place: Place) -> Rates:
        """The rates at a place of a run whose highest rate is `rate`."""
        whole = place.epochs * place.steps
        done = min(place.done, whole) / whole
        if done < self.rise:
            return Rates(rate * (self.start + (1 - self.start) * done / self.rise))
        return Rates(rate * 0.5 * (1 + math.cos(math.pi * (done - self.rise) / (1 - self.rise))))


SCHEDULES = ("diary", "plateau", "steps", "one-cycle")


@dataclass
class EarlyStop:
    """Ends a run when the validation error has not improved for `patience` epochs; 0, never."""

    patience: int = 0
    best: float = float("inf")
    waited: int = 0

    def see(self, error: float) -> None:
        """Take note of an epoch's validation error, 0..1."""
        self.best, self.waited = (error, 0) if error < self.best else (self.best, self.waited + 1)

    @property
    def now(self) -> bool:
        """Whether to end."""
        return 0 < self.patience <= self.waited
