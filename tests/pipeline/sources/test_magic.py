"""Formats by their first bytes: what Pillow writes, what phones write, and what only looks like a photo."""

import numpy as np
import pytest
from alexnet_dali.pipeline.sources.magic import DECODED, HEAD_BYTES, is_photo_head, other_format, photo_format
from hypothesis import given
from hypothesis import strategies as st
from pictures import saved, scene
from PIL import Image, features

PICTURE = Image.fromarray(scene(20, 30))


def box(brand, *others):
    """The first box of MP4's container, in which HEIC, AVIF and films come."""
    return bytes([0, 0, 0, 16 + 4 * len(others)]) + b"ftyp" + brand + bytes(4) + b"".join(others) + b"\0\0\1\0meta"


WRITTEN = {
    "JPEG": [saved(PICTURE), saved(PICTURE.convert("CMYK")), saved(PICTURE, "MPO")],
    "PNG": [saved(PICTURE, "PNG")],
    "GIF": [saved(PICTURE, "GIF"), b"GIF87a" + bytes(26)],
    "BMP": [saved(PICTURE, "BMP"), saved(PICTURE.convert("1"), "BMP"), b"BM" + bytes(12) + b"\x0c\0\0\0" + bytes(9)],
    "WebP": [saved(PICTURE, "WEBP"), saved(PICTURE, "WEBP", lossless=True)],
    "TIFF": [
        saved(PICTURE, "TIFF"),
        saved(PICTURE, "TIFF", big_tiff=True),
        b"MM\0*\0\0\0\x08" + bytes(24),
        b"MM\0+\0\x08\0\0" + bytes(24),
    ],
    "PPM": [
        saved(PICTURE, "PPM"),
        saved(PICTURE.convert("L"), "PPM"),
        saved(PICTURE.convert("1"), "PPM"),
        b"P2\n# by a program with a long name and a date\n2 1\n255\n0 1\n",
        b"P1 1 1 0",
        b"P3\r\n10000 10000\r\n65535\r\n0 0 0",
        b"P5 3 # width\n2\n255\n",
    ],
    "AVIF": [
        box(b"avif", b"mif1"),
        box(b"avis", b"msf1"),
        box(b"mif1", b"miaf", b"avif"),
        box(b"mif1", b"avif"),
        *([saved(PICTURE, "AVIF")] if features.check("avif") else []),
    ],
    "HEIC": [box(brand, b"mif1", b"heic") for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")],
    "JPEG 2000": [
        *([saved(PICTURE, "JPEG2000"), saved(PICTURE, "JPEG2000", no_jp2=True)] if features.check("jpg_2000") else []),
        b"\xff\x4f\xff\x51" + bytes(28),
    ],
    "JPEG XL": [b"\xff\x0a\xfa\x1f\x01", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20)],
}
FOUND = [(name, photo) for name, photos in WRITTEN.items() for photo in photos]


@pytest.mark.parametrize(("name", "photo"), FOUND, ids=[name for name, _ in FOUND])
def test_a_photo_is_known_by_its_first_bytes(name, photo):
    assert photo_format(photo) == photo_format(photo[:HEAD_BYTES]) == name
    assert is_photo_head(photo[:HEAD_BYTES]) and not other_format(photo)


def test_every_format_that_is_decoded_has_a_signature():
    assert set(DECODED) <= set(WRITTEN)


OTHERS = {
    "SVG": [b'<svg xmlns="http://www.w3.org/2000/svg">', b"\n <svg\n"],
    "XML": [b'<?xml version="1.0"?>\n<svg>'],
    "HTML": [b"<!DOCTYPE html>\n<html>", b"<html><head>404", b"\r\n<!doctype HTML>"],
    "PDF": [b"%PDF-1.7\n"],
    "PostScript": [b"%!PS-Adobe-3.0 EPSF-3.0"],
    "Photoshop": [b"8BPS\0\1" + bytes(6)],
    "film": [
        box(b"mp42", b"isom", b"mif1"),
        box(b"isom", b"avc1"),
        box(b"qt  "),
        box(b"M4V "),
        b"RIFF\0\1\2\3AVI LIST",
    ],
    "Canon raw": [box(b"crx ", b"isom")],
    "icon": [b"\0\0\1\0\2\0" + bytes(26)],
}
TEXTS = [
    b"",
    b"B",
    b"BM",
    b"BMW and other makers, a list of cars of 2012",
    b"BM25 is a ranking function of search engines",
    b"P1 is the first of the players of the game",
    b"P5",
    b"P5\n",
    b"P6\nNo number here",
    b"P2 100 photos of cats",
    b"P3,P4,label\n",
    b"P10 20 30 40",
    b"GIF of the day",
    b"II. Chapter",
    b"MM, 2012",
    b"RIFF raff of all kinds",
    b"RIFF\0\1\2\3WAVEfmt ",
    b"path,label\na.jpg,0\n",
    b"\x1f\x8b\x08\0",
    b"\xff\xfeP\0a\0",  # UTF-16
    b"\xff\xfb\x90\x64" + bytes(28),  # MP3
    b"\xff\xd8",
    b"PK\3\4" + bytes(28),
    b"\x93NUMPY\1\0v\0{'descr': '|u1', 'fort",
    bytes(32),
]


@pytest.mark.parametrize(("name", "head"), [(name, head) for name, heads in OTHERS.items() for head in heads])
def test_what_is_no_photo_is_called_what_it_is(name, head):
    assert other_format(head) == name and not is_photo_head(head)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_no_photo(text):
    assert not is_photo_head(text) and photo_format(text) == ""


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=3, max_size=40), st.sampled_from(FOUND))
def test_words_behind_a_short_signature_are_no_photo(text, found):
    name, photo = found
    head = photo[:2] + text.encode()
    assert photo_format(head) in ("", "JPEG XL", "PPM") and (name != "BMP" or not is_photo_head(head))


@given(st.binary(max_size=40))
def test_any_bytes_may_come(head):
    assert is_photo_head(head) == bool(photo_format(head)) and isinstance(other_format(head), str)


def test_a_picture_of_numpy_is_none():
    assert not is_photo_head(np.arange(32, dtype=np.uint8).tobytes())
