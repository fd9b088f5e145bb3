"""The loop: batches in, a trained net out, one screen from batch to update (paper, section 5).

In:  a Config, a shard set, its statistics.  Out: `last.pt`, `best.pt`, `metrics.jsonl`, `kernels/` in the run's folder.
The position (epoch, step) is all that resuming needs: the plan knows the rest. On the CPU a run that was stopped
and resumed ends with the same weights, bit for bit, as one that was not.
"""

import math
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...pipeline.errors import TrainingError
from ...pipeline.plan.plan import Plan
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ...pipeline.stream.stall import Elapsed, StallMeter
from ...pipeline.stream.stream import Batch
from ...pipeline.stream.streams import train_stream
from ..recipes.config import Config
from ..recipes.recipe import recipe
from ..recipes.schedules import EarlyStop, Progress, Rates
from ..recipes.setup import make_optimizer, recipe_for
from . import kernel_snapshots, run_state
from .distributed import Team, own_device
from .divergence import DivergenceMonitor, photos_of
from .evaluate import evaluate
from .metrics import Metrics, StageShares, Sums, cut
from .parallel import share_work
from .precision import autocast, set_precision

Report = Callable[[dict], Any]


class Trainer:
    """One run: makes or restores its state, trains, evaluates, saves. Of several processes each has one.

    Args:
        saved: the checkpoint to go on from.
        first: the checkpoint of another run whose weights to begin with.
        team: the processes of the run; the first of them writes and reports.
    Attributes:
        epoch, step: the position: whole epochs done, and steps of the present one.
        best_error: lowest top-1 validation error so far.
        examples: the first batch of the last evaluation: records of val, labels, probabilities.
        images, meter: trained on by all processes since this one began, and its stall meter.
    """

    def __init__(
        self,
        config: Config,
        shard_set: ShardSet,
        stats: Stats,
        run: Path,
        saved: dict | None = None,
        first: dict | None = None,
        team: Team | None = None,
    ):
        self.config, self.shard_set, self.stats, self.run, self.team = config, shard_set, stats, run, team or Team()
        chosen = recipe(config.recipe)
        chosen = chosen.with_weights() if config.init_from else chosen
        self.recipe = recipe_for(config.model, config.crop, chosen, config.schedule)
        self.device = own_device(torch.device(config.device), self.team.local_rank)
        set_precision(config.precision)
        self.plan = Plan(
            shard_set.split("train").records,
            config.batch_size,
            config.seed,
            shard_set.size,
            self.recipe.augmentation,
            self.team.rank,
            self.team.ranks,
        )
        self.work = share_work(config, self.recipe, len(shard_set.classes), stats, self.team, self.device)
        self.net = self.work.net
        self.optimizer, self.schedule = make_optimizer(self.net, self.recipe, config.epochs)
        self.epoch = self.step = 0
        self.decode = config.decode  # as it was chosen, once it was: on a GPU another decoder rounds otherwise
        self.best_error = math.inf
        self.examples: tuple[np.ndarray, torch.Tensor, torch.Tensor] | None = None
        self.early_stop = EarlyStop(config.early_stop)
        self.in_epoch, self.window = Sums(), Sums()
        self.monitor = DivergenceMonitor(len(shard_set.classes))
        self.meter: StallMeter[Batch] = StallMeter(())
        self.shares = StageShares(self.meter)
        self.images = self.images_at_line = 0
        self.epoch_lap = self.time_taken = Elapsed(0.0, 0.0)
        if saved:
            run_state.restore(self, saved)
        elif first:
            run_state.begin_with(self, first)

    @property
    def last_step(self) -> int:
        """Steps of the whole run."""
        whole = self.config.epochs * self.plan.steps
        return min(whole, self.config.steps) if self.config.steps else whole

    @property
    def steps_done(self) -> int:
        """Steps so far, over all epochs."""
        return self.epoch * self.plan.steps + self.step

    @property
    def finished(self) -> bool:
        """All steps are done, and the evaluation after the last epoch too; or the error got no better for too long."""
        return (self.steps_done >= self.last_step or self.early_stop.now) and self.step < self.plan.steps

    def train(self, report: Report = lambda line: None, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or until `stop` says so after a step; either way the state is saved.

        Args:
            report: called with each line of the metrics and each warning.
        Returns:
            Whether the end was reached.
        Raises:
            TrainingError: the loss is not finite, or a checkpoint cannot be written.
        """
        if self.team.first:
            cut(self.run / "metrics.jsonl", self.epoch, self.steps_done, report)
            kernel_snapshots.drop_after(self.run, self.epoch)
        if self.steps_done == 0:
            run_state.first_kernels(self)
        log = Metrics(self.run if self.team.first else None)
        began = time.perf_counter()
        try:
            with self._stream(report) as stream:
                self.meter = StallMeter(stream, device=self.device, began=began)
                self.shares = StageShares(self.meter)
                while not self.finished:
                    if not self._epoch(log, report, stop):
                        self._save(log)
                        break
            return self.finished
        finally:
            log.close()

    def _stream(self, report: Report):
        """The batches from the present place on; who decodes, the first process measures for all."""
        if self.decode == "auto" and not self.team.first:
            self.decode = self.team.broadcast(None)
        stream = train_stream(
            self.shard_set,
            self.stats,
            self.plan,
            epoch=self.epoch,
            step=self.step,
            light=self.recipe.light(self.config.epochs),
            mean=self.recipe.mean,
            device=self.device,
            threads=self.team.threads,
            decode=self.decode,
        )
        if self.decode == "auto":
            self.team.broadcast(stream.decode)
        self.decode = stream.decode
        if stream.chosen:
            report({"kind": "note", "text": stream.chosen})
        return stream

    def _epoch(self, log: Metrics, report: Report, stop: Callable[[], bool]) -> bool:
        """The rest of an epoch and its evaluation; false when stopped before its end."""
        left = max(0, min(self.plan.steps - self.step, self.last_step - self.steps_done))
        for decoded in islice(self.meter, left):
            batch = self.work.batch(decoded)
            assert batch.plan is not None, "a training batch has a plan"
            loss, wrong = self._update(batch)
            self.step += 1
            for sums in (self.window, self.in_epoch):
                sums.add(loss, wrong, batch.plan.batch_size)
            self.images += batch.plan.batch_size
            if self.steps_done % self.config.log_every == 0:
                self._log_step(batch, log, report)
            if self.team.previous_vote(stop()):
                self._take_time()
                return False
            if self.step % self.config.save_every == 0 and self.step < self.plan.steps:
                self._take_time()
                self._save(log)
        self._take_time()
        if self.step < self.plan.steps:  # --steps ended the run within an epoch
            return False
        with self.meter.paused():
            return self._end_epoch(log, report, stop)

    def _update(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: loss over the global batch, gradients, the update. Nothing here waits for the device."""
        plan = batch.plan
        assert plan is not None, "a training batch has a plan"
        self.optimizer.set_rates(self._rates(self.step))
        dropped = self.work.masks(self.plan.seed, plan, self.device)
        with autocast(self.device, self.config.precision):
            logits = self.work.module(batch.images, *dropped)
        loss = F.cross_entropy(logits.float(), batch.labels, reduction="sum") / plan.batch_size
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), (logits.detach().argmax(dim=1) != batch.labels).sum()

    def _rates(self, step: int) -> Rates:
        place = Progress(self.epoch, step, self.plan.steps, self.config.epochs)
        return self.schedule.rates(self.config.rate, place)

    def _log_step(self, batch: Batch, log: Metrics, report: Report) -> None:
        window = self.work.totals(self.window)  # waits for the device, once in log_every steps
        loss = self._checked_loss(window, lambda: photos_of(batch, self.shard_set))
        lap, images = self.meter.lap(), self.images - self.images_at_line
        self.window, self.images_at_line = Sums(), self.images
        line = self._line("step", window, images, lap)
        log.write(line)
        report(line)
        if self.monitor.stuck(loss, self.steps_done):
            text = self.monitor.stuck_message(self.net, batch.images, self.config.rate, self.steps_done)
            report({"kind": "warning", "text": text})

    def _line(self, kind: str, sums: Sums, images: int, lap: Elapsed) -> dict:
        """A line of the metrics: means over `sums`, the speed of `images` in `lap`."""
        return {
            "kind": kind,
            "epoch": self.epoch + 1,
            "step": self.steps_done,
            "loss": float(sums.loss) / max(sums.steps, 1),
            "top1_error": float(sums.wrong) / max(sums.images, 1),
            "rate": self._rates(max(self.step - 1, 0)).weights,  # of the last step
            "images_per_second": images / max(lap.seconds, 1e-9),
            "stall_percent": lap.stall_percent,
            **self.shares.since_last(kind),
        }

    def _checked_loss(self, window: Sums, photos: Callable[[], str] = lambda: "") -> float:
        """The mean loss since the last line; not finite, it ends the run."""
        loss = float(window.loss) / max(window.steps, 1)
        self.monitor.check(loss, self.steps_done - window.steps + 1, self.steps_done, photos)
        return loss

    def _end_epoch(self, log: Metrics, report: Report, stop: Callable[[], bool]) -> bool:
        in_epoch = self.work.totals(self.in_epoch)
        line = self._line("epoch", in_epoch, in_epoch.images, self.epoch_lap)
        self._checked_loss(self.work.totals(self.window))
        better = False
        if self.shard_set.has("val"):
            began, self.examples = time.monotonic(), None
            result = evaluate(
                [self.work.whole_net()],
                self.shard_set,
                self.stats,
                crop=self.recipe.crop,
                mean=self.recipe.mean,
                device=self.device,
                precision=self.config.precision,
                decode=self.decode,
                see=self._see,
                stop=stop,
                team=self.team,
            )
            if result is None:
                return False  # saved as the end of the epoch's steps: resuming evaluates again
            line |= {
                "val_loss": result.loss,
                "val_top1_error": result.top1_error,
                "val_top5_error": result.top5_error,
                "val_seconds": time.monotonic() - began,
            }
            better = result.top1_error < self.best_error
            self.best_error = min(self.best_error, result.top1_error)
            self.schedule.observe(result.top1_error)
            self.early_stop.observe(result.top1_error)
        self.epoch, self.step, self.in_epoch, self.epoch_lap = self.epoch + 1, 0, Sums(), Elapsed(0.0, 0.0)
        log.write(line)
        report(line)
        self._save(log, better)
        return True

    def _see(self, records: np.ndarray, labels: torch.Tensor, probabilities: torch.Tensor) -> None:
        self.examples = self.examples or (records, labels, probabilities)

    def _take_time(self) -> None:
        now = self.meter.total()
        self.epoch_lap, self.time_taken = self.epoch_lap + (now - self.time_taken), now

    def _save(self, log: Metrics, best: bool = False) -> None:
        self._checked_loss(self.work.totals(self.window))  # what is broken is never saved
        broken: TrainingError | None = None
        try:
            self.monitor.check_weights(self.net, self.steps_done)
        except TrainingError as error:
            broken = error
        if self.team.sum([float(broken is not None)])[0]:  # of columns each sees its own half
            raise broken or TrainingError("weights of another rank are not finite", "see what it said")
        log.sync()
        run_state.save(self, best)
