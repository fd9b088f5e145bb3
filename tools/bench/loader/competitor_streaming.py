"""MosaicML Streaming over the crops: its own writer and data set. Imported only if it is installed.

In:  a Job.  Out: an iterable of (images, labels) batches.
"""

from pathlib import Path

import streaming
import torch
from torch.utils.data import DataLoader

from .cases import Job
from .competitors import Decode, windows
from .data import crops_of, write_once


def loader(job: Job) -> DataLoader:
    """MDS shards of the default 64 MB on the local disk, so that nothing is downloaded; its default shuffle.

    JPEG files are stored as bytes and decoded by torchvision, which is faster than its `jpeg` type, which uses Pillow.
    """
    target = write_once(job.folder / "streaming", lambda part: _write(job, part))
    dataset = _Windows(target, job.batch_size, Decode(windows(job)))
    return DataLoader(
        dataset, batch_size=job.batch_size, num_workers=job.workers, drop_last=True, persistent_workers=True
    )


def _write(job: Job, target: Path) -> None:
    with streaming.MDSWriter(out=str(target), columns={"image": "bytes", "label": "int"}) as writer:
        for payload, label in crops_of(job.crops()):
            writer.write({"image": bytes(payload), "label": label})


class _Windows(streaming.StreamingDataset):
    """Applies the transforms, in a subclass as in its documentation."""

    def __init__(self, folder: Path, batch_size: int, decode: Decode):
        super().__init__(local=str(folder), shuffle=True, batch_size=batch_size)
        self._decode = decode

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        sample = super().__getitem__(index)
        return self._decode(sample["image"]), sample["label"]
