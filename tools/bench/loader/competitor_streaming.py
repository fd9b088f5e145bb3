"""MosaicML Streaming over the crops: its own writer, then its own data set. Imported only where it is.

In:  a Job.  Out: an iterable of (images, labels) batches.
"""

from pathlib import Path

import streaming
import torch
from torch.utils.data import DataLoader

from .cases import Job
from .competitors import Decode, windows
from .data import crops_of


def loader(job: Job) -> DataLoader:
    """MDS shards of 64 MB, its default, that lie here already, so that nothing is downloaded; its default shuffle.

    JPEG files as bytes, decoded by torchvision, which takes less time than its own `jpeg`, which is Pillow's.
    """
    target = job.folder / "streaming"
    with streaming.MDSWriter(out=str(target), columns={"image": "bytes", "label": "int"}) as writer:
        for payload, label in crops_of(job.crops()):
            writer.write({"image": bytes(payload), "label": label})
    dataset = _Windows(target, job.batch_size, Decode(windows(job)))
    return DataLoader(
        dataset, batch_size=job.batch_size, num_workers=job.workers, drop_last=True, persistent_workers=True
    )


class _Windows(streaming.StreamingDataset):
    """Its documentation's way to transforms: a subclass."""

    def __init__(self, folder: Path, batch_size: int, decode: Decode):
        super().__init__(local=str(folder), shuffle=True, batch_size=batch_size)
        self._decode = decode

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        sample = super().__getitem__(index)
        return self._decode(sample["image"]), sample["label"]
