"""The cases of `alexnet-bench prep` that run in worker processes: the decoder's limit and other implementations.

In:  a folder of photo files.  Out: functions that process photos start..stop-1 and return their number.
The limit and the other implementations read and write no files and need no start-up, which is in their favour.
"""

import io
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from ...pipeline.prepare.decode import decode
from ...pipeline.prepare.pillow_settings import pillow_settings
from ...pipeline.prepare.resize import fit_pixels
from ...pipeline.shards.datum import record_pixels
from ...pipeline.shards.lmdb_shard import Shard, ShardFile

SIZE, QUALITY = 256, 95


@lru_cache(maxsize=1)
def photos(folder: str) -> tuple[bytes, ...]:
    """Return the bytes of all photos of a folder; each process keeps them."""
    return tuple(path.read_bytes() for path in sorted(Path(folder).iterdir()))


@lru_cache(maxsize=1)
def _crops(folder: str) -> tuple[np.ndarray, ...]:
    """Return their crops, decoded and resized: uint8 (256, 256, 3) each."""
    return tuple(fit_pixels(decode(photo), SIZE) for photo in photos(folder))


def _photos(folder: str, start: int, stop: int):
    kept = photos(folder)
    return ((kept[k % len(kept)], k % len(kept)) for k in range(start, stop))


def limit(folder: str, start: int, stop: int) -> int:
    """Only libjpeg-turbo: decode the photo, encode the prepared crop."""
    crops = _crops(folder)
    for photo, k in _photos(folder, start, stop):
        _decoded(photo)
        simplejpeg.encode_jpeg(crops[k], quality=QUALITY, colorspace="RGB", colorsubsampling="420", fastdct=False)
    return stop - start


def limit_decode(folder: str, start: int, stop: int) -> int:
    """Only libjpeg-turbo's decoding."""
    for photo, _ in _photos(folder, start, stop):
        _decoded(photo)
    return stop - start


def _opened(file: io.BytesIO | Path) -> Image.Image:
    """Decode a photo with Pillow, however large it is."""
    with pillow_settings(truncated=False):
        return Image.open(file).convert("RGB")


def pillow_box(folder: str, start: int, stop: int) -> int:
    """Pillow at its fastest: the central square is resized with `box=`."""
    for photo, _ in _photos(folder, start, stop):
        image = _opened(io.BytesIO(photo))
        width, height = image.size
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        small = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))
        small.save(io.BytesIO(), "JPEG", quality=QUALITY)
    return stop - start


def pillow(folder: str, start: int, stop: int) -> int:
    """Pillow as torchvision's Resize and CenterCrop use it."""
    for photo, _ in _photos(folder, start, stop):
        image = _opened(io.BytesIO(photo))
        width, height = image.size
        sides = (SIZE * width // height, SIZE) if width > height else (SIZE, SIZE * height // width)
        image = image.resize(sides, Image.Resampling.BILINEAR)
        left, top = (sides[0] - SIZE) // 2, (sides[1] - SIZE) // 2
        image.crop((left, top, left + SIZE, top + SIZE)).save(io.BytesIO(), "JPEG", quality=QUALITY)
    return stop - start


def opencv(folder: str, start: int, stop: int) -> int:
    """OpenCV, as the authors' tool: the whole picture is resized by area averaging, then cropped."""
    for photo, _ in _photos(folder, start, stop):
        pixels = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        assert pixels is not None, "OpenCV decodes ImageNet's photos"
        height, width = pixels.shape[:2]
        short = min(height, width)
        sides = (round(width * SIZE / short), round(height * SIZE / short))
        pixels = cv2.resize(pixels, sides, interpolation=cv2.INTER_AREA if short > SIZE else cv2.INTER_CUBIC)
        left, top = (sides[0] - SIZE) // 2, (sides[1] - SIZE) // 2
        cv2.imencode(".jpg", pixels[top : top + SIZE, left : left + SIZE], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return stop - start


def limit_records(shard: Path, file: ShardFile) -> int:
    """Only decode the records of a shard: the limit for `verify` and `pca-stats`."""
    records = Shard(shard, file)
    for index in range(file.records):
        record_pixels(records.value(index))
    return file.records


def ffcv(folder: str, total: int, workers: int, target: Path) -> int:
    """FFCV's own writer: the same files to the same 256x256 crops, start-up included, as for build-lmdb."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    image = RGBImageField(write_mode="jpg", max_resolution=SIZE, jpeg_quality=QUALITY)
    writer = DatasetWriter(str(target), {"image": image, "label": IntField()}, num_workers=workers)
    writer.from_indexed_dataset(_Squares(folder, total))
    return total


class _Squares:
    """The central squares of photos as an indexed data set of (PIL image, label); FFCV's field resizes them."""

    def __init__(self, folder: str, total: int):
        self._paths, self._total = sorted(Path(folder).iterdir()), total

    def __len__(self) -> int:
        return self._total

    def __getitem__(self, index: int):
        image = _opened(self._paths[index % len(self._paths)])
        width, height = image.size
        short = min(width, height)
        left, top = (width - short) // 2, (height - short) // 2
        return image.crop((left, top, left + short, top + short)), 0


def _decoded(photo: bytes) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(photo, colorspace="RGB")
    except ValueError:  # not a plain JPEG
        return decode(photo)
