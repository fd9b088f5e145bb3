"""What a net answers to each photo of a split, and which photos are worth a look.

In:  batches, as evaluate's `see` gets them.  Out: arrays by photo, and photos picked from them.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...model.recipes.config import default_precision
from ...model.training.evaluate import Result, See, evaluate, most_probable
from ...model.training.precision import set_precision
from .. import console
from .open_run import Opened

TOP = 5
PICKS = ("mixed", "best", "worst", "random")


@dataclass(frozen=True)
class Answer:
    """One photo's.

    Attributes:
        record: its index in the split.
        label: what it shows; -1 where nobody knows.
        own: the probability of that; NaN where nobody knows.
        labels, probabilities: of the most probable classes, the first first.
        why: it was picked.
    """

    record: int
    label: int
    own: float
    labels: tuple[int, ...]
    probabilities: tuple[float, ...]
    why: str = ""


class Answers:
    """Keeps the most probable labels of all photos: give its `see` to `evaluate`. 100 bytes a photo."""

    def __init__(self):
        self._rows: list[tuple[np.ndarray, ...]] = []

    def see(self, records: np.ndarray, labels: Tensor, probabilities: Tensor) -> None:
        """Keep a batch's.

        Raises:
            TrainingError: the probabilities are not numbers.
        """
        best = most_probable(probabilities, TOP)
        own = probabilities.gather(1, labels.clamp_min(0)[:, None])[:, 0].where(labels >= 0, math.nan)
        kept = (labels, own, best, probabilities.gather(1, best))
        self._rows.append((records, *(one.cpu().numpy() for one in kept)))

    def pick(self, how: str = "mixed", count: int = 8, seed: int = 0) -> list[Answer]:
        """Pick photos: `best`, the surest and right; `worst`, the surest and wrong; `random`; `mixed`, some of each.

        Of the best and worst each class has its first before any has its second.

        Returns:
            At most `count`; none where a net is never right, or never wrong. A photo without a label is neither.
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
    """The surest photo of each class, the surest first; then each class's second, and so on."""
    ordered = photos[np.argsort(-sure[photos], kind="stable")].tolist()
    seen: dict[int, int] = {}
    rounds = []
    for place, photo in enumerate(ordered):
        label = int(labels[photo])
        seen[label] = seen.get(label, 0) + 1
        rounds.append((seen[label], place, photo))
    return [photo for _, _, photo in sorted(rounds)]


# --- from tools/figures/passes.py


def evaluate_run(opened: Opened, split: str, see: See, views: int = 1, without_labels: bool = False) -> Result:
    """Look at every photo of a split.

    Args:
        without_labels: a split without labels will do; it has no errors.
    Raises:
        ShardError: no such split, or photos without a label where they are needed.
    """
    precision = default_precision(opened.device)
    set_precision(precision)
    recipe = opened.trained.recipe
    with console.progress("looking at photos", opened.shard_set.split(split).records) as advance:
        result = evaluate(
            [opened.trained.net],
            opened.shard_set,
            opened.trained.stats,
            split=split,
            views=views,
            crop=recipe.crop,
            mean=recipe.mean,
            device=opened.device,
            precision=precision,
            see=see,
            without_labels=without_labels,
            advance=advance,
        )
    assert result is not None, "nobody asked the pass to stop"
    return result
