"""The results that alexnet-demo shows for a photo: offline crop, ten views, five labels, neighbours, first layer.

In:  a photo's bytes, or a record of the set, and a run as opened.  Out: an Inspection, as arrays. No page, no Gradio.
A photo is processed like the set's photos and tested as in the paper (section 4.1): the four corners and the centre,
each with its reflection, with averaged probabilities.
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
from ...pipeline.plan.views import views_of
from ...pipeline.shards.datum import central_square
from ...pipeline.shards.stats import normalize
from ..figures.open_run import Opened
from ..figures.retrieval import vectors
from ..figures.retrieval.neighbours import NEAREST, Shown, draw_records, shown
from ..figures.retrieval.records import as_stored, pictures_of, rows_of
from .crop import Whole, whole_photo

PLACES = ("upper left", "upper right", "lower left", "lower right", "centre")  # in the order of `views_of`
CENTRE = 8  # the centre view's index
STRONGEST = 12  # kernels that are shown with their responses
EXAMPLES = 8


class View(NamedTuple):
    """A test view: uint8 (crop, crop, 3), its name, its most probable class and that class's probability, 0..1."""

    pixels: np.ndarray
    name: str
    label: int
    probability: float


class Response(NamedTuple):
    """A kernel, float32 (3, k, k), its number in the layer, and its response map, float32 (h, w), 0 or more."""

    number: int
    kernel: np.ndarray
    map: np.ndarray


class FirstLayer(NamedTuple):
    """The first layer's responses to the centre view: all maps, float32 (n, h, w), and strong ones that differ."""

    maps: np.ndarray
    strongest: list[Response]


@dataclass(frozen=True)
class Inspection:
    """The results for one photo.

    Attributes:
        name: of the file.
        whole: the original photo; None for a record, whose original is not available.
        stored: uint8 (height, width, 3), as in the shards.
        views: the ten test views.
        labels, probabilities: the five most probable classes in descending order, averaged over the ten views.
        right: the record's class; -1 if unknown.
        near: training photos, nearest first; or the error because of which there are none.
        first_layer: None if the first layer is not a convolution over RGB.
        seconds: processing time.
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
    """Inspects photos with a run's net, one at a time: a second caller waits.

    Args:
        index: the folder of the index; None for the run's own.
    """

    def __init__(self, opened: Opened, index: Path | None = None):
        self.opened = opened
        self._index_folder = index
        self._index: vectors.Index | None = None
        self._one_at_a_time = threading.Lock()

    def photo(self, data: bytes, name: str) -> Inspection:
        """Inspect a photo's file.

        Raises:
            SourceError: it is not a picture, truncated, or too large.
            TrainingError: the net's outputs are not finite.
        """
        with self._one_at_a_time:
            started = time.monotonic()
            whole = whole_photo(data, name, self.opened.shard_set)
            return self._inspect(name, whole, as_stored(data, name, self.opened.shard_set), -1, started)

    def record(self, split: str, record: int) -> Inspection:
        """Inspect a record of the set.

        Raises:
            ShardError: the record is damaged.
        """
        with self._one_at_a_time:
            started, shard_set, one = time.monotonic(), self.opened.shard_set, np.array([record])
            row = rows_of(shard_set, split, one)[0]
            stored = pictures_of(shard_set, split, one)[0]
            return self._inspect(Path(row.source_path).name, None, stored, row.label, started)

    def examples(self, split: str = "val", count: int = EXAMPLES) -> list[tuple[int, np.ndarray, str]]:
        """Return example photos of different classes: record number, uint8 (side, side, 3), class name.

        Returns:
            At most `count`; empty if the set lacks the split.
        """
        opened = self.opened
        if split not in opened.shard_set.manifest["splits"]:
            return []
        records = draw_records(opened, split, count, seed=0)
        pictures = pictures_of(opened.shard_set, split, records)
        labels = [row.label for row in rows_of(opened.shard_set, split, records)]
        size = opened.shard_set.size
        return [
            (record, central_square(picture, size), opened.names[label] if label >= 0 else "")
            for record, picture, label in zip(records.tolist(), pictures, labels, strict=True)
        ]

    def _inspect(self, name: str, whole: Whole | None, stored: np.ndarray, right: int, started: float) -> Inspection:
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
                View(view, _name_of(k), int(best[k, 0]), float(each[k, best[k, 0]]))
                for k, view in enumerate(pixels)  # two for each position
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
            if self._index is None:  # try each time: the index may have been written since
                self._index = vectors.open_index(self.opened, self._index_folder)
            queries = features.of_pictures(self.opened.trained, [stored], device=self.opened.device)
            found, distances = nearest(self._index.vectors, queries, NEAREST)
            return shown(self.opened, found[0], [f"{d:.3g}" for d in distances[0]], right)
        except AlexnetError as error:  # shown on the page, with the other results
            return error


def views_of_picture(stored: np.ndarray, trained: Trained) -> tuple[list[np.ndarray], Tensor]:
    """Crop the ten test views of a stored picture, as the stream does (pipeline/stream/dali_graph.py).

    Args:
        stored: uint8 (height, width, 3).
    Returns:
        The views as pixels, uint8 (crop, crop, 3), and as the net's input, float32 (10, 3, crop, crop).
    """
    stats, crop = trained.stats, trained.recipe.crop
    size = len(stats.mean_image)
    square = central_square(stored, size)
    pixels = []
    for left, top, flip in views_of(10, size, crop).tolist():
        view = square[top : top + crop, left : left + crop]
        pixels.append(np.ascontiguousarray(view[:, ::-1] if flip else view))
    ready = normalize(np.stack(pixels), stats, trained.recipe.mean)
    return pixels, torch.from_numpy(ready).permute(0, 3, 1, 2)  # channels_last, as the stream's batches


@contextmanager
def first_maps(net: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list to which each forward pass appends the first layer's output, (n, kernels, h, w)."""
    maps: list[Tensor] = []
    layer = _first_convolution(net)
    hook = layer.register_forward_hook(lambda _, given, out: maps.append(out.detach())) if layer is not None else None
    try:
        yield maps
    finally:
        if hook is not None:
            hook.remove()


def first_layer(net: nn.Module, maps: list[Tensor]) -> FirstLayer | None:
    """Return the responses to the centre view after the ReLU; None if the first layer is not a convolution over RGB."""
    layer = _first_convolution(net)
    if layer is None or not maps:
        return None
    responses = maps[0][CENTRE].clamp_min(0).float().cpu().numpy()
    kernels = layer.weight.detach().float().cpu().numpy()
    return FirstLayer(responses, [Response(k, kernels[k], responses[k]) for k in diverse(responses, STRONGEST)])


def diverse(maps: np.ndarray, count: int) -> list[int]:
    """Choose strong maps that differ, because the strongest twelve often show the same pattern.

    The first is the strongest. Each next one has the greatest strength after it is reduced by its correlation with the
    maps chosen before.

    Args:
        maps: float (n, h, w), 0 or more.
    Returns:
        At most `count` indices.
    """
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    strength, apart = flat.mean(axis=1), flat - flat.mean(axis=1, keepdims=True)
    apart /= np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-12)
    chosen: list[int] = []
    score = strength.copy()
    while len(chosen) < min(count, len(maps)):
        best = int(score.argmax())
        chosen.append(best)
        score = np.minimum(score, strength * (1 - np.maximum(apart @ apart[best], 0)))
        score[chosen] = -1
    return chosen


def _name_of(view: int) -> str:
    return PLACES[view // 2] + ", mirrored" * (view % 2)


def _first_convolution(net: nn.Module) -> nn.Conv2d | None:
    return next((one for one in net.modules() if isinstance(one, nn.Conv2d) and one.in_channels == 3), None)
