"""One photo and what becomes of it: crops lie where windows say, light is what the stream adds."""

from xml.etree import ElementTree

import numpy as np
import pytest
from alexnet_dali.model.recipes.recipe import recipe
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream.dataset import ShardDataset
from alexnet_dali.tools.figures.augmentation import augmentation
from alexnet_dali.tools.figures.augmented import GAUSSIANS, set_of_one, vary
from PIL import Image


@pytest.fixture
def call(in_process):
    return lambda *arguments: in_process(augmentation, *arguments)


def test_crops_are_the_windows_of_the_stored_picture(shards):
    varied = vary(shards, stats.load_stats(shards), recipe("source2012"), 17, epochs=4)
    np.testing.assert_array_equal(varied.stored, np.asarray(ShardDataset(shards)[17][0]))
    assert len(set(varied.windows)) > 1
    for (left, top, width, height), crop, flip in zip(varied.windows, varied.crops, varied.flips, strict=True):
        assert (width, height) == (224, 224)
        window = varied.stored[top : top + height, left : left + width]
        np.testing.assert_array_equal(crop, window[:, ::-1] if flip else window)


def test_the_mean_and_the_light(shards):
    numbers = stats.load_stats(shards)
    varied = vary(shards, numbers, recipe("source2012"), 3, epochs=1)
    inner = numbers.mean_image[16:240, 16:240]
    np.testing.assert_allclose(varied.less_mean, varied.crops[0] - inner, atol=1e-3)
    added = varied.seen * 1.1 - varied.less_mean  # the recipe divides by 1.1 after the light
    np.testing.assert_allclose(added, np.broadcast_to(added[0, 0], added.shape), atol=1e-3)
    assert np.abs(added).max() > 0.1
    for scale, length in (
        ("none", 0),
        ("stddev", numbers.eigenvalues[0] ** 0.5),
        ("eigenvalue", numbers.eigenvalues[0] / 255),
    ):
        expected = 0.1 * np.outer(GAUSSIANS, numbers.eigenvectors[0]) * length
        np.testing.assert_allclose(varied.offsets[scale], expected, atol=1e-9)
        brighter = varied.lit[scale][4].astype(float).mean() - varied.lit[scale][0].astype(float).mean()
        assert (abs(brighter) > 0.5) == (length > 0)


def test_resized_windows_of_whole_pictures(short_side_shards):
    varied = vary(short_side_shards, stats.load_stats(short_side_shards), recipe("torchvision"), 1, epochs=3)
    for (left, top, width, height), crop in zip(varied.windows, varied.crops, strict=True):
        assert 0 <= left <= varied.stored.shape[1] - width and 0 <= top <= varied.stored.shape[0] - height
        assert crop.shape == (224, 224, 3)
        window = varied.stored[top : top + height, left : left + width]
        assert np.abs(window.mean(axis=(0, 1)) - crop.mean(axis=(0, 1))).max() < 3


def test_the_command_without_a_run(shards, call, tmp_path):
    code, out, err = call("--shards", shards.root, "--record", 5, "--out", tmp_path)
    assert (code, err) == (0, "") and out == f"{tmp_path}/augmentation.png\n{tmp_path}/augmentation.svg\n"
    words = [
        text.text for text in ElementTree.parse(tmp_path / "augmentation.svg").iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {"none", "stddev", "eigenvalue", "stored: 256x256, and the windows"} <= set(words)
    assert words[1].startswith("training photo 5, recipe source2012")
    with Image.open(tmp_path / "augmentation.png") as picture:
        assert len(picture.convert("L").getcolors()) > 100


def test_a_photo_of_ones_own(shards, tmp_path):
    photo = tmp_path / "cat.png"
    Image.new("RGB", (300, 400), (200, 30, 30)).save(photo)
    with set_of_one(photo, shards) as one:
        assert one.split("train").records == 1 and one.size == 256
        varied = vary(one, stats.load_stats(shards), recipe("paper"), 0, epochs=1)
    assert varied.stored.shape == (256, 256, 3)
    assert np.abs(varied.stored.mean(axis=(0, 1)) - (200, 30, 30)).max() < 4


def test_mistakes(shards, call, tmp_path):
    (tmp_path / "text.jpg").write_text("no photo")
    for options, code, said in (
        ([], 2, "neither a run nor a shard set is given"),
        (["--shards", tmp_path / "none"], 2, "no shard set there"),
        (["--shards", shards.root, "--record", 60], 2, "--record 60"),
        (["--shards", shards.root, "--photo", tmp_path / "none.jpg"], 2, "none.jpg: no such photo"),
        (["--shards", shards.root, "--photo", tmp_path / "text.jpg"], 1, "not a photo"),
        ([tmp_path / "none"], 2, "no such checkpoint"),
    ):
        found, _, err = call(*options, "--out", tmp_path / "out")
        assert found == code and said in err and "try: " in err, options
