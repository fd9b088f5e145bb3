"""Other loaders, each configured for speed by its own documentation: torchvision, WebDataset, and shared transforms.

In:  a Job.  Out: an iterable of (images, labels) batches.
In all of them: as many workers as ours, persistent over epochs; a full shuffle if the loader has one; the stored JPEG
bytes, decoded by libjpeg-turbo; pixels of 0..255 minus the mean, without a division. If the documentation leaves a
choice, the one with the least processor time per picture is used. The transforms run in DataLoader's workers, picture
by picture, as the documentation shows.
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
    """ImageFolder, Pillow, and v2 transforms on tensors, which its documentation prefers to those on PIL images."""
    return _data_loader(job, ImageFolder(job.folder / "files" / SPLIT, windows(job), allow_empty=True))


def torchvision_decode(job: Job) -> Iterable[Any]:
    """The same with torchvision's own decoder."""
    load = partial(decode_image, mode=ImageReadMode.RGB)
    return _data_loader(job, ImageFolder(job.folder / "files" / SPLIT, windows(job), loader=load, allow_empty=True))


def webdataset(job: Job) -> Iterable[Any]:
    """WebDataset with its documented shuffle: shards drawn with replacement, a buffer of 1,000 pictures.

    Batches are made by the workers. torchvision's decoder is faster than `decode("pil")`, and torch's collation, which
    writes directly into shared memory, is faster than its own.
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
    """Return the transforms; uint8 as long as possible, as torchvision's performance guide recommends."""
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
    """Decodes JPEG bytes to a float32 window; a class, because DataLoader may have to pickle it for its workers."""

    def __init__(self, transforms: v2.Compose):
        self._transforms = transforms

    def __call__(self, payload: bytes) -> torch.Tensor:
        encoded = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
        return self._transforms(decode_image(encoded, mode=ImageReadMode.RGB))


def _is_wanted(name: str) -> bool:
    return not name.endswith(".json")
