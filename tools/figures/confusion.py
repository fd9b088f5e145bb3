"""`alexnet-figures confusion`: what classes are taken for.

In:  a run and its shard set.  Out: the matrix of its classes; of more than forty, the worst and their frequent answers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import numpy as np

from ...model.analysis.confusion import ClassError, Confusion, Tally
from .answers import evaluate_run
from .open_run import folder_for, of_a_run, open_run
from .sheet import MARGIN, Sheet, text_width
from .style import DARK_OPTION, LIGHT, Theme, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATRIX, NUMBERS = 40, 20  # classes of a matrix at most, and of one with numbers in it
WORST, ANSWERS = 20, 3  # classes of the bars, and answers of each
NAME = 1.7  # inches that a class's name may take


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@of_a_run
@DARK_OPTION
def confusion(run, out, shards, split, device, dark):
    """Draw what RUN takes each class for: a matrix, or of more than 40 classes the worst and their wrong answers.

    \b
    Example:
      alexnet-figures confusion runs/source2012
    """
    opened = open_run(run, shards, device)
    tally = Tally(len(opened.shard_set.classes), opened.device)
    evaluate_run(opened, split, tally.see)
    write(
        lambda look: draw(tally.errors(), all_pairs(tally), opened.names, split, look),
        folder_for(run, out),
        "confusion",
        dark,
    )


def all_pairs(tally: Tally) -> list[Confusion]:
    """Every pair of classes that was confused, the worst class first."""
    classes = len(tally.errors())
    return tally.confusions(classes, classes)


def draw(
    errors: Sequence[ClassError],
    confusions: Sequence[Confusion],
    names: Sequence[str],
    split: str = "val",
    look: Theme = LIGHT,
) -> "Figure":
    """Draw the matrix of at most 40 classes, the bars of more.

    Args:
        errors: of all classes, in label order.
        confusions: of every pair that was confused, the worst class first, its most frequent answer first.
    """
    if len(errors) <= MATRIX:
        return _matrix(errors, confusions, names, split, look)
    return _bars(errors, confusions, names, split, look)


def shares(errors: Sequence[ClassError], confusions: Sequence[Confusion]) -> np.ndarray:
    """The matrix: float (classes, classes), of each class (a row) the share that was taken for each; rows sum to one,
    those of classes without photos to zero."""
    matrix = np.zeros((len(errors), len(errors)))
    for one in confusions:
        matrix[one.label, one.answer] = one.share
    for row in errors:
        if row.images:
            matrix[row.label, row.label] = 1 - matrix[row.label].sum()
    return matrix


def _matrix(
    errors: Sequence[ClassError], confusions: Sequence[Confusion], names: Sequence[str], split: str, look: Theme
) -> "Figure":
    count = len(errors)
    cell = min(0.6, max(0.24, 6.4 / count))
    points = 8 if cell > 0.3 else 6.5
    left = MARGIN + min(NAME, max(text_width(name, points) for name in names)) + 0.1
    above = 0.85 + min(NAME, max(text_width(name, points) for name in names)) * 0.75 + 0.2
    right = MARGIN + min(NAME, text_width(names[-1], points)) * 0.75  # the last slanted name leans out
    sheet = Sheet(max(left + count * cell + right, 5), above + count * cell + 0.4, look)
    sheet.head("What classes are taken for", f"Each row: the photos of a class of {split}, in percent of that class.")
    axes = sheet.axes(left, above, count * cell, count * cell)
    matrix = shares(errors, confusions)
    paper, own, other = (np.array(_rgb(color)) for color in (look.paper, look.right, look.wrong))
    strength = np.sqrt(matrix)[:, :, None]  # one in a hundred is still seen
    full = np.where(np.eye(count, dtype=bool)[:, :, None], own, other)
    axes.imshow(np.rint(paper + strength * (full - paper)).astype(np.uint8), interpolation="none", aspect="auto")
    for edge in range(count + 1):
        axes.axhline(edge - 0.5, color=look.grid, linewidth=0.6)
        axes.axvline(edge - 0.5, color=look.grid, linewidth=0.6)
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
                color=look.paper if strong else look.ink,
                weight="bold" if row == column else "normal",
            )
    axes.set_xticks([])
    axes.set_yticks([])
    for place, name in enumerate(names):
        sheet.text(
            left - 0.1, above + (place + 0.5) * cell + 0.04, name, points, align="right", room=left - MARGIN - 0.1
        )
        slanted(sheet, left + (place + 0.5) * cell, above - 0.08, name, points)
    sheet.text(left, above + count * cell + 0.22, "rows: what it is · columns: what it was taken for", 7.5, look.faint)
    return sheet.figure


def _bars(
    errors: Sequence[ClassError], confusions: Sequence[Confusion], names: Sequence[str], split: str, look: Theme
) -> "Figure":
    answers: dict[int, list[Confusion]] = {}
    for one in confusions:
        answers.setdefault(one.label, []).append(one)
    worst = sorted((errors[label] for label in answers), key=lambda one: (-one.top1_error, one.label))[:WORST]
    tall, line = 0.19, 0.1
    height = sum(min(ANSWERS, len(answers[one.label])) * tall + line for one in worst)
    name, widest = 2.3, 4.2
    sheet = Sheet(10, 0.98 + height + MARGIN, look)
    sheet.head(
        f"What the {len(worst)} worst classes are taken for",
        f"Of {len(errors):,} classes of {split}: the {ANSWERS} most frequent wrong answers, in percent of the class.",
    )
    most = max((one.share for row in worst for one in answers[row.label]), default=1.0)
    y = 0.98
    for row in worst:
        sheet.text(MARGIN + name, y + 0.14, names[row.label], 8.5, weight="bold", align="right", room=name - 0.1)
        for one in answers[row.label][:ANSWERS]:
            x, wide = MARGIN + name + 0.15, max(widest * one.share / most, 0.01)
            sheet.bar(x, y + 0.03, wide, 0.13, look.wrong)
            words = f"{100 * one.share:.0f}%  {names[one.answer]}"
            sheet.text(x + wide + 0.07, y + 0.135, words, 7.5, room=sheet.width - MARGIN - x - wide - 0.07)
            y += tall
        said = f"error {100 * row.top1_error:.0f}%"
        if min(ANSWERS, len(answers[row.label])) > 1:
            sheet.text(
                MARGIN + name,
                y - tall * (len(answers[row.label][:ANSWERS]) - 1) + 0.12,
                said,
                7,
                look.faint,
                align="right",
            )
        y += line
    return sheet.figure


def slanted(sheet: Sheet, x: float, y: float, words: str, points: float) -> None:
    """A name above a column, leaning to the right."""
    from .sheet import shorten

    sheet.figure.text(
        x / sheet.width,
        1 - y / sheet.height,
        shorten(words, NAME, points),
        fontsize=points,
        color=sheet.look.ink,
        rotation=45,
        ha="left",
        va="bottom",
        rotation_mode="anchor",
        parse_math=False,
    )


def _rgb(color: str) -> list[int]:
    return [int(color[k : k + 2], 16) for k in (1, 3, 5)]
