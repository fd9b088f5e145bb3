"""What alexnet-demo shows of a photo, as arrays: the offline crop, ten views, five labels, neighbours, first layer.

In:  a photo's bytes, or a record of the set, and a run as opened.  Out: a Looked. No page, no Gradio.
A photo takes the way of the set's own photos, and is tested as the paper tests (section 4.1): the centre and the four
corners, each with its reflection, probabilities averaged.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...model.analysis import features
from ...model.analysis.nearest import nearest
from ...model.training.evaluate import most_probable, predict
from ...model.weights.trained import Trained
from ...pipeline.errors import AlexnetError
from ...pipeline.plan.views import ten_views
from ...pipeline.shards.datum import central_square
from ...pipeline.stream.streams import IMAGENET_MEAN, IMAGENET_STD
from ..figures.open_run import Opened
from ..figures.retrieval import index as vectors
from ..figures.retrieval.neighbours import NEAREST, Shown, draw_records, shown
from ..figures.retrieval.search import as_stored
from .crop import Whole, whole_photo

PLACES = ("upper left", "upper right", "lower left", "lower right", "centre")  # in the order of `ten_views`
CENTRE = 8  # its row there
STRONGEST = 12  # kernels whose responses are shown one by one
EXAMPLES = 8


class View(NamedTuple):
    """A test view: uint8 (crop, crop, 3), what it is called, its most probable class and that one's probability."""

    pixels: np.ndarray
    name: str
    label: int
    probability: float


class Response(NamedTuple):
    """A kernel float32 (3, k, k), its place in the layer, and where it fires: float32 (h, w), nothing below zero."""

    number: int
    kernel: np.ndarray
    map: np.ndarray


class FirstLayer(NamedTuple):
    """What the first layer makes of the centre view: all maps float32 (n, h, w), and some that fire much and differ."""

    maps: np.ndarray
    strongest: list[Response]


@dataclass(frozen=True)
class Inspection:
    """Everything about one photo.

    Attributes:
        name: of the file.
        whole: the photo as it came; None of a record, whose photo is not there.
        stored: uint8 (height, width, 3), as in the shards.
        views: the ten.
        labels, probabilities: the five most probable classes, the first first, averaged over the ten views.
        right: the record's class; -1 where nobody knows.
        near: training photos, the nearest first; or the error that says why there are none.
        first_layer: None where the net does not begin with kernels over red, green and blue.
        seconds: all of it took.
    """

    name: str
    whole: Whole | None
    stored: np.ndarray
    views: Sequence[View]
    labels: Sequence[int]
    probabilities: Sequence[float]
    right: int
    near: Sequence[Shown] | AlexnetError
    first_layer: FirstLayer | None
    seconds: float


class Inspector:
    """Looks at photos with a run's net, one after the other: a second caller waits.

    Args:
        index: the folder of the index; None, the run's own.
    """

    def __init__(self, opened: Opened, index: Path | None = None):
        self.opened = opened
        self._index_folder = index
        self._index: vectors.Index | None = None
        self._one_at_a_time = threading.Lock()

    def photo(self, data: bytes, name: str) -> Inspection:
        """Look at a photo's file.

        Raises:
            SourceError: it is not a picture, torn, or too large.
            TrainingError: the net's answers are not numbers.
        """
        with self._one_at_a_time:
            started = time.monotonic()
            whole = whole_photo(data, name, self.opened.shard_set)
            return self._look(name, whole, as_stored(data, name, self.opened.shard_set), -1, started)

    def record(self, split: str, record: int) -> Inspection:
        """Look at a photo of the set, as it is stored.

        Raises:
            ShardError: it is damaged.
        """
        with self._one_at_a_time:
            started, shard_set, one = time.monotonic(), self.opened.shard_set, np.array([record])
            row = vectors.rows_of(shard_set, split, one)[0]
            stored = vectors.pictures_of(shard_set, split, one)[0]
            return self._look(Path(row.source_path).name, None, stored, row.label, started)

    def examples(self, split: str = "val", count: int = EXAMPLES) -> list[tuple[int, np.ndarray, str]]:
        """Some photos to begin with, each of another class: record, uint8 (side, side, 3), the class's name.

        Returns:
            None of them where the set has no such split.
        """
        opened = self.opened
        if split not in opened.shard_set.manifest["splits"]:
            return []
        records = draw_records(opened, split, count, seed=0)
        pictures = vectors.pictures_of(opened.shard_set, split, records)
        labels = [row.label for row in vectors.rows_of(opened.shard_set, split, records)]
        size = opened.shard_set.size
        return [
            (record, central_square(picture, size), opened.names[label] if label >= 0 else "")
            for record, picture, label in zip(records.tolist(), pictures, labels, strict=True)
        ]

    def _look(self, name: str, whole: Whole | None, stored: np.ndarray, right: int, started: float) -> Inspection:
        trained, device = self.opened.trained, self.opened.device
        pixels, pictures = views_of_picture(stored, trained)
        with first_maps(trained.net) as maps:
            each = predict([trained.net], pictures.to(device)[:, None])  # (10, classes)
        best = most_probable(each, 1)
        average = each.mean(dim=0, keepdim=True)  # (1, classes)
        five = most_probable(average)
        return Inspection(
            name,
            whole,
            stored,
            [
                View(view, _called(k), int(best[k, 0]), float(each[k, best[k, 0]]))
                for k, view in enumerate(pixels)  # two lines for each place
            ],
            five[0].tolist(),
            average.gather(1, five)[0].tolist(),
            right,
            self._near(stored, right),
            first_layer(trained.net, maps),
            time.monotonic() - started,
        )

    def _near(self, stored: np.ndarray, right: int) -> Sequence[Shown] | AlexnetError:
        try:
            if self._index is None:  # asked for again each time: it may have been made meanwhile
                self._index = vectors.open_index(self.opened, self._index_folder)
            queries = features.of_pictures(self.opened.trained, [stored], device=self.opened.device)
            found, distances = nearest(self._index.vectors, queries, NEAREST)
            return shown(self.opened, found[0], [f"{d:.3g}" for d in distances[0]], right)
        except AlexnetError as error:  # the rest of the page stands without it
            return error


def views_of_picture(stored: np.ndarray, trained: Trained) -> tuple[list[np.ndarray], Tensor]:
    """Cut the ten test views of a stored picture, as the stream does (pipeline/stream/dali_graph.py).

    Args:
        stored: uint8 (height, width, 3).
    Returns:
        The views as pixels, uint8 (crop, crop, 3), and less the mean, float32 (10, 3, crop, crop).
    """
    stats, crop = trained.stats, trained.recipe.crop
    size = len(stats.mean_image)
    square, edge = central_square(stored, size), (size - crop) // 2
    # The mean image's central window is subtracted whatever the window and its reflection: so did the program of 2012.
    window = stats.mean_image[edge : edge + crop, edge : edge + crop]
    mean = {"image": window, "rgb": stats.mean_rgb, "imagenet": IMAGENET_MEAN}[trained.recipe.mean]
    deviation = IMAGENET_STD if trained.recipe.mean == "imagenet" else 1.0
    pixels = []
    for left, top, flip in ten_views(size, crop).tolist():
        view = square[top : top + crop, left : left + crop]
        pixels.append(np.ascontiguousarray(view[:, ::-1] if flip else view))
    ready = [((view - mean) / deviation).transpose(2, 0, 1) for view in pixels]
    return pixels, torch.from_numpy(np.stack(ready).astype(np.float32)).contiguous(memory_format=torch.channels_last)


@contextmanager
def first_maps(net: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list that gets the first layer's outputs, (n, kernels, h, w), when the net looks at pictures."""
    maps: list[Tensor] = []
    layer = _first_convolution(net)
    hook = layer.register_forward_hook(lambda _, given, out: maps.append(out.detach())) if layer is not None else None
    try:
        yield maps
    finally:
        if hook is not None:
            hook.remove()


def first_layer(net: nn.Module, maps: list[Tensor]) -> FirstLayer | None:
    """What kernels found in the centre view: the positive part, as the ReLU leaves it; None where there are none."""
    layer = _first_convolution(net)
    if layer is None or not maps:
        return None
    found = maps[0][CENTRE].clamp_min(0).float().cpu().numpy()
    kernels = layer.weight.detach().float().cpu().numpy()
    return FirstLayer(found, [Response(k, kernels[k], found[k]) for k in unlike(found, STRONGEST)])


def unlike(maps: np.ndarray, count: int) -> list[int]:
    """Choose strong maps that differ: the strongest, then ever that whose strength, less what is like one of those
    before, is greatest. The strongest twelve are often one pattern twelve times.

    Args:
        maps: float (n, h, w), nothing below zero.
    """
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    strength, apart = flat.mean(axis=1), flat - flat.mean(axis=1, keepdims=True)
    apart /= np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-12)
    chosen: list[int] = []
    worth = strength.copy()
    while len(chosen) < min(count, len(maps)):
        best = int(worth.argmax())
        chosen.append(best)
        worth = np.minimum(worth, strength * (1 - np.maximum(apart @ apart[best], 0)))
        worth[chosen] = -1
    return chosen


def _called(view: int) -> str:
    return PLACES[view // 2] + ", mirrored" * (view % 2)


def _first_convolution(net: nn.Module) -> nn.Conv2d | None:
    return next((one for one in net.modules() if isinstance(one, nn.Conv2d) and one.in_channels == 3), None)
