"""An uploaded photo, and the square that the offline stage keeps of it (paper, section 2).

In:  an upload.  Out: its bytes; a Whole, scaled down for the page.  For the stored picture see `as_stored`.
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
from ...pipeline.prepare.pillow_settings import pillow_settings
from ...pipeline.prepare.resize import fitted_sides
from ...pipeline.shards.manifest import ShardSet
from ..figures.retrieval.records import PHOTO_HINT

SHOWN = 720  # most pixels of the photo's long side on the page


class Whole(NamedTuple):
    """A photo before the offline stage.

    Attributes:
        pixels: uint8 (h, w, 3), scaled down.
        width, height: of the original, in pixels.
        kept: the square that is kept: left, top, width and height as shares of the sides, 0..1.
        turned: it has an EXIF orientation, and the set was built without applying those.
    """

    pixels: np.ndarray
    width: int
    height: int
    kept: tuple[float, float, float, float]
    turned: bool


def read_upload(path: Path, most: int) -> bytes:
    """Read an uploaded file.

    Raises:
        UsageError: it is larger than `most` bytes, or cannot be read.
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
    """Return the photo before the offline stage, scaled down, and the square that this stage keeps.

    Args:
        data: the file's bytes.
        name: the file's name in error messages.
    Raises:
        SourceError: the photo cannot be decoded completely, or is too large.
    """
    options = options_of(shard_set.manifest)
    try:
        pixels = decode(
            data, exif=options.exif, max_pixels=options.max_pixels, accept_truncated=options.accept_truncated
        )
    except PhotoError as error:
        raise SourceError(f"{name}: {error}", PHOTO_HINT) from None
    height, width = pixels.shape[:2]
    scale = min(1.0, SHOWN / max(height, width))
    sides = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, sides, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    turned = options.exif == "ignore" and _exif_orientation(data) != 1
    return Whole(small, width, height, kept_square(height, width, options.size), turned)


def kept_square(height: int, width: int, size: int) -> tuple[float, float, float, float]:
    """Return the square that the central crop keeps: left, top, width and height as shares of the photo's sides."""
    tall, wide = fitted_sides(height, width, size)
    return (wide - size) // 2 / wide, (tall - size) // 2 / tall, size / wide, size / tall


def _exif_orientation(data: bytes) -> int:
    """Return the EXIF orientation; 1 if there is none."""
    try:
        with pillow_settings(truncated=False), Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(0x0112, 1))
    except Exception:  # the pixels are decoded: Pillow's errors are only about metadata
        return 1
