"""Training of small nets, each at its best learning rate, as in the paper's figure 1 and section 3.3's ablation.

In:  a shard set, variants of the net, rates to try.  Out: each net's error, epoch by epoch.
Pictures come from the package's stream: whole, in the plan's order, minus the mean image, without augmentation. Every
epoch of every net is saved: a stopped comparison is continued, and finished epochs are not repeated.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ...pipeline.errors import ShardError, TrainingError
from ...pipeline.plan.lighting import Lighting
from ...pipeline.plan.plan import Augmentation, Plan
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ...pipeline.stream.streams import train_stream
from ..nets.small_net import DECAYS, SmallNet
from ..recipes.optim import Momentum2012
from ..recipes.schedules import Rates
from ..training import checkpoint as checkpoints
from ..training.evaluate import EvalOptions, evaluate
from ..training.precision import autocast, set_precision
from .comparison import Curve, Settings, Variant, ranked

BATCH = 128
BIAS_RATE = 2.0  # times that of the weights, as in the layer file


class Stopped(Exception):  # noqa: N818, nothing went wrong
    """`stop` returned true; all finished epochs are saved."""


@dataclass(frozen=True)
class SmallNetTrainer:
    """Trains small nets on a shard set.

    Args:
        shard_set, stats: pictures and their mean image.
        folder: of the checkpoints, one per variant and rate.
        settings: of all nets.
        device: to train on.
        report: called with a curve and the seconds of its last epoch; 0 if that was saved already.
        stop: called after each step; ends the training when it returns true.
    """

    shard_set: ShardSet
    stats: Stats
    folder: Path
    settings: Settings
    device: torch.device
    report: Callable[[Curve, float], Any] = lambda curve, seconds: None
    stop: Callable[[], bool] = lambda: False

    def compare(self, kinds: Sequence[Variant]) -> list[tuple[Curve, list[Curve]]]:
        """Train each variant at all rates, dropping the worse half of the rates again and again, the best to the end.

        After `try_epochs` the better half of the rates goes on to twice as many epochs, and so on until one is left:
        successive halving (Jamieson and Talwalkar, 2016). The rate that is best after a few epochs is often too large
        to be the first at the target.

        Returns:
            For each variant the chosen curve, and those of all rates.
        Raises:
            TrainingError: the loss of a variant does not stay finite at any rate.
            Stopped: `stop` returned true.
        """
        return [self._halve(kind) for kind in kinds]

    def _halve(self, kind: Variant) -> tuple[Curve, list[Curve]]:
        last, rates = self.settings.epochs, self.settings.rates
        epochs, count = min(self.settings.try_epochs, last), len(rates)
        tried = {rate: self.train(kind, rate, epochs) for rate in rates}
        order = list(tried.values())
        while order := ranked(order[:count], self.settings.validate) + order[count:]:
            if self._done(order[0], last):
                return order[0], list(tried.values())
            count = -(-count // 2)
            epochs = min(2 * epochs, last) if count > 1 else last
            order[:count] = [self.train(kind, curve.rate, epochs) for curve in order[:count]]
            tried |= {curve.rate: curve for curve in order[:count]}
        raise TrainingError(
            f"{kind.name}: the loss does not stay finite at any rate of {', '.join(f'{rate:g}' for rate in rates)}",
            "try smaller ones with --rates",
        )

    def train(self, kind: Variant, rate: float, epochs: int) -> Curve:
        """Train a net at a rate for so many epochs, or to the target or a loss that is not finite; continue if saved.

        Raises:
            Stopped: `stop` returned true.
            TrainingError: a file cannot be read or written.
        """
        curve, file = Curve(kind.name, rate, [], []), self.folder / f"{kind.name}-{rate:g}.pt"
        saved = checkpoints.load(file) if file.exists() else None
        if saved:
            curve = Curve(**saved["curve"])
            self.report(self._cut(curve, epochs), 0.0)
        if self._done(curve, epochs):
            return self._cut(curve, epochs)
        net, optimizer = self._make(kind, saved)
        plan = Plan(
            self.shard_set.split("train").records,
            BATCH,
            self.settings.seed,
            self.shard_set.size,
            # Figure 1 is without regularisation of any kind.
            Augmentation(self.shard_set.size, random_crop=False, flips=False),
        )
        with train_stream(
            self.shard_set,
            self.stats,
            plan,
            epoch=len(curve.errors),
            light=Lighting("none"),
            device=self.device,
            decode="threads",
        ) as stream:
            while not self._done(curve, epochs):
                began = time.monotonic()
                error = self._epoch(net, optimizer, rate, islice(stream, plan.steps))
                curve.broken = error is None
                if error is not None:
                    validated = self._validate(net)
                    curve.errors.append(error)
                    curve.val_errors += validated
                checkpoints.save(
                    file, {"model": net.state_dict(), "velocity": optimizer.velocities(), "curve": vars(curve)}
                )
                self.report(curve, time.monotonic() - began)
        return self._cut(curve, epochs)

    def _done(self, curve: Curve, epochs: int) -> bool:
        reached = self.settings.target is not None and min(curve.errors, default=1.0) <= self.settings.target
        return curve.broken or reached or len(curve.errors) >= epochs

    def _cut(self, curve: Curve, epochs: int) -> Curve:
        """Cut a curve to so many epochs and to the target: it may be from a call with more or a lower one."""
        far = epochs
        if self.settings.target is not None:
            hits = (place + 1 for place, error in enumerate(curve.errors) if error <= self.settings.target)
            far = min(far, next(hits, far))
        broken = curve.broken and len(curve.errors) < far
        return replace(curve, errors=curve.errors[:far], val_errors=curve.val_errors[:far], broken=broken)

    def _make(self, kind: Variant, saved: dict | None) -> tuple[SmallNet, Momentum2012]:
        set_precision(self.settings.precision, self.device)
        net = SmallNet(len(self.shard_set.classes), self.shard_set.size, kind.activation, kind.norm, self.settings.seed)
        net.to(self.device).to(memory_format=torch.channels_last)
        optimizer = Momentum2012(net)
        for group in optimizer.param_groups:
            layer, _, what = group["name"].rpartition(".")
            group["decay"] = DECAYS[layer] if kind.decay and what == "weight" else 0.0
        if saved:
            net.load_state_dict(saved["model"])
            optimizer.restore(saved["velocity"])
        return net, optimizer

    def _epoch(self, net: SmallNet, optimizer: Momentum2012, rate: float, batches: Iterator) -> float | None:
        """Train on an epoch's batches; return the error, 0..1, or None if the weights are not finite afterwards."""
        optimizer.set_rates(Rates(rate, BIAS_RATE * rate))
        wrong, images = torch.zeros((), dtype=torch.int64, device=self.device), 0
        for batch in batches:
            if batch.unlabelled:
                raise ShardError(
                    f"{self.shard_set.root}: train has records without a label", "use a set that has labels"
                )
            with autocast(self.device, self.settings.precision):
                logits = net(batch.images)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits.float(), batch.labels).backward()
            optimizer.step()
            wrong, images = wrong + (logits.detach().argmax(dim=1) != batch.labels).sum(), images + len(batch.labels)
            if self.stop():
                raise Stopped
        if not all(bool(parameter.isfinite().all()) for parameter in net.parameters()):
            return None  # after a loss that is not finite, the weights are not finite either
        return float(wrong) / images

    def _validate(self, net: SmallNet) -> list[float]:
        if not self.settings.validate:
            return []
        result = evaluate(
            [net],
            self.shard_set,
            self.stats,
            options=EvalOptions(
                crop=self.shard_set.size,
                device=self.device,
                precision=self.settings.precision,
                decode="threads",
            ),
            stop=self.stop,
        )
        if result is None:
            raise Stopped
        return [result.top1_error]
