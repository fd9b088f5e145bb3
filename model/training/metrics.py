"""`metrics.jsonl`: one JSON object per line, for some steps and for each epoch, appended during the run.

In:  dictionaries.  Out: a file that stays readable when the run is killed, and that a resumed run continues.
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

LARGEST = 2**53  # of integers that a float represents exactly
BEGINNING = b'{"kind": "'  # of a line that the trainer writes


@dataclass
class Sums:
    """Running sums over steps. Tensors stay on the device, so that adding does not wait for it.

    Attributes:
        loss: sum of the steps' mean losses, in nats.
        wrong: number of pictures whose most probable class is wrong.
        images, steps: numbers of pictures and steps.
    """

    loss: Tensor | float = 0.0
    wrong: Tensor | float = 0.0
    images: int = 0
    steps: int = 0

    def add(self, loss: Tensor, wrong: Tensor, images: int) -> None:
        """Add a step: its mean loss, its wrong answers, and its pictures."""
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
    """The share of each pipeline stage in the time between two lines of one kind, in this process."""

    def __init__(self, meter: StallMeter):
        self._meter = meter
        self._before: dict[str, tuple[Elapsed, StageTimes]] = {}

    def since_last(self, kind: str) -> dict[str, float]:
        """Return percentages of the time since the last line of this kind: `disk_percent` and so on.

        They are parts of `stall_percent`.
        """
        total, stages = self._meter.total(), self._meter.stages()
        before, stages_before = self._before.get(kind, (Elapsed(0.0, 0.0), StageTimes()))
        self._before[kind] = total, stages
        return stage_percentages(total - before, stages - stages_before)


class Metrics:
    """Appends lines to a run's metrics.jsonl; without a run it writes nothing, as in all processes but rank 0.

    Raises:
        TrainingError: the file cannot be opened or written; from all methods but `close`.
    """

    def __init__(self, run: Path | None):
        self._path = run / "metrics.jsonl" if run else Path(os.devnull)
        if run:
            check_regular(self._path)
        with write_errors(self._path):
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115, open for the run's life

    def write(self, line: dict) -> None:
        """Append a line. It is in the file when this returns, but perhaps not yet durable."""
        with write_errors(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Make all lines durable, before a checkpoint is."""
        if self._path != Path(os.devnull):
            with write_errors(self._path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # a line that could not be written has been reported; closing would try again
            self._file.close()


def read(path: Path) -> list[dict]:
    """Return all complete lines of a run; damaged and foreign lines are left out. A missing file has no lines.

    Raises:
        TrainingError: the path is not a regular file, or cannot be read.
    """
    return read_counted(path)[0]


def read_counted(path: Path) -> tuple[list[dict], int]:
    """Return the lines of a run and the number of damaged or foreign ones, without an incomplete last line.

    Raises:
        TrainingError: the path is not a regular file, or cannot be read.
    """
    try:
        return _read(path)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}", "check its permissions") from None


def is_foreign(path: Path) -> bool:
    """Return whether the file exists and is not a run's: a killed run leaves lines, a partial line, or nothing.

    Raises:
        TrainingError: the path is not a regular file, or cannot be read.
    """
    lines, others = read_counted(path)
    if lines or others or not path.exists():
        return not lines and others > 0
    with open(path, "rb") as file:  # a single line without its end
        start = file.read(len(BEGINNING)).rstrip(b"\0")  # a power cut leaves zeros
    return not BEGINNING.startswith(start)


def cut(path: Path, epochs: int, step: int, report: Callable[[dict], object] = lambda line: None) -> None:
    """Remove the lines after a checkpoint of `epochs` whole epochs and `step` steps in total, and foreign lines.

    Args:
        report: called with a warning if there were damaged or foreign lines.
    Raises:
        TrainingError: the path is not a regular file, or cannot be read or written.
    """
    with write_errors(path):
        lines, others = _read(path)
        kept = [line for line in lines if line["step"] <= step]
        kept = [line for line in kept if not (line["kind"] == "epoch" and line["epoch"] > epochs)]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
    if others:
        report({"kind": "warning", "text": f"{path}: {counted(others)} damaged or foreign, and removed"})


def counted(others: int) -> str:
    """Return `1 line is`, `2 lines are`."""
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
    """Parse a line; None unless a run could have written it: integers for its position, and numbers for its values."""
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
