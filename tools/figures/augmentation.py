"""`alexnet-figures augmentation`: one photo, and what the stream makes of it (paper, section 4.1).

In:  a shard set, trained on or not; a training record or a photo.  Out: its crops and reflections epoch by epoch, as
the plan draws them; its lighting in three scales; what is left when the mean is taken away.
Every picture comes out of the stream that training reads: see varied.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from ...model.recipes.recipe import RECIPES, recipe
from ...model.training import checkpoint as checkpoints
from ...model.weights.trained import load_trained
from ...pipeline.errors import UsageError
from ...pipeline.shards import stats
from ...pipeline.shards.manifest import open_shard_set
from .augmented import GAUSSIANS, SCALES, Varied, set_of_one, vary
from .open_run import FOLDER, SHARDS, folder_for
from .sheet import MARGIN, Sheet
from .style import DARK_OPTION, LIGHT, Theme, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CROPS = 6  # as many as there are colours
WIDTH, GAP = 10.0, 0.12  # inches
EACH, BETWEEN = 1.73, 0.3  # inches of a crop, and between two rows of them
BIG = 2 * EACH + BETWEEN  # inches of the stored picture
LIT = 1.2  # inches of a lit picture


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("run", required=False, type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder of the figure.  [default: RUN/figures, or figures]")
@SHARDS
@click.option(
    "--recipe", "name", type=click.Choice(list(RECIPES)), help="Whose crops.  [default: RUN's, or source2012]"
)
@click.option("--record", type=click.IntRange(0), default=0, show_default=True, help="Which training photo.")
@click.option(
    "--photo", type=click.Path(path_type=Path), help="A photo of your own instead; the set gives its numbers."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the plan.")
@DARK_OPTION
def augmentation(run, out, shards, name, record, photo, seed, dark):
    """Draw one photo, and what the stream makes of it: crops, reflections, lighting, the mean taken away.

    Of RUN, or of a shard set before anything was trained.

    \b
    Examples:
      alexnet-figures augmentation runs/source2012 --record 17
      alexnet-figures augmentation --shards out --recipe paper --photo cat.jpg
    """
    if run is None and shards is None:
        raise UsageError("neither a run nor a shard set", "name a run, or say --shards out")
    trained = load_trained(checkpoints.run_checkpoint(run)) if run else None
    chosen = trained.recipe if trained and not name else recipe(name or "source2012")
    where = shards or (trained.shards if trained else Path())
    if trained and not where.exists():
        raise UsageError(f"{trained.file}: its shard set {where} is gone", "say where it is with --shards")
    shard_set = open_shard_set(where)
    numbers = trained.stats if trained else stats.load_stats(shard_set)
    with set_of_one(photo, shard_set) as used:
        varied = vary(used, numbers, chosen, 0 if photo else record, seed, CROPS)
    what = photo.name if photo else f"training photo {record:,}"
    write(
        lambda look: draw(varied, what, chosen.name, look),
        folder_for(run, out) if run else out or Path("figures"),
        "augmentation",
        dark,
    )


def draw(varied: Varied, what: str, recipe_name: str, look: Theme = LIGHT) -> "Figure":
    """Draw a photo and its variations.

    Args:
        varied: what the stream made of it.
        what, recipe_name: which photo, and whose crops, for the title.
    """
    below = 0.98 + BIG + 0.6
    sheet = Sheet(WIDTH, below + 0.32 + len(SCALES) * (LIT + 0.34) + 0.2, look)
    crop = varied.crops[0].shape[0]
    about = f"{what}, recipe {recipe_name}: in each epoch another window, {crop}x{crop} in the end, reflected or not."
    sheet.head("One photo, and what the stream makes of it", about)
    _crops(sheet, varied, 0.98)
    _lights(sheet, varied, below)
    _means(sheet, varied, WIDTH - MARGIN - LIT, below)
    return sheet.figure


def _crops(sheet: Sheet, varied: Varied, y: float) -> None:
    look = sheet.look
    axes = sheet.picture(MARGIN, y, varied.stored, BIG)
    from matplotlib.patches import Rectangle

    for number, (left, top, width, height) in enumerate(varied.windows):
        color = look.lines[number % len(look.lines)]
        axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="#ffffff", linewidth=2.2, alpha=0.6))
        axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=color, linewidth=1.1))
    side = varied.stored.shape[0]
    sheet.text(MARGIN, y + BIG + 0.18, f"stored: {varied.stored.shape[1]}x{side}, and the windows", 7.5, look.faint)
    columns = (len(varied.crops) + 1) // 2
    for number, pixels in enumerate(varied.crops):
        x = MARGIN + BIG + 0.2 + number % columns * (EACH + GAP)
        down = y + number // columns * (EACH + BETWEEN)
        sheet.picture(x, down, pixels, EACH)
        sheet.bar(x, down + EACH + 0.03, EACH, 0.03, look.lines[number % len(look.lines)])
        said = f"epoch {number + 1}" + (", reflected" if varied.flips[number] else "")
        sheet.text(x, down + EACH + 0.18, said, 7.5, look.ink)


def _lights(sheet: Sheet, varied: Varied, y: float) -> None:
    """The lighting, a row a scale."""
    look, left = sheet.look, MARGIN + 1.05
    sheet.text(MARGIN, y, "Lighting", 10, weight="bold")
    for place, gaussian in enumerate(GAUSSIANS):
        sheet.text(left + place * (LIT + GAP), y + 0.24, f"g = {_signed(gaussian, 0)}", 7.5, look.faint)
    for row, scale in enumerate(SCALES):
        top = y + 0.32 + row * (LIT + 0.34)
        sheet.text(MARGIN, top + 0.2, scale, 9, weight="bold")
        for line, words in enumerate(ABOUT[scale]):
            sheet.text(MARGIN, top + 0.38 + 0.15 * line, words, 6.5, look.faint)
        for place in range(len(GAUSSIANS)):
            x = left + place * (LIT + GAP)
            sheet.picture(x, top, varied.lit[scale][place], LIT)
            offset = "  ".join(_signed(value) for value in varied.offsets[scale][place])
            sheet.text(x, top + LIT + 0.14, offset, 6.5, look.faint)


ABOUT = {
    "none": ("nothing is added",),
    "stddev": ("0.1 g times the", "standard deviation", "along the first", "component: 2012"),
    "eigenvalue": ("0.1 g times the", "variance, on", "pixels of 0..1:", "the text"),
}


def _means(sheet: Sheet, varied: Varied, x: float, y: float) -> None:
    look = sheet.look
    sheet.text(x, y, "The mean", 10, weight="bold")
    step = LIT + 0.34
    views = (
        (varied.mean, varied.mean_words),
        (_shifted(varied.less_mean), "less the mean; grey is zero"),
        (_shifted(varied.seen), "as the net gets it, epoch 1"),
    )
    for row, (pixels, words) in enumerate(views):
        sheet.picture(x, y + 0.32 + row * step, pixels, LIT)
        sheet.text(x, y + 0.32 + row * step + LIT + 0.14, words, 6.5, look.faint)


def _signed(value: float, digits: int = 1) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}") if abs(value) >= 0.05 else "0"


def _shifted(values: np.ndarray) -> np.ndarray:
    """Values around zero as a picture whose grey is zero."""
    return np.rint(np.clip(values / np.abs(values).max().clip(1e-9) * 127.5 + 127.5, 0, 255)).astype(np.uint8)
