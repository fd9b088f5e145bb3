"""More than 8 bits, and floats: scaled by what the file says, or rejected; never black for want of knowing."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from alexnet_dali.pipeline.prepare.decode import PhotoError, decode
from alexnet_dali.pipeline.prepare.resize import prepare
from pictures import saved, scene
from PIL import Image

COLOURS = scene(40, 60)
GREY = COLOURS[:, :, 0]
SILENT = "samples that do not say their range: convert it to 8 bits"


def scaled(pixels, largest):
    """Pixels of 0..255 as samples of 0..largest."""
    return np.rint(pixels * (largest / 255)).astype(np.uint16)


def png(samples, significant=None, damaged=False):
    """A PNG of 16 bits: grey, RGB or RGBA; with the chunk that says how many bits are significant."""
    if samples.ndim == 3:
        order = [2, 1, 0, 3][: samples.shape[2]]
        photo = cv2.imencode(".png", np.ascontiguousarray(samples[:, :, order]))[1].tobytes()
    else:
        photo = saved(Image.fromarray(samples), "PNG")
    assert photo[24] == 16
    if significant is None:
        return photo
    chunk = b"sBIT" + bytes(significant)
    return (
        photo[:33]
        + struct.pack(">I", len(chunk) - 4)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk) ^ damaged)
        + photo[33:]
    )


def same(photo, pixels, most=0):
    found = decode(photo).astype(int)
    expected = pixels if pixels.ndim == 3 else pixels[:, :, None].repeat(3, 2)
    assert found.shape == expected.shape and np.abs(found - expected).max() <= most


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_significant_bits_at_the_bottom_of_16(bits):
    largest = (1 << bits) - 1
    same(png(scaled(GREY, largest), [bits]), GREY)
    same(png(scaled(COLOURS, largest), [bits] * 3), COLOURS)
    same(png(scaled(COLOURS, largest), [bits, bits - 1, bits]), COLOURS)
    alpha = np.full((40, 60, 1), 65535, np.uint16)
    same(png(np.dstack([scaled(COLOURS, largest), alpha]), [bits, bits, bits, 16]), COLOURS)


def test_samples_shifted_into_12_bits():
    same(png(GREY.astype(np.uint16) * 16, [12]), GREY, most=1)  # 4080 is 254 of 4095


@pytest.mark.parametrize("bits", [1, 8, 12, 14, 15, 16])
def test_significant_bits_scaled_to_16_as_png_wants_them(bits):
    same(png(GREY.astype(np.uint16) * 257, [bits]), GREY)
    same(png(COLOURS.astype(np.uint16) * 257, [bits] * 3), COLOURS)


def test_a_dark_photo_of_14_bits_scaled_to_16_stays_dark():
    dark = scaled(GREY // 8, 16383) * 4
    same(png(dark, [14]), dark >> 8)


@pytest.mark.parametrize("significant", [None, [0], [17], [200], []])
def test_without_a_sensible_number_of_bits_16_are_taken(significant):
    same(png(GREY.astype(np.uint16) * 257, significant), GREY)
    same(png(scaled(GREY, 4095), significant), scaled(GREY, 4095) >> 8)


def test_a_number_of_bits_with_a_wrong_checksum_is_none():
    same(png(GREY.astype(np.uint16) * 257, [12], damaged=True), GREY)
    same(png(scaled(GREY, 4095), [12], damaged=True), scaled(GREY, 4095) >> 8)


def test_12_bits_that_say_nothing_are_read_as_16_and_reported_as_empty():
    dark = scaled(np.clip(GREY, 100, 180), 4095)
    assert prepare(png(dark)).empty == "fewer than 8 levels"
    assert prepare(png(dark, [12])).empty == ""


@pytest.mark.parametrize("largest", [1, 15, 100, 255, 256, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("kind", [b"P2", b"P3", b"P5", b"P6"])
def test_the_maximum_of_a_pgm_or_ppm(kind, largest):
    samples = scaled(GREY if kind in (b"P2", b"P5") else COLOURS, largest)
    content = samples.astype(">u2" if largest > 255 else "u1").tobytes()
    if kind in (b"P2", b"P3"):
        content = " ".join(map(str, samples.ravel().tolist())).encode()
    expected = np.rint(samples * (255 / largest))
    same(kind + b"\n# by hand\n60 40\n%d\n" % largest + content, expected, most=0 if largest >= 255 else 1)


def test_a_pbm_is_black_on_white():
    same(saved(Image.fromarray(GREY > 99), "PPM"), (GREY > 99) * np.uint8(255))


def tiff(samples, *tags, order="<", **options):
    """A TIFF; tags are pairs of a number and its value, or all values."""
    forms = {"f": "f", "i": "h", "u": "H"}
    extra = [
        (
            tag,
            forms[samples.dtype.kind] if samples.dtype.itemsize < 4 or samples.dtype.kind == "f" else "i",
            number,
            value,
            True,
        )
        for tag, value in tags
        for number in [len(value) if isinstance(value, tuple) else 1]
    ]
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, byteorder=order, extratags=extra, **options)
    return stream.getvalue()


@pytest.mark.parametrize("order", "<>")
def test_a_tiff_that_states_its_range(order):
    same(tiff((GREY / 255).astype(np.float32), (341, 1.0), order=order), GREY)
    same(tiff((GREY / 255).astype(np.float32), (340, 0.0), (341, 1.0), order=order), GREY)
    same(tiff(GREY.astype(np.float32), (341, 255.0), order=order), GREY)
    same(tiff(scaled(GREY, 4095), (281, 4095), order=order), GREY)
    same(tiff(scaled(GREY, 1023).astype(np.int16), (341, 1023), order=order), GREY)
    same(tiff(scaled(GREY, 4095).astype(np.int32), (341, 4095), order=order), GREY)


@pytest.mark.parametrize("order", "<>")
def test_16_bits_of_a_tiff(order):
    same(tiff(GREY.astype(np.uint16) * 257, order=order), GREY)
    same(tiff(GREY.astype(np.uint16) * 257, (281, 4095), order=order), GREY)  # not true: samples are larger
    same(tiff(GREY.astype(np.uint16) * 16, (281, 4080), order=order), GREY // 16)  # this photo's brightest
    same(tiff(COLOURS.astype(np.uint16) * 257, order=order, photometric="rgb"), COLOURS)


def test_12_bits_of_a_tiff():
    bits = np.unpackbits(scaled(GREY, 4095).astype(">u2").view(np.uint8)).reshape(-1, 16)[:, 4:]
    packed = np.packbits(bits).tobytes()
    tags = {256: 60, 257: 40, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 40, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    same(struct.pack("<2sHIH", b"II", 42, 8, 9) + entries + bytes(4) + packed, GREY)


def test_white_may_be_zero():
    same(tiff(255 - GREY, photometric="miniswhite"), GREY)
    same(tiff(65535 - GREY.astype(np.uint16) * 257, photometric="miniswhite"), GREY)
    same(tiff(1 - (GREY / 255).astype(np.float32), (341, 1.0), photometric="miniswhite"), GREY)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("samples", "tags", "reason"),
    [
        ((GREY / 255).astype(np.float32), [], f"TIFF of 32-bit float {SILENT}"),
        ((GREY / 255).astype(np.float32), [(341, 0.93)], f"TIFF of 32-bit float {SILENT}"),  # this photo's brightest
        (GREY.astype(np.float32), [(341, 200.0)], f"TIFF of 32-bit float {SILENT}"),
        ((GREY / 255).astype(np.float32), [(341, np.inf)], f"TIFF of 32-bit float {SILENT}"),
        ((GREY / 255).astype(np.float32), [(340, -1.0), (341, 1.0)], f"TIFF of 32-bit float {SILENT}"),
        (GREY.astype(np.float32), [], f"TIFF of 32-bit float {SILENT}"),
        (GREY.astype(np.int16), [], f"TIFF of 16-bit signed integer {SILENT}"),
        (GREY.astype(np.int32), [], f"TIFF of 32-bit signed integer {SILENT}"),
        (GREY.astype(np.int8), [], f"TIFF of 8-bit signed integer {SILENT}"),
        (scaled(COLOURS, 4095), [(281, (4095,) * 3)], "TIFF of 16-bit colour up to 4,095: convert it to 8 bits"),
        ((GREY / 255).astype(np.float64), [], "TIFF, but damaged or of an unknown kind: "),
        ((COLOURS / 255).astype(np.float32), [], "TIFF, but damaged or of an unknown kind: "),
    ],
)
def test_a_tiff_that_does_not_say_its_range(samples, tags, reason, order):
    photo = tiff(samples, *tags, order=order, photometric="rgb" if samples.ndim == 3 else None)
    for accept_truncated in (False, True):
        with pytest.raises(PhotoError) as caught:
            decode(photo, accept_truncated=accept_truncated)
        assert str(caught.value).startswith(reason)


def test_32_bits_of_a_tiff():
    with pytest.raises(PhotoError) as caught:
        decode(tiff(GREY.astype(np.uint32)))
    assert str(caught.value) == f"TIFF of 32-bit unsigned integer {SILENT}"
    same(tiff(GREY.astype(np.uint32), (341, 255)), GREY)


def test_compressed_floats_are_never_read_backwards():
    samples = (GREY / 255).astype(np.float32)
    same(tiff(samples, (341, 1.0), compression="zlib"), GREY)
    with pytest.raises(PhotoError, match="big-endian"):
        decode(tiff(samples, (341, 1.0), compression="zlib", order=">"))


def test_samples_that_are_no_numbers_are_black():
    samples = (GREY / 255).astype(np.float32)
    samples[0, 0], samples[0, 1], samples[0, 2] = np.nan, np.inf, -np.inf
    pixels = decode(tiff(samples, (341, 1.0)))
    assert pixels[0, :3, 0].tolist() == [0, 255, 0]


def test_a_pfm_is_rejected():
    for head in (b"Pf", b"PF"):
        with pytest.raises(PhotoError, match="PFM"):
            decode(head + b"\n60 40\n-1.0\n" + bytes(60 * 40 * 12))


def test_the_preview_in_a_raw_photo_is_not_the_photo():
    for tag in (330, 50706):  # of NEF and ARW; of DNG
        with pytest.raises(PhotoError) as caught:
            decode(saved(Image.fromarray(GREY), "TIFF", tiffinfo={254: 1, tag: 8}))
        assert str(caught.value) == "a raw photo: convert it to JPEG"
    for tag in (254, 270):
        same(saved(Image.fromarray(GREY), "TIFF", tiffinfo={tag: 1}), GREY)
