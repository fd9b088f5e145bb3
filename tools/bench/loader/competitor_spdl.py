"""SPDL over JPEG files: crops, or original photos. Imported only if SPDL is installed.

In:  a Job.  Out: an iterable of (images, labels) batches.
"""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from spdl.dataloader import DataLoader
from spdl.source.utils import repeat_source
from torchvision.datasets import ImageFolder

from .cases import Job
from .competitors import Windows
from .data import SPLIT
from .photos import ORIGINALS, SHORT_SIDE


def loader(job: Job) -> Iterable[Any]:
    """SPDL's DataLoader as in its ImageNet example: shuffled paths, and threads that make whole batches.

    A thread decodes with libjpeg-turbo, without the interpreter's lock: three times as fast here as spdl.io's image
    decoder, which is FFmpeg's and would have to be installed beside it. For photos the thread also shrinks.
    """
    torch.set_num_threads(1)  # in each of its threads
    photos = job.case.form == "photos"
    root = job.folder / (ORIGINALS if photos else "files") / SPLIT
    windows = Windows(job, SHORT_SIDE if photos else 0)

    def batch(samples: list[tuple[str, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        return windows([(_read(path), label) for path, label in samples])

    batches: Any = DataLoader(  # SPDL declares __iter__ as an Iterable, which no Iterable's is
        repeat_source(_Samples(ImageFolder(root, allow_empty=True).samples)),
        aggregator=batch,
        batch_size=job.batch_size,
        num_threads=job.workers,
    )
    return batches


class _Samples:
    """Paths and labels that `repeat_source` shuffles before each epoch."""

    def __init__(self, samples: list[tuple[str, int]]):
        self._samples = samples

    def shuffle(self, seed: int) -> None:
        random.Random(seed).shuffle(self._samples)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._samples)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
