"""The predictions of a net for each photo of a split, and the selection of photos to show.

In:  a run as opened.  Out: its evaluation; arrays by photo, and photos picked from them.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...model.recipes.config import default_precision
from ...model.training.evaluate import EvalOptions, Result, See, evaluate, most_probable
from ...model.training.precision import set_precision
from .. import console
from .open_run import Opened

TOP = 5
PICKS = ("mixed", "best", "worst", "random")


def evaluate_run(opened: Opened, split: str, see: See, views: int = 1, without_labels: bool = False) -> Result:
    """Evaluate a run's net on a split.

    Args:
        see: called with each batch's records, labels and probabilities.
        views: test views per photo, 1 or 10.
        without_labels: accept unlabelled photos; the errors are NaN then.
    Raises:
        ShardError: the split does not exist, or has unlabelled photos that are not accepted.
    """
    precision = default_precision(opened.device)
    set_precision(precision, opened.device)
    recipe = opened.trained.recipe
    options = EvalOptions(
        views=views,
        crop=recipe.crop,
        mean=recipe.mean,
        device=opened.device,
        precision=precision,
        allow_unlabelled=without_labels,
    )
    with console.progress("evaluating photos", opened.shard_set.split(split).records) as advance:

        def see_and_count(records, labels, probabilities) -> None:
            see(records, labels, probabilities)
            advance(len(records))

        nets = [opened.trained.net]
        result = evaluate(nets, opened.shard_set, opened.trained.stats, split, options, see=see_and_count)
    assert result is not None, "no `stop` was passed"
    return result


@dataclass(frozen=True)
class Answer:
    """The predictions for one photo.

    Attributes:
        record: its number in the split.
        label: its class; -1 if unlabelled.
        own: the probability of that class, 0..1; NaN if unlabelled.
        labels, probabilities: the most probable classes, in descending order.
        why: the reason it was picked.
    """

    record: int
    label: int
    own: float
    labels: tuple[int, ...]
    probabilities: tuple[float, ...]
    why: str = ""


class Answers:
    """Collects the most probable labels of all photos, 100 bytes per photo; pass its `see` to `evaluate`."""

    def __init__(self):
        self._rows: list[tuple[np.ndarray, ...]] = []

    def see(self, records: np.ndarray, labels: Tensor, probabilities: Tensor) -> None:
        """Keep the predictions for a batch.

        Args:
            records: int64 (n,), record numbers of the split.
            labels: int64 (n,), -1 for unlabelled photos.
            probabilities: float32 (n, classes), 0..1.
        Raises:
            TrainingError: the probabilities are not finite.
        """
        best = most_probable(probabilities, TOP)
        own = probabilities.gather(1, labels.clamp_min(0)[:, None])[:, 0].where(labels >= 0, math.nan)
        kept = (labels, own, best, probabilities.gather(1, best))
        self._rows.append((records, *(one.cpu().numpy() for one in kept)))

    def pick(self, how: str = "mixed", count: int = 8, seed: int = 0) -> list[Answer]:
        """Pick photos: `best`, most confident and right; `worst`, most confident and wrong; `random`; or `mixed`.

        Best and worst photos are taken class by class: the first of each class before the second of any.

        Returns:
            At most `count` photos; empty if there is no right, or no wrong, prediction. Unlabelled photos are neither.
        """
        records, labels, own, best, probabilities = (np.concatenate(rows) for rows in zip(*self._rows, strict=True))
        sure, right = probabilities[:, 0], best[:, 0] == labels
        photos = np.random.default_rng(seed).permutation(len(records))
        wanted = {"mixed": (count // 3, count - count // 3 * 2, count // 3), "best": (count, 0, 0)}
        wanted |= {"worst": (0, 0, count), "random": (0, count, 0)}
        of_best, of_random, of_worst = wanted[how]
        firsts = _surest(np.flatnonzero(right), sure, labels)[:of_best]
        lasts = _surest(np.flatnonzero(~right & (labels >= 0)), sure, labels)[:of_worst]
        if how == "mixed":
            of_random = count - len(firsts) - len(lasts)
        others = [photo for photo in photos.tolist() if photo not in {*firsts, *lasts}][:of_random]
        reasons = ((firsts, "sure and right"), (others, "at random"), (lasts, "sure and wrong"))
        return [
            Answer(
                int(records[photo]),
                int(labels[photo]),
                float(own[photo]),
                tuple(best[photo].tolist()),
                tuple(probabilities[photo].tolist()),
                why,
            )
            for photos, why in reasons
            for photo in photos
        ]


def _surest(photos: np.ndarray, sure: np.ndarray, labels: np.ndarray) -> list[int]:
    """Order photos: the most confident of each class, by confidence; then each class's second, and so on."""
    ordered = photos[np.argsort(-sure[photos], kind="stable")].tolist()
    seen: dict[int, int] = {}
    rounds = []
    for rank, photo in enumerate(ordered):
        label = int(labels[photo])
        seen[label] = seen.get(label, 0) + 1
        rounds.append((seen[label], rank, photo))
    return [photo for _, _, photo in sorted(rounds)]
