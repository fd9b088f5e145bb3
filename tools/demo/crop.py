"""A photo as it came, and what the offline stage keeps of it (paper, section 2).

In:  an upload.  Out: its bytes; a Whole, small enough for a page.  The stored picture itself is `as_stored`'s.
"""

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from ...pipeline.errors import SourceError, UsageError
from ...pipeline.prepare.decode import PhotoError, decode
from ...pipeline.prepare.options import options_of
from ...pipeline.prepare.resize import fitted_sides
from ...pipeline.shards.manifest import ShardSet

SHOWN = 720  # pixels of the whole photo's long side on the page


class Whole(NamedTuple):
    """A photo before the offline stage: uint8 (h, w, 3) made small, sides in pixels as it came, and the square that is
    kept, left, top, width and height as shares of the sides."""

    pixels: np.ndarray
    width: int
    height: int
    kept: tuple[float, float, float, float]
    turned: bool  # a camera's note says to turn it, and the set was built without looking at such notes


def read_upload(path: Path, most: int) -> bytes:
    """An uploaded file's bytes.

    Raises:
        UsageError: it is larger than `most` bytes, or gone.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"{path.name}: {error.strerror}", "choose the photo again") from None
    if len(data) > most:
        raise UsageError(f"{path.name}: more than {most >> 20} MB", "choose a smaller file")
    return data


def whole_photo(data: bytes, name: str, shard_set: ShardSet) -> Whole:
    """The photo before the offline stage, made small, and what that stage keeps of it.

    Raises:
        SourceError: it cannot be decoded completely, or is too large.
    """
    options = options_of(shard_set.manifest)
    try:
        pixels = decode(
            data, exif=options.exif, max_pixels=options.max_pixels, accept_truncated=options.accept_truncated
        )
    except PhotoError as error:
        raise SourceError(f"{name}: {error}", "choose a photo: JPEG, PNG, GIF, BMP, WebP or TIFF") from None
    height, width = pixels.shape[:2]
    scale = min(1.0, SHOWN / max(height, width))
    sides = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, sides, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    turned = options.exif == "ignore" and _noted_orientation(data) != 1
    return Whole(small, width, height, kept_square(height, width, options.size), turned)


def kept_square(height: int, width: int, size: int) -> tuple[float, float, float, float]:
    """What the central crop keeps: left, top, width and height as shares of the photo's sides."""
    tall, wide = fitted_sides(height, width, size)
    return (wide - size) // 2 / wide, (tall - size) // 2 / tall, size / wide, size / tall


def _noted_orientation(data: bytes) -> int:
    """The EXIF orientation, 1 where there is none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(0x0112, 1))
    except Exception:  # the pixels are decoded already: whatever displeases Pillow is metadata
        return 1
