"""Samples of more than 8 bits, signed or floating, to 8 bits, by what the file says of their range.

In:  an image that Pillow has opened, and its bytes.  Out: uint8 pixels, or a ValueError with the reason.
The pixels of a photo never decide how bright it is: two photos of one set would be scaled differently. So a file that
does not say its range (floats, signed or 32-bit integers) is refused. Of 16 bits, whose range is all of them, the upper
8 are taken, as Pillow does in colour.
"""

import math
from collections.abc import Mapping

import cv2
import numpy as np
from PIL.ImageFile import ImageFile

from .bare import png_chunks, without_metadata

FULL = 65535  # the largest sample of 16 bits
_BITS, _KIND, _PHOTOMETRIC, _SUBFILE, _SUBIFDS, _DNG = 258, 339, 262, 254, 330, 50706  # tags of TIFF
_SMALLEST, _LARGEST = (340, 280), (341, 281)  # sample values, SMin and SMax before Min and Max
_KINDS = {1: "unsigned integer", 2: "signed integer", 3: "float"}


def largest_sample(image: ImageFile, photo: bytes) -> float:
    """Return the sample value that is white, as the file states it; FULL for 16 bits, and for all of 8 bits.

    Args:
        image: opened by Pillow, not yet loaded.
        photo: its file's bytes.
    Raises:
        ValueError: the file does not state it, or is a raw photo's preview.
    """
    if image.format == "PNG":
        return _of_png(photo) if photo[24:25] == b"\x10" else FULL
    decoder, _, _, arguments = image.tile[0] if image.tile else ("", None, 0, ("",))
    rawmode, *more = arguments if isinstance(arguments, tuple) else (arguments,)
    if image.format == "TIFF":
        if decoder == "libtiff" and rawmode in ("F;32BF", "I;32BS", "I;16BS"):  # Pillow swaps their bytes twice
            raise ValueError("compressed TIFF of big-endian floats or signed integers: convert it to 8 bits")
        return _of_tiff(_tags(image))
    if image.mode == "F":
        raise ValueError("PFM, whose samples do not say their range: convert it to 8 bits")
    return float(more[0]) if image.mode == "I" and more else FULL  # a PGM's maximum


def eight_bits(image: ImageFile, photo: bytes, largest: float) -> np.ndarray:
    """Return the pixels of a loaded image as uint8 (height, width, 3) RGB, 0..255.

    Args:
        image, photo: as for `largest_sample`.
        largest: what that returned.
    Raises:
        ValueError: colour of 16 bits that cannot be scaled.
    """
    if image.mode[0] in "IF":
        samples = np.asarray(image)
        if image.format == "PPM":
            samples = samples * (largest / FULL)  # Pillow has scaled them up
        grey = _scaled(samples, largest)
        if image.format == "TIFF" and _tags(image).get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow leaves so
            grey = 255 - grey
        return np.repeat(grey[:, :, None], 3, axis=2)
    if largest < FULL:  # Pillow has only the upper 8 bits of colour
        bare = np.frombuffer(without_metadata(photo, exif=False), np.uint8)
        deep = cv2.imdecode(bare, cv2.IMREAD_UNCHANGED) if image.format == "PNG" else None
        if deep is None or deep.dtype != np.uint16 or deep.shape[:2] != (image.height, image.width):
            raise ValueError(f"{image.format} of 16-bit colour up to {int(largest):,}: convert it to 8 bits")
        return _scaled(np.ascontiguousarray(deep[:, :, 2::-1]), largest)
    return np.array(image.convert("RGB"))


def _scaled(samples: np.ndarray, largest: float) -> np.ndarray:
    if samples.dtype.kind == "u" and largest < FULL and not _at_the_bottom(samples, int(largest)):
        largest = FULL
    if largest == FULL:
        return (np.clip(samples, 0, FULL) // 256).astype(np.uint8)
    return np.rint(np.clip(np.nan_to_num(samples), 0, largest) * (255 / largest)).astype(np.uint8)


def _at_the_bottom(samples: np.ndarray, largest: int) -> bool:
    """Return whether samples that have fewer than 16 significant bits have them at the bottom, unscaled.

    PNG wants them scaled to 16 bits, but many programs write them as they are. None above the largest: then either
    those are written so, or the photo is dark: of 12 bits or fewer, black to the eye; of more, it depends on whether
    the bits that scaling leaves empty in dark samples are so.
    """
    bits = largest.bit_length()
    return samples.max() <= largest and (bits <= 12 or bool((samples & ((1 << (16 - bits)) - 1)).any()))


def _of_png(photo: bytes) -> float:
    """Return the largest value of the significant bits (sBIT) of a PNG of 16 bits."""
    channels = 1 if photo[25] in (0, 4) else 3
    for name, begin, end in png_chunks(photo):
        if name == b"IDAT":
            break
        if name == b"sBIT":  # its checksum is right, or Pillow would have rejected it
            bits = max(photo[begin : min(end, begin + channels)], default=16)
            return (1 << bits) - 1 if 1 <= bits <= 16 else FULL
    return FULL


def _tags(image: ImageFile) -> Mapping:
    return getattr(image, "tag_v2", {})


def _of_tiff(tags: Mapping) -> float:
    if _DNG in tags or (max(_values(tags, _SUBFILE), default=0) == 1 and _SUBIFDS in tags):  # DNG, NEF, ARW
        raise ValueError("a raw photo: convert it to JPEG")
    bits, kinds = int(max(_values(tags, _BITS), default=1)), set(_values(tags, _KIND)) or {1}
    unsigned = kinds == {1}
    if unsigned and bits <= 8:
        return FULL
    largest = next((values for tag in _LARGEST if (values := set(_values(tags, tag)))), set())
    smallest = next((values for tag in _SMALLEST if (values := set(_values(tags, tag)))), {0})
    if len(largest) == 1 and smallest == {0}:
        (value,) = largest
        # A depth, not a statistic of this photo, which TIFF allows there too.
        if 1 <= value < 1 << bits and value == int(value) and not (int(value) + 1) & int(value):
            return value
    if unsigned and bits <= 16:
        return (1 << bits) - 1
    kind = " and ".join(_KINDS.get(int(kind), "unknown") for kind in sorted(kinds))
    raise ValueError(f"TIFF of {bits}-bit {kind} samples that do not say their range: convert it to 8 bits")


def _values(tags: Mapping, tag: int) -> tuple[float, ...]:
    """Return the finite numbers of a tag of TIFF; none if it is absent, or damaged."""
    found = tags.get(tag, ())
    values = found if isinstance(found, tuple) else (found,)
    return tuple(float(value) for value in values if isinstance(value, (int, float)) and math.isfinite(value))
