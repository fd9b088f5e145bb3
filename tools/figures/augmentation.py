"""`alexnet-figures augmentation`: one photo and its augmented versions (paper, section 4.1).

In:  a shard set, with or without a run; a training record or a photo.  Out: its crops and reflections epoch by epoch,
as the plan draws them; its lighting in three scales; the pixels after the mean is subtracted.
The pictures come from the stream that training reads: see augmented.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from ...model.recipes.recipe import RECIPES, recipe
from ...model.weights.trained import load_trained
from ...pipeline.errors import UsageError
from ...pipeline.shards import stats
from ...pipeline.shards.manifest import open_shard_set
from .. import options
from .augmented import GAUSSIANS, SCALES, Varied, set_of_one, vary
from .open_run import folder_for, shards_of
from .sheet import MARGIN, Sheet
from .style import DARK_OPTION, LIGHT, Theme, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CROPS = 6  # one for each line colour
WIDTH, GAP = 10.0, 0.12  # inches
EACH, BETWEEN = 1.73, 0.3  # inches: a crop, and the gap between two rows of crops
BIG = 2 * EACH + BETWEEN  # inches: the stored picture
LIT = 1.2  # inches: a picture with lighting


@click.command(context_settings=options.SETTINGS)
@click.argument("run", required=False, type=options.PATH)
@options.path("--out", help="Folder of the figure.  [default: RUN/figures, or figures]")
@options.run_shards
@click.option(
    "--recipe", "name", type=click.Choice(list(RECIPES)), help="Recipe of the crops.  [default: RUN's, or source2012]"
)
@click.option("--record", type=click.IntRange(0), default=0, show_default=True, help="Number of the training photo.")
@click.option("--photo", type=options.PATH, help="A photo file instead; --shards gives the statistics.")
@options.seed("Seed of the plan.")
@DARK_OPTION
def augmentation(run, out, shards, name, record, photo, seed, dark):
    """Draw one photo and its augmented versions: crops, reflections, lighting, mean subtraction.

    Uses the recipe and shard set of RUN, or a shard set before any training.

    \b
    Examples:
      alexnet-figures augmentation runs/source2012 --record 17
      alexnet-figures augmentation --shards out --recipe paper --photo cat.jpg
    """
    if run is None and shards is None:
        raise UsageError("neither a run nor a shard set is given", "name a run, or a shard set with --shards")
    trained = load_trained(run) if run else None
    chosen = trained.recipe if trained and not name else recipe(name or "source2012")
    shard_set = open_shard_set(shards_of(trained, shards) if trained else shards)
    numbers = trained.stats if trained else stats.load_stats(shard_set)
    with set_of_one(photo, shard_set) as used:
        varied = vary(used, numbers, chosen, 0 if photo else record, seed, CROPS)
    what = photo.name if photo else f"training photo {record:,}"
    write(
        lambda theme: draw(varied, what, chosen.name, theme),
        folder_for(run, out) if run else out or Path("figures"),
        "augmentation",
        dark,
    )


def draw(varied: Varied, what: str, recipe_name: str, theme: Theme = LIGHT) -> "Figure":
    """Draw a photo and its augmented versions.

    Args:
        varied: the output of the stream.
        what, recipe_name: the photo and the recipe, for the title.
    """
    below = 0.98 + BIG + 0.6
    sheet = Sheet(WIDTH, below + 0.32 + len(SCALES) * (LIT + 0.34) + 0.2, theme)
    crop = varied.crops[0].shape[0]
    about = f"{what}, recipe {recipe_name}: another window in each epoch, {crop}x{crop} pixels, reflected at random."
    sheet.head("One photo and its augmented versions", about)
    _crops(sheet, varied, 0.98)
    _lighting(sheet, varied, below)
    _means(sheet, varied, WIDTH - MARGIN - LIT, below)
    return sheet.figure


def _crops(sheet: Sheet, varied: Varied, y: float) -> None:
    theme = sheet.theme
    axes = sheet.picture(MARGIN, y, varied.stored, BIG)
    from matplotlib.patches import Rectangle

    for number, (left, top, width, height) in enumerate(varied.windows):
        color = theme.lines[number % len(theme.lines)]
        axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="#ffffff", linewidth=2.2, alpha=0.6))
        axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=color, linewidth=1.1))
    side = varied.stored.shape[0]
    sheet.text(MARGIN, y + BIG + 0.18, f"stored: {varied.stored.shape[1]}x{side}, and the windows", 7.5, theme.faint)
    columns = (len(varied.crops) + 1) // 2
    for number, pixels in enumerate(varied.crops):
        x = MARGIN + BIG + 0.2 + number % columns * (EACH + GAP)
        down = y + number // columns * (EACH + BETWEEN)
        sheet.picture(x, down, pixels, EACH)
        sheet.bar(x, down + EACH + 0.03, EACH, 0.03, theme.lines[number % len(theme.lines)])
        caption = f"epoch {number + 1}" + (", reflected" if varied.flips[number] else "")
        sheet.text(x, down + EACH + 0.18, caption, 7.5, theme.ink)


def _lighting(sheet: Sheet, varied: Varied, y: float) -> None:
    """Draw the lighting, one row for each scale."""
    theme, left = sheet.theme, MARGIN + 1.05
    sheet.text(MARGIN, y, "Lighting", 10, weight="bold")
    for column, gaussian in enumerate(GAUSSIANS):
        sheet.text(left + column * (LIT + GAP), y + 0.24, f"g = {_signed(gaussian, 0)}", 7.5, theme.faint)
    for row, scale in enumerate(SCALES):
        top = y + 0.32 + row * (LIT + 0.34)
        sheet.text(MARGIN, top + 0.2, scale, 9, weight="bold")
        for line, words in enumerate(ABOUT[scale]):
            sheet.text(MARGIN, top + 0.38 + 0.15 * line, words, 6.5, theme.faint)
        for column in range(len(GAUSSIANS)):
            x = left + column * (LIT + GAP)
            sheet.picture(x, top, varied.lit[scale][column], LIT)
            offset = "  ".join(_signed(value) for value in varied.offsets[scale][column])
            sheet.text(x, top + LIT + 0.14, offset, 6.5, theme.faint)


ABOUT = {
    "none": ("no offset",),
    "stddev": ("0.1 g times the", "standard deviation", "along the first", "component: 2012"),
    "eigenvalue": ("0.1 g times the", "variance, with", "pixels of 0..1:", "the paper"),
}


def _means(sheet: Sheet, varied: Varied, x: float, y: float) -> None:
    theme = sheet.theme
    sheet.text(x, y, "The mean", 10, weight="bold")
    step = LIT + 0.34
    views = (
        (varied.mean, varied.mean_words),
        (_shifted(varied.less_mean), "mean subtracted; grey is 0"),
        (_shifted(varied.seen), "input of the net, epoch 1"),
    )
    for row, (pixels, words) in enumerate(views):
        sheet.picture(x, y + 0.32 + row * step, pixels, LIT)
        sheet.text(x, y + 0.32 + row * step + LIT + 0.14, words, 6.5, theme.faint)


def _signed(value: float, digits: int = 1) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}") if abs(value) >= 0.05 else "0"


def _shifted(values: np.ndarray) -> np.ndarray:
    """Map values around zero to a picture in which grey is zero: float (h, w, 3) to uint8."""
    return np.rint(np.clip(values / np.abs(values).max().clip(1e-9) * 127.5 + 127.5, 0, 255)).astype(np.uint8)
