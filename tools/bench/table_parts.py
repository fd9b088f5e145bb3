"""What each part of the net and of the training is worth: the error without it, less the error with all of them.

In:  our rows (table_rows.py).  Out: the paper's differences and ours, where runs under equal conditions were given.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import mean

from .table_rows import Ours

WHOLE = "source2012"
# The part, the recipe that lacks it, and the points of top-1 / top-5 that the paper says (sections 3.2 to 4.2).
PARTS = (
    ("two columns, against one-gpu", "one-gpu", "1.7 / 1.2"),
    ("response normalisation (no-lrn)", "no-lrn", "1.4 / 1.2"),
    ("overlapping pooling (pool-2x2)", "pool-2x2", "0.4 / 0.3"),
    ("lighting (no-lighting)", "no-lighting", "over 1 / -"),
    ("dropout (no-dropout)", "no-dropout", "substantial"),
    ("random crops (no-crops)", "no-crops", "substantial"),
    ("columns that talk (no-talk)", "no-talk", ""),
    ("ReLU, against tanh", "tanh", ""),
)
MIDDLE = ("any middle layer", "about 2 / -")
TEN = ("ten views, against the centre", "1.5 / 1.3")


@dataclass(frozen=True)
class Part:
    """One row: differences as shares, positive where the part helps; None where no two runs can be compared."""

    name: str
    published: str
    ours_top1: float | None = None
    ours_top5: float | None = None
    conditions: str = ""


def parts(rows: Iterable[Ours]) -> list[Part]:
    """All rows; of several conditions, a row for each."""
    rows = list(rows)
    found: list[Part] = []
    for name, recipe, published in PARTS:
        compared = [
            _difference(name, published, without, whole)
            for without, whole in ((_of(group, recipe), _of(group, WHOLE)) for group in _alike(rows))
            if without and whole
        ]
        found += compared or [Part(name, published)]
    found.append(Part(*MIDDLE))
    centres = {_seen(row): row for row in rows if row.views == 1}
    pairs = [(centres[_seen(row)], row) for row in rows if row.views == 10 and _seen(row) in centres]
    found += [
        replace(_difference(*TEN, [centre], [ten]), conditions=f"{ten.name}: {ten.conditions}") for centre, ten in pairs
    ] or [Part(*TEN)]
    return found


def _alike(rows: list[Ours]) -> list[list[Ours]]:
    """Single runs that may be compared: trained on equal photos for as many epochs, measured in one way."""
    groups: dict[tuple, list[Ours]] = {}
    for row in rows:
        if len(row.recipes) == 1 and row.fingerprints[0]:
            key = (row.fingerprints, row.epochs, row.shards, row.split, row.views, row.resize)
            groups.setdefault(key, []).append(row)
    return list(groups.values())


def _of(group: list[Ours], recipe: str) -> list[Ours]:
    return [row for row in group if row.recipes == (recipe,)]


def _seen(row: Ours) -> tuple:
    return row.files, row.shards, row.split, row.resize


def _difference(name: str, published: str, without: list[Ours], whole: list[Ours]) -> Part:
    top1 = mean(row.top1_error for row in without) - mean(row.top1_error for row in whole)
    fives = [[row.top5_error for row in side if row.top5_error is not None] for side in (without, whole)]
    known = len(fives[0]) == len(without) and len(fives[1]) == len(whole)
    top5 = mean(fives[0]) - mean(fives[1]) if known else None
    seeds = f", {len(without)} against {len(whole)} runs" if len(without) + len(whole) > 2 else ""
    return Part(name, published, top1, top5, whole[0].conditions + seeds)
