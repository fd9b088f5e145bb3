"""The CSV beside a shard, which says where each record came from; and a split's records per class.

In:  `NAME.csv` beside `NAME.lmdb`.  Out: its rows, in key order; counts.
Used by commands that need more than label and pixels: `verify`, `info`, `export`. Training does not read it.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import ShardError
from .manifest import ShardSet

COLUMNS = ("key", "label", "source_path", "source_width", "source_height")


class Row(NamedTuple):
    """One row: the record's key and label, its photo's path relative to the source and size in pixels."""

    key: str
    label: int
    source_path: str
    source_width: int
    source_height: int


def listing_of(folder: Path) -> Path:
    """Return the path of the CSV that belongs to a shard's folder."""
    return folder.with_suffix(".csv")


def read_listing(folder: Path) -> list[Row]:
    """Read the CSV of a shard; columns may be in any order, unknown ones are ignored.

    Args:
        folder: of the shard, `NAME.lmdb`.
    Raises:
        ShardError: missing or invalid; the message names the row.
    """
    path = listing_of(folder)
    hint = "copy the CSV again, or rebuild its shard: alexnet-prep verify --repair"
    rows: list[Row] = []
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                raise ShardError(f"{path}: no column {', '.join(missing)}", hint)
            key, label, source_path, width, height = (header.index(name) for name in COLUMNS)
            for line in lines:
                if len(line) != len(header):
                    raise ValueError(f"has {len(line)} columns, not {len(header)}")
                rows.append(Row(line[key], int(line[label]), line[source_path], int(line[width]), int(line[height])))
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}", hint) from None
    except (csv.Error, ValueError, IndexError) as error:
        raise ShardError(f"{path}, row {len(rows)}: {error}", hint) from None
    return rows


@dataclass(frozen=True)
class ClassCounts:
    """The labels and sizes of one split.

    Attributes:
        labels: int64 (records,), in the order of the shards; -1 for none.
        sides: int64 (records, 2), width and height of the original photos, pixels.
        per_class: int64 (classes,), number of records of each class; unlabelled ones are not counted.
    """

    labels: np.ndarray
    sides: np.ndarray
    per_class: np.ndarray


def class_counts(shard_set: ShardSet, split: str) -> ClassCounts:
    """Count the records of a split.

    Raises:
        ShardError: a CSV is missing or damaged.
    """
    rows = [
        (row.label, row.source_width, row.source_height)
        for folder, _ in shard_set.splits[split].shards
        for row in read_listing(folder)
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    labels = table[:, 0]
    known = labels[(labels >= 0) & (labels < len(shard_set.classes))]
    return ClassCounts(labels, table[:, 1:], np.bincount(known, minlength=len(shard_set.classes)))
