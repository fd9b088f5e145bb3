"""`alexnet-figures predictions`: photos and their five most probable labels (paper, figure 4, left).

In:  a run and its shard set.  Out: a sheet of photos with bars below each; the correct label's bar is coloured.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import numpy as np

from ...model.training.evaluate import Result
from ...pipeline.errors import UsageError
from ...pipeline.shards.datum import central_square
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.stream.dataset import ShardDataset
from .. import options
from .answers import PICKS, Answer, Answers, evaluate_run
from .open_run import folder_for, of_a_run, open_run
from .sheet import MARGIN, Sheet, text_width
from .style import DARK_OPTION, LIGHT, Theme, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, ACROSS, GAP = 2.1, 4, 0.3  # inches of a photo; photos in a row; inches between them
CAPTION, ROW, BAR = 0.62, 0.25, 0.055  # inches: the true label, a prediction, its bar
VIEWS = click.option(
    "--views", type=click.Choice(["1", "10"]), default="1", show_default=True, help="Test views to average."
)


@click.command(context_settings=options.SETTINGS)
@of_a_run
@click.option("--pick", type=click.Choice(PICKS), default="mixed", show_default=True, help="Which photos to draw.")
@click.option("--count", type=click.IntRange(1, 100), default=8, show_default=True, help="Number of photos.")
@options.seed("Seed of the random choice.")
@VIEWS
@DARK_OPTION
def predictions(run, out, shards, split, device, pick, count, seed, views, dark):
    """Draw photos with RUN's five most probable labels as bars: figure 4 of the paper, left.

    best: most confident and right, worst: most confident and wrong, class by class; mixed: of each, and random ones.

    \b
    Examples:
      alexnet-figures predictions runs/source2012
      alexnet-figures predictions runs/source2012 --pick worst --count 12 --views 10
    """
    opened = open_run(run, shards, device)
    answers = Answers()
    result = evaluate_run(opened, split, answers.see, int(views), without_labels=True)
    picked = answers.pick(pick, count, seed)
    if not picked:
        outcome = {"best": "right", "worst": "wrong"}[pick]
        raise UsageError(f"{run}: no prediction for {split} is known to be {outcome}", "choose another --pick")
    about = about_words(result, split, int(views))
    photos = stored_photos(opened.shard_set, split, [one.record for one in picked])
    write(
        lambda theme: draw(photos, picked, opened.names, opened.shard_set.classes, about, theme),
        folder_for(run, out),
        "predictions",
        dark,
    )


def about_words(result: Result, split: str, views: int) -> str:
    """Describe the evaluated photos and the error in a sentence."""
    errors = f"top-1 error {100 * result.top1_error:.1f}%, top-5 error {100 * result.top5_error:.1f}%"
    if math.isnan(result.top1_error):
        errors = "some are unlabelled, so no error"
    return f"{result.images:,} photos of {split}, {views} view{'s' * (views != 1)}: {errors}."


def draw(
    photos: Sequence[np.ndarray],
    answers: Sequence[Answer],
    names: Sequence[str],
    folders: Sequence[str],
    about: str = "",
    theme: Theme = LIGHT,
) -> "Figure":
    """Draw photos and their predictions.

    Args:
        photos: uint8 (side, side, 3), one for each answer.
        names, folders: of the classes: display names, and names as stored.
        about: a sentence below the title.
    """
    top = max(len(one.labels) for one in answers)
    across = min(len(answers), ACROSS)
    tall = WIDTH + CAPTION + top * ROW + 0.38
    rows = -(-len(answers) // ACROSS)
    width = 2 * MARGIN + max(across, 2) * WIDTH + (max(across, 2) - 1) * GAP
    sheet = Sheet(width, 0.95 + rows * tall, theme)
    sheet.head(f"The {top} most probable labels", about)
    for number, (photo, answer) in enumerate(zip(photos, answers, strict=True)):
        x, y = MARGIN + number % ACROSS * (WIDTH + GAP), 0.95 + number // ACROSS * tall
        sheet.picture(x, y, photo, WIDTH)
        _caption(sheet, x, y + WIDTH, answer, names, folders)
        for row, (label, share) in enumerate(zip(answer.labels, answer.probabilities, strict=True)):
            _answer(sheet, x, y + WIDTH + CAPTION + row * ROW, label, names[label], share, label == answer.label)
    return sheet.figure


def stored_photos(shard_set: ShardSet, split: str, records: Sequence[int]) -> list[np.ndarray]:
    """Return the central squares of records: uint8 (size, size, 3) each."""
    dataset = ShardDataset(shard_set, split)
    return [central_square(np.asarray(dataset[record][0]), shard_set.size) for record in records]


def _caption(sheet: Sheet, x: float, y: float, answer: Answer, names: Sequence[str], folders: Sequence[str]) -> None:
    """Draw the true class's name and number and its predicted probability, or that the photo is unlabelled."""
    known = answer.label >= 0
    name, folder = (names[answer.label], folders[answer.label]) if known else ("no label", "")
    why = text_width(answer.why, 6.5)
    sheet.text(x, y + 0.2, name, 10, weight="bold", room=WIDTH - why - 0.08)
    sheet.text(x + WIDTH, y + 0.2, answer.why, 6.5, color=sheet.theme.faint, align="right")
    if not known:
        return
    numbers = f"label {answer.label}" + (f" · {folder}" if folder != name else "")
    given = f"given {percent(answer.own)}"
    sheet.text(x, y + 0.37, numbers, 7, color=sheet.theme.faint, room=WIDTH - text_width(given, 7) - 0.08)
    sheet.text(x + WIDTH, y + 0.37, given, 7, color=sheet.theme.faint, align="right")


def _answer(sheet: Sheet, x: float, y: float, label: int, name: str, share: float, right: bool) -> None:
    theme, weight = sheet.theme, "bold" if right else "normal"
    number = 0.06 + text_width("0" * max(2, len(str(label))), 6.5)
    sheet.text(x + number - 0.06, y, str(label), 6.5, color=theme.faint, align="right")
    sheet.text(
        x + number, y, name, 8, color=theme.right if right else theme.ink, weight=weight, room=WIDTH - number - 0.5
    )
    sheet.text(x + WIDTH, y, percent(share), 7.5, color=theme.right if right else theme.faint, align="right")
    sheet.bar(x, y + 0.045, WIDTH, BAR, theme.grid)
    sheet.bar(x, y + 0.045, WIDTH * share, BAR, theme.right if right else theme.wrong)


def percent(share: float) -> str:
    """Format a probability, 0..1, in few characters."""
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"
