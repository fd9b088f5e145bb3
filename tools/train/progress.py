"""What `alexnet-train` prints while it trains and at the end, and the check of --max-stall.

In:  the trainer's dictionaries.  Out: text for the user.
"""

import shutil
import sys
import time

import click

from ...model.training.trainer import Trainer
from ...pipeline.errors import TrainingError
from ...pipeline.stream.bottleneck import verdict
from ...pipeline.workers import available_cores
from .. import console


class Lines:
    """Prints the trainer's lines; on a terminal, each step overwrites the line of the last one."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.began, self.first = trainer, time.monotonic(), trainer.steps_done
        self.live = console.is_live(sys.stdout)
        self.last: dict = {}

    def __call__(self, line: dict) -> None:
        """Print a line of the metrics, a note or a warning."""
        erase = "\r\033[K" if self.live else ""
        if line["kind"] == "warning":
            click.echo(f"{erase}warning: {console.plain(line['text'])}", err=True)
        elif line["kind"] == "note":
            click.echo(erase + line["text"])
        elif line["kind"] == "epoch":
            self.last = line
            click.echo(erase + self._epoch(line))
        else:
            text = self._step(line)
            if self.live:  # a line that wraps cannot be erased
                text = text[: shutil.get_terminal_size().columns - 1]
            click.echo(erase + text, nl=not self.live)

    def _step(self, line: dict) -> str:
        trainer = self.trainer
        done = trainer.steps_done - self.first
        left = (trainer.last_step - trainer.steps_done) * (time.monotonic() - self.began) / max(done, 1)
        return (
            f"epoch {line['epoch']}/{trainer.config.epochs}  step {line['step']:,}/{trainer.last_step:,}  "
            f"loss {line['loss']:.4f}  error {100 * line['top1_error']:.1f}%  "
            f"{line['images_per_second']:,.0f} images/s  stall {line['stall_percent']:.1f}%  "
            f"{console.duration(left)} left"
        )

    def _epoch(self, line: dict) -> str:
        val = (
            f"  val loss {line['val_loss']:.4f}, top-1 {100 * line['val_top1_error']:.1f}%, "
            f"top-5 {100 * line['val_top5_error']:.1f}%"
            if "val_loss" in line
            else ""
        )
        return (
            f"epoch {line['epoch']} done  loss {line['loss']:.4f}  error {100 * line['top1_error']:.1f}%{val}  "
            f"{line['images_per_second']:,.0f} images/s  stall {line['stall_percent']:.1f}%"
        )

    def closing(self) -> list[str]:
        """Return the lines to print after training: time, throughput, stall, checkpoints."""
        trainer, total = self.trainer, self.trainer.meter.total()
        if self.live:
            click.echo("\r\033[K", nl=False)
        lines = [
            f"{console.duration(time.monotonic() - self.began)}: {trainer.images:,} images, "
            f"{trainer.images / max(total.seconds, 1e-9):,.0f} images/s, "
            f"stalled {total.stall_percent:.2f}% of the time (start-up {trainer.meter.startup_seconds:.1f} s)"
        ]
        if trainer.state.early_stop.now:
            lines.append(f"stopped early: no lower validation error for {trainer.state.early_stop.waited} epochs")
        best = f", best {trainer.run / 'best.pt'}" if (trainer.run / "best.pt").exists() else ""
        lines.append(f"last checkpoint {trainer.run / 'last.pt'}{best}")
        return lines


def check_stall(trainer: Trainer, limit: float) -> None:
    """Compare the stall of this process's steps, without start-up and evaluations, with a limit in percent.

    Raises:
        TrainingError: the steps waited longer; the hint names what to change.
    """
    total = trainer.meter.total()
    if total.stall_percent <= limit:
        return
    found = verdict(
        total,
        trainer.meter.stages(),
        available_cores(),
        on_gpu=trainer.device.type == "cuda",
        encoded=trainer.shard_set.encoding == "jpeg",
    )
    raise TrainingError(
        f"stalled {total.stall_percent:.2f}% of the time, more than --max-stall {limit:g}%: {found.sentence}",
        found.remedy,
    )
