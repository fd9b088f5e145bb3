"""Pictures that tests make, and the files of them."""

import io
import struct
from functools import cache

import cv2
import numpy as np
from PIL import Image

# A BMP of 54 bytes whose header claims 10^10 pixels.
BOMB = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 99_999, 99_999, 1, 24, 0, 0, 0, 0, 0, 0)


def scene(height, width, seed=0):
    """A smooth coloured picture, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(image, kind="JPEG", **options):
    """The bytes of a file; `image` is a Pillow image, or pixels."""
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def opened(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@cache
def slow():
    """A photo whose decoding takes some seconds: who is to be killed over it is on it for so long."""
    photo = saved(np.full((7000, 7000, 3), 90, np.uint8), progressive=True)
    last = photo[photo.rindex(b"\xff\xda") : -2]
    return photo[:-2] + last * 90 + photo[-2:]  # the last scan again and again, up to the most that are accepted
