"""Errors by class and the most frequent confusions, counted during an evaluation (training/evaluate.py).

In:  each batch's labels and probabilities.  Out: one row per class, and rows of the most frequent wrong answers.
Memory: three numbers per class, and one per pair of classes that was confused; it does not grow with the photos.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..training.distributed import Team
from ..training.evaluate import most_probable, share_right

WORST, ANSWERS = 20, 5  # classes of the table of confusions, and wrong answers of each


@dataclass(frozen=True)
class ClassError:
    """Errors of one class: fractions, 0..1; NaN if it has no photos."""

    label: int
    images: int
    top1_error: float
    top5_error: float


@dataclass(frozen=True)
class Confusion:
    """Number of photos of class `label` that were classified as `answer`, and its fraction of that class's photos."""

    label: int
    answer: int
    count: int
    share: float


class Tally:
    """Counts by class during an evaluation: pass its `see` to `evaluate`.

    Args:
        classes: number of classes.
        device: of the labels and probabilities.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu"):
        self._classes = classes
        self._counts = torch.zeros(3, classes, dtype=torch.float64, device=device)  # photos, right at 1, right among 5
        self._pairs: Counter[int] = Counter()  # label * classes + answer

    def see(self, records: np.ndarray, labels: Tensor, probabilities: Tensor) -> None:
        """Count a batch.

        Args:
            records: int64 (n,), not used.
            labels: int64 (n,), 0..classes-1.
            probabilities: float (n, classes).
        Raises:
            TrainingError: a probability is NaN.
        """
        answers = most_probable(probabilities, 1)[:, 0]
        right = [share_right(probabilities, labels, top).double() for top in (1, 5)]
        self._counts.index_add_(1, labels, torch.stack([torch.ones_like(right[0]), *right]))
        wrong = answers != labels
        pairs, counts = (labels * self._classes + answers)[wrong].unique(return_counts=True)
        self._pairs.update(dict(zip(pairs.tolist(), counts.tolist(), strict=True)))

    def add_up(self, team: Team) -> None:
        """Add up the counts of all processes, in each of them. Collective; call it once."""
        if team.ranks == 1:
            return
        flat = team.sum(self._counts.flatten().tolist())
        self._counts = torch.tensor(flat, dtype=torch.float64).view(3, self._classes)
        everyone: list[Counter[int]] = [Counter()] * team.ranks
        dist.all_gather_object(everyone, self._pairs)
        self._pairs = sum(everyone, Counter())

    def errors(self) -> list[ClassError]:
        """Return the errors of each class, by label."""
        images, right1, right5 = self._counts.cpu()
        rows = zip(images.tolist(), (1 - right1 / images).tolist(), (1 - right5 / images).tolist(), strict=True)
        return [ClassError(label, int(count), one, five) for label, (count, one, five) in enumerate(rows)]

    def confusions(self, worst: int = WORST, answers: int = ANSWERS) -> list[Confusion]:
        """Return the most frequent wrong answers of the classes with the greatest top-1 error, worst class first.

        Of classes with the same probability the lower label counts as the answer.
        """
        ranked = sorted((one for one in self.errors() if one.images), key=lambda one: (-one.top1_error, one.label))
        wrong: dict[int, list[tuple[int, int]]] = {one.label: [] for one in ranked[:worst]}
        for pair, count in self._pairs.items():
            label, answer = divmod(pair, self._classes)
            if label in wrong:
                wrong[label].append((-count, answer))
        return [
            Confusion(one.label, answer, -count, -count / one.images)
            for one in ranked[:worst]
            for count, answer in sorted(wrong[one.label])[:answers]
        ]
