"""Learning-rate schedules: the text's plateau, steps, one cycle; early stopping. The diaries of 2012: diaries.py.

In:  a position in the run, validation errors.  Out: the learning rates of each layer.  No nets, data or devices.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

CLASSES_2012 = 1000
RATE_2012 = 0.01


@dataclass(frozen=True)
class Rates:
    """Learning rates of one step.

    Attributes:
        weights: rate of all weights except those of `layers`.
        biases: rate of all biases except those of `layer_biases`; None: that of their layer's weights.
        layers: rates of the weights of some layers, by name; 0 freezes a layer including its biases.
        layer_biases: rates of the biases of some layers, by name.
    """

    weights: float
    biases: float | None = None
    layers: Mapping[str, float] = field(default_factory=dict)
    layer_biases: Mapping[str, float] = field(default_factory=dict)

    def of(self, layer: str, kind: str) -> float:
        """Return the rate of a layer's parameter; `kind` is `weight` or `bias`."""
        weights = self.layers.get(layer, self.weights)
        if kind == "weight" or weights == 0.0 or self.biases is None:
            return weights
        return self.layer_biases.get(layer, self.biases)


def first_rate(classes: int) -> float:
    """Return AlexNet's initial learning rate: 0.01 x sqrt(classes / 1,000), at most 0.01.

    A step changes the logits by about rate x |h|^2 x mean(p - y), and with few classes mean(p - y) is about a hundred
    times larger: at 0.01 all units of a net with 10 classes are dead after 8 steps (measured on Imagenette).
    """
    return RATE_2012 * (min(classes, CLASSES_2012) / CLASSES_2012) ** 0.5


@dataclass(frozen=True)
class Progress:
    """A position in a run.

    Attributes:
        epoch, step: whole epochs done, and steps done of the next one.
        steps, epochs: steps per epoch, and epochs of the run.
    """

    epoch: int
    step: int
    steps: int
    epochs: int

    @property
    def done(self) -> int:
        """Steps done, over all epochs."""
        return self.epoch * self.steps + self.step


class Schedule:
    """Learning rates at each position of a run. Most schedules depend on the position alone and have no state."""

    def rates(self, rate: float, place: Progress) -> Rates:
        """Return the rates at a position of a run whose initial (one-cycle: highest) rate is `rate`."""
        raise NotImplementedError

    def observe(self, error: float) -> None:
        """Record an epoch's validation error, 0..1."""

    def state(self) -> dict[str, Any]:
        """Return what it has recorded, as plain values for a checkpoint."""
        return {}

    def restore(self, seen: Mapping[str, Any]) -> None:
        """Continue from the values of `state`."""


@dataclass
class Plateau(Schedule):
    """The text's schedule: divide the rate by 10 when the validation error stops improving, three times.

    The text does not give a waiting time; ours is `patience` epochs without a lower error (section 5).
    """

    patience: int = 5
    drops: int = 0
    best: float = float("inf")
    waited: int = 0

    MOST_DROPS = 3

    def rates(self, rate: float, place: Progress) -> Rates:
        """Return the current rate, for weights and biases."""
        return Rates(rate * 0.1**self.drops)

    def observe(self, error: float) -> None:
        """Record an epoch's validation error, 0..1."""
        if error < self.best:
            self.best, self.waited = error, 0
            return
        self.waited += 1
        if self.waited >= self.patience and self.drops < self.MOST_DROPS:
            self.drops, self.waited = self.drops + 1, 0

    def state(self) -> dict[str, Any]:
        """Return its fields."""
        return asdict(self)

    def restore(self, seen: Mapping[str, Any]) -> None:
        """Set its fields."""
        vars(self).update(seen)


@dataclass(frozen=True)
class Steps(Schedule):
    """Divide the rate by 10 after each third of the run, as in torchvision's reference: 30 epochs of 90."""

    parts: int = 3

    def rates(self, rate: float, place: Progress) -> Rates:
        """Return the rates at a position; they change between epochs only."""
        return Rates(rate * 0.1 ** min(self.parts * place.epoch // place.epochs, self.parts - 1))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Raise the rate linearly to the highest, then lower it to zero along half a cosine (Smith and Topin, 2018).

    Attributes:
        rise: fraction of the run in which the rate rises, 0..1.
        start: initial rate as a fraction of the highest, 0..1.
    """

    rise: float = 0.2
    start: float = 0.04

    def rates(self, rate: float, place: Progress) -> Rates:
        """Return the rates at a position of a run whose highest rate is `rate`; they change with every step."""
        whole = place.epochs * place.steps
        done = min(place.done, whole) / whole
        if done < self.rise:
            return Rates(rate * (self.start + (1 - self.start) * done / self.rise))
        return Rates(rate * 0.5 * (1 + math.cos(math.pi * (done - self.rise) / (1 - self.rise))))


SCHEDULES = ("diary", "plateau", "steps", "one-cycle")


@dataclass
class EarlyStop:
    """Ends a run when the validation error has not improved for `patience` epochs; 0: never."""

    patience: int = 0
    best: float = float("inf")
    waited: int = 0

    def observe(self, error: float) -> None:
        """Record an epoch's validation error, 0..1."""
        self.best, self.waited = (error, 0) if error < self.best else (self.best, self.waited + 1)

    @property
    def now(self) -> bool:
        """Whether to end the run."""
        return 0 < self.patience <= self.waited
