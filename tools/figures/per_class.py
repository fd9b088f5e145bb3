"""`alexnet-figures per-class`: the error of each class, the worst first.

In:  a run and its shard set.  Out: a bar for each class; for more than 60, one curve, and its ends by name.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import numpy as np

from ...model.analysis.confusion import ClassError, Tally
from .. import options
from .answers import evaluate_run
from .open_run import folder_for, of_a_run, open_run
from .sheet import MARGIN, Sheet, text_width
from .style import DARK_OPTION, LIGHT, Theme, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARS, ENDS = 60, 15  # most classes in the bar chart; named classes at each end of the curve
TALL, NAME = 0.24, 2.2  # inches: a row, and the widest name


@click.command("per-class", context_settings=options.SETTINGS)
@of_a_run
@DARK_OPTION
def per_class(run, out, shards, split, device, dark):
    """Draw RUN's top-1 and top-5 error for each class, the worst first.

    \b
    Example:
      alexnet-figures per-class runs/source2012
    """
    opened = open_run(run, shards, device)
    tally = Tally(len(opened.shard_set.classes), opened.device)
    evaluate_run(opened, split, tally.see)
    write(lambda theme: draw(tally.errors(), opened.names, split, theme), folder_for(run, out), "per-class", dark)


def draw(errors: Sequence[ClassError], names: Sequence[str], split: str = "val", theme: Theme = LIGHT) -> "Figure":
    """Draw the errors of all classes that have photos.

    Args:
        errors: shares, 0..1, in any order.
        names: display name of each class, by label.
    """
    ranked = sorted(
        (one for one in errors if one.images), key=lambda one: (-one.top1_error, -one.top5_error, one.label)
    )
    images = sum(one.images for one in ranked)
    means = [sum(getattr(one, name) * one.images for one in ranked) / images for name in ("top1_error", "top5_error")]
    title = f"Error of each of {len(ranked):,} classes"
    about = f"{images:,} photos of {split}: mean top-1 {100 * means[0]:.1f}%, top-5 {100 * means[1]:.1f}%."
    if len(ranked) <= BARS:
        return _bars(ranked, names, title, about, means, theme)
    return _curve(ranked, names, title, about, theme)


def _bars(
    ranked: list[ClassError], names: Sequence[str], title: str, about: str, means: list[float], theme: Theme
) -> "Figure":
    name = min(NAME, max(text_width(names[one.label], 8) for one in ranked))
    left = MARGIN + name + 0.1
    sheet = Sheet(8, 1.2 + len(ranked) * TALL + 0.45, theme)
    sheet.head(title, about)
    _legend(sheet, left, 0.97, True)
    wide = sheet.width - left - MARGIN - 1.15  # leaves room for the numbers
    axes = sheet.axes(left, 1.1, wide, len(ranked) * TALL)
    _rows(axes, ranked, theme)
    _percents(axes, theme)
    axes.axvline(means[0], color=theme.ink, linewidth=0.9, linestyle=(0, (3, 2)))
    for row, one in enumerate(ranked):
        y = 1.1 + (row + 0.5) * TALL + 0.04
        sheet.text(left - 0.1, y, names[one.label], 8, align="right", room=name)
        numbers = f"{100 * one.top1_error:.1f}%", f"{100 * one.top5_error:.1f}%"
        for text, color, offset in zip(numbers, (theme.ink, theme.right), (0.55, 0.0), strict=True):
            sheet.text(sheet.width - MARGIN - offset, y, text, 7.5, color, align="right")
    return sheet.figure


def _curve(ranked: list[ClassError], names: Sequence[str], title: str, about: str, theme: Theme) -> "Figure":
    sheet = Sheet(10, 0.98 + 3.2 + 0.75 + ENDS * TALL + 0.35, theme)
    sheet.head(title, about)
    axes = sheet.axes(MARGIN + 0.35, 1.05, sheet.width - 2 * MARGIN - 0.35, 2.9)
    rank = np.arange(1, len(ranked) + 1)
    top1, top5 = (100 * np.array([getattr(one, which) for one in ranked]) for which in ("top1_error", "top5_error"))
    # Sorted separately: each curve shows how many classes are worse than a given error, without spikes.
    for values, color, label in ((top1, theme.wrong, "top-1"), (np.sort(top5)[::-1], theme.right, "top-5")):
        axes.fill_between(rank, values, color=color, alpha=0.15, linewidth=0)
        axes.plot(rank, values, color=color, linewidth=1.8)
        middle = len(ranked) // 3
        axes.annotate(
            label,
            (rank[middle], values[middle]),
            xytext=(4, 4),
            textcoords="offset points",
            color=color,
            fontsize=9,
            weight="bold",
        )
    axes.set_xlim(1, len(ranked))
    axes.set_ylim(0, max(top1.max() * 1.08, 1))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f}%")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    sheet.text(
        sheet.width - MARGIN,
        4.32,
        "classes, sorted separately for each error",
        7.5,
        theme.faint,
        align="right",
    )
    half = (sheet.width - 2 * MARGIN - 0.4) / 2
    for x, rows, end in ((MARGIN, ranked[:ENDS], "worst"), (MARGIN + half + 0.4, ranked[::-1][:ENDS], "best")):
        sheet.text(x, 4.72, f"The {len(rows)} {end}", 9.5, weight="bold")
        _legend(sheet, x + 1.3, 4.72, False)
        _named(sheet, x, 4.85, half, rows, names)
    return sheet.figure


def _named(sheet: Sheet, x: float, y: float, wide: float, rows: list[ClassError], names: Sequence[str]) -> None:
    axes = sheet.axes(x + 1.9, y, wide - 2.4, len(rows) * TALL)
    _rows(axes, rows, sheet.theme)
    axes.set_xticks([])
    for row, one in enumerate(rows):
        middle = y + (row + 0.5) * TALL + 0.04
        sheet.text(x + 1.8, middle, names[one.label], 8, align="right", room=1.8)
        end = x + 1.9 + (wide - 2.4) * one.top1_error
        sheet.text(end + 0.05, middle, f"{100 * one.top1_error:.0f}%", 7.5, sheet.theme.ink)


def _rows(axes, rows: Sequence[ClassError], theme: Theme) -> None:
    """Draw top-1 errors as bars, and top-5 errors inside them."""
    y = np.arange(len(rows))
    axes.barh(y, [one.top1_error for one in rows], height=0.62, color=theme.wrong)
    axes.barh(y, [one.top5_error for one in rows], height=0.26, color=theme.right)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])


def _percents(axes, theme: Theme) -> None:
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    axes.grid(axis="x", color=theme.grid, linewidth=0.8)


def _legend(sheet: Sheet, x: float, y: float, mean: bool) -> None:
    """Draw the legend."""
    for label, color in (("top-1 error", sheet.theme.wrong), ("top-5 error", sheet.theme.right)):
        sheet.bar(x, y - 0.075, 0.16, 0.08, color)
        sheet.text(x + 0.21, y, label, 7.5, sheet.theme.faint)
        x += 0.3 + text_width(label, 7.5) + 0.1
    if mean:
        sheet.text(x, y, "dashed: mean top-1", 7.5, sheet.theme.faint)
