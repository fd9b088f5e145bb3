"""Prepare the stored picture of a photo: decode, short side 256, central crop 256x256, encode (paper, section 2).

In:  a photo's bytes.  Out: the payload of its record.  No files, no lmdb.
The pixels follow the authors' data tool (cuda-convnet2, make-data), which uses OpenCV: area averaging when shrinking,
cubic interpolation when enlarging, both sides rounded, the crop's offsets floored.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
import simplejpeg

from .area import shrink
from .decode import MAX_PIXELS, PhotoError, decode_with_form

FEWEST_LEVELS = 8  # of 256 in some channel; a photo with fewer was black, burnt out, or scaled wrongly
MAX_SIDE = 65_500  # pixels of a stored picture: libjpeg's limit, and a Datum's here


@dataclass(frozen=True)
class Picture:
    """The stored picture of a photo.

    Attributes:
        data: a JPEG file, or raw uint8 pixels in (height, width, RGB) order.
        height, width: sides of the stored picture in pixels.
        source_height, source_width: sides of the photo in pixels, after applying its orientation if requested.
        form: the photo's format by its content, such as "JPEG", "JPEG CMYK" or "PNG palette".
        empty: why the picture shows nothing, "one colour" or "fewer than 8 levels"; empty if it shows something.
    """

    data: bytes
    height: int
    width: int
    source_height: int
    source_width: int
    form: str = field(kw_only=True)
    empty: str = field(default="", kw_only=True)


def prepare(
    photo: bytes,
    *,
    size: int = 256,
    fit: str = "crop",
    encoding: str = "jpeg",
    quality: int = 95,
    exif: str = "ignore",
    max_pixels: int = MAX_PIXELS,
    accept_truncated: bool = False,
) -> Picture:
    """Make the stored picture of a photo.

    Args:
        photo: the file's bytes, in any format of `magic.DECODED`.
        size: pixels of the short side, and of both sides with `fit="crop"`.
        fit: `crop`, the central square (the paper); `short-side`, the whole picture.
        encoding: `jpeg`, baseline 4:2:0 without metadata; `raw`, pixels.
        quality: JPEG quality, 1..100; the authors used 95.
        exif, max_pixels, accept_truncated: see `decode.decode`.
    Returns:
        The picture, with the sides and the format of the photo.
    Raises:
        PhotoError: the photo cannot be decoded completely, or is too large.
    """
    pixels, form = decode_with_form(photo, exif, max_pixels, accept_truncated)
    try:
        fitted = fit_pixels(pixels, size, fit)
        data = encode_jpeg(fitted, quality) if encoding == "jpeg" else fitted.tobytes()
    except (ValueError, cv2.error) as error:  # one photo must never end a build
        raise PhotoError(" ".join(str(error).split())) from None
    return Picture(data, *fitted.shape[:2], *pixels.shape[:2], form=form, empty=why_empty(fitted))


def fit_pixels(pixels: np.ndarray, size: int, fit: str = "crop") -> np.ndarray:
    """Scale the short side to `size` and, with `fit="crop"`, cut the central square.

    Args:
        pixels: uint8 (height, width, 3).
    Returns:
        uint8 (size, size, 3) contiguous; with `fit="short-side"` one of the sides may be longer.
    Raises:
        PhotoError: the picture would have a side above MAX_SIDE, or too many pixels.
    """
    height, width = pixels.shape[:2]
    new_height, new_width = fitted_sides(height, width, size)
    longest = max(new_height, new_width) if fit == "short-side" else size
    shrinking = min(height, width) > size
    # 1x20000 would become 256x5,120,000.
    if longest > MAX_SIDE or (not shrinking and new_height * new_width > MAX_PIXELS):
        raise PhotoError(f"{width}x{height}: aspect ratio too large: {new_width}x{new_height} after resizing")
    top, left, rows, columns = 0, 0, new_height, new_width
    if fit == "crop":
        top, left, rows, columns = (new_height - size) // 2, (new_width - size) // 2, size, size
    if shrinking:
        return shrink(pixels, new_height, new_width, (top, left, rows, columns))
    if min(height, width) < size:
        pixels = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(pixels[top : top + rows, left : left + columns])


def why_empty(pixels: np.ndarray) -> str:
    """Return why a picture shows nothing: "one colour", or "fewer than 8 levels" in every channel; "" if it shows some.

    Args:
        pixels: uint8 (height, width, 3).
    """
    for step in (16, 4):  # five microseconds for nearly all photos
        if len(set(pixels[::step, ::step, 1].tobytes())) >= FEWEST_LEVELS:
            return ""
    levels = [np.count_nonzero(cv2.calcHist([pixels], [channel], None, [256], [0, 256])) for channel in range(3)]
    if max(levels) >= FEWEST_LEVELS:
        return ""
    return "one colour" if max(levels) == 1 else f"fewer than {FEWEST_LEVELS} levels"


def fitted_sides(height: int, width: int, size: int) -> tuple[int, int]:
    """Return height and width in pixels after scaling the short side to `size`; .5 rounds up."""
    short = min(height, width)
    return max(size, (2 * height * size + short) // (2 * short)), max(size, (2 * width * size + short) // (2 * short))


def encode_jpeg(pixels: np.ndarray, quality: int = 95) -> bytes:
    """Encode uint8 (height, width, 3) RGB as a baseline 4:2:0 JPEG without metadata.

    Baseline, because the hardware decoders of GPUs support nothing else.
    """
    return simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420", fastdct=False)
