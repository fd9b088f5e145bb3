"""The loop: batches in, a trained net out, one screen from batch to update (paper, section 5).

In:  a Config, a shard set, its statistics.  Out: `last.pt`, `best.pt`, `metrics.jsonl` in the run's folder.
The position (epoch, step) is all that resuming needs: the plan knows the rest. On the CPU a run that was stopped
and resumed ends with the same weights, bit for bit, as one that was not.
"""

import math
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ..pipeline.errors import TrainingError
from ..pipeline.loader import train_stream
from ..pipeline.plan import Plan
from ..pipeline.shardset import ShardSet
from ..pipeline.stall import Lap, StallMeter
from ..pipeline.stats import Stats
from ..pipeline.stream import Batch
from . import checkpoint as checkpoints
from .config import Config
from .dropout import masks
from .evaluate import evaluate
from .metrics import Metrics, StageShares, Sums, cut
from .optim import Plateau, Rates, diary_rates
from .precision import autocast, set_precision
from .recipes import recipe
from .registry import make_net, movement, recipe_for
from .watch import Watch

Report = Callable[[dict], Any]


class Trainer:
    """One run: makes or restores its state, trains, evaluates, saves.

    Attributes:
        epoch, step: the position: whole epochs done, and steps of the present one.
        best_error: lowest top-1 validation error so far.
        images, meter: trained on by this process, and its stall meter.
    """

    def __init__(self, config: Config, shard_set: ShardSet, stats: Stats, run: Path, saved: dict | None = None):
        self.config, self.shard_set, self.stats, self.run = config, shard_set, stats, run
        self.recipe = recipe_for(config.model, config.crop, recipe(config.recipe))
        self.device = torch.device(config.device)
        set_precision(config.precision)
        self.plan = Plan(
            shard_set.split("train").records, config.batch_size, config.seed, shard_set.size, self.recipe.augmentation
        )
        self.net = make_net(config.model, len(shard_set.classes), self.recipe, stats, config.seed)
        self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer, self.plateau = movement(self.net, self.recipe, config.epochs)
        self.epoch = self.step = 0
        self.decode = config.decode  # as it was chosen, once it was: on a GPU another decoder rounds otherwise
        self.best_error = math.inf
        self.in_epoch, self.window = Sums(), Sums()
        self.watch = Watch(len(shard_set.classes))
        self.meter: StallMeter[Batch] = StallMeter(())
        self.shares = StageShares(self.meter)
        self.images = self.images_at_line = 0
        self.epoch_lap = self.time_taken = Lap(0.0, 0.0)
        if saved:
            with checkpoints.fits_this_version(run / "last.pt"):
                self._restore(saved)

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
        """All steps are done, and the evaluation after the last epoch too."""
        return self.steps_done >= self.last_step and self.step < self.plan.steps

    def train(self, report: Report = lambda line: None, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or until `stop` says so after a step; either way the state is saved.

        Args:
            report: called with each line of the metrics and each warning.
        Returns:
            Whether the end was reached.
        Raises:
            TrainingError: the loss is not finite, or a checkpoint cannot be written.
        """
        cut(self.run / "metrics.jsonl", self.epoch, self.steps_done)
        log = Metrics(self.run)
        light = self.recipe.light(self.config.epochs)
        began = time.perf_counter()
        stream = train_stream(
            self.shard_set,
            self.stats,
            self.plan,
            epoch=self.epoch,
            step=self.step,
            light=light,
            mean=self.recipe.mean,
            device=self.device,
            decode=self.decode,
        )
        self.decode = stream.decode
        if stream.chosen:
            report({"kind": "note", "text": stream.chosen})
        try:
            with stream:
                self.meter = StallMeter(stream, device=self.device, began=began)
                self.shares = StageShares(self.meter)
                while not self.finished:
                    if not self._epoch(log, report, stop):
                        self._save(log)
                        break
            return self.finished
        finally:
            log.close()

    def _epoch(self, log: Metrics, report: Report, stop: Callable[[], bool]) -> bool:
        """The rest of an epoch and its evaluation; false when stopped before its end."""
        self.optimizer.set_rates(self._rates())
        left = max(0, min(self.plan.steps - self.step, self.last_step - self.steps_done))
        for batch in islice(self.meter, left):
            loss, wrong = self._update(batch)
            self.step += 1
            for sums in (self.window, self.in_epoch):
                sums.add(loss, wrong, len(batch.labels))
            self.images += len(batch.labels)
            if self.steps_done % self.config.log_every == 0:
                self._log_step(batch, log, report)
            if stop():
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
        dropped = masks(self.net, self.plan.seed, plan, self.device)
        with autocast(self.device, self.config.precision):
            logits = self.net(batch.images, *dropped)
        loss = F.cross_entropy(logits.float(), batch.labels, reduction="sum") / plan.batch_size
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), (logits.detach().argmax(dim=1) != batch.labels).sum()

    def _rates(self) -> Rates:
        if self.recipe.schedule == "plateau":
            return self.plateau.rates(self.config.rate)
        return diary_rates(self.config.rate, self.epoch, self.config.epochs)

    def _log_step(self, batch: Batch, log: Metrics, report: Report) -> None:
        loss = self._checked_loss()  # waits for the device, once in log_every steps
        lap, images = self.meter.lap(), self.images - self.images_at_line
        window, self.window, self.images_at_line = self.window, Sums(), self.images
        line = self._line("step", window, images, lap)
        log.write(line)
        report(line)
        if self.watch.stuck(loss, self.steps_done):
            text = self.watch.explain(self.net, batch.images, self.config.rate, self.steps_done)
            report({"kind": "warning", "text": text})

    def _line(self, kind: str, sums: Sums, images: int, lap: Lap) -> dict:
        """A line of the metrics: means over `sums`, the speed of `images` in `lap`."""
        return {
            "kind": kind,
            "epoch": self.epoch + 1,
            "step": self.steps_done,
            "loss": float(sums.loss) / max(sums.steps, 1),
            "top1_error": float(sums.wrong) / max(sums.images, 1),
            "rate": self._rates().weights,
            "images_per_second": images / max(lap.seconds, 1e-9),
            "stall_percent": lap.stall_percent,
            **self.shares.since_last(kind),
        }

    def _checked_loss(self) -> float:
        """The mean loss since the last line; not finite, it ends the run."""
        loss = float(self.window.loss) / max(self.window.steps, 1)
        self.watch.check(loss, self.steps_done - self.window.steps + 1, self.steps_done)
        return loss

    def _end_epoch(self, log: Metrics, report: Report, stop: Callable[[], bool]) -> bool:
        line = self._line("epoch", self.in_epoch, self.in_epoch.images, self.epoch_lap)
        self._checked_loss()
        better = False
        if self.shard_set.has("val"):
            began = time.monotonic()
            result = evaluate(
                [self.net],
                self.shard_set,
                self.stats,
                crop=self.recipe.crop,
                mean=self.recipe.mean,
                device=self.device,
                precision=self.config.precision,
                decode=self.decode,
                stop=stop,
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
            self.plateau.see(result.top1_error)
        self.epoch, self.step, self.in_epoch, self.epoch_lap = self.epoch + 1, 0, Sums(), Lap(0.0, 0.0)
        log.write(line)
        report(line)
        self._save(log, better)
        return True

    def _take_time(self) -> None:
        now = self.meter.total()
        self.epoch_lap, self.time_taken = self.epoch_lap + (now - self.time_taken), now

    def _save(self, log: Metrics, best: bool = False) -> None:
        self._checked_loss()  # what is broken is never saved
        self.watch.check_weights(self.net, self.steps_done)
        log.sync()
        last, written = self.run / "last.pt", self.run / ("best.pt" if best else "last.pt")
        checkpoints.save(
            written,
            {
                "config": self.config.described(),
                "recipe": self.recipe.described(),
                "epoch": self.epoch,
                "step": self.step,
                "steps_done": self.steps_done,
                "decode": self.decode,
                "model": self.net.state_dict(),
                "velocity": self.optimizer.velocities(),
                "plateau": vars(self.plateau),
                "best_error": self.best_error,
                "in_epoch": self.in_epoch.values(),
                "window": self.window.values(),
                "epoch_seconds": [self.epoch_lap.waiting_seconds, self.epoch_lap.working_seconds],
                "classes": list(self.shard_set.classes),
                "shards": self.shard_set.split("train").fingerprint(),
                "stats": checkpoints.stats_to_save(self.stats),
            },
        )
        if best:  # the best first: a process killed here goes on from the last before it, and comes to the same best
            checkpoints.name_too(written, last)

    def _restore(self, saved: dict) -> None:
        today = self.recipe.described()
        changed = [name for name in today if name != "summary" and saved["recipe"].get(name) != today[name]]
        if changed:
            raise TrainingError(
                f"{self.run / 'last.pt'}: recipe {self.recipe.name} is another in this version ({', '.join(changed)})",
                "go on with the version of alexnet-dali that began this run",
            )
        self.net.load_state_dict(saved["model"])
        self.optimizer.restore(saved["velocity"])
        self.epoch, self.step = saved["epoch"], saved["step"]
        self.plateau = Plateau(**saved["plateau"])
        self.best_error = saved["best_error"]
        if self.config.decode == "auto":
            self.decode = saved["decode"]
        self.epoch_lap = Lap(*saved["epoch_seconds"])
        self.in_epoch, self.window = Sums(*saved["in_epoch"]), Sums(*saved["window"])
