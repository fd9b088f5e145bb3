"""A photo without its metadata, for decoders that reject a photo whose pixels are whole because of damaged metadata.

In:  a photo's bytes.  Out: the bytes without texts, colour profiles, resolutions and previews.  No decoding.
Pillow rejects a PNG with more than 1 MB of text or a wrong checksum of its resolution, a JPEG of four inks with a short
profile, and a TIFF whose description lies beyond the end. What decides about pixels is kept, damaged or not.
"""

import struct
import zlib
from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
_TIFF_TAGS = (
    frozenset(  # that decide about the pixels: sides, samples, strips, tiles, palette, colour space, orientation
        [
            *range(254, 260),
            262,
            266,
            273,
            274,
            *range(277, 282),
            284,
            292,
            293,
            317,
            320,
            321,
            *range(322, 326),
            330,
            332,
        ]
        + [334, *range(338, 342), 347, *range(512, 522), *range(529, 533), 50706]
    )
)


def without_metadata(photo: bytes, exif: bool) -> bytes:
    """Return a photo without what is not needed to decode its pixels; unchanged if it is no PNG, JPEG or TIFF.

    Args:
        photo: the file's bytes.
        exif: keep EXIF data, which has the orientation, unless its checksum is wrong.
    """
    if photo.startswith(PNG):
        return _bare_png(photo, exif)
    if photo.startswith(b"\xff\xd8"):
        return _bare_jpeg(photo, exif)
    if photo[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _bare_tiff(photo)
    return photo


def png_chunks(photo: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each whole chunk of a PNG, and the places where its content begins and ends."""
    place = len(PNG)
    while (name := photo[place + 4 : place + 8]).isalpha():
        begin = place + 8
        end = begin + int.from_bytes(photo[place : place + 4], "big")
        if end + 4 > len(photo):
            return
        yield name, begin, end
        place = end + 4


def sum_is_right(photo: bytes, begin: int, end: int) -> bool:
    """Return whether the checksum of a chunk of a PNG, by its content's places, is right."""
    return zlib.crc32(memoryview(photo)[begin - 4 : end]) == int.from_bytes(photo[end : end + 4], "big")


def _bare_png(photo: bytes, exif: bool) -> bytes:
    used = (b"sBIT", b"eXIf") if exif else (b"sBIT",)  # how many bits of each sample are significant
    kept, rest = [PNG], len(PNG)
    for name, begin, end in png_chunks(photo):
        rest = end + 4
        critical = name[:1].isupper()
        if critical or (name in used and sum_is_right(photo, begin, end)):
            kept.append(photo[begin - 8 : rest])
    return b"".join([*kept, photo[rest:]])  # the rest is no chunk, or torn


def _bare_jpeg(photo: bytes, exif: bool) -> bytes:
    kept, place = [photo[:2]], 2
    while photo[place : place + 1] == b"\xff" and place + 4 <= len(photo):
        marker = photo[place + 1]
        end = place + 2 + int.from_bytes(photo[place + 2 : place + 4], "big")
        if marker in (0xFF, 0xDA) or end < place + 4 or end > len(photo):  # padding, a scan, or damage
            break
        segment = photo[place + 4 : end]
        space = marker == 0xE0 and segment.startswith(b"JFIF\0") and len(segment) >= 14  # the colour space, by libjpeg
        space = space or (marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12)
        metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not metadata or space or (exif and marker == 0xE1 and segment.startswith(b"Exif\0\0")):
            kept.append(photo[place:end])
        place = end
    return b"".join([*kept, photo[place:]])


def _bare_tiff(photo: bytes) -> bytes:
    """Close up the entries of the first directory, in place: what they point to does not move."""
    order, big = "<" if photo[:1] == b"I" else ">", 43 in photo[2:4]
    count_form, offset_form, entry_bytes = ("Q", "Q", 20) if big else ("H", "I", 12)
    try:
        (directory,) = struct.unpack_from(order + offset_form, photo, 8 if big else 4)
        (count,) = struct.unpack_from(order + count_form, photo, directory)
    except (struct.error, OverflowError):  # beyond the end
        return photo
    begin = directory + struct.calcsize(count_form)
    places = range(begin, min(begin + count * entry_bytes, len(photo)), entry_bytes)
    entries = [photo[place : place + entry_bytes] for place in places]
    kept = [entry for entry in entries if int.from_bytes(entry[:2], "little" if order == "<" else "big") in _TIFF_TAGS]
    table = struct.pack(order + count_form, len(kept)) + b"".join(kept) + struct.pack(order + offset_form, 0)
    return photo[:directory] + table + photo[directory + len(table) :]
