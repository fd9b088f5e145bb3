"""Resized crops: the page's numbers, torchvision's odds, pinned windows; what cannot be drawn says why."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import reproduce
import torch
from alexnet_dali.pipeline.errors import PlanError
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan, resized_draws
from alexnet_dali.pipeline.plan.resized_crop import RESIZED_WORDS, ResizedCrop, resized_windows
from scipy.stats import ks_2samp, kstest
from torchvision.transforms import RandomResizedCrop

PAGE = (Path(__file__).parents[3] / "docs" / "plan.md").read_text()
MODERN = Augmentation(resized=ResizedCrop())


def windows_of(draws, height, width, crop=ResizedCrop()):
    """int64 (n, 4): left, top, width, height."""
    sides = (np.full(len(draws), side) for side in (height, width))
    return np.stack(resized_windows(draws, *sides, crop), axis=1)


def test_the_page_s_windows():
    table = PAGE.split("in the wide one none fits at place 5:", 1)[1].strip().split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in table]
    assert [row[0] for row in rows] == ["0", "1", "3", "5"]
    plan = next(Plan(10, 10, 2012, augmentation=MODERN).batches(5))
    for row in rows:
        draws = plan.resized[int(row[0])]
        assert [f"{draws[k]:016x}" for k in (0, 1, 10)] == row[1:4]
        for cell, width in zip(row[4:], (256, 900), strict=True):
            told = tuple(int(number) for number in cell.split(", "))
            assert tuple(windows_of(draws[None], 256, width)[0]) == told
            assert reproduce.resized_window(reproduce.resized_words(2012, 5, int(row[0]), 1), 256, width) == told


def test_golden_windows_of_imagenet_s_first_batch():
    batch = next(Plan(1_281_167, 128, 0, augmentation=MODERN).batches())
    assert [f"{word:016x}" for word in batch.resized[0, :3]] == [
        "5e3bfcfb7ffdab91",
        "947666065f19ed8a",
        "0af68f822c6b4851",
    ]
    heights, widths = np.full(6, 256), np.array([256, 341, 384, 900, 257, 512])
    found = np.stack(resized_windows(batch.resized[:6], heights, widths, ResizedCrop()), axis=1)
    assert found.tolist() == [
        [64, 74, 166, 166],
        [25, 9, 218, 221],
        [66, 20, 100, 81],
        [449, 13, 294, 231],
        [1, 14, 160, 189],
        [121, 3, 245, 252],
    ]
    # Nothing else of the epoch moves when crops are resized.
    plain = next(Plan(1_281_167, 128, 0).batches())
    for field in ("records", "flip", "gaussians"):
        np.testing.assert_array_equal(getattr(batch, field), getattr(plain, field))
    assert plain.resized is None and not batch.left.any() and not batch.top.any()


def test_places_of_a_group_share_a_resized_crop():
    plan = Plan(96, 24, 3, augmentation=Augmentation(shared=32, resized=ResizedCrop()))
    draws = np.concatenate([batch.resized for batch in islice(plan.batches(), 4)])
    np.testing.assert_array_equal(draws.reshape(3, 32, RESIZED_WORDS), np.repeat(draws[::32, None], 32, axis=1))
    assert len(np.unique(draws, axis=0)) == 3


def test_the_dtypes_and_an_empty_share():
    assert resized_draws(0, 0, 5, 0).shape == (0, RESIZED_WORDS)
    draws = resized_draws(0, 0, 0, 3)
    assert draws.dtype == np.uint64
    assert [part.dtype for part in resized_windows(draws, [9] * 3, [9] * 3, ResizedCrop())] == [np.int64] * 4
    assert all(len(part) == 0 for part in resized_windows(draws[:0], [], [], ResizedCrop()))


# Odds


@pytest.mark.parametrize("height, width", [(256, 256), (256, 385), (515, 256), (256, 1100)])
def test_windows_are_spread_as_torchvision_s(height, width):
    with torch.random.fork_rng():
        torch.manual_seed(height + width)
        picture = torch.empty(3, height, width)
        theirs = np.array(
            [RandomResizedCrop.get_params(picture, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(6000)]
        )  # top, left, height, width
    left, top, w, h = windows_of(resized_draws(height, width, 0, 40_000), height, width).T
    for i, j, down, across in ((top, left, h, w), theirs.T):
        assert i.min() >= 0 and j.min() >= 0 and (i + down).max() <= height and (j + across).max() <= width
    their_height, their_width = theirs[:, 2], theirs[:, 3]
    pairs = zip((top, left, h, w), theirs.T, strict=True)
    for mine, other in [*pairs, (h * w, their_height * their_width), (w / h, their_width / their_height)]:
        assert ks_2samp(mine, other).pvalue > 0.001


def test_area_and_aspect_are_uniform_where_every_try_fits():
    crop = ResizedCrop((0.05, 0.3), (0.5, 2))
    left, top, width, height = windows_of(resized_draws(2, 1, 0, 50_000), 6000, 6000, crop).T.astype(np.float64)
    area, aspect = width * height / 6000**2, np.log2(width / height)
    assert kstest((area - 0.05) / 0.25, "uniform").pvalue > 0.001
    assert kstest((aspect + 1) / 2, "uniform").pvalue > 0.001
    for place, free in ((left, 6001 - width), (top, 6001 - height)):
        assert kstest((place + 0.5) / free, "uniform").pvalue > 0.001
    values = np.stack([area, aspect, left / (6001 - width), top / (6001 - height)])
    for pair in (values, np.concatenate([values[:, 1:], values[:, :-1]])):  # of one place, and with its neighbour
        correlation = np.corrcoef(pair) - np.eye(len(pair))
        assert np.abs(correlation).max() < 4.5 / np.sqrt(50_000)


@pytest.mark.parametrize(
    "height, width, crop, window",
    [
        (100, 100, ResizedCrop((1, 1), (2, 3)), (0, 25, 100, 50)),  # too square: the widest that is allowed
        (100, 100, ResizedCrop((1, 1), (1 / 3, 1 / 2)), (25, 0, 50, 100)),
        (100, 140, ResizedCrop((1, 1), (1.5, 1.5)), (0, 3, 140, 93)),
        (1, 1, ResizedCrop((0.1, 0.2)), (0, 0, 1, 1)),
        (3, 400, ResizedCrop((0.9, 1), (0.01, 0.02)), (199, 0, 1, 3)),  # never narrower than a pixel
    ],
)
def test_where_no_try_fits_the_largest_central_window_is_taken(height, width, crop, window):
    for found in windows_of(resized_draws(1, 0, 0, 50), height, width, crop):
        assert tuple(found) == window


def test_a_whole_picture_is_a_window_too():
    crop = ResizedCrop((1, 1), (1, 1))
    assert windows_of(resized_draws(0, 0, 0, 9), 77, 77, crop).tolist() == [[0, 0, 77, 77]] * 9


@pytest.mark.parametrize("side, half", [(5, 2), (7, 4), (9, 4), (11, 6)])
def test_halves_are_rounded_to_even(side, half):
    draws = resized_draws(0, 0, 0, 3)
    assert windows_of(draws, side, side, ResizedCrop((0.25, 0.25), (1, 1)))[:, 2:].tolist() == [[half, half]] * 3


# Errors


@pytest.mark.parametrize(
    "arguments, message, hint",
    [
        ({"area": (0, 1)}, "invalid range of a window's share of the area: 0 to 1", "give two shares above 0 and up"),
        ({"area": (0.5, 0.4)}, "invalid range of a window's share of the area: 0.5 to 0.4", "give two shares"),
        ({"area": (0.5, 1.5)}, "invalid range of a window's share of the area: 0.5 to 1.5", "give two shares"),
        ({"area": (0.5, float("nan"))}, "invalid range of a window's share of the area: 0.5 to nan", "give two"),
        ({"area": (0.5,)}, "invalid range of a window's share of the area: 0.5", "give two shares"),
        ({"aspect": (0, 1)}, "invalid range of a window's aspect ratio: 0 to 1", "give two ratios above 0"),
        ({"aspect": (2, 1)}, "invalid range of a window's aspect ratio: 2 to 1", "give two ratios above 0"),
        ({"aspect": (1, float("inf"))}, "invalid range of a window's aspect ratio: 1 to inf", "give two ratios"),
    ],
)
def test_impossible_windows_are_refused(arguments, message, hint):
    with pytest.raises(PlanError) as caught:
        ResizedCrop(**arguments)
    assert caught.value.message == message and caught.value.hint.startswith(hint)


def test_a_resized_crop_is_not_central_and_may_be_larger_than_the_pictures():
    with pytest.raises(PlanError, match="resized crops are always random, never the centre; omit random_crop"):
        Augmentation(random_crop=False, resized=ResizedCrop())
    assert Plan(10, 5, 0, 256, Augmentation(288, resized=ResizedCrop())).steps == 2
