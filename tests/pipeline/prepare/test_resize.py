"""The stored picture: the pixels of the authors' tool, the sides rounded, the JPEG that every decoder reads."""

import io
import struct

import cv2
import numpy as np
import oracle
import pytest
from alexnet_dali.pipeline.prepare.decode import PhotoError
from alexnet_dali.pipeline.prepare.resize import encode_jpeg, fit_pixels, fitted_sides, prepare, why_empty
from hypothesis import given
from hypothesis import strategies as st
from pictures import noise, opened, saved, scene
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile


def as_the_authors_did(pixels, size):
    """make-data of cuda-convnet2, in words: scale so that the short side is `size`, round the long one, cut the middle.

    Area averaging when the picture shrinks, cubic when it grows.
    """
    height, width = pixels.shape[:2]
    scale = size / min(height, width)
    new_height, new_width = int(height * scale + 0.5), int(width * scale + 0.5)  # C's round, on positive numbers
    if scale < 1:
        pixels = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_AREA)
    elif scale > 1:
        pixels = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_CUBIC)
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return pixels[top : top + size, left : left + size]


SHAPES = {
    "landscape": (300, 401),
    "portrait": (401, 300),
    "square": (300, 300),
    "exactly": (256, 256),
    "exactly wide": (256, 401),
    "exactly tall": (387, 256),
    "one more": (257, 258),
    "one less": (255, 254),
    "enlarged": (90, 121),
    "enlarged portrait": (121, 90),
    "enlarged, though one side is longer": (200, 301),
    "tiny": (1, 1),
    "one line": (1, 7),
    "odd margin": (512, 771),
    "half a column": (512, 1025),  # 512.5 of them
    "half a row": (1025, 512),
    "panorama": (260, 1500),
}


@pytest.mark.parametrize("name", SHAPES)
def test_pixels_are_the_authors(name):
    pixels = noise(*SHAPES[name])
    ours, theirs = fit_pixels(pixels, 256), as_the_authors_did(pixels, 256)
    if min(SHAPES[name]) <= 256:
        np.testing.assert_array_equal(ours, theirs)
    else:  # OpenCV sums float32 as it comes, area.py exactly: noise differs in one value in a hundred, by one level
        apart = np.abs(ours.astype(int) - theirs)
        assert apart.max() <= 1 and (apart > 0).mean() < 0.02


@pytest.mark.parametrize("sides", [(67, 91), (91, 67), (64, 200), (41, 32), (33, 32)])
def test_shrinking_is_the_mean_of_the_area(sides):
    pixels = noise(*sides)
    height, width = sides
    new = fitted_sides(height, width, 32)
    expected = oracle.area_resize(pixels, *new)
    got = fit_pixels(pixels, 32, "short-side")
    assert got.shape == (*new, 3)
    assert np.abs(got - expected).max() <= 1.0


def test_fit_short_side_keeps_the_whole_picture():
    pixels = scene(300, 401)
    whole, square = fit_pixels(pixels, 256, "short-side"), fit_pixels(pixels, 256, "crop")
    assert whole.shape == (256, 342, 3)  # 401 * 256 / 300 = 342.2
    np.testing.assert_array_equal(whole[:, 43 : 43 + 256], square)


@pytest.mark.parametrize(("width", "left"), [(256, 0), (257, 0), (258, 1), (259, 1), (301, 22)])
def test_an_odd_margin_leaves_its_pixel_right_and_below(width, left):
    pixels = noise(256, width)
    np.testing.assert_array_equal(fit_pixels(pixels, 256), pixels[:, left : left + 256])
    tall = pixels.transpose(1, 0, 2)
    np.testing.assert_array_equal(fit_pixels(np.ascontiguousarray(tall), 256), tall[left : left + 256])


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(8, 512))
def test_sides_are_rounded_to_the_nearest(height, width, size):
    new_height, new_width = fitted_sides(height, width, size)
    assert min(new_height, new_width) == size
    short = min(height, width)
    for old, new in ((height, new_height), (width, new_width)):
        assert -short < 2 * (new * short - old * size) <= short  # within half a pixel; a half goes up
    if height == width:
        assert new_height == new_width


def test_the_result_is_contiguous_so_that_its_bytes_are_its_rows():
    pixels = noise(256, 300)
    fitted = fit_pixels(pixels, 256)
    assert fitted.flags.c_contiguous
    picture = prepare(saved(pixels, "PNG"), encoding="raw")
    assert picture.data == np.ascontiguousarray(pixels[:, 22:278]).tobytes()
    assert (picture.height, picture.width, picture.source_height, picture.source_width) == (256, 256, 256, 300)


def segments(jpeg):
    """Markers and contents of a JPEG up to its first scan."""
    place, found = 2, []
    while True:
        assert jpeg[place] == 0xFF
        marker, (length,) = jpeg[place + 1], struct.unpack(">H", jpeg[place + 2 : place + 4])
        found.append((marker, jpeg[place + 4 : place + 2 + length]))
        if marker == 0xDA:
            return found
        place += 2 + length


def test_stored_jpeg_is_baseline_420_without_metadata():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    photo = saved(
        scene(300, 400), quality=90, exif=exif, icc_profile=b"profile" * 100, comment=b"hello", progressive=True
    )
    found = segments(prepare(photo).data)
    kinds = [marker for marker, _ in found]
    assert kinds[0] == 0xE0 and set(kinds) == {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}  # JFIF, tables, baseline frame, scan
    frame = dict(found)[0xC0]
    assert struct.unpack(">BHHB", frame[:6]) == (8, 256, 256, 3)
    assert [frame[k] for k in (7, 10, 13)] == [0x22, 0x11, 0x11]  # chroma halved both ways
    assert dict(found)[0xE0].startswith(b"JFIF\0")


@pytest.mark.parametrize("quality", [1, 50, 95, 100])
def test_quality_is_libjpegs(quality):
    pixels = scene(64, 64)
    ours, theirs = (
        JpegImageFile(io.BytesIO(data)).quantization
        for data in (encode_jpeg(pixels, quality), saved(pixels, quality=quality, subsampling="4:2:0"))
    )
    assert ours == theirs


def test_a_stored_jpeg_looks_as_its_pixels():
    pixels = scene(300, 400)
    stored = opened(prepare(saved(pixels, "PNG"), quality=95).data)
    assert np.abs(stored.astype(int) - fit_pixels(pixels, 256)).mean() < 1.5


def test_a_line_is_rejected_before_it_is_enlarged():
    with pytest.raises(PhotoError) as caught:
        prepare(saved(noise(1, 20000), "PNG"))
    assert str(caught.value) == "20000x1: aspect ratio too large: 5120000x256 after resizing"
    assert prepare(saved(noise(1, 20000), "PNG"), size=8).width == 8  # 160,000 pixels long, and then cut


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_a_picture_longer_than_a_jpeg_can_be_is_rejected(encoding):
    photo = saved(noise(10, 3000), "PNG")
    with pytest.raises(PhotoError, match="aspect ratio too large: 76800x256 after resizing"):
        prepare(photo, fit="short-side", encoding=encoding)
    assert prepare(photo, encoding=encoding).width == 256  # cut, it is as any other


def levels(*numbers):
    """A picture with these levels in each channel."""
    return np.resize(np.array(numbers, np.uint8), (256, 256, 1)).repeat(3, 2)


@pytest.mark.parametrize(
    ("pixels", "empty"),
    [
        (levels(0), "one colour"),
        (levels(255), "one colour"),
        (np.full((256, 256, 3), (200, 10, 30), np.uint8), "one colour"),
        (levels(0, 255), "fewer than 8 levels"),  # black and white
        (levels(0, 1, 2, 3, 4, 5, 6), "fewer than 8 levels"),
        (levels(*range(0, 245, 35)), "fewer than 8 levels"),
        (levels(*range(8)), ""),
        (scene(256, 256), ""),
        (noise(256, 256), ""),
    ],
)
def test_a_picture_that_shows_nothing_is_noticed(pixels, empty):
    for kind in ("PNG", "BMP"):
        for encoding in ("jpeg", "raw"):
            assert prepare(saved(pixels, kind), encoding=encoding).empty == empty


@pytest.mark.parametrize("channel", range(3))
@pytest.mark.parametrize("place", [(0, 0), (1, 1), (255, 255), (100, 17)])
def test_one_channel_or_a_corner_that_shows_something_is_enough(channel, place):
    pixels = np.full((256, 256, 3), 99, np.uint8)
    top, left = min(place[0], 253), min(place[1], 253)
    pixels[top : top + 3, left : left + 3, channel] = np.arange(9).reshape(3, 3)
    assert prepare(saved(pixels, "PNG")).empty == ""
    pixels[top : top + 3, left : left + 3, channel] //= 2  # 5 levels, and 99
    assert prepare(saved(pixels, "PNG")).empty == "fewer than 8 levels"


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(0, 1 << 30))
def test_a_picture_is_empty_by_the_count_of_its_levels(height, width, most, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (most, 3), dtype=np.uint8)[rng.integers(0, most, (height, width))]
    counts = [len(np.unique(pixels[:, :, channel])) for channel in range(3)]
    expected = "one colour" if max(counts) == 1 else "fewer than 8 levels" if max(counts) < 8 else ""
    assert why_empty(pixels) == expected
