"""The author's diaries: what he changed by hand while the nets of 2012 were trained (comments of the parameter files).

In:  a place in a run of any length.  Out: the Rates that he had there, and when the lighting was turned off.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .schedules import Progress, Rates, Schedule

EPOCH, STEP = "epoch", "step"


@dataclass(frozen=True)
class Entry:
    """What the author changed by hand.

    Attributes:
        at: after so many epochs of the diary; with `unit` `step`, after so many batches, but a thirtieth of a run.
        rates: parts of the first rate, by layer; `*`, of all that no entry has named yet.
        light_off: whether he turned the lighting off.
    """

    at: float
    rates: Mapping[str, float]
    light_off: bool = False
    unit: str = EPOCH

    def step(self, place: Progress, length: int) -> int:
        """The first step of the run that has it: times epochs / length. Whole epochs stay whole, .5 up."""
        if self.unit == STEP:
            return min(int(self.at), place.epochs * place.steps // 30)
        at = self.at * place.epochs / length
        if self.at == int(self.at):
            return math.floor(at + 0.5) * place.steps
        return math.floor(at * place.steps + 0.5)


@dataclass(frozen=True)
class Diary(Schedule):
    """The author's hand on the rates, replayed (the comments of the parameter files).

    Biases keep a rate of their own to the end: twice the first one, some layers another. (The last files of 145-half
    and 147 have a tenth of it in some layers; the diaries do not say since when, so it is left out.)

    Attributes:
        source: the parameter file.
        length: epochs after which he stopped.
        entries: in the order of time; the first is the beginning.
        layer_biases: parts of the first rate.
    """

    source: str
    length: float
    entries: tuple[Entry, ...]
    layer_biases: Mapping[str, float] = field(default_factory=dict)

    BIASES = 2.0

    @property
    def epochs(self) -> int:
        """Of a run that is as long."""
        return math.ceil(self.length)

    def rates(self, rate: float, place: Progress) -> Rates:
        """The rates at a place of a run that begins with `rate`."""
        now: dict[str, float] = {}
        for entry in self.entries:
            if entry.step(place, self.epochs) <= place.done:
                now |= entry.rates
        layers = {layer: rate * part for layer, part in now.items() if layer != "*"}
        biases = {layer: rate * part for layer, part in self.layer_biases.items()}
        return Rates(rate * now["*"], rate * self.BIASES, layers, biases)

    def light_epochs(self, epochs: int) -> int | None:
        """Epochs with lighting in a run of this length; None, all of them."""
        off = [math.floor(entry.at * epochs / self.epochs + 0.5) for entry in self.entries if entry.light_off]
        return off[0] if off else None

    def told(self, steps: int, epochs: int) -> str:
        """The diary of a run of this length, in a line."""
        words = []
        for entry in self.entries[1:]:
            at = entry.step(Progress(0, 0, steps, epochs), self.epochs)
            when = f"epoch {at // steps}" if at % steps == 0 and entry.unit == EPOCH else f"step {at:,}"
            parts = [
                f"{'rate' if layer == '*' else layer} {'frozen' if part == 0 else f'x {part:g}'}"
                for layer, part in entry.rates.items()
            ]
            words.append(f"{when} {', '.join(parts + ['lighting off'] * entry.light_off)}")
        return "; ".join(words)


def _by_hand(source: str, length: int, tenths: tuple[int, ...], slow: int, frozen: int) -> Diary:
    """Most are one story: tenths of the rate; conv1 slow and the lighting off; conv1 frozen."""
    entries = [Entry(at, {"*": 10.0**-number}) for number, at in enumerate((0, *tenths))]
    entries += [Entry(slow, {"conv1": 0.001}, light_off=True), Entry(frozen, {"conv1": 0.0})]
    return Diary(source, length, tuple(sorted(entries, key=lambda entry: entry.at)))


_OLD = ("conv1", "conv2", "conv3", "conv4", "conv5")  # what the six-conv net had from another
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
