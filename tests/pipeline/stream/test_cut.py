"""Windows cut on CPU threads: the graph's pixels where nothing is resized, torchvision's where it is."""

import numpy as np
import oracle
import pytest
import torch
from alexnet_dali.pipeline.stream.decoder import cut
from graphs import picture, pictures_of, train
from pictures import noise, scene
from PIL import Image
from torchvision.transforms import v2


def one(pixels, window, flip, side):
    """A window, in a place of a batch whose neighbours must stay as they are."""
    batch = np.full((3, side, side, 3), 77, np.uint8)
    cut(pixels, *window, flip, batch[1])
    assert (batch[[0, 2]] == 77).all()
    return batch[1]


@pytest.mark.parametrize("flip", [0, 1])
def test_plain_crops_are_the_graph_s(flip):
    pixels = picture(64)
    pixels.flags.writeable = False  # as a view of the memory map
    offsets = np.arange(9)
    graph = train(pictures_of(64, 56), [pixels] * 9, offsets, offsets[::-1], [flip] * 9, dtype="uint8")
    for left in range(9):
        np.testing.assert_array_equal(one(pixels, (left, 8 - left, 56, 56), flip, 56), graph[left])


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("window", [(0, 0, 256, 256), (100, 30, 51, 200), (7, 9, 224, 100), (255, 0, 1, 1)])
def test_resized_crops_are_torchvision_s(window, flip):
    left, top, width, height = window
    for pixels in (scene(256, 256), noise(256, 256)):
        pixels.flags.writeable = False
        found = one(pixels, window, flip, 224)
        window_alone = np.ascontiguousarray(pixels[top : top + height, left : left + width])
        tensor = torch.from_numpy(window_alone.copy()).permute(2, 0, 1)
        vision = v2.functional.resize(tensor, [224, 224], antialias=True).permute(1, 2, 0).numpy()
        # Both are torch's kernel, ours with the channels last. Without AVX2 torch converts one of them to float, which
        # rounds another way.
        assert np.abs(found.astype(int) - (vision[:, ::-1] if flip else vision)).max() <= 1
        pillow = np.array(Image.fromarray(window_alone).resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
        exact = oracle.triangle_resize(window_alone, 224, 224, repeat=False)
        for other in (pillow, exact):
            assert np.abs(found - (other[:, ::-1] if flip else other)).max() <= 1.01
