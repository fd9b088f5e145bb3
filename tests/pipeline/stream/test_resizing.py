"""Resized crops and resized test pictures: every pixel against a slow triangle filter; Pillow and torchvision near."""

import numpy as np
import oracle
import pytest
import torch
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.plan.resized_crop import ResizedCrop, resized_windows
from alexnet_dali.pipeline.plan.views import views_of
from graphs import decoded, jpeg, picture, pictures_of, resized, views
from pictures import scene
from PIL import Image
from torchvision.transforms import v2

NEAR_HALF = 0.01  # of a grey level: where DALI's float32 may round a half to the other side


def assert_rounded(found, exact):
    """uint8 pixels are the exact ones rounded, but for those that lie on a half."""
    assert found.dtype == np.uint8
    assert np.abs(found - exact).max() <= 0.5 + NEAR_HALF
    clear = np.abs(exact % 1 - 0.5) > NEAR_HALF
    np.testing.assert_array_equal(found[clear], np.rint(exact)[clear])


def planned(sides, crop=ResizedCrop(), seed=1):
    """Windows of a real plan for pictures of these (height, width), and their flips."""
    plan = next(Plan(len(sides), len(sides), seed, augmentation=Augmentation(resized=crop)).batches())
    windows = np.stack(resized_windows(plan.resized, *np.array(sides).T, crop), axis=1)
    return windows.tolist(), plan.flip.tolist()


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("square", [False, True])
def test_every_pixel_of_resized_crops(encoded, square):
    sides = [(64, 64)] * 8 if square else [(64, 91), (120, 64), (64, 64), (64, 300), (64, 65), (64, 70)] * 2
    data = [picture(*side, seed=seed) for seed, side in enumerate(sides)]
    payloads = [jpeg(p) for p in data] if encoded else data
    pixels = [decoded(p) for p in payloads] if encoded else data
    windows, flip = planned(sides)
    assert 0 < sum(flip) < len(flip) and len({tuple(w) for w in windows}) == len(windows)
    pictures = pictures_of(64, 48, encoded=encoded, square=square)
    out = resized(pictures, payloads, windows, flip, dtype="uint8")
    for k, (left, top, width, height) in enumerate(windows):
        window = pixels[k][top : top + height, left : left + width]
        exact = oracle.triangle_resize(window, 48, 48, repeat=True)
        assert_rounded(out[k], exact[:, ::-1] if flip[k] else exact)


@pytest.mark.parametrize(
    "window",
    [(0, 0, 64, 64), (63, 63, 1, 1), (0, 5, 64, 1), (3, 0, 2, 64), (8, 8, 48, 48), (0, 0, 64, 48), (1, 2, 5, 3)],
)
def test_windows_at_the_limits(window):
    left, top, width, height = window
    data = [picture(64)]
    (out,) = resized(pictures_of(64, 48), data, [window], dtype="uint8")
    cut = data[0][top : top + height, left : left + width]
    assert_rounded(out, oracle.triangle_resize(cut, 48, 48, repeat=True))
    if (width, height) == (48, 48):
        np.testing.assert_array_equal(out, cut)


def test_a_crop_may_be_larger_than_the_pictures():
    windows, flip = planned([(64, 64)] * 4)
    data = [picture(64, seed=seed) for seed in range(4)]
    out = resized(pictures_of(64, 100), data, windows, flip, dtype="uint8")
    for k, (left, top, width, height) in enumerate(windows):
        exact = oracle.triangle_resize(data[k][top : top + height, left : left + width], 100, 100, repeat=True)
        assert_rounded(out[k], exact[:, ::-1] if flip[k] else exact)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_values_are_made_of_the_resized_grey_levels(residual, layout):
    windows, flip = planned([(64, 91)] * 5)
    data = [picture(64, 91, seed=seed) for seed in range(5)]
    over = np.random.default_rng(1).normal(0, 20, (48, 48, 3)).astype(np.float32) if residual else None
    std, means = np.array([58.0, 57, 56]), np.random.default_rng(2).uniform(90, 130, (5, 3))
    gains = np.array([1, 1 / 1.1, 0.5, 1, 2])
    pictures = pictures_of(64, 48, square=False, residual=over, std_rgb=std)
    grey = resized(pictures, data, windows, flip, dtype="uint8").astype(np.float64)
    out = resized(pictures, data, windows, flip, means, gains, layout=layout)
    assert out.dtype == np.float32
    for k in range(5):
        expected = (grey[k] - means[k].astype(np.float32) - (over if residual else 0)) / std * gains[k]
        np.testing.assert_allclose(out[k].transpose(1, 2, 0) if layout == "CHW" else out[k], expected, atol=1e-5)


def test_pillow_and_torchvision_differ_at_the_edge_alone():
    """On pictures as smooth as photos; inside by one grey level, which both round between rows and columns too."""
    sides = [(256, 256), (256, 341), (384, 256), (256, 256), (256, 300), (300, 256)] * 2
    data = [scene(*side, seed=seed) for seed, side in enumerate(sides)]
    windows, _ = planned(sides)
    out = resized(pictures_of(256, 224, square=False), data, windows, dtype="uint8").astype(int)
    for k, (left, top, width, height) in enumerate(windows):
        cut = np.ascontiguousarray(data[k][top : top + height, left : left + width])
        pillow = np.array(Image.fromarray(cut).resize((224, 224), Image.Resampling.BILINEAR))
        tensor = torch.from_numpy(cut).permute(2, 0, 1)
        vision = v2.functional.resize(tensor, [224, 224], antialias=True).permute(1, 2, 0).numpy()
        for other in (pillow, vision):
            difference = np.abs(out[k] - other)
            assert difference[1:-1, 1:-1].max() <= 1
            assert difference.max() <= 4 and difference.mean() < 0.3


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("resize", [58, 64, 80])
def test_resize_and_centre_crop(encoded, square, resize):
    """The square is resized, and views are cut as of pictures of that size."""
    sides = [(64, 64)] * 3 if square else [(64, 91), (120, 64), (64, 64)]
    data = [picture(*side, seed=seed) for seed, side in enumerate(sides)]
    payloads = [jpeg(p) for p in data] if encoded else data
    pixels = [decoded(p) for p in payloads] if encoded else data
    corners = None if square else [((height - 64) // 2, (width - 64) // 2) for height, width in sides]
    squares = [p[t : t + 64, s : s + 64] for p, (t, s) in zip(pixels, corners or [(0, 0)] * 3, strict=True)]
    pictures = pictures_of(64, 56, encoded=encoded, square=square, resize=resize)
    centre = views(pictures, payloads, views_of(1, resize, 56), corners, dtype="uint8")
    ten = views(pictures, payloads, views_of(10, resize, 56), corners, dtype="uint8")
    edge = (resize - 56) // 2
    for k, whole in enumerate(squares):
        exact = oracle.triangle_resize(whole, resize, resize, repeat=True)
        assert_rounded(centre[k, 0], exact[edge : edge + 56, edge : edge + 56])
        assert_rounded(ten[k, 3], exact[:56, resize - 56 :][:, ::-1])


@pytest.mark.parametrize("resize", [232, 256, 288])
def test_a_centre_crop_behind_a_resize_is_torchvision_s(resize):
    """Whatever happens at the edge is cut away, so the usual preset is met within one grey level everywhere."""
    data = [scene(256, 256, seed=seed) for seed in range(4)]
    out = views(pictures_of(256, 224, resize=resize), data, views_of(1, resize, 224), dtype="uint8")
    preset = v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(224)])
    for k, pixels in enumerate(data):
        expected = preset(torch.from_numpy(pixels).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        assert np.abs(out[k, 0].astype(int) - expected).max() <= 1
