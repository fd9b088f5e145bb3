"""The diaries of 2012: learning rates that the author changed by hand during training (the parameter files' comments).

In:  a position in a run of any length.  Out: the rates at that position, and the epoch in which lighting is turned off.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .schedules import Progress, Rates, Schedule

EPOCH, STEP = "epoch", "step"


@dataclass(frozen=True)
class Entry:
    """One change by hand.

    Attributes:
        at: when: epochs of the diary, or with `unit` `step` a number of steps, at most a thirtieth of a run.
        rates: fractions of the initial rate, by layer; `*`: of all layers that no entry has named yet.
        light_off: whether the lighting is turned off.
        unit: of `at`: `epoch` or `step`.
    """

    at: float
    rates: Mapping[str, float]
    light_off: bool = False
    unit: str = EPOCH

    def step(self, place: Progress, length: int) -> int:
        """Return the first step with this change in a run of another length: `at` times epochs / length.

        Whole epochs of the diary become whole epochs of the run, halves rounded up.
        """
        if self.unit == STEP:
            return min(int(self.at), place.epochs * place.steps // 30)
        at = self.at * place.epochs / length
        if self.at == int(self.at):
            return math.floor(at + 0.5) * place.steps
        return math.floor(at * place.steps + 0.5)


@dataclass(frozen=True)
class Diary(Schedule):
    """A schedule that repeats the author's changes, scaled to the length of the run.

    Biases keep their own rate to the end: twice the initial one, in some layers another. (The last files of 145-half
    and 147 have a tenth of it in some layers; the diaries do not say from which epoch on, so that is left out.)

    Attributes:
        source: the parameter file, for people.
        length: epochs of the original run.
        entries: in the order of time; the first is the start.
        layer_biases: rates of the biases of some layers, as fractions of the initial rate.
    """

    source: str
    length: float
    entries: tuple[Entry, ...]
    layer_biases: Mapping[str, float] = field(default_factory=dict)

    BIASES = 2.0

    @property
    def epochs(self) -> int:
        """Epochs of a run of the original length."""
        return math.ceil(self.length)

    def rates(self, rate: float, place: Progress) -> Rates:
        """Return the rates at a position of a run with initial rate `rate`."""
        now: dict[str, float] = {}
        for entry in self.entries:
            if entry.step(place, self.epochs) <= place.done:
                now |= entry.rates
        layers = {layer: rate * part for layer, part in now.items() if layer != "*"}
        biases = {layer: rate * part for layer, part in self.layer_biases.items()}
        return Rates(rate * now["*"], rate * self.BIASES, layers, biases)

    def light_epochs(self, epochs: int) -> int | None:
        """Return the number of epochs with lighting in a run of this length; None: all of them."""
        off = [math.floor(entry.at * epochs / self.epochs + 0.5) for entry in self.entries if entry.light_off]
        return off[0] if off else None

    def summary(self, steps: int, epochs: int) -> str:
        """Return the changes in a run of `epochs` epochs of `steps` steps, as one line for people."""
        changes = []
        for entry in self.entries[1:]:
            at = entry.step(Progress(0, 0, steps, epochs), self.epochs)
            when = f"epoch {at // steps}" if at % steps == 0 and entry.unit == EPOCH else f"step {at:,}"
            parts = [
                f"{'rate' if layer == '*' else layer} {'frozen' if part == 0 else f'x {part:g}'}"
                for layer, part in entry.rates.items()
            ]
            changes.append(f"{when} {', '.join(parts + ['lighting off'] * entry.light_off)}")
        return "; ".join(changes)


def _by_hand(source: str, length: int, tenths: tuple[int, ...], slow: int, frozen: int) -> Diary:
    """Most diaries: the rate divided by 10 several times; conv1 slowed down and lighting turned off; conv1 frozen."""
    entries = [Entry(at, {"*": 10.0**-number}) for number, at in enumerate((0, *tenths))]
    entries += [Entry(slow, {"conv1": 0.001}, light_off=True), Entry(frozen, {"conv1": 0.0})]
    return Diary(source, length, tuple(sorted(entries, key=lambda entry: entry.at)))


_OLD = ("conv1", "conv2", "conv3", "conv4", "conv5")  # layers that the six-conv net took from another net
_LAYERS_146 = {"conv6": 0.2}

DIARIES = {
    "145": _by_hand("params 145, ILSVRC-2012", 91, (25, 51, 79), 67, 72),
    "145-half": _by_hand("params 145-half, ILSVRC-2010", 96, (20, 48), 66, 72),
    "147": Diary(
        "params 147, ILSVRC-2012",
        90,
        (
            Entry(0, {"*": 1.0}),
            Entry(23, {"*": 0.1}),
            Entry(51, {"*": 0.01}),
            Entry(79, {"conv1": 0.0, "*": 0.001}),
        ),
    ),
    "148": _by_hand("params 148, ILSVRC-2012", 97, (22, 44, 86), 69, 73),
    "150": _by_hand("params 150, ILSVRC-2012", 92, (25, 49, 79), 66, 72),
    "146-2009": Diary(
        "params 146-2009, conv1 to conv5 from 145",
        6.6491,
        (Entry(0, {"*": 1.0, **dict.fromkeys(_OLD, 0.1)}), Entry(2.16, {"*": 0.1})),
        _LAYERS_146,
    ),
    "146-2011": Diary(
        "params 146-2011, convolutions from 146-2009",
        8.11295,
        (Entry(0, {"*": 1.0, **dict.fromkeys((*_OLD, "conv6"), 0.1)}), Entry(6, {"*": 0.1})),
        _LAYERS_146,
    ),
    "146-2012": Diary(
        "params 146-2012-2011, all but the last layer from 146-2011",
        54,
        (
            Entry(0, {"*": 0.1, "conv1": 0.01}),
            Entry(300, {"fc8": 1.0}, unit=STEP),
            Entry(5, {"conv1": 0.001}),
            Entry(7, {"conv1": 0.0}),
            Entry(9, {"fc8": 0.1}),
            Entry(22, {"*": 0.01, "fc8": 0.01}),
            Entry(38, {}, light_off=True),
            Entry(42, {"*": 0.001, "fc8": 0.001}),
        ),
        {"conv6": 2.2},
    ),
}
