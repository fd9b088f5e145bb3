"""`alexnet-figures curves`: how runs went: loss, errors, rate, speed and stall share over the epochs.

In:  metrics.jsonl of some runs, which may still be training.  Out: six panels, a colour a run. No checkpoint is read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...model.training import metrics
from ...pipeline.errors import TrainingError, UsageError
from .sheet import MARGIN, Sheet, shorten, text_width
from .style import DARK_OPTION, LIGHT, Theme, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = click.Path(path_type=Path)
FILE = "metrics.jsonl"
WIDE, TALL, LEFT, APART = 2.68, 2.15, 0.45, 0.35  # inches of a panel, of its numbers, between two
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))  # when the colours are used up


@dataclass(frozen=True)
class Panel:
    """One panel: its title, the values of step and of epoch lines that it draws, and how they are read."""

    title: str
    of_steps: str = ""
    of_epochs: str = ""
    percent: float = 0  # what a value is multiplied with to be a percentage; 0, it is none
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
    """How a run went: its name, its metrics' lines, and the steps of an epoch, 0 where no epoch has ended."""

    name: str
    lines: tuple[dict, ...]
    epoch_steps: float

    def values(self, kind: str, name: str, per_epoch: bool) -> tuple[list[float], list[float]]:
        """Places, in epochs or in steps, and values, of the lines of a kind that have it."""
        lines = [line for line in self.lines if line["kind"] == kind and _is_number(line.get(name))]
        return [line["step"] / (self.epoch_steps if per_epoch else 1) for line in lines], [line[name] for line in lines]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder of the figure.  [default: figures in the first run's folder]")
@DARK_OPTION
def curves(runs, out, dark):
    """Draw how RUNS went, folders or metrics.jsonl files: loss, errors, rate, images a second, share of waiting.

    \b
    Examples:
      alexnet-figures curves runs/source2012
      alexnet-figures curves runs/source2012 runs/modern --out comparison
    """
    files = [run / FILE if run.is_dir() else run for run in runs]
    names = unique_names([file.absolute().parent for file in files])
    courses = [read(file, name) for file, name in zip(files, names, strict=True)]
    write(lambda look: draw(courses, look), out or files[0].parent / "figures", "curves", dark)


def read(file: Path, name: str = "") -> Course:
    """Read a run's metrics; what a running or killed process has half written is left out.

    Raises:
        UsageError: no such file.
        TrainingError: there is no line in it yet, or none of ours.
    """
    if not file.is_file():
        raise UsageError(f"{file}: no metrics there", "name a folder that alexnet-train wrote, runs/source2012 say")
    lines, others = metrics.read_counted(file)
    if others:
        click.echo(f"{file}: {metrics.counted(others)} damaged or not of a run, and left out", err=True)
    if not lines:
        said = "empty" if not file.stat().st_size else "not one whole line of metrics in it"
        raise TrainingError(f"{file}: {said}", "wait for the first line, which comes after --log-every steps")
    ended = [line for line in lines if line["kind"] == "epoch" and line["epoch"] and line["step"]]
    steps = ended[-1]["step"] / ended[-1]["epoch"] if ended else 0
    return Course(name or file.absolute().parent.name, tuple(lines), steps)


def draw(courses: Sequence[Course], look: Theme = LIGHT) -> "Figure":
    """Draw runs in six panels; over steps where one of them has not ended an epoch."""
    per_epoch = all(one.epoch_steps for one in courses)
    width = 2 * MARGIN + 3 * (LEFT + WIDE) + 2 * APART
    rows = _key_rows([one.name for one in courses], width - 2 * MARGIN)
    top = 0.9 + 0.2 * len(rows)
    sheet = Sheet(width, top + 2 * (TALL + 0.75) + 0.05, look)
    said = "Thin: training. Thick: validation after each epoch." if _validated(courses) else ""
    sheet.head("How the run went" if len(courses) == 1 else f"How {len(courses)} runs went", said)
    _key(sheet, rows, courses)
    for place, panel in enumerate(PANELS):
        x = MARGIN + LEFT + place % 3 * (LEFT + WIDE + APART)
        y = top + 0.3 + place // 3 * (TALL + 0.75)
        sheet.text(x - LEFT, y - 0.12, panel.title, 9.5, weight="bold")
        axes = sheet.axes(x, y, WIDE, TALL)
        axes.set_label(panel.title)
        _panel(axes, panel, courses, per_epoch, look)
    sheet.text(width - MARGIN, sheet.height - 0.14, "epochs" if per_epoch else "steps", 8, look.faint, align="right")
    return sheet.figure


def unique_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of their parents as tell them apart."""
    most = max(len(folder.parts) for folder in folders)
    for count in range(1, most + 1):
        names = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(names)) == len(set(folders)):
            break
    return [name if names.index(name) == place else f"{name} ({place + 1})" for place, name in enumerate(names)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _validated(courses: Sequence[Course]) -> bool:
    return any(one.values("epoch", "val_loss", False)[0] for one in courses)


def _style(look: Theme, number: int) -> dict:
    colours = look.lines
    return {
        "color": colours[number % len(colours)],
        "linestyle": DASHES[number // len(colours) % len(DASHES)],
    }


def _panel(axes: "Axes", panel: Panel, courses: Sequence[Course], per_epoch: bool, look: Theme) -> None:
    drawn: list[float] = []
    for number, course in enumerate(courses):
        style = _style(look, number)
        scale = panel.percent or 1
        if panel.of_steps:
            places, values = course.values("step", panel.of_steps, per_epoch)
            values = [value * scale for value in values]
            axes.plot(places, values, linewidth=1, alpha=0.75 if panel.of_epochs else 1, **style)
            drawn += values
        if panel.of_epochs:
            places, values = course.values("epoch", panel.of_epochs, per_epoch)
            values = [value * scale for value in values]
            axes.plot(places, values, linewidth=2, marker="o", markersize=3 if len(places) < 40 else 0, **style)
            drawn += values
    if panel.log and any(value > 0 for value in drawn):
        axes.set_yscale("log")
        _plain_decades(axes, [value for value in drawn if value > 0])
    elif drawn:
        _room(axes, panel, drawn)
    if not drawn:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=look.faint, fontsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value == round(value) else "")
    last = max(line["step"] / (one.epoch_steps if per_epoch else 1) for one in courses for line in one.lines)
    axes.set_xlim(0, 1.03 * max(last, 1e-9))
    axes.grid(color=look.grid, linewidth=0.8)


def _room(axes: "Axes", panel: Panel, values: list[float]) -> None:
    """From zero; a loss that began far above the rest does not flatten it."""
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
    """0.01 rather than 10^-2; and between decades too where there are few."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = min(values) / 1.3, max(values) * 1.3
    axes.set_ylim(low, high)
    few = high / low < 300
    axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5) if few else (1,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def _key_rows(names: Sequence[str], room: float) -> list[list[int]]:
    """Which names stand in which row of the key."""
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


def _key(sheet: Sheet, rows: list[list[int]], courses: Sequence[Course]) -> None:
    from matplotlib.lines import Line2D

    room = sheet.width - 2 * MARGIN - 0.6
    for row, numbers in enumerate(rows):
        x, y = MARGIN, 0.93 + 0.2 * row
        for number in numbers:
            level = 1 - (y - 0.04) / sheet.height
            ends = [x / sheet.width, (x + 0.28) / sheet.width]
            sheet.figure.add_artist(Line2D(ends, [level, level], linewidth=2.2, **_style(sheet.look, number)))
            name = shorten(courses[number].name, room, 8.5)
            sheet.text(x + 0.35, y, name, 8.5)
            x += 0.6 + text_width(name, 8.5)
