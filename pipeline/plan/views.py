"""The windows of evaluation: the centre, the paper's ten (section 4.1), or a grid.

In:  sizes in pixels.  Out: left, top and flip of each window, for the DALI graph. NumPy only.

    1       the centre
    5       four corners and the centre
    10      these five, each followed by its reflection
    4, 9, 16, ... k*k           a grid of k x k windows, row by row, from edge to edge
    2, 8, 18, 32, ... 2*k*k     the same, each followed by its reflection

The numbers are unambiguous: no square is twice another, and 5 and 10 are neither.
"""

from math import isqrt

import numpy as np

from ..errors import PlanError


def views_of(views: int, size: int = 256, crop: int = 224) -> np.ndarray:
    """List the evaluation windows of size x size pictures.

    Args:
        views: 1, 5, 10, k*k or 2*k*k: the centre; four corners and the centre; these and their reflections (paper,
            section 4.1); a k x k grid; a grid and its reflections, each after its window.
        size: side of the pictures, pixels.
        crop: side of the windows, pixels.
    Returns:
        int64 (views, 3): left and top in pixels, 0..size-crop, and flip, 0 or 1.
    Raises:
        PlanError: an unsupported number of views, or the window is larger than the picture.
    Example:
        views_of(10)[0]  # [0, 0, 0]: upper left corner, not reflected
    """
    five = views in (5, 10)
    reflected = not five and views > 0 and isqrt(views) ** 2 != views
    side = isqrt(views // 2 if reflected else views) if views > 0 else 0
    if not five and (side < 1 or side * side * (2 if reflected else 1) != views):
        raise PlanError(
            f"unsupported number of views: {views}",
            "choose 1, 5 or 10, or k*k for a grid of k by k, or 2*k*k for a grid with its reflections",
        )
    if not 1 <= crop <= size:
        raise PlanError(
            f"a {crop}x{crop} window does not fit into {size}x{size} pictures",
            f"build the shards with --size {crop + 32} or more",
        )
    far = size - crop
    middle = far // 2  # of an odd margin the extra pixel is at the right and bottom, as in the offline crop
    if five:
        windows = [(0, 0), (far, 0), (0, far), (far, far), (middle, middle)]
    elif side == 1:
        windows = [(middle, middle)]
    else:
        offsets = [k * far // (side - 1) for k in range(side)]
        windows = [(left, top) for top in offsets for left in offsets]
    flips = (0, 1) if reflected or views == 10 else (0,)
    return np.array([(left, top, flip) for left, top in windows for flip in flips], dtype=np.int64)
