"""Grain over the crops: ArrayRecord files and its Dataset. Imported only if Grain is installed.

In:  a Job.  Out: an iterable of (images, labels) batches.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grain
import torch
from array_record.python.array_record_module import ArrayRecordWriter

from .cases import Job
from .competitors import Windows
from .data import crops_of, write_once

_LABEL = 4  # bytes, before the JPEG file


def loader(job: Job) -> Iterable[Any]:
    """A MapDataset of ArrayRecords, shuffled, batched and then read by threads.

    Of the documented ways the fastest here: batches are made before `to_iter_dataset`, so that its threads make whole
    ones. Pictures in its threads took 1.6 times as long, `mp_prefetch`, which copies each batch from its processes, 1.4
    to 3 times.
    """
    torch.set_num_threads(1)  # in each of its threads
    target = write_once(job.folder / "grain.array_record", lambda part: _write(job, part))
    windows = Windows(job)

    def batch(records: list[bytes]) -> tuple[torch.Tensor, torch.Tensor]:
        return windows([(record[_LABEL:], int.from_bytes(record[:_LABEL], "little")) for record in records])

    return (
        grain.MapDataset.source(grain.sources.ArrayRecordDataSource(str(target)))
        .seed(0)
        .shuffle()
        .repeat()  # another order in each epoch
        .batch(job.batch_size, drop_remainder=True, batch_fn=batch)
        .to_iter_dataset(grain.ReadOptions(num_threads=job.workers, prefetch_buffer_size=2 * job.workers))
    )


def _write(job: Job, target: Path) -> None:
    writer = ArrayRecordWriter(str(target), "group_size:1")  # as its documentation has it for random access
    for payload, label in crops_of(job.crops()):
        writer.write(label.to_bytes(_LABEL, "little") + payload)
    writer.close()
