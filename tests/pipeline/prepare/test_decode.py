"""The decoder: any photo becomes RGB by what its bytes are; whatever is none is rejected with its reason."""

import base64
import contextlib
import gzip
import io
import math
import os
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from alexnet_dali.pipeline.prepare import decode as module
from alexnet_dali.pipeline.prepare.decode import PhotoError, decode
from alexnet_dali.pipeline.prepare.pillow_settings import pillow_settings
from alexnet_dali.pipeline.prepare.resize import prepare
from hypothesis import given
from hypothesis import strategies as st
from pictures import noise, opened, saved, scene
from PIL import Image, ImageFile, ImageOps, features


def test_a_plain_jpeg_is_decoded_as_pillow_and_opencv_do():
    photo = saved(scene(97, 131), quality=80)
    np.testing.assert_array_equal(decode(photo), opened(photo))
    opencvs = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
    assert opencvs is not None and np.abs(decode(photo).astype(int) - opencvs[:, :, ::-1]).max() <= 2


COLOURS = scene(80, 120)
GREY = COLOURS[:, :, 0]
PALETTE = Image.fromarray(COLOURS).quantize(32)


PHOTOS = {
    "progressive": (saved(COLOURS, quality=95, progressive=True), COLOURS),
    "4:4:4": (saved(COLOURS, quality=95, subsampling="4:4:4"), COLOURS),
    "grey JPEG": (saved(GREY, quality=95), GREY[:, :, None].repeat(3, 2)),
    "PNG named JPEG": (saved(COLOURS, "PNG"), COLOURS),
    "PNG with alpha": (saved(np.dstack([COLOURS, GREY]), "PNG"), COLOURS),
    "grey PNG": (saved(GREY, "PNG"), GREY[:, :, None].repeat(3, 2)),
    "grey with alpha": (saved(Image.fromarray(GREY).convert("LA"), "PNG"), GREY[:, :, None].repeat(3, 2)),
    "16-bit PNG": (saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), GREY[:, :, None].repeat(3, 2)),
    "bilevel PNG": (
        saved(Image.fromarray(GREY > 99), "PNG"),
        ((GREY > 99) * np.uint8(255))[:, :, None].repeat(3, 2),
    ),
    "palette": (saved(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB"))),
    "palette with alpha": (
        saved(PALETTE, "PNG", transparency=bytes(range(32))),
        np.asarray(PALETTE.convert("RGB")),
    ),
    "GIF": (saved(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB"))),
    "BMP": (saved(COLOURS, "BMP"), COLOURS),
    "WebP": (saved(COLOURS, "WEBP", lossless=True), COLOURS),
    "TIFF": (saved(COLOURS, "TIFF"), COLOURS),
    "PPM": (saved(COLOURS, "PPM"), COLOURS),
}


@pytest.mark.parametrize("kind", PHOTOS)
def test_any_photo_becomes_rgb(kind):
    photo, expected = PHOTOS[kind]
    pixels = decode(photo)
    assert pixels.shape == expected.shape and pixels.dtype == np.uint8
    lossy = photo[:2] == b"\xff\xd8"
    assert np.abs(pixels.astype(int) - expected).mean() <= (3 if lossy else 0)


ADOBE = b"Adobe\0\x64\0\0\0\0"  # the marker whose next byte says 0 for CMYK, 2 for YCCK; inks are stored inverted


def ycck(image):
    """A JPEG of four channels, the first three turned to luma and chroma as Photoshop does; Pillow cannot write it."""
    inks = np.asarray(image.convert("CMYK"))
    luma = np.asarray(Image.fromarray(inks[:, :, :3]).convert("YCbCr"))  # libjpeg inverts these once more
    photo = saved(Image.fromarray(np.dstack([255 - luma, inks[:, :, 3:]]), "CMYK"), quality=95)
    assert photo.count(ADOBE + b"\0") == 1
    return photo.replace(ADOBE + b"\0", ADOBE + b"\2")


@pytest.mark.parametrize("kind", ["CMYK", "YCCK"])
def test_four_inks_are_no_negative(kind):
    image = Image.fromarray(COLOURS)
    photo = saved(image.convert("CMYK"), quality=95) if kind == "CMYK" else ycck(image)
    assert simplejpeg.decode_jpeg_header(photo)[2] == kind
    assert np.abs(decode(photo).astype(int) - COLOURS).mean() < 4


def test_four_inks_are_as_opencv_sees_them():
    photo = saved(Image.fromarray(COLOURS).convert("CMYK"), quality=95)  # inverted, as Adobe's marker promises
    opencvs = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
    assert opencvs is not None and np.abs(decode(photo).astype(int) - opencvs[:, :, ::-1]).max() <= 2


def test_four_inks_without_adobes_marker_are_inverted_too():
    photo = saved(Image.fromarray(COLOURS).convert("CMYK"), quality=95)
    place = photo.index(ADOBE) - 4
    unmarked = photo[:place] + photo[place + 16 :]  # marker, length and 12 bytes
    assert b"Adobe" not in unmarked
    np.testing.assert_array_equal(decode(unmarked), decode(photo))  # as OpenCV and Pillow, and so the authors, read it
    assert prepare(unmarked).form == "JPEG CMYK"


WITH_TAGS = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "compressed TIFF": {"compression": "tiff_lzw"},  # another way through Pillow, which turns TIFFs of its own accord
}


def tagged(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(COLOURS, kind.split()[-1], exif=exif, **WITH_TAGS[kind])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", WITH_TAGS)
def test_orientation_tags_are_applied_if_asked_for_and_not_otherwise(kind, orientation):
    stored = decode(saved(COLOURS, quality=95)) if kind == "JPEG" else COLOURS
    photo = tagged(kind, orientation)
    np.testing.assert_array_equal(decode(photo), stored)
    transposed = stored.transpose(1, 0, 2)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: transposed,
        6: transposed[:, ::-1],  # the camera was held upright: its left side is the top of the scene
        7: transposed[::-1, ::-1],
        8: transposed[::-1],
    }[orientation]
    np.testing.assert_array_equal(decode(photo, exif="apply"), upright)
    if kind == "JPEG":
        theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(photo)))
        np.testing.assert_array_equal(upright, np.asarray(theirs))
    for exif, sides in (("ignore", stored.shape), ("apply", upright.shape)):
        picture = prepare(photo, exif=exif, size=32, fit="short-side")
        assert (picture.source_height, picture.source_width) == sides[:2]
        assert (picture.height < picture.width) == (sides[0] < sides[1])


def with_segment(content, marker=0xE1):
    plain = saved(COLOURS, quality=95)
    return plain[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + plain[2:]


@given(st.binary(max_size=60), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08\0\1\x01\x12"]))
def test_broken_exif_never_rejects_a_photo(junk, head):
    photo = with_segment(b"Exif\0\0" + head + junk)
    pixels = decode(photo, exif="apply")
    assert sorted(pixels.shape) == sorted(COLOURS.shape)
    np.testing.assert_array_equal(decode(photo), decode(saved(COLOURS, quality=95)))


@pytest.mark.parametrize("value", [0, 9, 65535])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_senseless_orientation_is_none(kind, value):
    np.testing.assert_array_equal(decode(tagged(kind, value), exif="apply"), decode(tagged(kind, 1)))


def test_metadata_may_be_huge():
    plain = saved(COLOURS, quality=95)
    for photo in (
        with_segment(b"Exif\0\0" + bytes(65000)),
        saved(COLOURS, quality=95, icc_profile=bytes(3_000_000)),
    ):
        assert len(photo) > 65000
        for exif in ("ignore", "apply"):
            np.testing.assert_array_equal(decode(photo, exif=exif), decode(plain))


def test_stray_bytes_after_the_photo_do_no_harm():
    photo = saved(COLOURS, quality=95)
    np.testing.assert_array_equal(decode(photo + b"\0stray bytes"), decode(photo))


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_truncated_photo_is_rejected(kind, tenth):
    photo = saved(noise(60, 80), "JPEG", progressive=True) if kind == "progressive" else saved(noise(60, 80), kind)
    with pytest.raises(PhotoError):
        decode(photo[: len(photo) * tenth // 10])


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "CMYK", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("tenth", range(0, 11))
def test_of_a_truncated_photo_is_kept_what_there_is_if_asked_for(kind, tenth):
    image = Image.fromarray(noise(60, 80))
    if kind == "CMYK":
        image = image.convert("CMYK")
    options = {"progressive": {"progressive": True}, "GIF": {"interlace": 0}}.get(kind, {})
    photo = saved(image, "JPEG" if kind in ("progressive", "CMYK") else kind, **options)
    whole = decode(photo)
    torn = photo[: len(photo) * tenth // 10]
    if tenth == 10:
        np.testing.assert_array_equal(decode(torn, accept_truncated=True), whole)
        return
    try:
        pixels = decode(torn, accept_truncated=True)
    except PhotoError:  # too little: not even a row, or a format that comes in one piece
        assert tenth <= 2 or kind in ("WEBP", "TIFF", "BMP")
        return
    assert pixels.shape == whole.shape
    rows = 60 * max(0, tenth - 2) // 10 // 16 * 16  # after the headers, and in whole blocks
    if kind == "BMP":  # stored upside down
        pixels, whole = pixels[::-1], whole[::-1]
    if kind not in ("progressive", "TIFF"):
        np.testing.assert_array_equal(pixels[: max(0, rows - 1)], whole[: max(0, rows - 1)])
    if tenth >= 8:
        assert np.abs(pixels.astype(int) - whole).mean() < 60  # two noises are 85 apart


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_torn_photo_without_a_pixel_is_rejected_all_the_same(kind):
    photo = saved(COLOURS, kind)
    end = photo.index(b"\xff\xda") + 10 if kind == "JPEG" else photo.index(b"IDAT") + 6
    with pytest.raises(PhotoError, match=r"(?i)truncated"):
        decode(photo[:end], accept_truncated=True)


def test_accepting_torn_photos_is_each_threads_own_affair():
    torn = saved(noise(60, 80), "PNG")[:-6000]
    earlier = bool(ImageFile.LOAD_TRUNCATED_IMAGES)

    def kept(accept):
        try:
            return decode(torn, accept_truncated=accept).shape == (60, 80, 3)
        except PhotoError:
            return False

    accepts = [True, False] * 200
    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(kept, accepts)) == accepts
    assert bool(ImageFile.LOAD_TRUNCATED_IMAGES) == earlier


GLOBALS = """
import io, warnings
import numpy  # has warning filters of its own
from PIL import ExifTags, Image, ImageFile

def settings():
    registries = (Image.ID, Image.OPEN, Image.DECODERS, Image.SAVE, Image.EXTENSION, Image.MIME)
    values = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK, ImageFile.SAFEBLOCK)
    return values, [type(value) for value in values], [list(one) for one in registries], list(warnings.filters)
"""
MODULES = [
    f"alexnet_dali.pipeline.{path.parent.name}.{path.stem}"
    for wing in ("plan", "shards", "sources", "prepare")
    for path in sorted((Path(module.__file__).parents[1] / wing).glob("*.py"))
    if path.stem != "__init__"
]


@pytest.mark.parametrize("host", ["", "Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = 77, True\n"])
def test_importing_and_decoding_change_no_global_of_pillow(host, tmp_path):
    """In a fresh process. Pillow registers its plugins on the first open: they are compared after its own init."""
    photo = tmp_path / "photo.png"
    photo.write_bytes(saved(COLOURS, "PNG"))
    (tmp_path / "torn.png").write_bytes(saved(noise(60, 80), "PNG")[:-6000])
    script = f"""{GLOBALS}{host}
before = settings()
import importlib
for name in {MODULES!r}:
    importlib.import_module(name)
assert settings() == before, f"import: {{settings()}}, was {{before}}"
from alexnet_dali.pipeline.prepare.decode import PhotoError, decode
from alexnet_dali.pipeline.prepare.pillow_settings import pillow_settings
Image.init()
before = settings()
for exif in ("ignore", "apply"):
    for name in ("photo.png", "torn.png"):
        for accept in (False, True):
            try:
                decode(open(name, "rb").read(), exif=exif, accept_truncated=accept)
                assert name == "photo.png" or accept
            except PhotoError:
                assert name == "torn.png" and not accept
            assert settings() == before, f"decode: {{settings()}}, was {{before}}"
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF"])
def test_pillows_own_limit_of_pixels_is_for_other_threads_only(kind, monkeypatch):
    """The host's limit neither rejects our photos nor is it lifted in its own threads while we decode."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    photo = saved(Image.fromarray(COLOURS).convert("CMYK")) if kind == "JPEG" else saved(COLOURS, kind)
    opening, opened_elsewhere = threading.Event(), threading.Event()
    original = module.describe_format

    def wait_for_the_other_thread(*arguments, **options):
        opening.set()
        assert opened_elsewhere.wait(60)
        return original(*arguments, **options)

    monkeypatch.setattr(module, "describe_format", wait_for_the_other_thread)
    with ThreadPoolExecutor(1) as executor:
        decoding = executor.submit(decode, photo, exif="apply")
        assert opening.wait(60)
        try:
            with pytest.raises(Image.DecompressionBombError, match="exceeds limit of 200 pixels"):
                Image.open(io.BytesIO(photo))
        finally:
            opened_elsewhere.set()
        assert decoding.result(60).shape == COLOURS.shape
    assert type(Image.MAX_IMAGE_PIXELS) is int and Image.MAX_IMAGE_PIXELS == 100


def test_threads_that_overlap_leave_pillow_as_it_was():
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    photo = saved(noise(60, 80), "PNG")
    with ThreadPoolExecutor(8) as executor:
        assert all(pixels.shape == (60, 80, 3) for pixels in executor.map(decode, [photo] * 400))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


DAMAGED = ", but damaged or of an unknown kind: if it can be viewed, save it as an 8-bit JPEG or PNG"


@pytest.mark.parametrize("missing", [1, 2, 40])
def test_a_jpeg_without_its_last_bytes_is_rejected(missing):
    with pytest.raises(PhotoError, match="truncated"):
        decode(saved(COLOURS, quality=95)[:-missing])


@pytest.mark.parametrize(
    ("photo", "reason"),
    [
        (b"", "the file is empty"),
        (b"x", "not a photo in a known format"),
        (b"Dear reader,\nthis is no photo.\n", "not a photo in a known format"),
        (b"\xff\xd8", "not a photo in a known format"),
        (b"\xff\xd8\xff\xe0" + bytes(100), f"JPEG{DAMAGED}"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), f"PNG{DAMAGED}"),
        (saved(COLOURS, "TIFF").replace(b"\x06\x01\3\0\1\0\0\0\2\0", b"\x06\x01\3\0\1\0\0\0\x63\0"), f"TIFF{DAMAGED}"),
        (saved(COLOURS, "JPEG2000"), "JPEG 2000 is not supported: convert it to JPEG"),
        (b"\xff\x0a\xfa\x1f\1" + bytes(30), "JPEG XL is not supported: convert it to JPEG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(30), "HEIC is not supported: convert it to JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(30), "HEIC is not supported: convert it to JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a photo in a known format but SVG: convert it to JPEG"),
        (
            b"<?xml version='1.0'?>\n<!-- a drawing -->\n<svg/>",
            "not a photo in a known format but SVG: convert it to JPEG",
        ),
        (b"<?xml version='1.0'?><feed/>", "not a photo in a known format but XML: convert it to JPEG"),
        (b"<!DOCTYPE html>\n<title>Not found</title>", "not a photo in a known format but HTML: download it again"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41" + bytes(30), "not a photo in a known format but film"),
        (
            saved(COLOURS, "PDF"),
            "not a photo in a known format but PDF: convert it to JPEG",
        ),  # Pillow's other formats stay shut
        (saved(COLOURS, "ICO", sizes=[(16, 16)]), "not a photo in a known format but icon: convert it to JPEG"),
    ],
)
def test_what_is_no_photo_is_rejected_with_its_reason(photo, reason):
    with pytest.raises(PhotoError) as caught:
        prepare(photo)
    assert str(caught.value) == reason


needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


@needs_avif
@pytest.mark.parametrize("exif", ["ignore", "apply"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_as_every_viewer_shows_it(orientation, exif):
    """Its rotation is a part of the picture: Pillow writes the tag so, and reads it back as a tag."""
    about = Image.Exif()
    about[0x0112] = orientation
    photo = saved(COLOURS, "AVIF", quality=100, subsampling="4:4:4", exif=about)
    stored = Image.fromarray(COLOURS)
    stored.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored))
    assert np.abs(decode(photo, exif=exif).astype(int) - upright).max() <= 8
    assert prepare(photo).form == "AVIF"


@needs_avif
def test_a_torn_or_oversized_avif_is_rejected():
    photo = saved(COLOURS, "AVIF")
    for tenth in range(1, 10):
        with pytest.raises(PhotoError):
            decode(photo[: len(photo) * tenth // 10])
    with pytest.raises(PhotoError, match="120x80 is more than 9,599 pixels"):
        decode(photo, max_pixels=9599)


@pytest.mark.parametrize(
    ("error", "reason"), [(OSError("two\n  lines"), "two lines"), (AssertionError(), "AssertionError")]
)
def test_a_reason_is_one_line_of_words(monkeypatch, error, reason):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(PhotoError) as caught:
        decode(b"x")
    assert str(caught.value) == reason


def claimed(width, height, kind):
    """A small file whose header claims other sides."""
    if kind == "JPEG":
        photo = bytearray(saved(noise(16, 16)))
        frame = photo.index(b"\xff\xc0")
        photo[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
        return bytes(photo)
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND")
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_bomb_is_rejected_at_once_and_without_memory(kind):
    photo = claimed(65500, 65500, kind)
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(PhotoError) as caught:
        prepare(photo)
    seconds, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(caught.value) == "65500x65500 is more than 100,000,000 pixels"
    assert seconds < 1 and peak < 1 << 20


def test_the_largest_photo_of_imagenet_is_no_bomb():
    module._check_pixels(10000, 10000, module.MAX_PIXELS)
    with pytest.raises(PhotoError):
        module._check_pixels(10000, 10001, module.MAX_PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("accept_truncated", [False, True])
def test_how_many_pixels_are_too_many_can_be_said(kind, accept_truncated):
    photo = saved(noise(30, 40), kind)
    assert prepare(photo, max_pixels=1200, accept_truncated=accept_truncated).source_width == 40
    with pytest.raises(PhotoError) as caught:
        prepare(photo, max_pixels=1199, accept_truncated=accept_truncated)
    assert str(caught.value) == "40x30 is more than 1,199 pixels"


def test_no_pixels_are_rejected():
    with pytest.raises(PhotoError):
        decode(claimed(0, 16, "PNG"))
    with pytest.raises(PhotoError):
        decode(claimed(0, 16, "JPEG"))


def many_scans(scans):
    """A progressive photo, its last scan said again and again."""
    photo = saved(noise(300, 400), progressive=True)
    last = photo[photo.rindex(b"\xff\xda") : -2]
    return photo[:-2] + last * (scans - 10) + photo[-2:]


def test_scans_without_end_are_refused_at_once():
    assert decode(many_scans(module.MAX_SCANS)).shape == (300, 400, 3)
    began = time.perf_counter()
    for accept_truncated in (False, True):
        with pytest.raises(PhotoError) as caught:
            decode(many_scans(500), accept_truncated=accept_truncated)
        assert str(caught.value) == "a JPEG of more than 100 scans"
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("tail", [b"", b"\0", b"\xd9", b"\xda"])
def test_a_run_of_ff_is_counted_through_in_no_time(tail):
    """Erased flash: a card that lost its pictures."""
    photo = saved(COLOURS, progressive=True)[:-2] + b"\xff" * (1 << 20) + tail
    began = time.perf_counter()
    module._scans(photo)
    module._scans(b"\xff\xd8" + b"\xff" * (1 << 20) + tail)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(("options", "scans"), [({}, 1), ({"progressive": True}, 10)])
def test_scans_are_counted_where_scans_are(options, scans):
    photo = saved(COLOURS, quality=95, **options)
    assert module._scans(photo) == scans
    preview = b"\xff\xda\0\2" * 200  # in a segment, and after the end: no scans
    assert module._scans(photo[:2] + b"\xff\xe2" + struct.pack(">H", 802) + preview + photo[2:] + preview) == scans
    separate = photo.replace(b"\xff\xda\0\x0c\3", b"\xff\xda\0\x0c\2")  # a first scan that lacks a channel
    assert module._scans(separate[:-2] + preview) == module.MAX_SCANS + 1


@given(st.binary(max_size=100))
def test_counting_scans_ends_whatever_it_reads(junk):
    assert 0 <= module._scans(b"\xff\xd8" + junk) <= module.MAX_SCANS + 1


# 16x16 pixels, red rising to the right and green downwards by 16 a pixel, blue 128: libjpeg-turbo with arith_code.
ARITHMETIC = base64.b64decode(
    "/9j/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIUFRT/2wBDAQMEBAUEBQkF"
    "BQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/yQARCAAQABADASIAAhEBAxEB/8wACgAQEAUB"
    "EBEF/9oADAMBAAIRAxEAPwD/AN4Gp7rfXMXHJ443imuyLjWF1IjZrQUlLC/wT4q/INZBWinf4/ioRsYlyv/Z"
)


def test_arithmetic_coding_is_read():
    steps = np.arange(16) * 16
    expected = np.stack(np.broadcast_arrays(steps[None], steps[:, None], 128), axis=2)
    assert np.abs(decode(ARITHMETIC).astype(int) - expected).mean() < 3


@pytest.mark.parametrize("marker", [0xC0, 0xC1])
def test_12_bit_jpegs_are_rejected_in_words(marker):
    photo = bytearray(saved(COLOURS))
    frame = photo.index(b"\xff\xc0")
    photo[frame + 1], photo[frame + 4] = marker, 12
    for accept_truncated in (False, True):
        with pytest.raises(PhotoError):
            decode(bytes(photo), accept_truncated=accept_truncated)


def test_16_bits_of_colour_become_the_upper_8():
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    photo = cv2.imencode(".png", deep[:, :, ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode(photo), deep >> 8)
    assert prepare(photo).form == "PNG 16 bit"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_counts(kind):
    frames = [Image.fromarray(scene(40, 60, seed)).quantize(64).convert("RGB") for seed in (1, 2)]
    options = {"lossless": True} if kind == "WEBP" else {}
    photo = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(photo)).n_frames == 2
    assert np.abs(decode(photo).astype(int) - np.asarray(frames[0])).max() <= (8 if kind == "GIF" else 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_one_pixel_is_a_photo(kind):
    picture = prepare(saved(np.full((1, 1, 3), 77, np.uint8), kind), encoding="raw")
    pixels = np.frombuffer(picture.data, np.uint8)
    assert len(pixels) == 256 * 256 * 3 and np.abs(pixels.astype(int) - 77).max() <= 3


FORMS = {
    "progressive": "JPEG",
    "4:4:4": "JPEG",
    "grey JPEG": "JPEG grey",
    "PNG named JPEG": "PNG",
    "PNG with alpha": "PNG alpha",
    "grey PNG": "PNG grey",
    "grey with alpha": "PNG grey alpha",
    "16-bit PNG": "PNG grey 16 bit",
    "bilevel PNG": "PNG bilevel",
    "palette": "PNG palette",
    "palette with alpha": "PNG palette",
    "GIF": "GIF",
    "BMP": "BMP",
    "WebP": "WebP",
    "TIFF": "TIFF",
    "PPM": "PPM",
}


@pytest.mark.parametrize("kind", PHOTOS)
def test_a_photo_is_called_what_it_is(kind):
    assert prepare(PHOTOS[kind][0]).form == FORMS[kind]


def test_jpegs_are_called_what_they_are():
    image = Image.fromarray(COLOURS)
    assert prepare(saved(image.convert("CMYK"), quality=95)).form == "JPEG CMYK"
    assert prepare(ycck(image)).form == "JPEG YCCK"
    assert prepare(saved(image) + b"stray bytes").form == "JPEG"
    assert prepare(saved(image.convert("L")) + b"stray bytes").form == "JPEG grey"
    assert prepare(saved(image, "MPO", save_all=True, append_images=[image])).form == "JPEG"
    assert prepare(saved(image)[:-50], accept_truncated=True).form == "JPEG"
    assert prepare(ARITHMETIC).form == "JPEG"


BASES = [saved(COLOURS[:24, :24], kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM")]


@pytest.mark.parametrize("options", [{}, {"exif": "apply", "accept_truncated": True}], ids=["plain", "both options"])
@given(
    photo=st.sampled_from(BASES),
    flips=st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(1, 255)), min_size=1, max_size=6),
)
def test_damaged_photos_are_rejected_or_read_and_never_raise_another_error(options, photo, flips):
    damaged = bytearray(photo)
    for place, bits in flips:
        damaged[place % len(damaged)] ^= bits
    try:
        pixels = decode(bytes(damaged), **options)
    except PhotoError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise_another_error(data):
    for head in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"P6 "):
        for accept_truncated in (False, True):
            with contextlib.suppress(PhotoError):
                decode(head + data, exif="apply", accept_truncated=accept_truncated)


def test_a_photo_in_gzip_is_unpacked():
    """Some photos of ILSVRC-2010 are such files."""
    photo = saved(np.full((30, 40, 3), 90, np.uint8))
    assert np.array_equal(decode(gzip.compress(photo)), decode(photo))
    assert prepare(gzip.compress(photo), size=16).form == "JPEG"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x1f\x8b", "gzip: truncated, or more than 67,108,864 bytes"),
        (gzip.compress(b"photo", mtime=0)[:-9], "gzip: truncated, or more than 67,108,864 bytes"),
        (gzip.compress(bytes(1 << 27), mtime=0), "gzip: truncated, or more than 67,108,864 bytes"),
        (b"\x1f\x8bnothing of the kind", "gzip: Error -3"),
        (gzip.compress(b"", mtime=0), "the file is empty"),
        (gzip.compress(b"no photo", mtime=0), "not a photo in a known format"),
        (gzip.compress(gzip.compress(b"twice", mtime=0), mtime=0), "not a photo in a known format"),
    ],
)
def test_gzip_that_holds_no_photo(data, reason):
    with pytest.raises(PhotoError) as caught:
        decode(data)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("limit", [math.inf, None, 1000])
def test_any_limit_of_the_program_is_left_and_returns(limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    filters = list(warnings.filters)
    assert decode(saved(noise(40, 50), "PNG")).shape == (40, 50, 3)
    assert Image.MAX_IMAGE_PIXELS is limit and warnings.filters == filters


def test_what_the_program_sets_while_a_photo_is_decoded_stays_and_does_not_concern_the_photo(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    inside, leave = threading.Event(), threading.Event()

    def decoding():
        with pillow_settings(truncated=False):
            inside.set()
            leave.wait(60)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(decoding)
        inside.wait(60)
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = 7, True
        assert decode(saved(noise(40, 50), "PNG")).shape == (40, 50, 3)  # 2,000 pixels
        leave.set()
        done.result()
    assert Image.MAX_IMAGE_PIXELS == 7 and type(Image.MAX_IMAGE_PIXELS) is int
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_process_forked_while_photos_are_decoded_has_the_programs_settings(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    with pillow_settings(truncated=True):
        child = os.fork()
        if child == 0:
            with pillow_settings(truncated=False):
                pass
            os._exit(0 if type(Image.MAX_IMAGE_PIXELS) is int and ImageFile.LOAD_TRUNCATED_IMAGES is False else 1)
        assert os.waitpid(child, 0)[1] == 0
