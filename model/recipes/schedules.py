"""The rates of each layer at each step: the diaries of 2012, the text's plateau, steps, one cycle.

In:  a place in the run.  Out: Rates. Schedules know nothing of nets, data or devices.
The diaries are in diaries.py. A resumed run goes on in the middle of what its schedule has seen.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

CLASSES_2012 = 1000
RATE_2012 = 0.01


@dataclass(frozen=True)
class Rates:
    """Rates of one step.

    Attributes:
        weights: of all weights but those of `layers`.
        biases: of all biases but those of `layer_biases`; None, as the weights of their layer.
        layers: of the weights of some layers, by name; 0 freezes a layer with its biases.
        layer_biases: of the biases of some layers.
    """

    weights: float
    biases: float | None = None
    layers: Mapping[str, float] = field(default_factory=dict)
    layer_biases: Mapping[str, float] = field(default_factory=dict)

    def of(self, layer: str, kind: str) -> float:
        """The rate of a layer's `weight` or `bias`."""
        weights = self.layers.get(layer, self.weights)
        if kind == "weight" or weights == 0.0 or self.biases is None:
            return weights
        return self.layer_biases.get(layer, self.biases)


def first_rate(classes: int) -> float:
    """The rate to begin with: 0.01 at 1,000 classes, less for fewer, by the square root.

    A step moves the logits by about rate x |h|^2 x mean(p - y), and with few classes mean(p - y) is some hundred times
    larger: at 0.01 a net of 10 classes is dead after 8 steps (measured on Imagenette).
    """
    return RATE_2012 * (min(classes, CLASSES_2012) / CLASSES_2012) ** 0.5


@dataclass(frozen=True)
class Progress:
    """A place in a run: `epoch` whole epochs and `step` steps of the next are done, of `epochs` of `steps` each."""

    epoch: int
    step: int
    steps: int
    epochs: int

    @property
    def done(self) -> int:
        """Steps that are done."""
        return self.epoch * self.steps + self.step


class Schedule:
    """Rates at each place of a run. What one has seen, `state` says and `restore` takes; most see nothing."""

    def rates(self, rate: float, place: Progress) -> Rates:
        """The rates at a place of a run that was given `rate`."""
        raise NotImplementedError

    def observe(self, error: float) -> None:
        """Take note of an epoch's validation error, 0..1."""

    def state(self) -> dict[str, Any]:
        """What it has seen, as plain values."""
        return {}

    def restore(self, seen: Mapping[str, Any]) -> None:
        """Go on from what it had seen."""


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

    def rates(self, rate: float, place: Progress) -> Rates:
        """The present rates: weights and biases alike."""
        return Rates(rate * 0.1**self.drops)

    def observe(self, error: float) -> None:
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

    def rates(self, rate: float, place: Progress) -> Rates:
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

    def rates(self, rate: float, place: Progress) -> Rates:
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

    def observe(self, error: float) -> None:
        """Take note of an epoch's validation error, 0..1."""
        self.best, self.waited = (error, 0) if error < self.best else (self.best, self.waited + 1)

    @property
    def now(self) -> bool:
        """Whether to end."""
        return 0 < self.patience <= self.waited
