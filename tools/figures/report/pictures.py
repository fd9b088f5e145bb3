"""The figures of a report as data in its page, each for light and for dark paper.

In:  what the one pass over the photos has kept, and the run.  Out: pictures with the words that stand for them, or why
there is none.  Curves and matrices are lossless WebP; sheets of photos JPEG, which keeps the paper's colour where lossy
WebP does not.  What is nothing but paper around a figure is cut off, so that it begins where the page's words do.
"""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageChops

from ....model.analysis.confusion import ClassError, Confusion, Tally
from ....model.training.evaluate import Result
from ....pipeline.errors import AlexnetError, TrainingError
from .. import augmentation, augmented, confusion, curves, first_layer, kernels, per_class, predictions
from ..answers import Answers
from ..open_run import Opened
from ..retrieval import index as vectors
from ..retrieval import neighbours
from ..small_nets.command import RACE, draw_results
from ..style import DARK, DPI, LIGHT, Theme
from .facts import index_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUALITY = 86  # of sheets of photos; below 80 small red letters are frayed
SEED = 0  # of photos drawn


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: for links.
        light, dark: data URIs.
        alt: what it shows, for those who do not see it.
        inches: its width on paper, which says how small its words may become.
        pixels: width and height.
    """

    name: str
    light: str
    dark: str
    alt: str
    inches: float
    pixels: tuple[int, int]


@dataclass(frozen=True)
class Missing:
    """Why a figure is not there, and the command that would change it, in parts that are not broken."""

    name: str
    why: str
    command: tuple[str, ...] = ()


Drawn = Picture | Missing


def picture(name: str, draw: Callable[[Theme], "Figure"], alt: str, photos: bool = False) -> Picture:
    """Draw a figure twice."""
    images = [(_pixels(draw(look)), look) for look in (LIGHT, DARK)]
    boxes = [ImageChops.difference(one, Image.new("RGB", one.size, look.paper)).getbbox() for one, look in images]
    drawn = [box for box in boxes if box]
    if drawn:  # one box for both: they must not jump when the light goes out
        lefts, tops, rights, bottoms = zip(*drawn, strict=True)
        box = min(lefts), min(tops), max(rights), max(bottoms)
        images = [(one.crop(box), look) for one, look in images]
    light, dark = (_uri(one, photos) for one, _ in images)
    return Picture(name, light, dark, alt, images[0][0].width / DPI, images[0][0].size)


def attempt(name: str, make: Callable[[], Picture], command: tuple[str, ...] = ()) -> Drawn:
    """A figure, or what stands in its way: one that cannot be drawn leaves the others alone."""
    try:
        return make()
    except AlexnetError as error:
        return Missing(name, error.message + (f" ({error.hint})" if error.hint and not command else ""), command)


def of_kernels(opened: Opened) -> list[Drawn]:
    """Figure 3, what training has added where the eye sees noise, and how the kernels came to be."""
    found: list[Drawn] = []
    run = opened.run if opened.run.is_dir() else opened.run.parent

    def now() -> Picture:
        layer = first_layer.of_checkpoint(opened.run)
        alt = f"The {len(layer.weights)} kernels of the first layer, {layer.title}, as small coloured squares."
        return picture("kernels", lambda look: kernels.draw([layer], look), alt)

    def added() -> Picture | None:
        layer = first_layer.of_checkpoint(opened.run)
        if first_layer.smoothness(layer.weights) >= kernels.NOISE:
            return None
        layers = first_layer.learned(opened.run, [layer])
        alt = "What training has added to these kernels: their values less those that they began with."
        return picture("kernels-learned", lambda look: kernels.draw(layers, look, change=True), alt)

    found.append(attempt("kernels", now))
    if isinstance(found[0], Missing):
        return found
    try:
        more = added()
    except AlexnetError:  # began with another run's weights: then they are not noise either
        more = None
    found += [more] if more else []
    if (run / first_layer.KEPT).is_dir():

        def epochs() -> Picture:
            layers = first_layer.of_epochs(run)
            alt = f"The kernels {', '.join(one.title for one in layers)}."
            return picture("kernels-epochs", lambda look: kernels.draw(layers, look), alt)

        found.append(attempt("kernels-epochs", epochs))
    return found


def of_course(course: curves.Course | Missing) -> Drawn:
    """How the run went."""
    if isinstance(course, Missing):
        return course
    alt = (
        "Six panels over the epochs: loss, top-1 error, top-5 error, learning rate, images a second, waiting for data."
    )
    return attempt("curves", lambda: picture("curves", lambda look: _curves(course, look), alt))


def of_answers(opened: Opened, answers: Answers, result: Result, split: str, views: int) -> Drawn:
    """Photos and their five most probable labels."""

    def make() -> Picture:
        picked = answers.pick("mixed", 8, SEED)
        photos = predictions.stored_photos(opened.shard_set, split, [one.record for one in picked])
        names = opened.names
        about = predictions.about_words(result, split, views)
        said = "; ".join(f"{names[one.label]} is taken for {names[one.labels[0]]}" for one in picked)
        return picture(
            "predictions",
            lambda look: predictions.draw(photos, picked, names, opened.shard_set.classes, about, look),
            f"{len(picked)} photos with their most probable labels as bars: {said}.",
            photos=True,
        )

    return attempt("predictions", make)


def of_classes(opened: Opened, tally: Tally, split: str) -> list[Drawn]:
    """What classes are taken for, and each one's error."""
    errors, pairs, names = tally.errors(), confusion.all_pairs(tally), opened.names
    return [
        attempt(
            "confusion",
            lambda: picture(
                "confusion", lambda look: confusion.draw(errors, pairs, names, split, look), _confused(pairs, names)
            ),
        ),
        attempt(
            "per-class",
            lambda: picture(
                "per-class", lambda look: per_class.draw(errors, names, split, look), _worst(errors, names)
            ),
        ),
    ]


def of_augmentation(opened: Opened, seed: int) -> Drawn:
    """One training photo, and what the stream makes of it."""

    def make() -> Picture:
        chosen = opened.trained.recipe
        one = augmented.vary(opened.shard_set, opened.trained.stats, chosen, 0, seed, augmentation.CROPS)
        return picture(
            "augmentation",
            lambda look: augmentation.draw(one, "training photo 0", chosen.name, look),
            "One training photo: the windows cut from it in six epochs, its lighting in three scales, the mean.",
            photos=True,
        )

    return attempt("augmentation", make)


def of_neighbours(opened: Opened, split: str) -> Drawn:
    """Photos and the training photos nearest to them, where there is an index."""
    again = index_command(opened)
    if not (vectors.folder_of(opened, None) / vectors.ABOUT).exists():
        return Missing("neighbours", "The training photos of this run are not indexed. To have the figure here:", again)

    def make() -> Picture:
        index = vectors.open_index(opened)
        chosen = neighbours.draw_records(opened, split, 5, SEED)
        rows = neighbours.rows_of_split(opened, index, split, chosen)
        same = [one.same for row in rows for one in row.found if one.same is not None]
        return picture(
            "neighbours",
            lambda look: neighbours.draw_neighbours(rows, look),
            f"{len(rows)} photos, each with its nearest training photos; {sum(same)} of {len(same)} of its own class.",
            photos=True,
        )

    return attempt("neighbours", make, again)


def of_race(file: Path) -> Drawn:
    """Figure 1, of what relu-vs-tanh has written down."""

    def make() -> Picture:
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
            alt = f"Training error of two small nets over the epochs, with ReLUs and with tanh. {results['words']}."
            return picture(RACE, partial(draw_results, results), alt)
        except (OSError, ValueError, KeyError, TypeError) as error:  # not what the command writes
            raise TrainingError(f"{file}: damaged: {error}", "let alexnet-figures relu-vs-tanh draw again") from None

    return attempt(RACE, make)


def _curves(course: curves.Course, look: Theme) -> "Figure":
    try:
        return curves.draw([course], look)
    except (TypeError, ValueError, KeyError) as error:  # lines of JSON, but not what a run writes
        raise TrainingError(f"metrics.jsonl is damaged: {error}") from None


def _pixels(figure: "Figure") -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=figure.get_facecolor())
    return Image.open(file).convert("RGB")


def _uri(image: Image.Image, photos: bool) -> str:
    file = io.BytesIO()
    if photos:
        image.save(file, format="JPEG", quality=QUALITY, subsampling=0, optimize=True)
    else:
        image.save(file, format="WEBP", lossless=True, quality=80, method=4)  # quality: how hard it tries
    return f"data:image/{'jpeg' if photos else 'webp'};base64,{base64.b64encode(file.getvalue()).decode()}"


def _confused(pairs: list[Confusion], names: list[str]) -> str:
    said = "; ".join(
        f"{names[one.label]} is taken for {names[one.answer]} in {100 * one.share:.0f}%"
        for one in sorted(pairs, key=lambda one: (-one.share, one.label))[:3]
    )
    return f"What each class is taken for. Most often: {said}." if said else "No class is taken for another."


def _worst(errors: list[ClassError], names: list[str]) -> str:
    ranked = sorted((one for one in errors if one.images), key=lambda one: -one.top1_error)
    ends = (ranked[0], ranked[-1]) if ranked else ()
    said = " and ".join(f"{names[one.label]} {100 * one.top1_error:.0f}%" for one in ends)
    return f"Bars of each class's error, from the worst to the best: {said}."
