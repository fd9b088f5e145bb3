"""Top-1 and top-5 error over a split: every record once, one view or ten, one net or several (paper, section 4.1, 6).

In:  nets and a shard set.  Out: errors as shares, 0..1.  Of views and nets the probabilities are averaged, not the
logits. Among classes of equal probability a slot is shared, as in the program of 2012: a net that says nothing has
the error of chance, not of luck. What else is wanted of the same pass sees each batch: confusion.py, and predictions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...pipeline.errors import ShardError, TrainingError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ...pipeline.stream.streams import views_stream
from .distributed import Team
from .precision import autocast

PICTURES_AT_ONCE = 256  # views of all photos of a batch; 150 MB of float32
See = Callable[[np.ndarray, Tensor, Tensor], Any]  # records (n,), labels (n,) and probabilities (n, classes) of a batch


@dataclass(frozen=True)
class Result:
    """Errors of a pass over a split.

    Attributes:
        images: counted, each once.
        loss: mean negative log-probability of the label.
        top1_error, top5_error: shares, 0..1. All three are NaN of a split without labels.
    """

    images: int
    loss: float
    top1_error: float
    top5_error: float


def evaluate(
    nets: Sequence[nn.Module],
    shard_set: ShardSet,
    stats: Stats,
    *,
    split: str = "val",
    views: int = 1,
    resize: int | None = None,
    crop: int = 224,
    mean: str = "image",
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    weights: Sequence[float] | None = None,
    decode: str = "auto",
    see: See | None = None,
    without_labels: bool = False,
    advance: Callable[[int], Any] = lambda images: None,
    stop: Callable[[], bool] = lambda: False,
    team: Team = Team(),
) -> Result | None:
    """Measure nets, averaged, on a split.

    Args:
        views, resize, crop, mean, decode: see `views_stream`.
        weights: of the nets' probabilities, one each, whose sum is one; None, equal.
        see: called with each batch that this process has looked at.
        without_labels: a split without labels will do; it has no errors.
        advance: called with the number of images done.
        stop: asked after each batch; when true, the pass is given up.
        team: processes that share the records, each with all nets; each gets the whole result.
    Returns:
        The result, or None where it was given up.
    Raises:
        ShardError: no such split, no records in it, or a record without label where one is needed.
    """
    modes = [net.training for net in nets]
    for net in nets:
        net.eval()
    images, stopped, unlabelled = 0, False, False
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # there, so that no batch waits for the host
    try:
        with views_stream(
            shard_set,
            stats,
            split,
            views=views,
            resize=resize,
            crop=crop,
            mean=mean,
            device=device,
            decode=decode,
            threads=team.threads,
            rank=team.rank,
            ranks=team.ranks,
            batch_size=max(1, PICTURES_AT_ONCE // views),
        ) as stream:
            for batch in stream:
                if batch.unlabelled and not without_labels:
                    raise ShardError(
                        f"{shard_set.root}: {split} has records without a label", "evaluate a split that has labels"
                    )
                images += len(batch.labels)
                probabilities = predict(nets, batch.images, precision, weights)
                unlabelled = unlabelled or batch.unlabelled
                if not batch.unlabelled:
                    own = probabilities.gather(1, batch.labels[:, None]).clamp_min(1e-30)
                    right = [share_right(probabilities, batch.labels, top).double().sum() for top in (1, 5)]
                    sums += torch.stack([-own.double().log().sum(), *right])
                if see is not None:
                    see(batch.records, batch.labels, probabilities)
                advance(len(batch.labels))
                if stop():
                    stopped = True
                    break
    finally:
        for net, training in zip(nets, modes, strict=True):
            net.train(training)
    counted, given_up, lacking, loss, right1, right5 = team.sum([images, stopped, unlabelled, *sums.tolist()])
    if given_up:
        return None
    images = int(counted)
    if lacking:
        return Result(images, math.nan, math.nan, math.nan)
    return Result(images, loss / images, (images - right1) / images, (images - right5) / images)


@torch.no_grad()
def predict(
    nets: Sequence[nn.Module], pictures: Tensor, precision: str = "fp32", weights: Sequence[float] | None = None
) -> Tensor:
    """Average the probabilities over views and nets.

    Args:
        pictures: float (n, views, 3, crop, crop).
        weights: of the nets, one each, whose sum is one; None, equal.
    Returns:
        float32 (n, classes), rows sum to one.
    """
    n, views = pictures.shape[:2]
    flat = pictures.flatten(0, 1)
    total: Tensor | None = None
    for k, net in enumerate(nets):
        with autocast(pictures.device, precision):
            logits = net(flat)
        share = logits.float().softmax(dim=1).view(n, views, -1).mean(dim=1)
        if weights is not None:
            share = share * weights[k]
        total = share if total is None else total + share
    assert total is not None, "no nets"
    return total / len(nets) if weights is None else total


def most_probable(probabilities: Tensor, count: int = 5) -> Tensor:
    """The labels of the most probable classes, the first first; among equals the lower one.

    Returns:
        int64 (n, min(count, classes)).
    Raises:
        TrainingError: there is a NaN.
    """
    if bool(probabilities.isnan().any()):  # waits for the device
        raise TrainingError("the net's probabilities are not numbers", "use an earlier checkpoint of the run")
    return probabilities.argsort(dim=1, descending=True, stable=True)[:, :count]


def share_right(probabilities: Tensor, labels: Tensor, top: int) -> Tensor:
    """How much of each label stands among the `top` most probable classes: float32 (n,), 0..1.

    Classes of the label's own probability share the slots that are left between them. A NaN is never right.
    """
    own = probabilities.gather(1, labels[:, None])
    above = (probabilities > own).sum(dim=1)
    level = (probabilities == own).sum(dim=1)
    share = ((top - above).clamp_min(0) / level.clamp_min(1)).clamp_max(1.0)
    return torch.where(level > 0, share, torch.zeros_like(share))
