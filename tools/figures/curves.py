"""`alexnet-figures curves`: loss, errors, learning rate, throughput and stall share of runs over the epochs.

In:  metrics.jsonl of some runs, which may still be training.  Out: six panels, a colour for each run.
No checkpoint is read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...model.training import metrics
from ...pipeline.errors import TrainingError, UsageError
from .. import options
from .sheet import MARGIN, Sheet, shorten, text_width
from .style import DARK_OPTION, LIGHT, Theme, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = "metrics.jsonl"
WIDE, TALL, LEFT, APART = 2.68, 2.15, 0.45, 0.35  # inches: a panel, its numbers, the gap between two panels
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))  # used in order when the colours run out


@dataclass(frozen=True)
class Panel:
    """One panel of the figure.

    Attributes:
        title: above the panel.
        of_steps, of_epochs: the metrics' keys that are drawn, of step lines and of epoch lines.
        percent: factor that makes a value a percentage; 0 if it is not one.
        log: logarithmic axis.
    """

    title: str
    of_steps: str = ""
    of_epochs: str = ""
    percent: float = 0
    log: bool = False


PANELS = (
    Panel("Loss", "loss", "val_loss"),
    Panel("Top-1 error", "top1_error", "val_top1_error", percent=100),
    Panel("Top-5 error", "", "val_top5_error", percent=100),
    Panel("Learning rate", "rate", log=True),
    Panel("Images a second", "images_per_second"),
    Panel("Waiting for data", "stall_percent", percent=1),
)


@dataclass(frozen=True)
class Course:
    """The metrics of a run: its name, the lines, and the steps per epoch, 0 before the first epoch has ended."""

    name: str
    lines: tuple[dict, ...]
    epoch_steps: float

    def values(self, kind: str, name: str, per_epoch: bool) -> tuple[list[float], list[float]]:
        """Return the positions (epochs or steps) and values of a metric, from the lines of one kind that have it."""
        lines = [line for line in self.lines if line["kind"] == kind and _is_number(line.get(name))]
        return [line["step"] / (self.epoch_steps if per_epoch else 1) for line in lines], [line[name] for line in lines]


@click.command(context_settings=options.SETTINGS)
@click.argument("runs", nargs=-1, required=True, type=options.PATH)
@options.path("--out", help="Folder of the figure.  [default: figures in the first run's folder]")
@DARK_OPTION
def curves(runs, out, dark):
    """Draw the metrics of RUNS, folders or metrics.jsonl files: loss, errors, learning rate, throughput, stall share.

    \b
    Examples:
      alexnet-figures curves runs/source2012
      alexnet-figures curves runs/source2012 runs/modern --out comparison
    """
    files = [run / FILE if run.is_dir() else run for run in runs]
    names = unique_names([file.absolute().parent for file in files])
    courses = [read(file, name) for file, name in zip(files, names, strict=True)]
    write(lambda theme: draw(courses, theme), out or files[0].parent / "figures", "curves", dark)


def read(file: Path, name: str = "") -> Course:
    """Read a run's metrics; incomplete lines of a running or killed process are skipped.

    Args:
        name: of the run in the figure; "" for its folder's name.
    Raises:
        UsageError: the file does not exist.
        TrainingError: it has no valid line yet.
    """
    if not file.is_file():
        raise UsageError(f"{file}: no metrics found", "name a run's folder, for example runs/source2012")
    lines, others = metrics.read_counted(file)
    if others:
        click.echo(f"{file}: {metrics.counted(others)} damaged or not of a run, and left out", err=True)
    if not lines:
        what = "no complete line of metrics" if file.stat().st_size else "empty"
        raise TrainingError(f"{file}: {what}", "wait for the first line, which comes after --log-every steps")
    ended = [line for line in lines if line["kind"] == "epoch" and line["epoch"] and line["step"]]
    steps = ended[-1]["step"] / ended[-1]["epoch"] if ended else 0
    return Course(name or file.absolute().parent.name, tuple(lines), steps)


def draw(courses: Sequence[Course], theme: Theme = LIGHT) -> "Figure":
    """Draw runs in six panels; over steps instead of epochs if any run has not ended an epoch."""
    per_epoch = all(one.epoch_steps for one in courses)
    width = 2 * MARGIN + 3 * (LEFT + WIDE) + 2 * APART
    rows = _legend_rows([one.name for one in courses], width - 2 * MARGIN)
    top = 0.9 + 0.2 * len(rows)
    sheet = Sheet(width, top + 2 * (TALL + 0.75) + 0.05, theme)
    about = "Thin: training. Thick: validation after each epoch." if _validated(courses) else ""
    sheet.head("Metrics of the run" if len(courses) == 1 else f"Metrics of {len(courses)} runs", about)
    _legend(sheet, rows, courses)
    for number, panel in enumerate(PANELS):
        x = MARGIN + LEFT + number % 3 * (LEFT + WIDE + APART)
        y = top + 0.3 + number // 3 * (TALL + 0.75)
        sheet.text(x - LEFT, y - 0.12, panel.title, 9.5, weight="bold")
        axes = sheet.axes(x, y, WIDE, TALL)
        axes.set_label(panel.title)
        _panel(axes, panel, courses, per_epoch, theme)
    sheet.text(width - MARGIN, sheet.height - 0.14, "epochs" if per_epoch else "steps", 8, theme.faint, align="right")
    return sheet.figure


def unique_names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names, with as many parent folders as make them unique."""
    most = max(len(folder.parts) for folder in folders)
    for count in range(1, most + 1):
        names = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(names)) == len(set(folders)):
            break
    return [name if names.index(name) == number else f"{name} ({number + 1})" for number, name in enumerate(names)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _validated(courses: Sequence[Course]) -> bool:
    return any(one.values("epoch", "val_loss", False)[0] for one in courses)


def _style(theme: Theme, number: int) -> dict:
    colours = theme.lines
    return {
        "color": colours[number % len(colours)],
        "linestyle": DASHES[number // len(colours) % len(DASHES)],
    }


def _panel(axes: "Axes", panel: Panel, courses: Sequence[Course], per_epoch: bool, theme: Theme) -> None:
    drawn: list[float] = []
    for number, course in enumerate(courses):
        style = _style(theme, number)
        scale = panel.percent or 1
        if panel.of_steps:
            positions, values = course.values("step", panel.of_steps, per_epoch)
            values = [value * scale for value in values]
            axes.plot(positions, values, linewidth=1, alpha=0.75 if panel.of_epochs else 1, **style)
            drawn += values
        if panel.of_epochs:
            positions, values = course.values("epoch", panel.of_epochs, per_epoch)
            values = [value * scale for value in values]
            axes.plot(positions, values, linewidth=2, marker="o", markersize=3 if len(positions) < 40 else 0, **style)
            drawn += values
    if panel.log and any(value > 0 for value in drawn):
        axes.set_yscale("log")
        _plain_decades(axes, [value for value in drawn if value > 0])
    elif drawn:
        _set_range(axes, panel, drawn)
    if not drawn:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=theme.faint, fontsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value == round(value) else "")
    last = max(line["step"] / (one.epoch_steps if per_epoch else 1) for one in courses for line in one.lines)
    axes.set_xlim(0, 1.03 * max(last, 1e-9))
    axes.grid(color=theme.grid, linewidth=0.8)


def _set_range(axes: "Axes", panel: Panel, values: list[float]) -> None:
    """Set the vertical range, from zero; early losses far above the rest are cut off."""
    ordered = sorted(values)
    most = ordered[-1]
    if panel.title == "Loss" and len(ordered) > 10:
        most = min(most, 1.5 * ordered[int(0.95 * (len(ordered) - 1))])
    axes.set_ylim(0, max(1.08 * most, 1e-6))
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}%")
    else:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}" if value < 1000 else f"{value:,.0f}")


def _plain_decades(axes: "Axes", values: list[float]) -> None:
    """Label decades as 0.01 instead of 10^-2; label between decades too if there are few."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = min(values) / 1.3, max(values) * 1.3
    axes.set_ylim(low, high)
    few = high / low < 300
    axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5) if few else (1,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def _legend_rows(names: Sequence[str], room: float) -> list[list[int]]:
    """Distribute the names over the rows of the legend."""
    rows: list[list[int]] = [[]]
    used = 0.0
    for number, name in enumerate(names):
        wide = 0.6 + min(text_width(name, 8.5), room - 0.6)
        if rows[-1] and used + wide > room:
            rows.append([])
            used = 0.0
        rows[-1].append(number)
        used += wide
    return rows


def _legend(sheet: Sheet, rows: list[list[int]], courses: Sequence[Course]) -> None:
    from matplotlib.lines import Line2D

    room = sheet.width - 2 * MARGIN - 0.6
    for row, numbers in enumerate(rows):
        x, y = MARGIN, 0.93 + 0.2 * row
        for number in numbers:
            level = 1 - (y - 0.04) / sheet.height
            ends = [x / sheet.width, (x + 0.28) / sheet.width]
            sheet.figure.add_artist(Line2D(ends, [level, level], linewidth=2.2, **_style(sheet.theme, number)))
            name = shorten(courses[number].name, room, 8.5)
            sheet.text(x + 0.35, y, name, 8.5)
            x += 0.6 + text_width(name, 8.5)
