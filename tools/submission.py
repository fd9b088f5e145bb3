"""A submission file in ILSVRC's format: one line per photo with its most probable classes, sorted by file name.

In:  each batch's records and probabilities, the CSVs beside the shards.  Out: lines such as `391 12 7 3 904`.
Shards hold the photos in another order, so the lines are sorted in a temporary database on disk; only the file names
of one shard are in memory.

Classes are the shard set's labels, counted from 0; for ILSVRC's 1,000 classes in the devkit's order they are ILSVRC
IDs, counted from 1, as the evaluation server of 2012 required.
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from ..model.training.evaluate import most_probable
from ..pipeline.errors import ShardError
from ..pipeline.files import write_atomically
from ..pipeline.shards.manifest import Split
from ..pipeline.shards.records_csv import Row, listing_of, read_listing
from ..pipeline.sources.class_order import LABEL_ORDERS

TOP = 5
ILSVRC = 1000  # classes; in a set that lacks one, later labels are not IDs


class Predictions:
    """Collects the most probable classes of each photo of a split; pass its `see` to `evaluate`.

    Args:
        label_order: how the classes are numbered, as in dataset.json.
        classes: their number.
    """

    def __init__(self, split: Split, label_order: str, classes: int):
        self.first = 1 if label_order == LABEL_ORDERS["devkit"] and classes == ILSVRC else 0
        self._names = _Names(split)
        self._lines = sqlite3.connect("")  # a temporary file that is deleted on close
        self._lines.execute("CREATE TABLE lines (name BLOB, path BLOB, classes TEXT)")

    def see(self, records: np.ndarray, labels: Tensor, probabilities: Tensor) -> None:
        """Collect a batch's classes.

        Args:
            records: int64 (n,), ascending over the calls.
            probabilities: (n, classes).
        Raises:
            ShardError: a shard's CSV is missing or damaged.
            TrainingError: the probabilities are not finite.
        """
        best = (most_probable(probabilities, TOP) + self.first).tolist()
        paths = [os.fsencode(self._names.path(record)) for record in records.tolist()]
        rows = [
            (path.rpartition(b"/")[2], path, " ".join(map(str, row))) for path, row in zip(paths, best, strict=True)
        ]
        self._lines.executemany("INSERT INTO lines VALUES (?, ?, ?)", rows)

    def write(self, path: Path) -> None:
        """Write the file; photos with equal file names are in the order of their paths."""
        ordered = self._lines.execute("SELECT classes FROM lines ORDER BY name, path")
        write_atomically(path, lambda file: file.writelines(f"{classes}\n".encode() for (classes,) in ordered))

    def close(self) -> None:
        """Close and delete the database."""
        self._lines.close()

    def numbering(self) -> str:
        """Return how classes are numbered, as text."""
        return "ILSVRC IDs, from 1" if self.first else "labels of the shard set, from 0"


class _Names:
    """Paths of a split's photos by record, with one shard's CSV in memory at a time."""

    def __init__(self, split: Split):
        self._shards: Iterator[tuple[Path, int]] = ((folder, file.records) for folder, file in split.shards)
        self._rows: list[Row] = []
        self._first = 0

    def path(self, record: int) -> str:
        """Return a photo's path; records must be in ascending order."""
        while record >= self._first + len(self._rows):
            self._first += len(self._rows)
            folder, records = next(self._shards)
            self._rows = read_listing(folder)
            if len(self._rows) != records:
                raise ShardError(
                    f"{listing_of(folder)}: {len(self._rows):,} rows, but the shard has {records:,} records",
                    "copy the CSV again, or rebuild its shard: alexnet-prep verify --repair",
                )
        return self._rows[record - self._first].source_path
