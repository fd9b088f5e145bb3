"""Metadata that is damaged, or too much of it, costs no photo: the pixels are those of the plain file."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from alexnet_dali.pipeline.prepare.bare import png_chunks, sum_is_right, without_metadata
from alexnet_dali.pipeline.prepare.decode import PhotoError, decode
from hypothesis import given
from hypothesis import strategies as st
from pictures import saved, scene
from PIL import Image, PngImagePlugin

PICTURE = Image.fromarray(scene(40, 60))
PIXELS = np.asarray(PICTURE)


def turned(orientation):
    about = Image.Exif()
    about[0x0112] = orientation
    return about


def described(**options):
    """A PNG with every chunk of metadata that Pillow reads."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "x" * 50)
    info.add_text("Comment", "y" * 500, zip=True)
    info.add_itxt("XML:com.adobe.xmp", "z" * 300, zip=True)
    for name, content in {
        b"tIME": bytes([7, 228, 1, 1, 0, 0, 0]),
        b"gAMA": struct.pack(">I", 45455),
        b"cHRM": bytes(32),
        b"bKGD": bytes(6),
        b"sBIT": b"\x08\x08\x08",
        b"prVt": b"of some program",
    }.items():
        info.add(name, content)
    info.add(b"zTXt", b"After\0\0" + zlib.compress(b"z" * 400), after_idat=True)
    info.add(b"tEXt", b"After\0too", after_idat=True)
    return saved(PICTURE, "PNG", pnginfo=info, icc_profile=os.urandom(600), dpi=(72, 72), **options)


PNG = described(exif=turned(6))
ANCILLARY = [(name, begin, end) for name, begin, end in png_chunks(PNG) if name[:1].islower()]


def test_the_example_has_all_kinds_of_chunks():
    names = {name for name, *_ in ANCILLARY}
    assert names >= {b"eXIf", b"iTXt", b"zTXt", b"tEXt", b"iCCP", b"tIME", b"pHYs", b"gAMA", b"cHRM", b"prVt"}


@pytest.mark.parametrize("exif", ["ignore", "apply"])
@pytest.mark.parametrize("place", range(len(ANCILLARY)))
def test_a_wrong_checksum_of_what_is_no_pixel(place, exif):
    name, begin, end = ANCILLARY[place]
    for byte in (begin, end - 1, end):  # of the content, and of the checksum
        photo = bytearray(PNG)
        photo[byte] ^= 0xFF
        upright = np.rot90(PIXELS, -1) if exif == "apply" and name != b"eXIf" else PIXELS
        np.testing.assert_array_equal(decode(bytes(photo), exif=exif), upright)


def with_text(add, *content, **options):
    info = PngImagePlugin.PngInfo()
    getattr(info, add)(*content, **options)
    return saved(PICTURE, "PNG", pnginfo=info)


TOO_MUCH = {
    "iTXt": lambda: with_text("add_itxt", "XML:com.adobe.xmp", "x" * 2_000_000, zip=True),
    "zTXt": lambda: with_text("add_text", "parameters", "x" * 2_000_000, zip=True),
    "zTXt behind": lambda: with_text("add", b"zTXt", b"x\0\0" + zlib.compress(bytes(2_000_000)), after_idat=True),
    "iCCP": lambda: saved(PICTURE, "PNG", icc_profile=os.urandom(2000) + bytes(2_000_000)),
    "unknown compression": lambda: with_text("add", b"zTXt", b"x\0\7abc"),
    "iCCP of another compression": lambda: with_text("add", b"iCCP", b"x\0\7abc"),
    "iCCP of nothing": lambda: with_text("add", b"iCCP", b""),
    "short pHYs": lambda: with_text("add", b"pHYs", b"\0"),
    "short gAMA": lambda: with_text("add", b"gAMA", b"\0"),
    "odd cHRM": lambda: with_text("add", b"cHRM", bytes(7)),
    "short sRGB": lambda: with_text("add", b"sRGB", b""),
    "short tRNS": lambda: with_text("add", b"tRNS", b"\0"),
    "animation of nothing": lambda: with_text("add", b"acTL", b"\0"),
    "animation out of order": lambda: with_text("add", b"fcTL", struct.pack(">5I", 7, 60, 40, 0, 0) + bytes(6)),
    "animation beyond the picture": lambda: with_text("add", b"fcTL", struct.pack(">5I", 0, 61, 40, 0, 0) + bytes(6)),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_metadata_that_pillow_refuses(kind):
    photo = TOO_MUCH[kind]()
    assert len(photo) < 100_000
    for accept_truncated in (False, True):
        np.testing.assert_array_equal(decode(photo, accept_truncated=accept_truncated), PIXELS)


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_png_has_the_pixels_of_the_plain_one(mode):
    grey = PIXELS[:, :, 0].astype(np.uint16) * 257
    image = Image.fromarray(grey) if mode == "I;16" else PICTURE.quantize(9) if mode == "P" else PICTURE.convert(mode)
    options = {"transparency": bytes(range(9))} if mode == "P" else {}
    plain = saved(image, "PNG", dpi=(72, 72), **options)
    wrong = bytearray(plain)
    wrong[wrong.index(b"pHYs") + 13] ^= 0xFF
    np.testing.assert_array_equal(decode(bytes(wrong)), decode(plain))


def test_the_significant_bits_are_kept():
    """They scale the samples, whatever happened to the metadata beside them."""
    samples = PIXELS[:, :, 0].astype(np.uint16) * 16
    info = PngImagePlugin.PngInfo()
    info.add(b"sBIT", b"\x0c")
    plain = saved(Image.fromarray(samples), "PNG", pnginfo=info, dpi=(72, 72))
    wrong = bytearray(plain)
    wrong[wrong.index(b"pHYs") + 13] ^= 0xFF
    assert decode(plain).max() > 200
    np.testing.assert_array_equal(decode(bytes(wrong)), decode(plain))


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"IDAT"])
def test_a_wrong_checksum_of_the_pixels_rejects(name):
    photo = bytearray(saved(PICTURE.quantize(9), "PNG", dpi=(72, 72)))
    end = next(end for found, _, end in png_chunks(bytes(photo)) if found == name)
    photo[end] ^= 1
    with pytest.raises(PhotoError, match="PNG"):
        decode(bytes(photo))
    photo[photo.index(b"pHYs") + 13] ^= 1  # metadata are damaged as well
    with pytest.raises(PhotoError, match="PNG"):
        decode(bytes(photo))


@given(st.data())
def test_damage_among_the_pixels_of_a_png_never_goes_unnoticed(data):
    begin, end = next((begin, end) for name, begin, end in png_chunks(PNG) if name == b"IDAT")
    photo = bytearray(PNG)
    photo[data.draw(st.integers(begin, end + 3))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PhotoError):
        decode(bytes(photo))


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


SEGMENTS = {
    "a profile of nothing": segment(0xE2, b"ICC_PROFILE\0"),
    "a profile without its number": segment(0xE2, b"ICC_PROFILE\0\1"),
    "a profile of three parts, one there": segment(0xE2, b"ICC_PROFILE\0\1\3abc"),
    "Photoshop's, torn": segment(0xED, b"Photoshop 3.0\x008BIM\3\xed"),
    "JFIF, torn": segment(0xE0, b"JFIF"),
    "JFIF, torn later": segment(0xE0, b"JFIF\0"),
    "Adobe's, torn": segment(0xEE, b"Adobe"),
    "previews, torn": segment(0xE2, b"MPF\0II*\0\x08\0\0\0"),
    "two previews that are not there": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\4\0\1\0\0\0\2\0\0\0\0\0\0\0"),
    "Exif of nothing": segment(0xE1, b"Exif\0\0"),
    "100 XMPs": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0".ljust(65533, b"x")) * 100,
}


@pytest.mark.parametrize("colours", ["RGB", "L", "CMYK", "stray bytes"])
@pytest.mark.parametrize("kind", SEGMENTS)
def test_segments_of_a_jpeg(kind, colours):
    """Pillow reads those of four colours, and those that libjpeg-turbo complains about."""
    image = PICTURE if colours == "stray bytes" else PICTURE.convert(colours)
    plain = saved(image, quality=90) + (b"stray" if colours == "stray bytes" else b"")
    photo = plain[:2] + SEGMENTS[kind] + plain[2:]
    np.testing.assert_array_equal(decode(photo), decode(plain))


@pytest.mark.parametrize("colours", ["RGB", "CMYK"])
def test_the_orientation_is_found_beside_damaged_segments(colours):
    image = PICTURE.convert(colours)
    plain = saved(image, quality=90)
    photo = saved(image, quality=90, exif=turned(6))
    photo = photo[:2] + SEGMENTS["Photoshop's, torn"] + photo[2:]
    np.testing.assert_array_equal(decode(photo, exif="apply"), np.rot90(decode(plain), -1))
    np.testing.assert_array_equal(decode(photo), decode(plain))


def test_the_colour_space_of_a_jpeg_is_no_metadata():
    """Adobe's segment says that inks are stored as luma and chroma; JFIF's that three channels are."""
    for image in (PICTURE, PICTURE.convert("CMYK")):
        photo = saved(image, quality=90, comment=b"x" * 99, icc_profile=bytes(99))
        bare = without_metadata(photo, exif=False)
        assert len(bare) < len(photo) - 198 and (b"JFIF" in bare or b"Adobe" in bare)
        np.testing.assert_array_equal(decode(bare), decode(photo))


TAGS = [(33432, "s", 0, "copy" * 9, True), (34377, "B", 40, b"8BIM" + bytes(36), True)]
TIFFS = {(order, big): io.BytesIO() for order in "<>" for big in (False, True) if (order, big) != (">", True)}
for (order, big), stream in TIFFS.items():
    tifffile.imwrite(
        stream, PIXELS, byteorder=order, bigtiff=big, photometric="rgb", description="x" * 99, extratags=TAGS
    )


@pytest.mark.parametrize("kind", TIFFS)
@pytest.mark.parametrize("tag", [270, 305, 33432, 34377])
def test_tags_of_a_tiff_that_lead_nowhere(kind, tag):
    order, big = kind
    photo = bytearray(TIFFS[kind].getvalue())
    place = photo.index(struct.pack(order + "HHQ" if big else order + "HHI", tag, 1 if tag == 34377 else 2, 40)[:3])
    size = 8 if big else 4
    for number, pointer in ((0xFF, 0xFF), (0x7F, 0xFF), (40, 0xFF), (0, 0)):
        photo[place + 4 : place + 4 + 2 * size] = bytes([number]) * size + bytes([pointer]) * size
        for form in (0, 2, 13, 99):
            photo[place + 2 : place + 4] = struct.pack(order + "H", form)
            np.testing.assert_array_equal(decode(bytes(photo)), PIXELS)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_is_turned_without_its_metadata_too(compression):
    photo = saved(PICTURE, "TIFF", compression=compression, exif=turned(6), icc_profile=bytes(99))
    bare = without_metadata(photo, exif=True)
    assert bare != photo
    for exif in ("ignore", "apply"):
        np.testing.assert_array_equal(decode(bare, exif=exif), decode(photo, exif=exif))


WHOLE = [saved(PICTURE, kind, exif=turned(3)) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "MPO")]
WHOLE += [saved(PICTURE, kind) for kind in ("GIF", "BMP", "PPM")] + [stream.getvalue() for stream in TIFFS.values()]


@pytest.mark.parametrize("photo", WHOLE)
@pytest.mark.parametrize("exif", ["ignore", "apply"])
def test_a_whole_photo_without_its_metadata_is_the_same_photo(photo, exif):
    np.testing.assert_array_equal(decode(without_metadata(photo, exif == "apply"), exif=exif), decode(photo, exif=exif))


@given(st.sampled_from(WHOLE), st.binary(max_size=60), st.booleans())
def test_whatever_the_bytes_are_some_bytes_come_back(photo, junk, exif):
    for data in (photo[: len(junk) * 7], photo[:8] + junk, photo[:16] + junk, photo[:2] + junk, junk):
        assert len(without_metadata(data, exif)) <= max(len(data), len(without_metadata(photo, exif)) + 200)


def test_chunks_end_where_the_file_does():
    assert [name for name, *_ in png_chunks(PNG)][-1] == b"IEND"
    assert all(sum_is_right(PNG, begin, end) for _, begin, end in png_chunks(PNG))
    for cut in range(8, len(PNG), 97):
        assert all(end + 4 <= cut for _, _, end in png_chunks(PNG[:cut]))
