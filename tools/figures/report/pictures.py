"""The figures of a report as data URIs, each for light and for dark paper.

In:  the results of the evaluation, and the run.  Out: pictures with alternative texts, or why one is missing.
Curves and matrices are lossless WebP. Sheets of photos are JPEG, which keeps the paper's colour, unlike lossy WebP.
Empty margins are cropped, so that figures are aligned with the page's text.
"""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageChops

from ....model.analysis.confusion import ClassError, Confusion, Tally
from ....model.training.evaluate import Result
from ....pipeline.errors import AlexnetError, TrainingError
from .. import augmentation, augmented, confusion, curves, first_layer, kernels, per_class, predictions
from ..answers import Answers
from ..open_run import Opened
from ..retrieval import neighbours, vectors
from ..small_nets.command import RACE, draw_results
from ..style import DARK, DPI, LIGHT, Theme
from .facts import index_command

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUALITY = 86  # JPEG quality of sheets of photos; below 80 small red letters have artefacts
SEED = 0  # of the choice of photos


@dataclass(frozen=True)
class Picture:
    """A figure in the page.

    Attributes:
        name: its id, for links.
        light, dark: data URIs.
        alt: alternative text.
        inches: its width on paper, which limits how small it may be scaled.
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
    """The reason why a figure is missing, and the command that creates it, in parts without line breaks."""

    name: str
    why: str
    command: tuple[str, ...] = ()


Drawn = Picture | Missing


def picture(name: str, draw: Callable[[Theme], "Figure"], alt: str, photos: bool = False) -> Picture:
    """Draw a figure for light and for dark paper.

    Args:
        photos: it contains photos: JPEG instead of WebP.
    """
    images = [(_pixels(draw(theme)), theme) for theme in (LIGHT, DARK)]
    boxes = [ImageChops.difference(one, Image.new("RGB", one.size, theme.paper)).getbbox() for one, theme in images]
    drawn = [box for box in boxes if box]
    if drawn:  # one box for both, so that the figure does not move when the colour scheme changes
        lefts, tops, rights, bottoms = zip(*drawn, strict=True)
        box = min(lefts), min(tops), max(rights), max(bottoms)
        images = [(one.crop(box), theme) for one, theme in images]
    light, dark = (_uri(one, photos) for one, _ in images)
    return Picture(name, light, dark, alt, images[0][0].width / DPI, images[0][0].size)


def attempt(name: str, make: Callable[[], Picture], command: tuple[str, ...] = ()) -> Drawn:
    """Return a figure, or the reason why it cannot be drawn; an error in one figure does not affect the others."""
    try:
        return make()
    except AlexnetError as error:
        return Missing(name, error.message + (f" ({error.hint})" if error.hint and not command else ""), command)


def of_kernels(opened: Opened) -> list[Drawn]:
    """Draw figure 3; the kernels' learned change if they look like noise; the kernels of the kept epochs."""
    found: list[Drawn] = []

    def final() -> Picture:
        layer = first_layer.of_checkpoint(opened.run)
        alt = f"The {len(layer.weights)} kernels of the first layer, {layer.title}, as small coloured squares."
        return picture("kernels", lambda theme: kernels.draw([layer], theme), alt)

    def change() -> Picture | None:
        layer = first_layer.of_checkpoint(opened.run)
        if first_layer.smoothness(layer.weights) >= kernels.NOISE:
            return None
        layers = first_layer.learned(opened.run, [layer])
        alt = "The learned change of these kernels: their weights minus the initial weights."
        return picture("kernels-learned", lambda theme: kernels.draw(layers, theme, change=True), alt)

    found.append(attempt("kernels", final))
    if isinstance(found[0], Missing):
        return found
    try:
        more = change()
    except AlexnetError:  # initialised from another run's weights, so the kernels are not noise
        more = None
    found += [more] if more else []
    if (opened.folder / first_layer.KEPT).is_dir():

        def epochs() -> Picture:
            layers = first_layer.of_epochs(opened.folder)
            alt = f"The kernels {', '.join(one.title for one in layers)}."
            return picture("kernels-epochs", lambda theme: kernels.draw(layers, theme), alt)

        found.append(attempt("kernels-epochs", epochs))
    return found


def of_course(course: curves.Course | Missing) -> Drawn:
    """Draw the run's metrics."""
    if isinstance(course, Missing):
        return course
    alt = (
        "Six panels over the epochs: loss, top-1 error, top-5 error, learning rate, images a second, waiting for data."
    )
    return attempt("curves", lambda: picture("curves", lambda theme: _curves(course, theme), alt))


def of_answers(opened: Opened, answers: Answers, result: Result, split: str, views: int) -> Drawn:
    """Draw photos and their five most probable labels."""

    def make() -> Picture:
        picked = answers.pick("mixed", 8, SEED)
        photos = predictions.stored_photos(opened.shard_set, split, [one.record for one in picked])
        names = opened.names
        about = predictions.about_words(result, split, views)
        pairs = "; ".join(f"{names[one.label]} is predicted as {names[one.labels[0]]}" for one in picked)
        return picture(
            "predictions",
            lambda theme: predictions.draw(photos, picked, names, opened.shard_set.classes, about, theme),
            f"{len(picked)} photos with their most probable labels as bars: {pairs}.",
            photos=True,
        )

    return attempt("predictions", make)


def of_classes(opened: Opened, tally: Tally, split: str) -> list[Drawn]:
    """Draw the confusion matrix and the error of each class."""
    errors, pairs, names = tally.errors(), confusion.all_pairs(tally), opened.names
    return [
        attempt(
            "confusion",
            lambda: picture(
                "confusion", lambda theme: confusion.draw(errors, pairs, names, split, theme), _confused(pairs, names)
            ),
        ),
        attempt(
            "per-class",
            lambda: picture(
                "per-class", lambda theme: per_class.draw(errors, names, split, theme), _worst(errors, names)
            ),
        ),
    ]


def of_augmentation(opened: Opened, seed: int) -> Drawn:
    """Draw one training photo and its augmented versions."""

    def make() -> Picture:
        chosen = opened.trained.recipe
        one = augmented.vary(opened.shard_set, opened.trained.stats, chosen, 0, seed, augmentation.CROPS)
        return picture(
            "augmentation",
            lambda theme: augmentation.draw(one, "training photo 0", chosen.name, theme),
            "One training photo: the windows cut from it in six epochs, its lighting in three scales, the mean.",
            photos=True,
        )

    return attempt("augmentation", make)


def of_neighbours(opened: Opened, split: str) -> Drawn:
    """Draw photos and the training photos nearest to them, if the run has an index."""
    command = index_command(opened)
    if not (vectors.folder_of(opened, None) / vectors.ABOUT).exists():
        return Missing("neighbours", "The training photos of this run are not indexed. To add the figure:", command)

    def make() -> Picture:
        index = vectors.open_index(opened)
        chosen = neighbours.draw_records(opened, split, 5, SEED)
        rows = neighbours.rows_of_split(opened, index, split, chosen)
        same = [one.same for row in rows for one in row.found if one.same is not None]
        return picture(
            "neighbours",
            lambda theme: neighbours.draw_neighbours(rows, theme),
            f"{len(rows)} photos, each with its nearest training photos; {sum(same)} of {len(same)} of its own class.",
            photos=True,
        )

    return attempt("neighbours", make, command)


def of_race(file: Path) -> Drawn:
    """Draw figure 1 from the JSON file of relu-vs-tanh."""

    def make() -> Picture:
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
            alt = f"Training error of two small nets over the epochs, with ReLUs and with tanh. {results['words']}."
            return picture(RACE, lambda theme: draw_results(results, theme=theme), alt)
        except (OSError, ValueError, KeyError, TypeError) as error:  # not the command's format
            raise TrainingError(f"{file}: damaged: {error}", "run alexnet-figures relu-vs-tanh again") from None

    return attempt(RACE, make)


def _curves(course: curves.Course, theme: Theme) -> "Figure":
    try:
        return curves.draw([course], theme)
    except (TypeError, ValueError, KeyError) as error:  # valid JSON, but not a run's metrics
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
        image.save(file, format="WEBP", lossless=True, quality=80, method=4)  # lossless: quality is the effort
    return f"data:image/{'jpeg' if photos else 'webp'};base64,{base64.b64encode(file.getvalue()).decode()}"


def _confused(pairs: list[Confusion], names: list[str]) -> str:
    worst = "; ".join(
        f"{names[one.label]} is predicted as {names[one.answer]} in {100 * one.share:.0f}%"
        for one in sorted(pairs, key=lambda one: (-one.share, one.label))[:3]
    )
    return f"Confusion matrix. Most frequent errors: {worst}." if worst else "Confusion matrix without errors."


def _worst(errors: list[ClassError], names: list[str]) -> str:
    ranked = sorted((one for one in errors if one.images), key=lambda one: -one.top1_error)
    ends = (ranked[0], ranked[-1]) if ranked else ()
    extremes = " and ".join(f"{names[one.label]} {100 * one.top1_error:.0f}%" for one in ends)
    return f"Bars of each class's error, from the worst to the best: {extremes}."
