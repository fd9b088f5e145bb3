"""The page's words and pictures: what was seen in a photo, as HTML.

In:  a Looked, or an error.  Out: HTML with its pictures inside, so that nothing has to be served from a disk.
Whatever comes from outside, names of files and classes, is escaped by Jinja2.
"""

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from PIL import Image

from ...pipeline.errors import AlexnetError
from ...pipeline.shards.manifest import ShardSet
from ..figures.kernels import colours
from ..figures.predictions import percent
from .crop import Whole
from .inspect import CENTRE, FirstLayer, Inspection

VIEW, THUMBNAIL, KERNEL, MAP = 176, 160, 88, 110  # pixels of pictures' sides on the page
OUTLINE = (240, 128, 106)  # of the kept square: RGB, of the figures' colours
FEW = 20  # classes, which are all named
ACROSS = 16  # maps in a row of all

_PAGES = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
_LOOKED = _PAGES.from_string("""
<article class="looked" aria-label="{{ one.name }}">
<p class="file"><strong>{{ one.name }}</strong> <span>looked at in {{ "%.1f"|format(one.seconds) }}&nbsp;s</span></p>

<section id="labels"><h2>Most probable</h2>
<ol class="labels">
{% for name, share, said, right in labels %}
<li{% if right %} class="right"{% endif %}><span class="name">{{ name }}{% if right %} <small>right</small>{% endif %}
</span><span class="share">{{ said }}</span><span class="bar"><i
style="width:{{ share }}%"></i></span></li>
{% endfor %}
</ol>
{% if truth and not hit %}<p class="truth">It is of the class <strong>{{ truth }}</strong>.</p>{% endif %}
{% if few %}<p>It knows {{ few|length }} classes and always answers with them: {{ few|join(", ") }}.</p>{% endif %}
<p>{{ views }} answers, one for each view below, are averaged (section 4.1). Top-1 counts a photo as
right where its class comes first, top-5 where it is among these five.</p></section>

<section id="crop"><h2>What is kept of the photo</h2>
<div class="crop">
{% if whole %}<figure><img src="{{ whole }}" alt="The whole photo, the kept square outlined"><figcaption>
{{ one.whole.width }} &times; {{ one.whole.height }} pixels, as it came</figcaption></figure>{% endif %}
<figure><img src="{{ stored }}" alt="The stored picture" width="{{ size }}"><figcaption>
{{ one.stored.shape[1] }} &times; {{ one.stored.shape[0] }}, as stored</figcaption></figure></div>
{% if whole %}<p>The short side becomes {{ size }} pixels and the central square is kept (section 2); the darkened rest
is never seen.</p>
{% if one.whole.turned %}<p class="note">The camera notes that this photo is to be turned. The training photos were
read without such notes, as in 2012, and so is this one.</p>{% endif %}
{% else %}<p>A photo of the set: the offline stage has cut and stored it already (section 2).</p>{% endif %}</section>

<section id="views"><h2>Ten views</h2>
<div class="views">
{% for picture, view, name, said in tiles %}
<figure><img src="{{ picture }}" alt="{{ view }}"><figcaption><b>{{ name }}</b> {{ said }}<br><small>{{ view }}</small>
</figcaption></figure>
{% endfor %}
</div><p>A net sees {{ crop }} &times; {{ crop }} pixels. To test, the corners and the centre are cut, each followed by
its reflection (section 4.1); in training the window falls anywhere, which makes many photos of one.</p></section>

<section id="near"><h2>Nearest training photos</h2>
{% if near_error %}
<p class="note">Not shown. {{ near_error.message }}{% if near_error.hint %}; {{ near_error.hint }}{% endif %}. Then
look at a photo again.</p>
{% else %}
<div class="near">
{% for picture, name, distance, same in near %}
<figure><img src="{{ picture }}" alt="{{ name }}"><figcaption><b{% if same == False %} class="other"{% endif %}>{{ name
}}</b> <small>{{ distance }}</small></figcaption></figure>
{% endfor %}
</div>
{% endif %}
<p>Near in the last hidden layer's activities, by Euclidean distance, not in pixels (section 6.1): what the net takes
for alike may be posed and lit otherwise.</p></section>

<section id="layer"><h2>First layer</h2>
{% if layer %}
<div class="layer">
{% for kernel, map, number in layer %}
<figure><img class="kernel" src="{{ kernel }}" alt="kernel {{ number }}"><img src="{{ map }}"
alt="its response"><figcaption><small>kernel {{ number }}</small></figcaption></figure>
{% endfor %}
</div>
<details><summary>All {{ kernels }} responses</summary><img src="{{ all_maps }}" alt="All responses"></details>
<p>{{ kernels }} kernels of {{ side }} &times; {{ side }} pixels pass over the centre view (section 3.5). Bright is
where one finds what it looks for. Each of these {{ layer|length }}, beside its response, finds much, and not what the
others find.</p>
{% else %}<p class="note">This net does not begin with kernels over red, green and blue.</p>{% endif %}</section>
</article>""")
_SAID = _PAGES.from_string("""
<div class="said" role="alert"><strong>{{ message }}</strong>{% if hint %}<p>{{ hint }}</p>{% endif %}</div>""")
_TITLE = _PAGES.from_string("<h1>What does the net see?</h1><p>{{ about }}</p>")
_EXAMPLES = _PAGES.from_string("""
<div class="examples">
{% for record, picture, name in examples %}
<button type="button" data-record="{{ record }}"><img src="{{ picture }}" alt=""><span>{{ name or "photo " ~ record
}}</span></button>
{% endfor %}
</div>""")


def of_looked(one: Inspection, names: Sequence[str], shard_set: ShardSet) -> str:
    """Everything about one photo.

    Args:
        names: of the classes, for people.
    """
    layer = one.first_layer
    return _LOOKED.render(
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
        tiles=[(jpeg(view.pixels, side=VIEW), view.name, names[view.label], percent(view.probability))
               for view in one.views],
        near_error=one.near if isinstance(one.near, AlexnetError) else None,
        near=[] if isinstance(one.near, AlexnetError) else [
            (jpeg(photo.pixels, side=THUMBNAIL), photo.name, photo.distance, photo.same) for photo in one.near
        ],
        layer=_strongest(layer) if layer else [],
        all_maps=png(all_maps(layer.maps)) if layer else "",
        kernels=len(layer.maps) if layer else 0,
        side=layer.strongest[0].kernel.shape[-1] if layer else 0,
    )  # fmt: skip


def title(about: str) -> str:
    """The head of the page."""
    return _TITLE.render(about=about)


def of_error(error: AlexnetError) -> str:
    """What is wrong with a photo, and what to do."""
    return _SAID.render(message=error.message, hint=error.hint)


def of_examples(examples: Sequence[tuple[int, np.ndarray, str]]) -> str:
    """Buttons with photos on them; `data-record` says which."""
    return _EXAMPLES.render(
        examples=[(record, jpeg(pixels, side=THUMBNAIL), name) for record, pixels, name in examples]
    )


def outlined(whole: Whole) -> np.ndarray:
    """The whole photo, what is not kept darkened, an outline around the rest: uint8 (h, w, 3)."""
    height, width = whole.pixels.shape[:2]
    left, top, wide, tall = whole.kept
    x, y = round(left * width), round(top * height)
    right, bottom = max(x + 1, round((left + wide) * width)), max(y + 1, round((top + tall) * height))
    shown = whole.pixels // 3
    shown[y:bottom, x:right] = whole.pixels[y:bottom, x:right]
    line = max(2, min(height, width) // 150)
    return cv2.rectangle(shown, (x, y), (right - 1, bottom - 1), OUTLINE, line)


def all_maps(maps: np.ndarray) -> np.ndarray:
    """All maps in rows, one brightness for all: float (n, h, w), nothing below zero, to uint8 (height, width)."""
    count, tall, wide = maps.shape
    across = min(ACROSS, count)
    out = np.full((-(-count // across) * (tall + 2) - 2, across * (wide + 2) - 2), 128, np.uint8)
    grey = greys(maps)
    for place in range(count):
        y, x = place // across * (tall + 2), place % across * (wide + 2)
        out[y : y + tall, x : x + wide] = grey[place]
    return out


def greys(maps: np.ndarray) -> np.ndarray:
    """Responses as greys, the greatest of them white: float, nothing below zero, to uint8."""
    return np.rint(255 * np.sqrt(maps / max(float(maps.max()), 1e-30))).astype(np.uint8)  # eyes see the root


def jpeg(pixels: np.ndarray, quality: int = 85, side: int = 0) -> Markup:
    """A photo as an address that holds it; with `side`, its central square made so small."""
    if side:
        short = min(pixels.shape[:2])
        top, left = ((length - short) // 2 for length in pixels.shape[:2])
        pixels = cv2.resize(pixels[top : top + short, left : left + short], (side, side), interpolation=cv2.INTER_AREA)
    return _inside(pixels, "jpeg", quality=quality)


def png(pixels: np.ndarray, side: int = 0) -> Markup:
    """A small picture as an address that holds it; with `side`, its pixels made squares."""
    if side:
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_NEAREST)
    return _inside(pixels, "png", optimize=True)


def _inside(pixels: np.ndarray, form: str, **options) -> Markup:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, form, **options)
    return Markup(f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}")


def _strongest(layer: FirstLayer) -> list[tuple[Markup, Markup, int]]:
    kernels = colours(np.stack([one.kernel for one in layer.strongest]))
    return [
        (png(kernel, KERNEL), png(greys(one.map), MAP), one.number + 1)
        for kernel, one in zip(kernels, layer.strongest, strict=True)
    ]
