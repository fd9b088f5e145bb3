"""`metrics.jsonl`: one line of JSON a step line or epoch line, appended as it happens.

In:  dictionaries.  Out: a file that a killed run leaves readable and a resumed one continues without a seam.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...pipeline.errors import TrainingError
from ...pipeline.files import write_atomically
from ...pipeline.stream.bottleneck import stage_percentages
from ...pipeline.stream.stall import Elapsed, StageTimes, StallMeter
from .run_files import check_regular, write_errors

LARGEST = 2**53  # whole numbers beyond are none that floats and figures can take
BEGINNING = b'{"kind": "'  # of a line as the trainer writes it


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

    @property
    def mean_loss(self) -> float:
        """Mean loss per step; waits for the device."""
        return float(self.loss) / max(self.steps, 1)

    def values(self) -> list:
        """Return the fields as plain numbers, in their order; waits for the device."""
        return [float(self.loss), float(self.wrong), self.images, self.steps]


class StageShares:
    """What each stage had of the time, line by line; of this process, so what was done before a stop is not in it."""

    def __init__(self, meter: StallMeter):
        self._meter = meter
        self._before: dict[str, tuple[Elapsed, StageTimes]] = {}

    def since_last(self, kind: str) -> dict[str, float]:
        """Percent of the time since the last line of this kind: `disk_percent` and so on, parts of `stall_percent`."""
        total, stages = self._meter.total(), self._meter.stages()
        before, stages_before = self._before.get(kind, (Elapsed(0.0, 0.0), StageTimes()))
        self._before[kind] = total, stages
        return stage_percentages(total - before, stages - stages_before)


class Metrics:
    """Appends lines to a run's metrics.jsonl; without a run, to nothing: of several processes one writes."""

    def __init__(self, run: Path | None):
        self._path = run / "metrics.jsonl" if run else Path(os.devnull)
        if run:
            check_regular(self._path)
        with write_errors(self._path):
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115, open for the run's life

    def write(self, line: dict) -> None:
        """Append a line; it is in the file when this returns, though perhaps not yet on the disk."""
        with write_errors(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Make all lines durable, as a checkpoint is about to be."""
        if self._path != Path(os.devnull):
            with write_errors(self._path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # of a line that could not be written, and was told: it would be tried again here
            self._file.close()


def read(path: Path) -> list[dict]:
    """All whole lines of a run; others, a torn last one say, are left out.

    Raises:
        TrainingError: it is no file, or cannot be read.
    """
    return read_counted(path)[0]


def read_counted(path: Path) -> tuple[list[dict], int]:
    """The lines of a run, and how many others there are: damaged or somebody else's, a torn last one not counted.

    Raises:
        TrainingError: it is no file, or cannot be read.
    """
    try:
        return _read(path)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}", "see that you may read it") from None


def is_foreign(path: Path) -> bool:
    """Whether a file is there that no run has written: a killed one leaves lines of ours, a torn one, or nothing.

    Raises:
        TrainingError: it is no file, or cannot be read.
    """
    lines, others = read_counted(path)
    if lines or others or not path.exists():
        return not lines and others > 0
    with open(path, "rb") as file:  # a single line without an end
        torn = file.read(len(BEGINNING)).rstrip(b"\0")  # a power cut leaves zeros
    return not BEGINNING.startswith(torn)


def cut(path: Path, epochs: int, step: int, report: Callable[[dict], object] = lambda line: None) -> None:
    """Drop what lies beyond a checkpoint of `epochs` whole epochs and `step` steps in all, and what is no line of ours.

    Args:
        report: called with a warning where lines were none of ours.
    Raises:
        TrainingError: it is no file, or cannot be read or written.
    """
    with write_errors(path):
        lines, others = _read(path)
        kept = [line for line in lines if line["step"] <= step]
        kept = [line for line in kept if not (line["kind"] == "epoch" and line["epoch"] > epochs)]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
    if others:
        report({"kind": "warning", "text": f"{path}: {counted(others)} damaged or not of a run, and dropped"})


def counted(others: int) -> str:
    """`1 line is`, `2 lines are`."""
    return "1 line is" if others == 1 else f"{others:,} lines are"


def _read(path: Path) -> tuple[list[dict], int]:
    check_regular(path)
    lines, others = [], 0
    if path.exists():
        with open(path, "rb") as file:
            for text in file:
                line = _line(text)
                if line is not None:
                    lines.append(line)
                else:
                    others += text.endswith(b"\n")
    return lines, others


def _line(text: bytes) -> dict | None:
    """A line of the file; None where it is none that a run writes: its place whole numbers, its values numbers."""
    try:
        line = json.loads(text.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        return None
    numbers = [value for name, value in line.items() if name != "kind"]
    place = (line.get("epoch"), line.get("step"))
    if not all(type(value) is int and 0 <= value <= LARGEST for value in place):
        return None
    if not all(type(value) is float or (type(value) is int and abs(value) <= LARGEST) for value in numbers):
        return None
    return line
