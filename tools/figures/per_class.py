"""`alexnet-figures per-class`: each class's error, the worst first.

In:  a run and its shard set.  Out: a bar a class; of more than sixty, all as one curve, and the ends of it by name.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import numpy as np

from ...model.analysis.confusion import ClassError, Tally
from .answers import evaluate_run
from .open_run import folder_for, of_a_run, open_run
from .sheet import MARGIN, Sheet, text_width
from .style import DARK_OPTION, LIGHT, Theme, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARS, ENDS = 60, 15  # classes that have a bar each; classes by name at each end of the curve
TALL, NAME = 0.24, 2.2  # inches of a row, and of a name at most


@click.command("per-class", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@of_a_run
@DARK_OPTION
def per_class(run, out, shards, split, device, dark):
    """Draw RUN's top-1 and top-5 error of each class, the worst first.

    \b
    Example:
      alexnet-figures per-class runs/source2012
    """
    opened = open_run(run, shards, device)
    tally = Tally(len(opened.shard_set.classes), opened.device)
    evaluate_run(opened, split, tally.see)
    write(lambda look: draw(tally.errors(), opened.names, split, look), folder_for(run, out), "per-class", dark)


def draw(errors: Sequence[ClassError], names: Sequence[str], split: str = "val", look: Theme = LIGHT) -> "Figure":
    """Draw each class's errors; those of classes without photos are left out.

    Args:
        errors: shares, 0..1, in any order.
    """
    ranked = sorted(
        (one for one in errors if one.images), key=lambda one: (-one.top1_error, -one.top5_error, one.label)
    )
    images = sum(one.images for one in ranked)
    means = [sum(getattr(one, name) * one.images for one in ranked) / images for name in ("top1_error", "top5_error")]
    title = f"Error of each of {len(ranked):,} classes"
    about = f"{images:,} photos of {split}: top-1 {100 * means[0]:.1f}%, top-5 {100 * means[1]:.1f}% over all."
    if len(ranked) <= BARS:
        return _bars(ranked, names, title, about, means, look)
    return _curve(ranked, names, title, about, look)


def _bars(
    ranked: list[ClassError], names: Sequence[str], title: str, about: str, means: list[float], look: Theme
) -> "Figure":
    name = min(NAME, max(text_width(names[one.label], 8) for one in ranked))
    left = MARGIN + name + 0.1
    sheet = Sheet(8, 1.2 + len(ranked) * TALL + 0.45, look)
    sheet.head(title, about)
    _key(sheet, left, 0.97, True)
    wide = sheet.width - left - MARGIN - 1.15  # beside the numbers, which no line may cross
    axes = sheet.axes(left, 1.1, wide, len(ranked) * TALL)
    _rows(axes, ranked, look)
    _percents(axes, look)
    axes.axvline(means[0], color=look.ink, linewidth=0.9, linestyle=(0, (3, 2)))
    for row, one in enumerate(ranked):
        y = 1.1 + (row + 0.5) * TALL + 0.04
        sheet.text(left - 0.1, y, names[one.label], 8, align="right", room=name)
        numbers = f"{100 * one.top1_error:.1f}%", f"{100 * one.top5_error:.1f}%"
        for words, color, place in zip(numbers, (look.ink, look.right), (0.55, 0.0), strict=True):
            sheet.text(sheet.width - MARGIN - place, y, words, 7.5, color, align="right")
    return sheet.figure


def _curve(ranked: list[ClassError], names: Sequence[str], title: str, about: str, look: Theme) -> "Figure":
    sheet = Sheet(10, 0.98 + 3.2 + 0.75 + ENDS * TALL + 0.35, look)
    sheet.head(title, about)
    axes = sheet.axes(MARGIN + 0.35, 1.05, sheet.width - 2 * MARGIN - 0.35, 2.9)
    rank = np.arange(1, len(ranked) + 1)
    top1, top5 = (100 * np.array([getattr(one, which) for one in ranked]) for which in ("top1_error", "top5_error"))
    # Sorted each by itself: side by side they say how many classes are worse than so much, and no point is a needle.
    for values, color, words in ((top1, look.wrong, "top-1"), (np.sort(top5)[::-1], look.right, "top-5")):
        axes.fill_between(rank, values, color=color, alpha=0.15, linewidth=0)
        axes.plot(rank, values, color=color, linewidth=1.8)
        middle = len(ranked) // 3
        axes.annotate(
            words,
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
    axes.grid(axis="y", color=look.grid, linewidth=0.8)
    sheet.text(
        sheet.width - MARGIN,
        4.32,
        "classes, the worst first, for either error by itself",
        7.5,
        look.faint,
        align="right",
    )
    half = (sheet.width - 2 * MARGIN - 0.4) / 2
    for x, rows, words in ((MARGIN, ranked[:ENDS], "worst"), (MARGIN + half + 0.4, ranked[::-1][:ENDS], "best")):
        sheet.text(x, 4.72, f"The {len(rows)} {words}", 9.5, weight="bold")
        _key(sheet, x + 1.3, 4.72, False)
        _named(sheet, x, 4.85, half, rows, names)
    return sheet.figure


def _named(sheet: Sheet, x: float, y: float, wide: float, rows: list[ClassError], names: Sequence[str]) -> None:
    axes = sheet.axes(x + 1.9, y, wide - 2.4, len(rows) * TALL)
    _rows(axes, rows, sheet.look)
    axes.set_xticks([])
    for row, one in enumerate(rows):
        middle = y + (row + 0.5) * TALL + 0.04
        sheet.text(x + 1.8, middle, names[one.label], 8, align="right", room=1.8)
        end = x + 1.9 + (wide - 2.4) * one.top1_error
        sheet.text(end + 0.05, middle, f"{100 * one.top1_error:.0f}%", 7.5, sheet.look.ink)


def _rows(axes, rows: Sequence[ClassError], look: Theme) -> None:
    """Top-1 as bars, top-5 within them."""
    places = np.arange(len(rows))
    axes.barh(places, [one.top1_error for one in rows], height=0.62, color=look.wrong)
    axes.barh(places, [one.top5_error for one in rows], height=0.26, color=look.right)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])


def _percents(axes, look: Theme) -> None:
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    axes.grid(axis="x", color=look.grid, linewidth=0.8)


def _key(sheet: Sheet, x: float, y: float, mean: bool) -> None:
    """What the bars are."""
    for words, color in (("top-1 error", sheet.look.wrong), ("top-5 error", sheet.look.right)):
        sheet.bar(x, y - 0.075, 0.16, 0.08, color)
        sheet.text(x + 0.21, y, words, 7.5, sheet.look.faint)
        x += 0.3 + text_width(words, 7.5) + 0.1
    if mean:
        sheet.text(x, y, "dashed: top-1 over all", 7.5, sheet.look.faint)
