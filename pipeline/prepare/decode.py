"""Decode a photo of any supported format, which is determined from its bytes, not from its name.

In:  a photo's bytes.  Out: uint8 RGB pixels, and a description of the format.  No files, no lmdb.
Regular JPEGs are decoded by libjpeg-turbo; all others by Pillow, which distinguishes stray bytes from truncation.
A photo that Pillow rejects is tried again without its metadata, which are no concern of the pixels.
Orientation tags are applied on request only; the tools that prepared ImageNet ignored them.
"""

import io
import re
import zlib
from contextlib import suppress

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image

from ..sources.magic import DECODED, other_format, photo_format
from .bare import png_chunks, sum_is_right, without_metadata
from .depth import eight_bits, largest_sample
from .pillow_settings import pillow_settings

MAX_PIXELS = 100_000_000  # ImageNet's largest photo has 69 million; a bomb of 65,500 x 65,500 would take 13 GB
MAX_SCANS = 100  # of a JPEG: encoders write about 10, and each is a pass over the whole picture
_MOST_UNZIPPED = 1 << 26  # bytes; ImageNet's largest photo has 15 MB

_PLAIN = {"YCbCr": "JPEG", "Gray": "JPEG grey"}  # colour spaces that simplejpeg converts as Pillow does
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # within a scan FF is followed by 00 or a restart's D0..D7
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_SEQUENTIAL, _OTHER_FRAMES = (0xC0, 0xC1, 0xC9), (0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_FORMATS = {"MPO": "JPEG", "WEBP": "WebP"}  # MPO is a JPEG followed by previews
_MODES = {
    "RGB": "",
    "RGBX": "",
    "RGBA": " alpha",
    "L": " grey",
    "LA": " grey alpha",
    "1": " bilevel",
    "P": " palette",
    "PA": " palette",
}


class PhotoError(Exception):
    """A photo is rejected; the message is the reason in rejected.csv."""


class _PillowError(PhotoError):
    """Pillow cannot read it; perhaps without its metadata."""


def decode(
    photo: bytes, *, exif: str = "ignore", max_pixels: int = MAX_PIXELS, accept_truncated: bool = False
) -> np.ndarray:
    """Decode a photo to uint8 (height, width, 3) RGB, 0..255.

    Args:
        photo: the file's bytes, in any format of `magic.DECODED`, or gzipped; of an animation, the first picture.
        exif: `ignore` the orientation tag, or `apply` it: rotate and mirror the picture. Invalid tags are ignored.
            An AVIF's rotation is no tag but a part of the picture, as every viewer shows it.
        max_pixels: pixels of the largest accepted photo, checked by its header before decoding.
        accept_truncated: accept a truncated file with at least one decodable pixel, the rest being grey or black.
            Complete photos give the same pixels with and without.
    Raises:
        PhotoError: the photo cannot be decoded completely, or is too large.
    """
    return decode_with_form(photo, exif, max_pixels, accept_truncated)[0]


def decode_with_form(photo: bytes, exif: str, max_pixels: int, accept_truncated: bool) -> tuple[np.ndarray, str]:
    """Return the pixels of `decode` and the format from `describe_format`, such as `PNG grey 16 bit`."""
    if photo[:2] == b"\x1f\x8b":  # as some photos of ILSVRC-2010
        photo = _unzipped(photo)
    if not photo:
        raise PhotoError("the file is empty")
    if photo[:2] == b"\xff\xd8" and _scans(photo) > MAX_SCANS:
        raise PhotoError(f"a JPEG of more than {MAX_SCANS} scans")
    try:
        return _decode_either_way(photo, exif, max_pixels, truncated=False)
    except PhotoError as whole:
        if not accept_truncated:
            raise
        try:
            pixels, form = _decode_either_way(photo, exif, max_pixels, truncated=True)
        except PhotoError:
            raise whole from None
        if (pixels == pixels[-1, -1]).all():  # no pixel after the header was decoded
            raise
        return pixels, form


def _unzipped(photo: bytes) -> bytes:
    unzip = zlib.decompressobj(wbits=31)  # gzip
    try:
        whole = unzip.decompress(photo, _MOST_UNZIPPED)
    except zlib.error as error:
        raise PhotoError(f"gzip: {error}") from None
    if unzip.unconsumed_tail or not unzip.eof:
        raise PhotoError(f"gzip: truncated, or more than {_MOST_UNZIPPED:,} bytes")
    return whole


def _decode_either_way(photo: bytes, exif: str, max_pixels: int, truncated: bool) -> tuple[np.ndarray, str]:
    if photo[:2] == b"\xff\xd8":
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(photo, strict=not truncated)
            _check_pixels(width, height, max_pixels)
            if colorspace in _PLAIN:
                pixels = simplejpeg.decode_jpeg(photo, colorspace="RGB", strict=not truncated)
                return _turned(pixels, _orientation_of_jpeg(photo) if exif == "apply" else 1), _PLAIN[colorspace]
        except (ValueError, KeyError):  # KeyError: a colour space unknown to simplejpeg
            pass  # any irregularity, harmless or not: Pillow decides
    return _decode_with_pillow(photo, exif, max_pixels, truncated)


def _decode_with_pillow(photo: bytes, exif: str, max_pixels: int, truncated: bool) -> tuple[np.ndarray, str]:
    try:
        return _opened_with_pillow(photo, exif, max_pixels, truncated)
    except _PillowError:
        bare = without_metadata(photo, exif == "apply")
        if bare != photo:
            with suppress(_PillowError):
                return _opened_with_pillow(bare, exif, max_pixels, truncated)
        raise


def _opened_with_pillow(photo: bytes, exif: str, max_pixels: int, truncated: bool) -> tuple[np.ndarray, str]:
    try:
        with pillow_settings(truncated=truncated), Image.open(io.BytesIO(photo), formats=DECODED) as image:
            _check_pixels(image.width, image.height, max_pixels)
            kind = image.format or ""
            form = describe_format(kind, image.mode, _raw_mode(image), ycck=image.info.get("adobe_transform") == 2)
            before = _orientation(image) if kind == "TIFF" else 1
            largest = largest_sample(image, photo)
            if kind == "PNG" and not truncated:
                _check_png(photo)
            image.load()
            pixels = eight_bits(image, photo, largest)
            if exif == "apply" or kind == "AVIF":
                return _turned(pixels, _orientation(image)), form
            return _turned(pixels, {6: 8, 8: 6}.get(before, before)), form  # Pillow has rotated it on loading
    except PhotoError:
        raise
    except Exception as error:  # Pillow's plugins raise errors of any type on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _PillowError(_unknown(photo) if "cannot identify" in reason else reason) from None


def _check_png(photo: bytes) -> None:
    """Check the checksums of the pixels, as libpng does and Pillow does not."""
    if not all(sum_is_right(photo, *place) for name, *place in png_chunks(photo) if name == b"IDAT"):
        raise PhotoError("broken PNG file (bad checksum of the pixels)")


def _unknown(photo: bytes) -> str:
    """Return why Pillow recognises no format, and what can be done about it."""
    name, other = photo_format(photo), other_format(photo)
    if name in DECODED:
        return f"{name}, but damaged or of an unknown kind: if it can be viewed, save it as an 8-bit JPEG or PNG"
    if name:
        return f"{name} is not supported: convert it to JPEG"
    if other == "XML" and b"<svg" in photo[:4096]:
        other = "SVG"
    if other:
        advice = {"HTML": ": download it again", "film": ""}.get(other, ": convert it to JPEG")
        return f"not a photo in a known format but {other}{advice}"
    return "not a photo in a known format"


def _scans(photo: bytes) -> int:
    """Count the scans of a JPEG, at most MAX_SCANS + 1; 1 if it is sequential and its first scan has all channels."""
    place, scans, channels, sequential = 2, 0, 0, False
    while (found := _MARKER.search(photo, place)) and found[1][0] != _EOI and scans <= MAX_SCANS:
        marker, place = found[1][0], found.end()
        if marker in (_SOI, _TEM):  # markers without a length
            continue
        if marker in _SEQUENTIAL or marker in _OTHER_FRAMES:
            channels, sequential = photo[place + 7] if place + 7 < len(photo) else 0, marker in _SEQUENTIAL
        elif marker == _SOS:
            scans += 1
            if sequential and photo[place + 2 : place + 3] == bytes([channels]):
                return 1
        place += int.from_bytes(photo[place : place + 2], "big")
    return scans


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's raw mode of the file, such as "RGB;16B"; empty if unknown."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _orientation_of_jpeg(photo: bytes) -> int:
    try:
        with pillow_settings(truncated=False), Image.open(io.BytesIO(photo), formats=("JPEG",)) as image:
            return _orientation(image)
    except Exception:  # libjpeg has decoded the pixels: only metadata is damaged, perhaps other than the orientation
        bare = without_metadata(photo, exif=True)
        return _orientation_of_jpeg(bare) if bare != photo else 1


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1..8; 1 if there is no valid one."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as above
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation: rotate and mirror so that row 0 is the top and column 0 the left side."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    upside_down, mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    if upside_down or mirrored:
        pixels = cv2.flip(pixels, -1 if upside_down and mirrored else int(mirrored))
    return pixels


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if not width * height:
        raise PhotoError(f"{width}x{height}: no pixels")
    if width * height > max_pixels:
        raise PhotoError(f"{width}x{height} is more than {max_pixels:,} pixels")


def describe_format(kind: str, mode: str, raw: str = "", ycck: bool = False) -> str:
    """Describe a photo in at most 24 ASCII characters: its format, then the properties of its pixels.

    Args:
        kind, mode: Pillow's format and mode, before any conversion.
        raw: Pillow's raw mode, which distinguishes 16 bits from 8 in colour.
        ycck: whether four channels are luma, chroma and black.
    """
    name = _FORMATS.get(kind, kind)
    if name == "GIF":  # its mode depends on how Pillow reads the palette
        return name
    if mode == "CMYK" and ycck:
        return f"{name} YCCK"
    if mode[0] in "IF":
        return f"{name} grey {'16' if '16' in mode + raw or name in ('PNG', 'PPM') else '32'} bit"
    return name + _MODES.get(mode, f" {mode}") + (" 16 bit" if "16" in raw else "")
