"""Lance over the crops: its own columns and loader. Imported only if Lance is installed.

In:  a Job.  Out: an iterable of (images, labels) batches.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
from lance.torch.data import SafeLanceDataset, get_safe_loader
from torch.utils.data import DataLoader

from .cases import Job
from .competitors import Windows
from .data import crops_of, write_once

_SCHEMA = pa.schema([("image", pa.binary()), ("label", pa.int64())])
_ROWS = 1024  # of a batch that is written


def loader(job: Job) -> DataLoader:
    """SafeLanceDataset, its data set for random access, by get_safe_loader, which spawns workers.

    A worker takes the rows of a batch at once; the collation decodes them.
    """
    target = write_once(job.folder / "crops.lance", lambda part: _write(job, part))
    return get_safe_loader(
        SafeLanceDataset(str(target)),
        batch_size=job.batch_size,
        num_workers=job.workers,
        shuffle=True,
        drop_last=True,
        collate_fn=_Collate(Windows(job)),
    )


def _write(job: Job, target: Path) -> None:
    lance.write_dataset(pa.RecordBatchReader.from_batches(_SCHEMA, _batches(job)), str(target), schema=_SCHEMA)


def _batches(job: Job) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    for payload, label in crops_of(job.crops()):
        rows.append({"image": bytes(payload), "label": label})
        if len(rows) == _ROWS:
            yield pa.RecordBatch.from_pylist(rows, _SCHEMA)
            rows = []
    yield pa.RecordBatch.from_pylist(rows, _SCHEMA)


class _Collate:
    """Rows to a batch; a class, because spawned workers get it pickled."""

    def __init__(self, windows: Windows):
        self._windows = windows

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        return self._windows([(row["image"], row["label"]) for row in rows])
