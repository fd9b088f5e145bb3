"""From a photo's bytes to its pixels and what it is: found in the bytes, never in the name.

In:  the bytes of any photo.  Out: uint8 RGB pixels, and the form in words.  No files, no lmdb.
Plain JPEGs are libjpeg-turbo's; whatever is irregular in any way is Pillow's, which tells stray bytes from a torn file.
Orientation tags are not applied, as in the tools that made ImageNet what it is, unless asked for.
"""

import io
import re
import zlib

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image

from .known_anomalies import _FORMATS, _MODES
from .pillow_settings import pillow_settings

MAX_PIXELS = 100_000_000  # ImageNet's largest photo has 69 million; a bomb of 65,500 x 65,500 wants 13 GB
MAX_SCANS = 100  # of a JPEG: encoders write 10 or so, and each costs a decoder a pass over the whole picture
_MOST_UNZIPPED = 1 << 26  # bytes; ImageNet's largest photo has 15 MB
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # what may be opened; Pillow's others stay shut

_PLAIN = {"YCbCr": "JPEG", "Gray": "JPEG grey"}  # what simplejpeg turns to RGB as Pillow does
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # within a scan FF is followed by 00 or a restart's D0..D7
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_SEQUENTIAL, _OTHER_FRAMES = (0xC0, 0xC1, 0xC9), (0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)


class PhotoError(Exception):
    """A photo that cannot enter the set; the text is the reason in rejected.csv."""


def decode(
    photo: bytes, *, exif: str = "ignore", max_pixels: int = MAX_PIXELS, accept_truncated: bool = False
) -> np.ndarray:
    """Decode any photo to uint8 (height, width, 3) RGB, 0..255.

    Args:
        photo: the file's bytes, in any of FORMATS; of an animation the first picture counts.
        exif: `ignore` the orientation tag, or `apply` it: turn and mirror the picture. A broken tag is no tag.
        max_pixels: of the photo; known from its header, before a pixel is decoded.
        accept_truncated: keep what can be decoded of a torn file, if that is anything, the rest being grey or black.
            Whole photos come out the same with and without.
    Raises:
        PhotoError: see `prepare`.
    """
    return decode_with_form(photo, exif, max_pixels, accept_truncated)[0]


def decode_with_form(photo: bytes, exif: str, max_pixels: int, accept_truncated: bool) -> tuple[np.ndarray, str]:
    """The pixels as `decode` gives them, and the form in words, such as `JPEG` or `PNG grey 16 bit`."""
    if photo[:2] == b"\x1f\x8b":  # some photos of ILSVRC-2010 are
        photo = _unzipped(photo)
    if not photo:
        raise PhotoError("the file is empty")
    if photo[:2] == b"\xff\xd8" and _scans(photo) > MAX_SCANS:
        raise PhotoError(f"a JPEG of more than {MAX_SCANS} scans")
    try:
        return _decode_either_way(photo, exif, max_pixels, torn=False)
    except PhotoError as whole:
        if not accept_truncated:
            raise
        try:
            pixels, form = _decode_either_way(photo, exif, max_pixels, torn=True)
        except PhotoError:
            raise whole from None
        if (pixels == pixels[-1, -1]).all():  # the header, and not a pixel
            raise
        return pixels, form


def _unzipped(photo: bytes) -> bytes:
    unzip = zlib.decompressobj(wbits=31)  # gzip
    try:
        whole = unzip.decompress(photo, _MOST_UNZIPPED)
    except zlib.error as error:
        raise PhotoError(f"gzip: {error}") from None
    if unzip.unconsumed_tail or not unzip.eof:
        raise PhotoError(f"gzip: torn, or more than {_MOST_UNZIPPED:,} bytes")
    return whole


def _decode_either_way(photo: bytes, exif: str, max_pixels: int, torn: bool) -> tuple[np.ndarray, str]:
    if photo[:2] == b"\xff\xd8":
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(photo, strict=not torn)
            _check_pixels(width, height, max_pixels)
            if colorspace in _PLAIN:
                pixels = simplejpeg.decode_jpeg(photo, colorspace="RGB", strict=not torn)
                return _turned(pixels, _orientation_of_jpeg(photo) if exif == "apply" else 1), _PLAIN[colorspace]
        except (ValueError, KeyError):  # simplejpeg has no name for "not known"
            pass  # any irregularity, harmless or not: Pillow tells stray bytes from a torn file
    return _decode_with_pillow(photo, exif, max_pixels, torn)


def _decode_with_pillow(photo: bytes, exif: str, max_pixels: int, torn: bool) -> tuple[np.ndarray, str]:
    try:
        with pillow_settings(truncated=torn), Image.open(io.BytesIO(photo), formats=FORMATS) as image:
            _check_pixels(image.width, image.height, max_pixels)
            kind = image.format or ""
            form = describe_format(kind, image.mode, _raw_mode(image), ycck=image.info.get("adobe_transform") == 2)
            before = _orientation(image) if kind == "TIFF" else 1
            image.load()
            if image.mode[0] == "I":  # 16-bit grey; convert("RGB") would clip it at 255
                grey = (np.clip(np.asarray(image), 0, 65535) // 256).astype(np.uint8)
                pixels = np.repeat(grey[:, :, None], 3, axis=2)
            else:
                pixels = np.array(image.convert("RGB"))
            if exif == "apply":
                return _turned(pixels, _orientation(image)), form
            return _turned(pixels, {6: 8, 8: 6}.get(before, before)), form  # Pillow has turned it, unasked
    except PhotoError:
        raise
    except Exception as error:  # Pillow's plugins raise what they like on hostile bytes: all of it means "no photo"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PhotoError("not a photo in a known format" if "cannot identify" in reason else reason) from None


def _scans(photo: bytes) -> int:
    """Count the scans of a JPEG, up to the first too many; 1 if the first holds all channels, as it mostly does."""
    place, scans, channels, sequential = 2, 0, 0, False
    while (found := _MARKER.search(photo, place)) and found[1][0] != _EOI and scans <= MAX_SCANS:
        marker, place = found[1][0], found.end()
        if marker in (_SOI, _TEM):  # they have no length
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
    """Pillow's name for the pixels in the file, such as "RGB;16B"; empty where it has none."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _orientation_of_jpeg(photo: bytes) -> int:
    try:
        with pillow_settings(truncated=False), Image.open(io.BytesIO(photo), formats=("JPEG",)) as image:
            return _orientation(image)
    except Exception:  # libjpeg has decoded it: whatever displeases Pillow is metadata
        return 1


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 where there is none, or no sensible one."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as above
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror pixels so that row and column 0 are top and left, which an EXIF orientation says they are not."""
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
    """Say in at most 24 ASCII characters what a photo is: its format, then what is special about its pixels.

    Args:
        kind, mode: Pillow's names of format and pixels, before anything was converted.
        raw: Pillow's name of the pixels in the file, which alone tells 16 bits from 8 in colour.
        ycck: four channels are luma, chroma and black.
    """
    name = _FORMATS.get(kind, kind)
    if name == "GIF":  # its mode is no more than how Pillow came to see its palette
        return name
    if mode == "CMYK" and ycck:
        return f"{name} YCCK"
    if mode[0] in "IF":
        return f"{name} grey {'16' if '16' in mode + raw or name in ('PNG', 'PPM') else '32'} bit"
    return name + _MODES.get(mode, f" {mode}") + (" 16 bit" if "16" in raw else "")
