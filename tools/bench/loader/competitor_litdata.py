"""LitData over the crops: its own writer and loader. Imported only if LitData is installed.

In:  a Job.  Out: an iterable of (images, labels) batches.
"""

import os
from pathlib import Path
from typing import Any

import litdata
import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from .cases import Job
from .competitors import windows
from .data import SPLIT, write_once


def loader(job: Job) -> litdata.StreamingDataLoader:
    """LitData's loader over JPEG items in chunks of 64 MB, which it decodes to tensors with torchvision."""
    target = write_once(job.folder / "litdata", lambda part: _write(job, part))
    dataset = litdata.StreamingDataset(str(target), shuffle=True, drop_last=True, transform=_Pair(windows(job)))
    return litdata.StreamingDataLoader(
        dataset, batch_size=job.batch_size, num_workers=job.workers, drop_last=True, persistent_workers=True
    )


def _write(job: Job, target: Path) -> None:
    work = str(job.folder / "litdata.work")
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = work
    litdata.optimize(
        fn=_stored,
        inputs=ImageFolder(job.folder / "files" / SPLIT, allow_empty=True).samples,
        output_dir=str(target),
        chunk_bytes="64MB",
        num_workers=job.workers,
    )


def _stored(sample: tuple[str, int]) -> dict[str, Any]:
    """Return an unchanged JPEG file and its label."""
    path, label = sample
    return {"image": litdata.Jpeg(path=path), "label": label}


class _Pair:
    """Maps an item to a window and a label."""

    def __init__(self, transforms: v2.Compose):
        self._transforms = transforms

    def __call__(self, item: dict[str, Any], *_: Any) -> tuple[torch.Tensor, int]:
        return self._transforms(item["image"]), item["label"]
