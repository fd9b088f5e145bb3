"""`metrics.jsonl`: one line of JSON a step line or epoch line, appended as it happens.

In:  dictionaries.  Out: a file that a killed run leaves readable and a resumed one continues without a seam.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..pipeline.files import write_atomically
from ..pipeline.stages import Stages
from ..pipeline.stall import Lap, StallMeter
from ..pipeline.verdict import shares
from .written import writing


@dataclass
class Sums:
    """Running sums over some steps; tensors stay on the device, so that adding to them waits for nothing."""

    loss: Tensor | float = 0.0
    wrong: Tensor | float = 0.0
    images: int = 0
    steps: int = 0

    def add(self, loss: Tensor, wrong: Tensor, images: int) -> None:
        """Add a step."""
        self.loss, self.wrong = self.loss + loss.double(), self.wrong + wrong
        self.images, self.steps = self.images + images, self.steps + 1

    def values(self) -> list:
        """Plain numbers, in the order of the fields."""
        return [float(self.loss), float(self.wrong), self.images, self.steps]


class StageShares:
    """What each stage had of the time, line by line; of this process, so what was done before a stop is not in it."""

    def __init__(self, meter: StallMeter):
        self._meter = meter
        self._before: dict[str, tuple[Lap, Stages]] = {}

    def since_last(self, kind: str) -> dict[str, float]:
        """Percent of the time since the last line of this kind: `disk_percent` and so on, parts of `stall_percent`."""
        total, stages = self._meter.total(), self._meter.stages()
        before, stages_before = self._before.get(kind, (Lap(0.0, 0.0), Stages()))
        self._before[kind] = total, stages
        return shares(total - before, stages - stages_before)


class Metrics:
    """Appends lines to a run's metrics.jsonl; without a run, to nothing: of several processes one writes."""

    def __init__(self, run: Path | None):
        self._path = run / "metrics.jsonl" if run else Path(os.devnull)
        with writing(self._path):
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115, open for the run's life

    def write(self, line: dict) -> None:
        """Append a line; it is in the file when this returns, though perhaps not yet on the disk."""
        with writing(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Make all lines durable, as a checkpoint is about to be."""
        if self._path != Path(os.devnull):
            with writing(self._path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # of a line that could not be written, and was told: it would be tried again here
            self._file.close()


def read(path: Path) -> list[dict]:
    """All whole lines; a torn last one is left out."""
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and {"kind", "epoch", "step"} <= line.keys():
                lines.append(line)
    return lines


def cut(path: Path, epochs: int, step: int) -> None:
    """Drop what lies beyond a checkpoint of `epochs` whole epochs and `step` steps in all."""
    with writing(path):
        kept = [
            line
            for line in read(path)
            if line["step"] <= step and not (line["kind"] == "epoch" and line["epoch"] > epochs)
        ]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
