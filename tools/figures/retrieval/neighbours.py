"""`alexnet-figures neighbours`: photos of a split and the training photos nearest to each (figure 4, right).

In:  a run and its index.  Out: neighbours.png and .svg.
The distance is the paper's: Euclidean, between activations of the last hidden layer, not between pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import cv2
import numpy as np

from ....model.analysis import features
from ....model.analysis.nearest import nearest
from ....pipeline.errors import UsageError
from ....pipeline.plan.philox import permutation
from ... import options
from .. import open_run
from ..open_run import Opened
from ..style import DARK_OPTION, LIGHT, Theme, new_figure, write
from . import vectors
from .records import pictures_of, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEAREST = 6  # as in the paper's figure
CELL, GAP, EDGE, CAPTION = 1.18, 0.30, 0.14, 0.26  # inches: picture, gap after the queries, margin, caption
PIXELS = 180  # side of a picture in the figure, as in the PNG: an SVG holds 35 of them, 75 kB each


@dataclass(frozen=True)
class Shown:
    """A photo in the figure.

    Attributes:
        pixels: uint8 (height, width, 3).
        name: of its class, or of its file; "" for none.
        distance: from the query, as text; "" for the query itself.
        same: whether it is of the query's class; None if that is unknown.
    """

    pixels: np.ndarray
    name: str
    distance: str = ""
    same: bool | None = None


@dataclass(frozen=True)
class Neighbours:
    """A row of the figure: a query photo and its neighbours, nearest first."""

    query: Shown
    found: Sequence[Shown]


@click.command(context_settings=options.SETTINGS)
@open_run.of_a_run
@options.index_folder
@click.option("--count", type=click.IntRange(1, 50), default=5, show_default=True, help="Number of photos, a row each.")
@click.option("--records", help="Record numbers in the split: 12,7,391.  [default: drawn, of different classes]")
@options.seed("Seed of the draw.")
@DARK_OPTION
def neighbours(run, out, shards, split, device, index_folder, count, records, seed, dark):
    """Draw photos of a split and the six training photos nearest to each by the last hidden layer of RUN (figure 4).

    Requires the index that alexnet-figures index writes. Each picture's class is printed below it: dark if it is the
    class of the photo on the left, red if not.

    \b
    Examples:
      alexnet-figures neighbours runs/source2012
      alexnet-figures neighbours runs/source2012 --records 12,7,391
    """
    opened = open_run.open_run(run, shards, device, other_classes=True)
    index = vectors.open_index(opened, index_folder)
    chosen = _parse_records(records, opened, split) if records else draw_records(opened, split, count, seed)
    rows = rows_of_split(opened, index, split, chosen)
    same = [one.same for row in rows for one in row.found if one.same is not None]
    write(lambda theme: draw_neighbours(rows, theme), open_run.folder_for(run, out), "neighbours", dark)
    if same:
        click.echo(f"{sum(same)} of {len(same)} neighbours are of the photo's own class")


def rows_of_split(opened: Opened, index: vectors.Index, split: str, records: np.ndarray) -> list[Neighbours]:
    """Return photos of a split with their neighbours, ready to draw.

    Args:
        records: int64 (q,), record numbers of the split.
    Raises:
        ShardError: a photo, or its shard's CSV, is damaged.
    """
    pictures = pictures_of(opened.shard_set, split, records)
    labels = [row.label for row in rows_of(opened.shard_set, split, records)]
    queries = features.of_pictures(opened.trained, pictures, device=opened.device)
    # A training photo is its own nearest neighbour; leave it out.
    own = split == vectors.SPLIT
    found, distances = nearest(index.vectors, queries, NEAREST + own)
    rows = []
    for picture, label, record, near, far in zip(pictures, labels, records, found, distances, strict=True):
        keep = (near != record if own else near >= 0).nonzero()[0][:NEAREST]
        query = Shown(picture, opened.names[label] if label >= 0 else "")
        rows.append(Neighbours(query, shown(opened, near[keep], [f"{d:.2f}" for d in far[keep]], label)))
    return rows


def shown(opened: Opened, records: np.ndarray, distances: Sequence[str], label: int = -1) -> list[Shown]:
    """Return training photos to draw, with their distances from a photo of class `label`; -1 if that is unknown.

    Args:
        records: int64 (n,), record numbers of the training split.
        distances: n texts.
    """
    pictures = pictures_of(opened.shard_set, vectors.SPLIT, records)
    rows, names = rows_of(opened.shard_set, vectors.SPLIT, records), opened.names
    return [
        Shown(picture, names[row.label], distance, row.label == label if label >= 0 else None)
        for picture, row, distance in zip(pictures, rows, distances, strict=True)
    ]


def draw_records(opened: Opened, split: str, count: int, seed: int) -> np.ndarray:
    """Draw photos of a split at random, of different classes while possible: int64 (count,), or fewer."""
    records = opened.shard_set.split(split).records
    order = permutation(records, seed)
    some = order[: max(count, 20 * count)]  # enough for different classes, without reading every shard's CSV
    labels = [row.label for row in rows_of(opened.shard_set, split, some)]
    seen: dict[int, int] = {}  # photos of each class so far
    turns = []
    for label in labels:
        turns.append(seen.get(label, 0))
        seen[label] = turns[-1] + 1
    return some[np.argsort(turns, kind="stable")[:count]]


def draw_neighbours(rows: Sequence[Neighbours], theme: Theme = LIGHT) -> "Figure":
    """Draw a row for each photo: the photo, a line, and its neighbours from left to right."""
    from matplotlib.lines import Line2D

    most = max(len(row.found) for row in rows)
    width = 2 * EDGE + (1 + most) * CELL + GAP
    height = 2 * EDGE + len(rows) * (CELL + CAPTION) + 0.1
    figure = new_figure(width, height, theme)

    def caption(x: float, y: float, text: str, colour: str, **style) -> None:
        figure.text(x / width, y / height, text, color=colour, **{"fontsize": 6.5, "va": "top", **style})

    def put(one: Shown, left: float, bottom: float) -> None:
        axes = figure.add_axes((left / width, bottom / height, (CELL - 0.06) / width, (CELL - 0.06) / height))
        axes.imshow(_small(one.pixels), interpolation="none")
        axes.set_axis_off()
        colour = theme.right if one.same is False else theme.ink
        room = 16 if one.distance else 24
        caption(left, bottom - 0.04, _shortened(one.name, room), colour)
        caption(left + CELL - 0.06, bottom - 0.04, one.distance, theme.faint, ha="right")

    for place, row in enumerate(rows):
        bottom = height - EDGE - 0.1 - (place + 1) * (CELL + CAPTION) + CAPTION
        put(row.query, EDGE, bottom)
        for column, one in enumerate(row.found):
            put(one, EDGE + GAP + (1 + column) * CELL, bottom)
    x = (EDGE + CELL + GAP / 2 - 0.03) / width
    figure.add_artist(Line2D((x, x), (EDGE / height, 1 - EDGE / height), color=theme.grid, linewidth=1.2))
    caption(EDGE, height - EDGE + 0.07, "photo", theme.faint)
    caption(EDGE + GAP + CELL, height - EDGE + 0.07, "nearest training photos, with their distances", theme.faint)
    return figure


def _parse_records(text: str, opened: Opened, split: str) -> np.ndarray:
    records = opened.shard_set.split(split).records
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"--records {text}: not numbers", "for example --records 12,7,391") from None
    wrong = [number for number in numbers if not 0 <= number < records]
    if wrong:
        raise UsageError(
            f"--records {wrong[0]}: {split} has {records:,} photos", f"choose between 0 and {records - 1:,}"
        )
    return np.array(numbers, np.int64)


def _small(pixels: np.ndarray) -> np.ndarray:
    """Return the central square at the figure's size: uint8 (side, side, 3)."""
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square = pixels[top : top + side, left : left + side]
    return square if side <= PIXELS else cv2.resize(square, (PIXELS, PIXELS), interpolation=cv2.INTER_AREA)


def _shortened(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"
