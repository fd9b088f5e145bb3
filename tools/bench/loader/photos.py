"""Original photos, resized and cropped online: what most loaders read, beside ours over shards prepared from them.

In:  a folder of photos of any sizes.  Out: in the benchmark's folder, as many records as the crops have,

    originals/train/CLASS/  links to the photos, repeated where there are fewer
    photos/                 the shard set that build-lmdb makes of them, with statistics

and the loaders of the `photos` cases: the short side to 256 pixels, then a random 224x224 window, half of them flipped.
"""

import importlib
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from ....pipeline.errors import UsageError
from ....pipeline.prepare.build import build_shards
from ....pipeline.prepare.options import BuildOptions
from ....pipeline.shards import stats
from ....pipeline.sources.find import find_photos
from .cases import Job
from .data import SPLIT

FORM, ORIGINALS = "photos", "originals"  # the name of the cases' form is also the folder of the prepared set
SHORT_SIDE = 256
_SUFFIXES = (".jpg", ".jpeg")
_COLOURS = ("YCbCr", "RGB", "Gray")  # every decoder here makes RGB of these; not of CMYK


@dataclass(frozen=True)
class Photos:
    """The photos of the cases.

    Attributes:
        paths: of the photos in use.
        left_out: number of files that are no JPEG, or have other colours than RGB and grey.
    """

    paths: tuple[Path, ...]
    left_out: int

    def lay_out(self, folder: Path, records: int, pool: Executor) -> str:
        """Link the photos, and build our shard set of them.

        Args:
            folder: the benchmark's.
            records: number of records, with repetitions.
        Returns:
            A line about the photos and the time that preparing them took.
        """
        root = folder / ORIGINALS
        for number in range(records):
            path = self.paths[number % len(self.paths)]
            target = root / SPLIT / path.parent.name / f"{number:07d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(path.absolute(), target)
        started = time.perf_counter()
        shard_set, _ = build_shards(find_photos(root, split=SPLIT), folder / FORM, BuildOptions(), pool)
        stats.save_stats(stats.measure_stats(shard_set, pool, SPLIT), shard_set.root)
        seconds = time.perf_counter() - started
        repeated = f", repeated by links to {records:,}" if records > len(self.paths) else ""
        left_out = f", {self.left_out:,} left out" if self.left_out else ""
        return (
            f"photos: {len(self.paths):,} in their original sizes{repeated}{left_out}; ours-photos-f32 reads shards "
            f"that were prepared from them, once, in {seconds:.1f} s"
        )


def choose_photos(source: Path, records: int) -> Photos:
    """Choose JPEG photos at any depth of a folder; the folder of a photo is its class.

    Args:
        records: most photos; of more, as many evenly chosen ones are used.
    Raises:
        UsageError: there is none that can be used.
    """
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    chosen = [found[k] for k in np.linspace(0, len(found) - 1, min(len(found), records)).astype(int)]
    usable = tuple(path for path in chosen if _is_usable(path))
    if not usable:
        raise UsageError(
            f"{source}: no JPEG photo found", "give --photos a folder with .jpg or .jpeg files, or leave it out"
        )
    return Photos(usable, len(chosen) - len(usable))


def _is_usable(path: Path) -> bool:
    try:
        return simplejpeg.decode_jpeg_header(path.read_bytes())[2] in _COLOURS
    except ValueError:
        return False


def torchvision(job: Job) -> Iterable[Any]:
    """ImageFolder with torchvision's decoder, and v2.Resize on uint8 tensors."""
    from torchvision.io import ImageReadMode, decode_image

    return _image_folder(job, partial(decode_image, mode=ImageReadMode.RGB))


def torchcodec(job: Job) -> Iterable[Any]:
    """The same with TorchCodec's decoder."""
    from torchcodec import decoders

    return _image_folder(job, decoders.decode_image)


def _image_folder(job: Job, decode: Any) -> Iterable[Any]:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    from .competitors import data_loader, windows

    transforms = windows(job, v2.Resize(SHORT_SIDE))
    return data_loader(job, ImageFolder(job.folder / ORIGINALS / SPLIT, transforms, loader=decode))


def native(job: Job) -> Iterator[Any]:
    """DALI's file reader, decoder, resize and crop_mirror_normalize, as in its ImageNet example."""
    from .cases import native_batches

    dali: Any = importlib.import_module("nvidia.dali")

    def photos() -> Any:
        data, label = dali.fn.readers.file(
            file_root=str(job.folder / ORIGINALS / SPLIT), shuffle_after_epoch=True, name="files"
        )
        pictures = dali.fn.decoders.image(data, device="cpu", output_type=dali.types.RGB, adjust_orientation=False)
        return dali.fn.resize(pictures, resize_shorter=SHORT_SIDE), label

    return native_batches(job, photos)
