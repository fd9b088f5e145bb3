"""FFCV over the crops: its own writer and loader. Imported only if FFCV is installed.

In:  a Job.  Out: an iterable of (images, labels) batches.
"""

from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter

from ....pipeline.shards.manifest import ShardSet
from ....pipeline.stream.record_reader import RecordReader
from .cases import CROP, Job
from .data import SPLIT, write_once

_JPEG = 0  # IMAGE_MODES["jpg"]


def loader(job: Job) -> Loader:
    """FFCV's loader with all workers, the page cache, a full shuffle and its compiled normalisation.

    It has no random crop, so RandomResizedCrop with a fixed scale crops the same windows and resizes 224 to 224.
    NormalizeImage before ToTensor is compiled and parallel, and takes a quarter of the time of Convert and
    torchvision's Normalize after ToTensor, as in some of its examples.
    """
    crops = job.crops()
    encoded = crops.encoding == "jpeg"
    # The same file for float32 and uint8.
    target = write_once(job.folder / f"ffcv-{job.case.form}.beton", lambda part: _write(job, part))

    share = (CROP / crops.size) ** 2
    images = [RandomResizedCropRGBImageDecoder((CROP, CROP), (share, share), (1.0, 1.0)), RandomHorizontalFlip()]
    if job.case.output == "f32":
        images.append(NormalizeImage(job.mean(), np.ones(3), np.float32))
    return Loader(
        str(target),
        batch_size=job.batch_size,
        num_workers=job.workers,
        os_cache=True,
        order=OrderOption.RANDOM,
        drop_last=True,
        custom_fields={"image": RGBImageField} if encoded else {},
        pipelines={"image": [*images, ToTensor(), ToTorchImage()], "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )


def _write(job: Job, target: Path) -> None:
    crops = job.crops()
    image = _StoredJpeg(crops.size) if crops.encoding == "jpeg" else RGBImageField(write_mode="raw")
    writer = DatasetWriter(str(target), {"image": image, "label": IntField()}, num_workers=job.workers)
    writer.from_indexed_dataset(_Records(crops))


class _StoredJpeg(RGBImageField):
    """Stores a JPEG file unchanged: FFCV's own field would encode the pixels again, 8% larger."""

    def __init__(self, side: int):
        super().__init__(write_mode="jpg")
        self._side = side

    def encode(self, destination: Any, image: np.ndarray, malloc: Any) -> None:
        destination["mode"] = _JPEG
        destination["height"] = destination["width"] = self._side
        destination["data_ptr"], storage = malloc(image.nbytes)
        storage[:] = image


class _Records:
    """A shard set as an indexed data set of (payload, label)."""

    def __init__(self, crops: ShardSet):
        self._crops = crops
        self._reader: RecordReader | None = None

    def __len__(self) -> int:
        return self._crops.split(SPLIT).records

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if self._reader is None:  # opened in the process that reads
            self._reader = RecordReader(self._crops, SPLIT)
        payloads = self._reader.read(np.array([index]))
        return payloads.data[0], int(payloads.labels[0])
