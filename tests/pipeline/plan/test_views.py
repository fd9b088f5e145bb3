"""The windows of test pictures: which they are, in which order, and what is no number of views."""

from math import isqrt

import numpy as np
import pytest
from alexnet_dali.pipeline.errors import PlanError
from alexnet_dali.pipeline.plan.views import views_of

CORNERS = [(0, 0), (32, 0), (0, 32), (32, 32), (16, 16)]


def test_one_five_and_ten_views():
    assert views_of(1).tolist() == [[16, 16, 0]]
    assert views_of(5).tolist() == [[left, top, 0] for left, top in CORNERS]
    assert views_of(10).tolist() == [[*corner, flip] for corner in CORNERS for flip in (0, 1)]


def test_grids_go_row_by_row_from_edge_to_edge():
    assert views_of(4).tolist() == [[0, 0, 0], [32, 0, 0], [0, 32, 0], [32, 32, 0]]
    nine = [(left, top) for top in (0, 16, 32) for left in (0, 16, 32)]
    assert views_of(9).tolist() == [[*place, 0] for place in nine]
    assert views_of(18).tolist() == [[*place, flip] for place in nine for flip in (0, 1)]
    assert views_of(2).tolist() == [[16, 16, 0], [16, 16, 1]]
    assert views_of(16)[:4, 0].tolist() == [0, 10, 21, 32]  # a third of 32, floored


def test_every_number_is_one_kind_of_views_or_refused():
    planned = {1, 5, 10} | {k * k for k in range(1, 12)} | {2 * k * k for k in range(1, 9)}
    for views in range(-3, 129):
        if views in planned:
            found = views_of(views, 300, 224)
            assert found.shape == (views, 3) and found.dtype == np.int64
            assert len(np.unique(found, axis=0)) == views
            assert found[:, :2].min() >= 0 and found[:, :2].max() <= 76
            assert set(found[:, 2].tolist()) == ({0, 1} if views % 2 == 0 and isqrt(views) ** 2 != views else {0})
        else:
            with pytest.raises(PlanError) as caught:
                views_of(views, 300, 224)
            assert caught.value.message == f"unsupported number of views: {views}"
            assert caught.value.hint.startswith("choose 1, 5 or 10, or k*k for a grid of k by k, or 2*k*k")


def test_an_odd_margin_leaves_its_pixel_right_and_below():
    assert views_of(1, 257, 224).tolist() == [[16, 16, 0]]
    assert views_of(10, 257, 224)[6].tolist() == [33, 33, 0]
    assert views_of(10, 224, 224)[:, :2].tolist() == [[0, 0]] * 10


@pytest.mark.parametrize("crop", [0, 65])
@pytest.mark.parametrize("views", [1, 5, 9, 10])
def test_a_window_larger_than_the_picture_is_refused(views, crop):
    with pytest.raises(PlanError) as caught:
        views_of(views, 64, crop)
    assert caught.value.message == f"a {crop}x{crop} window does not fit into 64x64 pictures"
    assert caught.value.hint == f"build the shards with --size {crop + 32} or more"
