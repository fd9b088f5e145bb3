"""The results for a photo as HTML.

In:  an Inspection, or an error.  Out: HTML with embedded pictures, so that no files have to be served.
All values, such as names of files and classes, are escaped by Jinja2.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ...pipeline.errors import AlexnetError
from ...pipeline.shards.manifest import ShardSet
from ..figures.kernels import colours
from ..figures.predictions import percent
from ..figures.sheet import rgb
from ..figures.style import DARK
from .crop import Whole
from .inspect import CENTRE, FirstLayer, Inspection

VIEW, THUMBNAIL, KERNEL, MAP = 176, 160, 88, 110  # sides of pictures on the page, in pixels
OUTLINE = tuple(rgb(DARK.right))  # of the kept square
FEW = 20  # up to this number, all classes are listed
ACROSS = 16  # response maps per row
TEMPLATES = Path(__file__).parent / "templates"

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def of_inspection(one: Inspection, names: Sequence[str], shard_set: ShardSet) -> str:
    """Render the results for one photo.

    Args:
        names: display names of the classes.
    """
    layer = one.first_layer
    return _render(
        "inspection.html",
        one=one,
        size=shard_set.size,
        crop=len(one.views[CENTRE].pixels),
        views=len(one.views),
        labels=[
            (names[label], f"{100 * share:.2f}", percent(share), label == one.right)
            for label, share in zip(one.labels, one.probabilities, strict=True)
        ],
        few=names if len(names) <= FEW else [],
        truth=names[one.right] if one.right >= 0 else "",
        hit=one.right in one.labels,
        whole=jpeg(outlined(one.whole)) if one.whole else "",
        stored=jpeg(one.stored, 92),
        tiles=[
            (jpeg(view.pixels, side=VIEW), view.name, names[view.label], percent(view.probability))
            for view in one.views
        ],
        near_error=one.near if isinstance(one.near, AlexnetError) else None,
        near=[
            (jpeg(photo.pixels, side=THUMBNAIL), photo.name, photo.distance, photo.same)
            for photo in (() if isinstance(one.near, AlexnetError) else one.near)
        ],
        layer=_strongest(layer) if layer else [],
        all_maps=png(all_maps(layer.maps)) if layer else "",
        kernels=len(layer.maps) if layer else 0,
        side=layer.strongest[0].kernel.shape[-1] if layer else 0,
    )


def title(about: str) -> str:
    """Render the title of the page."""
    return _render("title.html", about=about)


def of_error(error: AlexnetError) -> str:
    """Render an error message and its hint."""
    return _render("error.html", message=error.message, hint=error.hint)


def of_examples(examples: Sequence[tuple[int, np.ndarray, str]]) -> str:
    """Render buttons with photos; `data-record` holds the record number."""
    return _render(
        "examples.html",
        examples=[(record, jpeg(pixels, side=THUMBNAIL), name) for record, pixels, name in examples],
    )


def outlined(whole: Whole) -> np.ndarray:
    """Return the whole photo with an outline around the kept square and the rest darkened: uint8 (h, w, 3)."""
    height, width = whole.pixels.shape[:2]
    left, top, wide, tall = whole.kept
    x, y = round(left * width), round(top * height)
    right, bottom = max(x + 1, round((left + wide) * width)), max(y + 1, round((top + tall) * height))
    shown = whole.pixels // 3
    shown[y:bottom, x:right] = whole.pixels[y:bottom, x:right]
    line = max(2, min(height, width) // 150)
    return cv2.rectangle(shown, (x, y), (right - 1, bottom - 1), OUTLINE, line)


def all_maps(maps: np.ndarray) -> np.ndarray:
    """Arrange response maps in rows, with a common brightness: float (n, h, w), 0 or more, to uint8 (height, width)."""
    count, tall, wide = maps.shape
    across = min(ACROSS, count)
    out = np.full((-(-count // across) * (tall + 2) - 2, across * (wide + 2) - 2), 128, np.uint8)
    grey = greys(maps)
    for number in range(count):
        y, x = number // across * (tall + 2), number % across * (wide + 2)
        out[y : y + tall, x : x + wide] = grey[number]
    return out


def greys(maps: np.ndarray) -> np.ndarray:
    """Map responses to greys, the greatest to white: float, 0 or more, to uint8.

    The square root makes weak responses visible.
    """
    return np.rint(255 * np.sqrt(maps / max(float(maps.max()), 1e-30))).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int = 85, side: int = 0) -> Markup:
    """Encode a photo, uint8 (h, w, 3), as a data URI; with `side`, its central square resized to that side."""
    if side:
        short = min(pixels.shape[:2])
        top, left = ((length - short) // 2 for length in pixels.shape[:2])
        pixels = cv2.resize(pixels[top : top + short, left : left + short], (side, side), interpolation=cv2.INTER_AREA)
    return _data_uri(pixels, "jpeg", quality=quality)


def png(pixels: np.ndarray, side: int = 0) -> Markup:
    """Encode a small picture, uint8, as a data URI; with `side`, enlarged with visible pixels."""
    if side:
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_NEAREST)
    return _data_uri(pixels, "png", optimize=True)


def _data_uri(pixels: np.ndarray, form: str, **options) -> Markup:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, form, **options)
    return Markup(f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}")


def _strongest(layer: FirstLayer) -> list[tuple[Markup, Markup, int]]:
    kernels = colours(np.stack([one.kernel for one in layer.strongest]))
    return [
        (png(kernel, KERNEL), png(greys(one.map), MAP), one.number + 1)
        for kernel, one in zip(kernels, layer.strongest, strict=True)
    ]


def _render(template: str, **values) -> str:
    return _ENVIRONMENT.get_template(template).render(values)
