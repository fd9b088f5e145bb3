"""Other loaders, configured for speed by their own documentation: torchvision, TorchCodec, WebDataset; and transforms.

In:  a Job.  Out: an iterable of (images, labels) batches.
In all of them: as many workers as ours, persistent over epochs; a full shuffle if the loader has one; the stored JPEG
bytes, decoded by libjpeg-turbo; pixels of 0..255 minus the mean, without a division. If the documentation leaves a
choice, the one with the least processor time per picture is used. `windows` are transforms that run in DataLoader's
workers, picture by picture, as the documentation shows; `Windows` makes whole batches, for loaders that call a function
for each batch.
"""

import random
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from torch.utils.data import DataLoader, default_collate
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from .cases import CROP, Job
from .data import SPLIT


def torchvision_pil(job: Job) -> Iterable[Any]:
    """ImageFolder, Pillow, and v2 transforms on tensors, which its documentation prefers to those on PIL images."""
    return data_loader(job, ImageFolder(job.folder / "files" / SPLIT, windows(job), allow_empty=True))


def torchvision_decode(job: Job) -> Iterable[Any]:
    """The same with torchvision's own decoder."""
    load = partial(decode_image, mode=ImageReadMode.RGB)
    return data_loader(job, ImageFolder(job.folder / "files" / SPLIT, windows(job), loader=load, allow_empty=True))


def torchcodec(job: Job) -> Iterable[Any]:
    """The same with TorchCodec's decoder, which replaces torchvision's, as its migration guide shows."""
    from torchcodec import decoders

    folder = job.folder / "files" / SPLIT
    return data_loader(job, ImageFolder(folder, windows(job), loader=decoders.decode_image, allow_empty=True))


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


def data_loader(job: Job, dataset: ImageFolder) -> DataLoader:
    """Return the DataLoader of a map-style data set."""
    return DataLoader(
        dataset,
        batch_size=job.batch_size,
        shuffle=True,
        num_workers=job.workers,
        drop_last=True,
        persistent_workers=True,
    )


def windows(job: Job, *before: v2.Transform) -> v2.Compose:
    """Return the transforms; uint8 as long as possible, as torchvision's performance guide recommends.

    Args:
        before: transforms of the whole picture.
    """
    return v2.Compose(
        [
            v2.ToImage(),
            *before,
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


class Windows:
    """Makes a batch of JPEG files and labels in one call, mostly without the interpreter's lock; can be pickled.

    Args:
        short_side: shrink or enlarge pictures to this short side first; 0, keep them.
    """

    def __init__(self, job: Job, short_side: int = 0):
        self._mean, self._short_side = np.tile(job.mean().astype(np.float32), CROP), short_side  # of a row's values

    def __call__(self, samples: Sequence[tuple[bytes, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = np.empty((len(samples), CROP, CROP, 3), np.uint8)
        for (payload, _), target in zip(samples, pixels, strict=True):
            picture = simplejpeg.decode_jpeg(payload)
            if self._short_side:
                scale = self._short_side / min(picture.shape[:2])
                size = [max(self._short_side, round(scale * side)) for side in (picture.shape[1], picture.shape[0])]
                picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            top, left = (random.randint(0, side - CROP) for side in picture.shape[:2])
            window = picture[top : top + CROP, left : left + CROP]
            if random.random() < 0.5:
                cv2.flip(window, 1, dst=target)
            else:
                target[:] = window
        images = (pixels.reshape(-1, CROP * 3) - self._mean).reshape(pixels.shape)  # twice as fast as torch's sub
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor([label for _, label in samples])


def _is_wanted(name: str) -> bool:
    return not name.endswith(".json")
