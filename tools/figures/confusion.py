"""`alexnet-figures confusion`: the confusion matrix of a run.

In:  a run and its shard set.  Out: the matrix; for more than 40 classes, the worst and their most frequent errors.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import numpy as np

from ...model.analysis.confusion import ClassError, Confusion, Tally
from .. import options
from .answers import evaluate_run
from .open_run import folder_for, of_a_run, open_run
from .sheet import MARGIN, Sheet, rgb, shorten, text_width
from .style import DARK_OPTION, LIGHT, Theme, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATRIX, NUMBERS = 40, 20  # most classes in a matrix, and in one with numbers
WORST, ANSWERS = 20, 3  # classes in the bar chart, and predictions of each
NAME = 1.7  # inches: the widest class name


@click.command(context_settings=options.SETTINGS)
@of_a_run
@DARK_OPTION
def confusion(run, out, shards, split, device, dark):
    """Draw RUN's confusion matrix; for more than 40 classes, the worst classes and their most frequent errors.

    \b
    Example:
      alexnet-figures confusion runs/source2012
    """
    opened = open_run(run, shards, device)
    tally = Tally(len(opened.shard_set.classes), opened.device)
    evaluate_run(opened, split, tally.see)
    write(
        lambda theme: draw(tally.errors(), all_pairs(tally), opened.names, split, theme),
        folder_for(run, out),
        "confusion",
        dark,
    )


def all_pairs(tally: Tally) -> list[Confusion]:
    """Return every confused pair of classes, the worst class first."""
    classes = len(tally.errors())
    return tally.confusions(classes, classes)


def draw(
    errors: Sequence[ClassError],
    confusions: Sequence[Confusion],
    names: Sequence[str],
    split: str = "val",
    theme: Theme = LIGHT,
) -> "Figure":
    """Draw the matrix of at most 40 classes, or a bar chart of more.

    Args:
        errors: of all classes, in label order.
        confusions: every confused pair, the worst class first, its most frequent prediction first.
    """
    if len(errors) <= MATRIX:
        return _matrix(errors, confusions, names, split, theme)
    return _bars(errors, confusions, names, split, theme)


def shares(errors: Sequence[ClassError], confusions: Sequence[Confusion]) -> np.ndarray:
    """Return the confusion matrix as shares, 0..1: float (classes, classes), true classes by predicted classes.

    Rows sum to one, or to zero for classes without photos.
    """
    matrix = np.zeros((len(errors), len(errors)))
    for one in confusions:
        matrix[one.label, one.answer] = one.share
    for row in errors:
        if row.images:
            matrix[row.label, row.label] = 1 - matrix[row.label].sum()
    return matrix


def _matrix(
    errors: Sequence[ClassError], confusions: Sequence[Confusion], names: Sequence[str], split: str, theme: Theme
) -> "Figure":
    count = len(errors)
    cell = min(0.6, max(0.24, 6.4 / count))
    points = 8 if cell > 0.3 else 6.5
    left = MARGIN + min(NAME, max(text_width(name, points) for name in names)) + 0.1
    above = 0.85 + min(NAME, max(text_width(name, points) for name in names)) * 0.75 + 0.2
    right = MARGIN + min(NAME, text_width(names[-1], points)) * 0.75  # the last slanted name extends beyond the matrix
    sheet = Sheet(max(left + count * cell + right, 5), above + count * cell + 0.4, theme)
    sheet.head("Confusion matrix", f"Each row: the photos of one class of {split}, in percent of that class.")
    axes = sheet.axes(left, above, count * cell, count * cell)
    matrix = shares(errors, confusions)
    paper, own, other = (np.array(rgb(color)) for color in (theme.paper, theme.right, theme.wrong))
    strength = np.sqrt(matrix)[:, :, None]  # square root: 1% is still visible
    full = np.where(np.eye(count, dtype=bool)[:, :, None], own, other)
    axes.imshow(np.rint(paper + strength * (full - paper)).astype(np.uint8), interpolation="none", aspect="auto")
    for edge in range(count + 1):
        axes.axhline(edge - 0.5, color=theme.grid, linewidth=0.6)
        axes.axvline(edge - 0.5, color=theme.grid, linewidth=0.6)
    if count <= NUMBERS:
        for row, column in zip(*np.nonzero(matrix >= 0.005), strict=True):
            strong = matrix[row, column] > 0.35
            axes.text(
                column,
                row,
                f"{100 * matrix[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=7.5,
                color=theme.paper if strong else theme.ink,
                weight="bold" if row == column else "normal",
            )
    axes.set_xticks([])
    axes.set_yticks([])
    for label, name in enumerate(names):
        middle = (label + 0.5) * cell
        sheet.text(left - 0.1, above + middle + 0.04, name, points, align="right", room=left - MARGIN - 0.1)
        slanted(sheet, left + middle, above - 0.08, name, points)
    sheet.text(left, above + count * cell + 0.22, "rows: true class · columns: prediction", 7.5, theme.faint)
    return sheet.figure


def _bars(
    errors: Sequence[ClassError], confusions: Sequence[Confusion], names: Sequence[str], split: str, theme: Theme
) -> "Figure":
    answers: dict[int, list[Confusion]] = {}
    for one in confusions:
        answers.setdefault(one.label, []).append(one)
    worst = sorted((errors[label] for label in answers), key=lambda one: (-one.top1_error, one.label))[:WORST]
    tall, line = 0.19, 0.1
    height = sum(min(ANSWERS, len(answers[one.label])) * tall + line for one in worst)
    name, widest = 2.3, 4.2
    sheet = Sheet(10, 0.98 + height + MARGIN, theme)
    sheet.head(
        f"Confusions of the {len(worst)} worst classes",
        f"Of {len(errors):,} classes of {split}: the {ANSWERS} most frequent errors, in percent of the class.",
    )
    most = max((one.share for row in worst for one in answers[row.label]), default=1.0)
    y = 0.98
    for row in worst:
        sheet.text(MARGIN + name, y + 0.14, names[row.label], 8.5, weight="bold", align="right", room=name - 0.1)
        for one in answers[row.label][:ANSWERS]:
            x, wide = MARGIN + name + 0.15, max(widest * one.share / most, 0.01)
            sheet.bar(x, y + 0.03, wide, 0.13, theme.wrong)
            words = f"{100 * one.share:.0f}%  {names[one.answer]}"
            sheet.text(x + wide + 0.07, y + 0.135, words, 7.5, room=sheet.width - MARGIN - x - wide - 0.07)
            y += tall
        shown = min(ANSWERS, len(answers[row.label]))
        if shown > 1:
            error = f"error {100 * row.top1_error:.0f}%"
            sheet.text(MARGIN + name, y - tall * (shown - 1) + 0.12, error, 7, theme.faint, align="right")
        y += line
    return sheet.figure


def slanted(sheet: Sheet, x: float, y: float, name: str, points: float) -> None:
    """Draw a slanted name above a column."""
    sheet.figure.text(
        x / sheet.width,
        1 - y / sheet.height,
        shorten(name, NAME, points),
        fontsize=points,
        color=sheet.theme.ink,
        rotation=45,
        ha="left",
        va="bottom",
        rotation_mode="anchor",
        parse_math=False,
    )
