"""Area averaging: equal to its definition in integers, within one level of OpenCV, in strips, with little memory."""

import shutil
import tracemalloc

import cv2
import numpy as np
import oracle
import pytest
from alexnet_dali.pipeline.prepare import area
from hypothesis import example, given
from hypothesis import strategies as st


def shrink(pixels, height, width, window):
    """The result of area.shrink with its compiled loops; without them it must be the same.

    Equal bytes hold by construction: both ways add the same integers, and round at the same two places.
    """
    compiled, got = area._compiled, area.shrink(pixels, height, width, window)
    try:
        area._compiled = None
        np.testing.assert_array_equal(area.shrink(pixels, height, width, window), got)
    finally:
        area._compiled = compiled
    return got


def test_where_there_is_a_compiler_the_loops_are_compiled():
    assert area._compiled or not shutil.which("cc"), (
        "pipeline/prepare/_area.c was not compiled; see the output of pip install -v ."
    )


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo_like(height, width):
    """Smooth colours, edges and some noise."""
    coarse = cv2.resize(noise(9, 9), (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    coarse[height // 3 :, width // 4 : width // 2] //= 3
    return np.clip(coarse + noise(height, width, 1) // 16 - 8, 0, 255).astype(np.uint8)


def weights_in_integers(old, new, total):
    """(new, old) int64: how many `total`ths of each old pixel are in a new one; its borders rounded, halves up."""
    weights = np.zeros((new, old), np.int64)
    for k in range(new):
        for j in range(old):
            low, high = (min(max(border * new - k * old, 0), old) for border in (j, j + 1))  # of `old`, the cell
            weights[k, j] = (2 * total * high + old) // (2 * old) - (2 * total * low + old) // (2 * old)
    return weights


def shrunk_in_integers(pixels, height, width):
    down = weights_in_integers(pixels.shape[0], height, 65536)
    across = weights_in_integers(pixels.shape[1], width, 2048)
    sums = np.einsum("ay,yxc->axc", down, pixels.astype(np.int64))
    whole, rest = sums // 2048, sums % 2048  # to 1/32 of a level: 65536 / 32
    rows = whole + (rest > 1024) + ((rest == 1024) & (whole % 2 == 1))
    return (np.einsum("axc,bx->abc", rows, across) + 32768) // 65536


sides = st.one_of(
    st.tuples(st.integers(1, 80), st.integers(1, 80)).map(lambda pair: (max(pair), min(pair))),
    st.integers(1, 300).map(lambda side: (side + 1, side)),  # hardly shrunk
    st.tuples(st.integers(1, 12), st.integers(1, 12)).map(lambda pair: (pair[0] * pair[1], pair[1])),  # whole ratios
    st.tuples(st.integers(300, 3000), st.integers(1, 5)),  # hugely
)


@given(sides, sides, st.integers(0, 99), st.data())
@example((1, 1), (20000, 3), 0, None)
@example((100_000, 1), (1, 1), 0, None)  # more old pixels than the weights have units
def test_every_bit_is_that_of_the_integers(down, across, seed, data):
    (old_height, height), (old_width, width) = down, across
    if old_height * old_width > 300_000:
        old_width, width = min(old_width, 60), min(width, 60)
    pixels = noise(old_height, old_width, seed)
    top, left = (data.draw(st.integers(0, new - 1)) if data else 0 for new in (height, width))
    window = (top, left, height - top, width - left)
    expected = shrunk_in_integers(pixels, height, width)[top:, left:]
    np.testing.assert_array_equal(shrink(pixels, height, width, window), expected)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
@pytest.mark.parametrize("old", [(375, 500), (513, 257), (1000, 301)])
def test_one_colour_stays_that_colour(value, old):
    pixels = np.full((*old, 3), value, np.uint8)
    assert (shrink(pixels, 256, 257, (0, 0, 256, 257)) == value).all()


def test_all_sums_are_below_2_to_the_24():
    assert 255 * area.DOWN < 1 << 24  # a row's sum, in units of its weights
    assert 255 * area.LEVEL * area.ACROSS < 1 << 24  # so int32, and float32 too, hold them exactly
    for number in (area.DOWN, area.LEVEL, area.ACROSS):
        assert number & (number - 1) == 0  # powers of two: dividing is shifting


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_the_sums_does_not_matter(order):
    mix = area._mix(375, 256, 0, 256, area.DOWN)
    rows = noise(375, 40).reshape(375, -1)[mix.first : mix.end].astype(np.int32)
    weights = weights_in_integers(375, 256, area.DOWN)
    assert (weights.sum(axis=1) == area.DOWN).all()
    sums = np.zeros((256, 120), np.int64)
    for j in range(mix.end - mix.first)[::order]:
        sums += weights[:, j : j + 1] * rows[j]
    got = area._mix_rows(rows, mix.firsts, mix.weights)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, sums)  # integers: equal in any order, on any processor


# The commonest sizes, hardly and hugely shrunk, whole ratios (which OpenCV computes otherwise), a panorama.
SIZES = [
    (375, 500),
    (500, 333),
    (257, 258),
    (512, 512),
    (768, 1024),
    (1024, 512),
    (2000, 3008),
    (260, 3000),
    (300, 401),
]


@pytest.mark.parametrize("size", SIZES)
def test_it_is_opencvs_to_a_level(size):
    pixels = photo_like(*size)
    short = min(size)
    height, width = (round(side * 256 / short) for side in size)
    theirs = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    apart = np.abs(shrink(pixels, height, width, (0, 0, height, width)).astype(int) - theirs)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.02


@pytest.mark.parametrize("size", [(67, 91), (512, 300), (301, 40)])
def test_it_is_the_mean_of_the_area(size):
    pixels, new = noise(*size), (40, 37)
    expected = oracle.area_resize(pixels, *new)
    # Half a level is the byte's, 1/64 the rows'; the rest are the rounded weights.
    assert np.abs(shrink(pixels, *new, (0, 0, *new)) - expected).max() < 0.5 + 0.1


@pytest.mark.parametrize("window", [(0, 43, 256, 256), (3, 0, 1, 342), (255, 341, 1, 1), (10, 20, 30, 40)])
def test_a_window_is_cut_from_the_whole(window):
    pixels = noise(300, 401)
    top, left, rows, columns = window
    whole = shrink(pixels, 256, 342, (0, 0, 256, 342))
    got = shrink(pixels, 256, 342, window)
    np.testing.assert_array_equal(got, whole[top : top + rows, left : left + columns])
    assert got.flags.c_contiguous


@pytest.mark.parametrize("strip_bytes", [1, 50_000, 1 << 30])
def test_strips_leave_no_trace(monkeypatch, strip_bytes):
    pixels = noise(301, 97)
    whole = shrink(pixels, 100, 32, (0, 0, 100, 32))
    monkeypatch.setattr(area, "STRIP_BYTES", strip_bytes)
    np.testing.assert_array_equal(shrink(pixels, 100, 32, (0, 0, 100, 32)), whole)


def test_pixels_need_not_be_contiguous():
    pixels = noise(120, 90)
    expected = shrink(np.ascontiguousarray(pixels[::2, ::-1]), 40, 70, (0, 0, 40, 70))
    np.testing.assert_array_equal(shrink(pixels[::2, ::-1], 40, 70, (0, 0, 40, 70)), expected)
    np.testing.assert_array_equal(
        shrink(pixels.transpose(1, 0, 2), 64, 64, (0, 0, 64, 64)),
        shrink(np.ascontiguousarray(pixels.transpose(1, 0, 2)), 64, 64, (0, 0, 64, 64)),
    )


def test_a_large_photo_costs_little_memory():
    pixels = np.zeros((4000, 6000, 3), np.uint8)  # as int32 288 MB
    area._mix.cache_clear()
    tracemalloc.start()
    shrink(pixels, 256, 384, (0, 64, 256, 256))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20
