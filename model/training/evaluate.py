"""Top-1 and top-5 error over a split: every record once, one or several views and nets (paper, sections 4.1 and 6).

In:  nets and a shard set.  Out: errors as fractions, 0..1.  Probabilities, not logits, are averaged over views and
nets. Classes of equal probability share the places among the top k, as in the program of 2012, so a net that gives
every class the same probability has exactly the error of chance.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...pipeline.errors import ShardError, TrainingError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ...pipeline.stream.stream import Batch
from ...pipeline.stream.streams import views_stream
from .distributed import Team
from .precision import autocast

PICTURES_AT_ONCE = 256  # views of all records of a batch; 150 MB of float32
See = Callable[[np.ndarray, Tensor, Tensor], Any]  # records (n,), labels (n,) and probabilities (n, classes) of a batch


@dataclass(frozen=True)
class Result:
    """Errors over a split.

    Attributes:
        images: number of records evaluated, each once.
        loss: mean negative log-probability of the label, in nats.
        top1_error, top5_error: fractions, 0..1. All three are NaN for a split without labels.
    """

    images: int
    loss: float
    top1_error: float
    top5_error: float

    def metrics(self) -> dict[str, float]:
        """Return the entries of an epoch's line in metrics.jsonl."""
        return {"val_loss": self.loss, "val_top1_error": self.top1_error, "val_top5_error": self.top5_error}


@dataclass(frozen=True)
class EvalOptions:
    """How a split is evaluated.

    Attributes:
        views, resize, crop, mean, decode, device: see `views_stream`. The nets must be on this device.
        precision: `fp32`, `tf32` or `bf16`; tf32 also needs `set_precision`.
        weights: one weight per net for the average of the probabilities, with sum 1; None: equal weights.
        allow_unlabelled: accept a split without labels; its errors are NaN.
    """

    views: int = 1
    resize: int | None = None
    crop: int = 224
    mean: str = "image"
    decode: str = "auto"
    device: torch.device | str = "cpu"
    precision: str = "fp32"
    weights: Sequence[float] | None = None
    allow_unlabelled: bool = False


def evaluate(
    nets: Sequence[nn.Module],
    shard_set: ShardSet,
    stats: Stats,
    split: str = "val",
    options: EvalOptions = EvalOptions(),
    *,
    see: See | None = None,
    stop: Callable[[], bool] = lambda: False,
    team: Team = Team(),
) -> Result | None:
    """Measure the error of one net, or of the average of several, on a split.

    Args:
        nets: each maps float (n, 3, crop, crop) to logits (n, classes).
        shard_set, stats: the pictures, and the statistics of the photos that the nets were trained on.
        split: `train`, `val` or `test`.
        options: views, crop, mean, precision, device and so on.
        see: called after each batch of this process with its records, labels and probabilities.
        stop: called after each batch; the evaluation is abandoned when it returns true.
        team: processes that share the records, each with all nets; each gets the result over all records.
    Returns:
        The result, or None if the evaluation was abandoned.
    Raises:
        ShardError: there is no such split, it is empty, or a record has no label and labels are required.
        PlanError: these views or this mean do not exist.
    """
    sums, stopped = _Sums(options.device), False
    with _eval_mode(nets), _stream(shard_set, stats, split, options, team) as stream:
        for batch in stream:
            if batch.unlabelled and not options.allow_unlabelled:
                raise ShardError(
                    f"{shard_set.root}: {split} has records without a label", "evaluate a split that has labels"
                )
            probabilities = predict(nets, batch.images, options.precision, options.weights)
            sums.add(batch, probabilities)
            if see is not None:
                see(batch.records, batch.labels, probabilities)
            stopped = stop()
            if stopped:
                break
    return sums.result(stopped, team)


@contextmanager
def _eval_mode(nets: Sequence[nn.Module]) -> Iterator[None]:
    """Put nets in evaluation mode, and each back in its own mode afterwards."""
    modes = [net.training for net in nets]
    for net in nets:
        net.eval()
    try:
        yield
    finally:
        for net, training in zip(nets, modes, strict=True):
            net.train(training)


def _stream(shard_set: ShardSet, stats: Stats, split: str, options: EvalOptions, team: Team):
    return views_stream(
        shard_set,
        stats,
        split,
        views=options.views,
        resize=options.resize,
        crop=options.crop,
        mean=options.mean,
        device=options.device,
        decode=options.decode,
        threads=team.threads,
        rank=team.rank,
        ranks=team.ranks,
        batch_size=max(1, PICTURES_AT_ONCE // options.views),
    )


class _Sums:
    """Sums over the records of this process; they stay on the device, so that no batch waits for the host."""

    def __init__(self, device: torch.device | str):
        self.images, self.unlabelled = 0, False
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct among 1, correct among 5

    def add(self, batch: Batch, probabilities: Tensor) -> None:
        self.images += len(batch.labels)
        self.unlabelled = self.unlabelled or batch.unlabelled
        if not batch.unlabelled:
            own = probabilities.gather(1, batch.labels[:, None]).clamp_min(1e-30)
            right = [share_right(probabilities, batch.labels, top).double().sum() for top in (1, 5)]
            self.sums += torch.stack([-own.double().log().sum(), *right])

    def result(self, stopped: bool, team: Team) -> Result | None:
        """Add up over all processes; None if any of them has stopped."""
        total = team.sum([self.images, stopped, self.unlabelled, *self.sums.tolist()])
        images, any_stopped, any_unlabelled, loss, right1, right5 = total
        if any_stopped:
            return None
        if any_unlabelled:
            return Result(int(images), math.nan, math.nan, math.nan)
        return Result(int(images), loss / images, (images - right1) / images, (images - right5) / images)


@torch.no_grad()
def predict(
    nets: Sequence[nn.Module], pictures: Tensor, precision: str = "fp32", weights: Sequence[float] | None = None
) -> Tensor:
    """Average the probabilities over views and nets.

    Args:
        pictures: float (n, views, 3, crop, crop), pixels minus the mean.
        weights: one per net, with sum 1; None: equal weights.
    Returns:
        float32 (n, classes); each row sums to 1.
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
    assert total is not None, "at least one net"
    return total / len(nets) if weights is None else total


def most_probable(probabilities: Tensor, count: int = 5) -> Tensor:
    """Return the labels of the most probable classes in descending order; of equal ones the lower label comes first.

    Returns:
        int64 (n, min(count, classes)).
    Raises:
        TrainingError: a probability is NaN.
    """
    if bool(probabilities.isnan().any()):  # waits for the device
        raise TrainingError("the net's probabilities are NaN", "use an earlier checkpoint of the run")
    return probabilities.argsort(dim=1, descending=True, stable=True)[:, :count]


def share_right(probabilities: Tensor, labels: Tensor, top: int) -> Tensor:
    """Return for each label whether it is among the `top` most probable classes: float32 (n,), 0..1.

    Classes of the same probability as the label share the remaining places equally. A NaN is never correct.
    """
    own = probabilities.gather(1, labels[:, None])
    above = (probabilities > own).sum(dim=1)
    level = (probabilities == own).sum(dim=1)
    share = ((top - above).clamp_min(0) / level.clamp_min(1)).clamp_max(1.0)
    return torch.where(level > 0, share, torch.zeros_like(share))
