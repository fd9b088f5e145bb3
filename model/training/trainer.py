"""The training loop, one screen from batch to update (paper, section 5).

In:  a Config, a shard set, its statistics.  Out: `last.pt`, `best.pt`, `metrics.jsonl`, `kernels/` in the run's folder.
The position (epoch, step) is all that resuming needs to know of the data: the plan gives the rest. A run that was
stopped and resumed ends with the same weights, bit for bit, as one that was not: on the CPU with the same number of
threads; on a GPU only with `Config.deterministic`, the same model of GPU, and one process or two. Otherwise the two
differ by rounding.
"""

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...pipeline.plan.plan import Plan
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ...pipeline.stream.stall import Elapsed, StallMeter
from ...pipeline.stream.stream import Batch
from ...pipeline.stream.streams import train_stream
from ..nets.factory import Net
from ..recipes.config import Config
from ..recipes.recipe import recipe
from ..recipes.schedules import EarlyStop, Progress, Rates
from ..recipes.setup import make_optimizer, recipe_for
from . import decoders, kernel_snapshots, run_state
from .distributed import Team, own_device
from .divergence import DivergenceMonitor, photos_of
from .evaluate import EvalOptions, Result, evaluate
from .metrics import Metrics, StageShares, Sums, cut
from .parallel import share_work
from .precision import autocast, set_precision

Report = Callable[[dict], Any]


class Trainer:
    """One run: creates or restores its state, trains, evaluates, saves. Of several processes each has a Trainer.

    Args:
        config: what the run is.
        shard_set: the photos, split `train`, and `val` if there is one.
        stats: of the training photos, as `load_stats` returns them.
        run: the run's folder, which must exist.
        saved: the checkpoint to resume from.
        first: the checkpoint of another run whose weights to start with, that of `config.init_from`.
        team: the processes of the run; rank 0 writes and reports.
    Attributes:
        state: position, net, optimizer, schedule and sums: what a checkpoint holds.
        plan: order of the records, and the draws of their augmentation.
        recipe, device: as they apply to this net and this process.
        examples: the first batch of the last evaluation: records of val, labels, probabilities; None before.
        images, meter: pictures that all processes have trained on since this process began, and its stall meter.
    Raises:
        TrainingError: the checkpoint does not fit this run.
        UsageError: the net cannot be created, or cannot be split in this way.
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
        chosen = recipe(config.recipe).with_weights() if config.init_from else recipe(config.recipe)
        self.recipe = recipe_for(config.model, config.crop, chosen, config.schedule)
        self.device = own_device(torch.device(config.device), self.team.local_rank, self.team.local_ranks)
        set_precision(config.precision, self.device, config.deterministic)
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
        self.optimizer, schedule = make_optimizer(self.work.net, self.recipe, config.epochs)
        self.state = run_state.RunState(
            self.work, self.optimizer, schedule, EarlyStop(config.early_stop), self.plan.steps, config.decode
        )
        if saved:
            run_state.restore(self.state, saved, self.recipe, run / "last.pt")
        elif first:
            run_state.begin_with(self.state, first, self.recipe, config)
        resized, encoded = self.recipe.augmentation.resized is not None, shard_set.encoding == "jpeg"
        decoders.settle(self.state, config.decode, resized, encoded, self.device, self.team.threads)
        self.examples: tuple[np.ndarray, torch.Tensor, torch.Tensor] | None = None
        self.monitor = DivergenceMonitor(len(shard_set.classes))
        self.meter: StallMeter[Batch] = StallMeter(())
        self._shares = StageShares(self.meter)
        self.images = self._images_at_line = 0
        self._counted = Elapsed(0.0, 0.0)  # the part of the meter's time that is in the state

    @property
    def net(self) -> Net:
        """The net, or this process's column of it."""
        return self.work.net

    @property
    def steps_done(self) -> int:
        """Steps done, over all epochs."""
        return self.state.steps_done

    @property
    def last_step(self) -> int:
        """Steps of the whole run."""
        whole = self.config.epochs * self.plan.steps
        return min(whole, self.config.steps) if self.config.steps else whole

    @property
    def finished(self) -> bool:
        """Whether all steps and the last evaluation are done, or early stopping has ended the run after an epoch."""
        return (self.steps_done >= self.last_step or self.state.early_stop.now) and self.state.step < self.plan.steps

    def train(self, report: Report = lambda line: None, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or until `stop` returns true; in both cases the state is saved.

        Args:
            report: called with each line of the metrics, each note and each warning.
            stop: called after each step and after each batch of an evaluation.
        Returns:
            Whether the end was reached.
        Raises:
            TrainingError: the loss or a weight is not finite, or a file cannot be written.
        """
        if self.team.first:
            cut(self.run / "metrics.jsonl", self.state.epoch, self.steps_done, report)
            kernel_snapshots.drop_after(self.run, self.state.epoch)
        if self.steps_done == 0:
            kernels = self.work.whole(kernel_snapshots.first_kernels(self.net.state_dict()))  # collective
            if self.team.first:
                kernel_snapshots.keep(self.run, 0, kernels)
        log = Metrics(self.run if self.team.first else None)
        began = time.perf_counter()
        try:
            with self._stream(report) as stream, self.team.reporting():
                self.meter = StallMeter(stream, device=self.device, began=began)
                self._shares = StageShares(self.meter)
                while not self.finished:
                    if not self._epoch(log, report, stop):
                        self._save(log)
                        break
            return self.finished
        finally:
            log.close()

    def _stream(self, report: Report):
        """The batches from the position on; all processes use the decoder of rank 0."""
        state = self.state
        state.decode = self.team.broadcast(state.decode)
        if state.note:
            report({"kind": "note", "text": state.note})
        return train_stream(
            self.shard_set,
            self.stats,
            self.plan,
            epoch=state.epoch,
            step=state.step,
            light=self.recipe.light(self.config.epochs),
            mean=self.recipe.mean,
            device=self.device,
            threads=self.team.threads,
            decode=state.decode,
        )

    def _epoch(self, log: Metrics, report: Report, stop: Callable[[], bool]) -> bool:
        """Train the rest of an epoch and evaluate; false if stopped before its end."""
        left = max(0, min(self.plan.steps - self.state.step, self.last_step - self.steps_done))
        for decoded in islice(self.meter, left):
            batch = self.work.batch(decoded)
            assert batch.plan is not None, "a training batch has a plan"
            loss, wrong = self._update(batch)
            self.state.end_step(loss, wrong, batch.plan.batch_size)
            self.images += batch.plan.batch_size
            stopped = self.team.previous_vote(stop())  # fails if a process is gone, for which a GPU would wait below
            if self.steps_done % self.config.log_every == 0:
                self._log_step(batch, log, report)
            if stopped:
                self._take_time()
                return False
            if self.state.step % self.config.save_every == 0 and self.state.step < self.plan.steps:
                self._take_time()
                self._save(log)
        self._take_time()
        if self.state.step < self.plan.steps:  # --steps ended the run within an epoch
            return False
        with self.meter.paused():
            return self._end_epoch(log, report, stop)

    def _update(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: loss over the global batch, gradients, the update. Nothing here waits for the device."""
        plan = batch.plan
        assert plan is not None, "a training batch has a plan"
        self.optimizer.set_rates(self._rates(self.state.step))
        dropped = self.work.masks(self.plan.seed, plan, self.device)
        with autocast(self.device, self.config.precision):
            logits = self.work.module(batch.images, *dropped)
        loss = F.cross_entropy(logits.float(), batch.labels, reduction="sum") / plan.batch_size
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), (logits.detach().argmax(dim=1) != batch.labels).sum()

    def _log_step(self, batch: Batch, log: Metrics, report: Report) -> None:
        window = self.work.totals(self.state.window)  # waits for the device, once in log_every steps
        loss = self._checked_loss(window, lambda: photos_of(batch, self.shard_set))
        line = self._line("step", window, self.images - self._images_at_line, self.meter.lap())
        self.state.window, self._images_at_line = Sums(), self.images
        log.write(line)
        report(line)
        if self.monitor.stuck(loss, self.steps_done):
            text = self.monitor.stuck_message(self.net, batch.images, self.config.rate, self.steps_done)
            report({"kind": "warning", "text": text})

    def _end_epoch(self, log: Metrics, report: Report, stop: Callable[[], bool]) -> bool:
        """Evaluate, count the epoch, save; false if the evaluation was stopped, which resuming then repeats."""
        in_epoch = self.work.totals(self.state.in_epoch)
        line = self._line("epoch", in_epoch, in_epoch.images, self.state.epoch_elapsed)
        self._checked_loss(self.work.totals(self.state.window))
        error = None
        if self.shard_set.has("val"):
            began = time.monotonic()
            result = self._evaluate(stop)
            if result is None:
                return False
            line |= {**result.metrics(), "val_seconds": time.monotonic() - began}
            error = result.top1_error
        better = self.state.end_epoch(error)
        log.write(line)
        report(line)
        self._save(log, better)
        return True

    def _evaluate(self, stop: Callable[[], bool]) -> Result | None:
        self.examples = None
        options = EvalOptions(
            crop=self.recipe.crop,
            mean=self.recipe.mean,
            decode=decoders.for_views(self.state.decode),
            device=self.device,
            precision=self.config.precision,
        )
        nets = [self.work.whole_net()]  # collective
        return evaluate(nets, self.shard_set, self.stats, "val", options, see=self._see, stop=stop, team=self.team)

    def _see(self, records: np.ndarray, labels: torch.Tensor, probabilities: torch.Tensor) -> None:
        self.examples = self.examples or (records, labels, probabilities)

    def _line(self, kind: str, sums: Sums, images: int, elapsed: Elapsed) -> dict:
        """A line of the metrics: means over `sums`, the speed of `images` pictures in `elapsed`."""
        return {
            "kind": kind,
            "epoch": self.state.epoch + 1,
            "step": self.steps_done,
            "loss": sums.mean_loss,
            "top1_error": float(sums.wrong) / max(sums.images, 1),
            "rate": self._rates(max(self.state.step - 1, 0)).weights,  # of the last step
            "images_per_second": images / max(elapsed.seconds, 1e-9),
            "stall_percent": elapsed.stall_percent,
            **self._shares.since_last(kind),
        }

    def _rates(self, step: int) -> Rates:
        progress = Progress(self.state.epoch, step, self.plan.steps, self.config.epochs)
        return self.state.schedule.rates(self.config.rate, progress)

    def _checked_loss(self, window: Sums, photos: Callable[[], str] = lambda: "") -> float:
        """Return the mean loss since the last line; raise a TrainingError if it is not finite."""
        loss = window.mean_loss
        self.monitor.check(loss, self.steps_done - window.steps + 1, self.steps_done, photos)
        return loss

    def _take_time(self) -> None:
        """Add the meter's time since the last call to the state."""
        now = self.meter.total()
        self.state.epoch_elapsed, self._counted = self.state.epoch_elapsed + (now - self._counted), now

    def _save(self, log: Metrics, best: bool = False) -> None:
        self._checked_loss(self.work.totals(self.state.window))  # a broken net is never saved
        self.monitor.check_weights(self.net, self.steps_done, self.team)
        log.sync()
        constants = run_state.constants(self.config, self.recipe, self.shard_set, self.stats)
        run_state.save(self.state, constants, self.run, self.team, best)
