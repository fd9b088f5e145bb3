"""From a photo's bytes to the stored picture: decode, short side 256, centre crop 256x256, encode (paper, section 2).

In:  the bytes of any photo.  Out: uint8 RGB pixels, and the payload of its record.  No files, no lmdb.
The pixels follow the authors' data tool (cuda-convnet2, make-data): OpenCV, area averaging when shrinking, cubic
when enlarging, both sides rounded, the crop's offsets floored. Orientation tags are not applied, as in the tools
that made ImageNet what it is. What a photo is, is found in its bytes, never in its name.
"""

import io
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image

MAX_PIXELS = 100_000_000  # ImageNet's largest photo has 69 million; a bomb of 65,500 x 65,500 wants 13 GB
MAX_SIDE = 65_500  # pixels of a stored picture: libjpeg's limit, and a Datum's here
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # what may be opened; Pillow's others stay shut

# Pillow warns above its own, smaller limit; ours is checked before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


class PhotoError(Exception):
    """A photo that cannot enter the set; the text is the reason in rejected.csv."""


@dataclass(frozen=True)
class Picture:
    """What is stored of a photo.

    Attributes:
        data: a JPEG file, or raw uint8 pixels in (height, width, RGB) order.
        height, width: pixels, as stored.
        source_height, source_width: pixels, of the photo.
    """

    data: bytes
    height: int
    width: int
    source_height: int
    source_width: int


def prepare(photo: bytes, *, size: int = 256, fit: str = "crop", encoding: str = "jpeg", quality: int = 95) -> Picture:
    """Make the stored picture of one photo.

    Args:
        photo: the file's bytes, in any of FORMATS.
        size: pixels of the short side, and of both sides with `fit="crop"`.
        fit: `crop`, the central square (the paper); `short-side`, the whole picture.
        encoding: `jpeg`, baseline 4:2:0 without metadata; `raw`, pixels.
        quality: of the JPEG, 1..100; the authors used 95.
    Raises:
        PhotoError: it cannot be decoded completely, or has more than MAX_PIXELS.
    """
    pixels = decode(photo)
    try:
        fitted = fit_pixels(pixels, size, fit)
        data = encode_jpeg(fitted, quality) if encoding == "jpeg" else fitted.tobytes()
    except (ValueError, cv2.error) as error:  # one photo must never end a build
        raise PhotoError(" ".join(str(error).split())) from None
    return Picture(data, *fitted.shape[:2], *pixels.shape[:2])


def decode(photo: bytes) -> np.ndarray:
    """Decode any photo to uint8 (height, width, 3) RGB, 0..255.

    Raises:
        PhotoError: see `prepare`.
    """
    if not photo:
        raise PhotoError("the file is empty")
    if photo[:2] == b"\xff\xd8":
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(photo)
            _check_pixels(width, height)
            if colorspace in ("YCbCr", "Gray"):
                return simplejpeg.decode_jpeg(photo, colorspace="RGB")
        except ValueError:
            pass  # any irregularity, harmless or not: Pillow tells stray bytes from a torn file
    return _decode_with_pillow(photo)


def fit_pixels(pixels: np.ndarray, size: int, fit: str = "crop") -> np.ndarray:
    """Scale the short side to `size` and, with `fit="crop"`, cut the central square.

    Args:
        pixels: uint8 (height, width, 3).
    Returns:
        uint8 (size, size, 3) contiguous; with `fit="short-side"` one of the sides may be longer.
    Raises:
        PhotoError: the long side would become absurd.
    """
    height, width = pixels.shape[:2]
    new_height, new_width = fitted_sides(height, width, size)
    longest = max(new_height, new_width) if fit == "short-side" else size
    if new_height * new_width > MAX_PIXELS or longest > MAX_SIDE:  # a line of 1x20000 would become 256x5,120,000
        raise PhotoError(f"{width}x{height} is too long and narrow: {new_width}x{new_height} after resizing")
    if (new_height, new_width) != (height, width):
        shrinking = min(height, width) > size
        pixels = cv2.resize(
            pixels, (new_width, new_height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
        )
    if fit == "crop":
        top, left = (new_height - size) // 2, (new_width - size) // 2
        pixels = pixels[top : top + size, left : left + size]
    return np.ascontiguousarray(pixels)


def fitted_sides(height: int, width: int, size: int) -> tuple[int, int]:
    """Both sides, in pixels, after the short one became `size`; .5 rounds up."""
    short = min(height, width)
    return max(size, (2 * height * size + short) // (2 * short)), max(size, (2 * width * size + short) // (2 * short))


def encode_jpeg(pixels: np.ndarray, quality: int = 95) -> bytes:
    """Encode uint8 (height, width, 3) RGB as a baseline 4:2:0 JPEG without metadata.

    Baseline, since the hardware decoders of GPUs read nothing else.
    """
    return simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420", fastdct=False)


def _decode_with_pillow(photo: bytes) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torn metadata is no concern of the pixels
            with Image.open(io.BytesIO(photo), formats=FORMATS) as image:
                _check_pixels(*image.size)
                image.load()
                if image.mode.startswith("I"):  # 16-bit grey; convert("RGB") would clip it at 255
                    grey = (np.clip(np.asarray(image), 0, 65535) // 256).astype(np.uint8)
                    return np.repeat(grey[:, :, None], 3, axis=2)
                return np.array(image.convert("RGB"))
    except PhotoError:
        raise
    except Exception as error:  # Pillow's plugins raise what they like on hostile bytes: all of it means "no photo"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PhotoError("not a photo in a known format" if "cannot identify" in reason else reason) from None


def _check_pixels(width: int, height: int) -> None:
    if not width * height:
        raise PhotoError(f"{width}x{height}: no pixels")
    if width * height > MAX_PIXELS:
        raise PhotoError(f"{width}x{height} is more than {MAX_PIXELS:,} pixels")
