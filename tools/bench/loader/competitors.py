"""Other people's loaders, each as its own documentation has it for speed: torchvision, WebDataset, what all share.

In:  a Job.  Out: an iterable of (images, labels) batches.
What holds for all: as many workers as cores, which live on from epoch to epoch; a full shuffle where the loader has
one; the stored JPEG bytes, decoded by libjpeg-turbo; pixels of 0..255 less the mean, so nothing is divided. Where the
documentation leaves a choice, the one that took the least processor time a picture was taken. With DataLoader's
workers it shows the transforms inside the workers, picture by picture, and so they are here.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, default_collate
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from .cases import CROP, Job
from .data import SPLIT


def torchvision_pil(job: Job) -> Iterable[Any]:
    """ImageFolder, Pillow, the v2 transforms on tensors, which its documentation prefers to those on PIL images."""
    return _data_loader(job, ImageFolder(job.folder / "files" / SPLIT, windows(job), allow_empty=True))


def torchvision_decode(job: Job) -> Iterable[Any]:
    """The same with torchvision's own decoder."""
    load = partial(decode_image, mode=ImageReadMode.RGB)
    return _data_loader(job, ImageFolder(job.folder / "files" / SPLIT, windows(job), loader=load, allow_empty=True))


def webdataset(job: Job) -> Iterable[Any]:
    """Shards drawn with replacement and a buffer of 1,000 pictures, its documented shuffle; batches made by workers.

    It leaves decoding to its user: torchvision's takes less time than its `decode("pil")`, and torch's collation,
    which writes into shared memory at once, less than its own.
    """
    import webdataset as wds

    urls = sorted(str(path) for path in (job.folder / "tars").glob("*.tar"))
    dataset = (
        wds.WebDataset(urls, resampled=True, shardshuffle=False, select_files=_is_wanted)
        .shuffle(1000)
        .to_tuple("jpg", "cls")
        .map_tuple(Decode(windows(job)), int)
        .batched(job.batch_size, collation_fn=default_collate)
    )
    return wds.WebLoader(dataset, batch_size=None, num_workers=job.workers, persistent_workers=True)


def _data_loader(job: Job, dataset: ImageFolder) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=job.batch_size,
        shuffle=True,
        num_workers=job.workers,
        drop_last=True,
        persistent_workers=True,
    )


def windows(job: Job) -> v2.Compose:
    """uint8 until nothing is left but the numbers' own work, as torchvision's page on performance says."""
    return v2.Compose(
        [
            v2.ToImage(),
            v2.RandomCrop(CROP),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32),
            v2.Normalize(job.mean().tolist(), [1.0] * 3, inplace=True),
            v2.ToPureTensor(),
        ]
    )


class Decode:
    """JPEG bytes to a float32 window; a class, as DataLoader may have to send it to its workers."""

    def __init__(self, transforms: v2.Compose):
        self._transforms = transforms

    def __call__(self, payload: bytes) -> torch.Tensor:
        encoded = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
        return self._transforms(decode_image(encoded, mode=ImageReadMode.RGB))


def _is_wanted(name: str) -> bool:
    return not name.endswith(".json")
