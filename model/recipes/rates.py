"""The rates of one step, and the place in a run that they belong to.

In:  a layer's name.  Out: its rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
class Place:
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

    def rates(self, rate: float, place: Place) -> Rates:
        """The rates at a place of a run that was given `rate`."""
        raise NotImplementedError

    def see(self, error: float) -> None:
        """Take note of an epoch's validation error, 0..1."""

    def state(self) -> dict[str, Any]:
        """What it has seen, as plain values."""
        return {}

    def restore(self, seen: Mapping[str, Any]) -> None:
        """Go on from what it had seen."""
