"""The format of a picture by its first bytes; names and endings do not matter.

In:  the first HEAD_BYTES bytes of a file.  Out: the name of the format.  No files, no decoding.
Short signatures are checked together with the header fields that follow, so that a text which begins with "BM" or
"P5" is not taken for a photo, nor a film for a HEIC photo, which has the same container.
"""

import re

HEAD_BYTES = 32
DECODED = ("JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF", "PPM", "AVIF")  # by prepare/decode.py; also Pillow's names

_FIELD = rb"\s*(?:#|\d+\s"  # a number, or a comment, after which anything may follow
_PHOTOS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",  # the size of its second header: known versions only
    "WebP": rb"RIFF.{4}WEBP",
    "TIFF": rb"II[*+]\0|MM\0[*+]",  # + is BigTIFF
    "PPM": rb"P[14]\s" + 2 * _FIELD + rb"))|P[2356]\s" + 3 * _FIELD + rb")))",  # sides, and P[2356]'s maximum
    "AVIF": rb"\0\0..ftyp(?:avi[fs]|(?:mi[af]f|mif[12]|msf1).{4}(?:.{4})*?avi[fs])",  # the first brand, or a later one
    "HEIC": rb"\0\0..ftyp(?:hei[cxms]|hev[cxms]|avc[is]|miaf|mif[123]|msf1)",
    "JPEG 2000": rb"\0\0\0\x0cjP..\r\n\x87\n|\xff\x4f\xff\x51",
    "JPEG XL": rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a",
}
_OTHERS = {
    "SVG": rb"\s*<svg[\s>]",
    "XML": rb"\s*<\?xml",
    "HTML": rb"(?i)\s*<(?:!doctype html|html|head)",
    "PDF": rb"%PDF-",
    "PostScript": rb"%!PS|\xc5\xd0\xd3\xc6",
    "Photoshop": rb"8BPS\0[\1\2]",
    "OpenEXR": rb"\x76\x2f\x31\x01",
    "Radiance HDR": rb"#\?(?:RADIANCE|RGBE)\n",
    "PFM": rb"P[Ff]\n\d",
    "PAM": rb"P7\n",
    "icon": rb"\0\0[\1\2]\0[^\0]\0",
    "DDS": rb"DDS \x7c\0\0\0",
    "Canon raw": rb"\0\0..ftypcrx ",
    "film": rb"\0\0..ftyp|\0\0..(?:moov|mdat|wide|free)|RIFF.{4}AVI |\x1a\x45\xdf\xa3",  # MP4, MOV, AVI, MKV, WebM
}
_PHOTOS_RE = {name: re.compile(magic, re.DOTALL) for name, magic in _PHOTOS.items()}
_OTHERS_RE = {name: re.compile(magic, re.DOTALL) for name, magic in _OTHERS.items()}


def is_photo_head(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is a picture of a raster format for photos.

    True also for formats that are recognised but not decoded (HEIC, JPEG 2000, JPEG XL), which a build rejects with a
    reason; False for drawings, documents and films.

    Args:
        head: the file's first HEAD_BYTES bytes, or all if it is shorter.
    """
    return photo_format(head) != ""


def photo_format(head: bytes) -> str:
    """Return a raster format, such as "JPEG" or "HEIC", whose signature a file has; empty if none."""
    return _first(_PHOTOS_RE, head)


def other_format(head: bytes) -> str:
    """Return a format that is no photo but is found under photos' names, such as "HTML" or "film"; empty if none."""
    return "" if is_photo_head(head) else _first(_OTHERS_RE, head)


def _first(magics: dict[str, re.Pattern], head: bytes) -> str:
    head = head[:HEAD_BYTES]
    return next((name for name, magic in magics.items() if magic.match(head)), "")
