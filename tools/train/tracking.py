"""A run as TensorBoard and Weights & Biases show it: curves, the first layer's kernels, a few predictions.

In:  the trainer's lines.  Out: events in the run's folder where tensorboard is installed (the extra `tensorboard`), and
what wandb makes of them where it was asked for (`--wandb`, the extra `wandb`). Neither is imported otherwise, and
metrics.jsonl has all of it: nothing depends on them.
"""

import importlib.util
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np

from ...model.training import kernel_snapshots
from ...model.training.trainer import Trainer
from ...pipeline.errors import UsageError
from ...pipeline.files import write_atomically

PROJECT = "alexnet-dali"
WANDB_ID = "wandb-id.txt"  # in the run's folder: a resumed run goes on with its curves
ACROSS, TIMES = 16, 3  # kernels in a row, and pixels of a screen for each of theirs
PHOTOS = 8
STEP_CURVES = ("loss", "top1_error", "rate", "images_per_second", "stall_percent")
EPOCH_CURVES = ("val_loss", "val_top1_error", "val_top5_error")


class Tracker(Protocol):
    """Where curves and pictures go."""

    def curves(self, values: dict[str, float], step: int) -> None:
        """Points of some curves."""

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A picture, uint8 (height, width, 3)."""

    def close(self) -> None:
        """All that was given is written."""


class Tracking:
    """Takes the trainer's lines, as `report` gets them, and gives them to the trackers there are."""

    def __init__(self, trainer: Trainer, wandb: bool = False):
        """Open the trackers.

        Raises:
            UsageError: wandb is asked for and not installed.
        """
        self._trainer = trainer
        self._shown = trainer.state.epoch if trainer.steps_done else -1  # epochs whose kernels were shown
        self._trackers: list[Tracker] = []
        self._undrawn: set[str] = set()  # pictures that could not be drawn, and are not tried again
        if importlib.util.find_spec("tensorboard"):
            try:
                self._trackers.append(TensorBoard(trainer))
            except Exception as error:  # of theirs, whatever it is
                _warn("TensorBoard", error)
        if wandb:
            try:
                self._trackers.append(Wandb(trainer))
            except UsageError:
                raise
            except Exception as error:  # of theirs, whatever it is
                _warn("wandb", error)

    def __call__(self, line: dict) -> None:
        """Take a line of the metrics; warnings and notes are for the terminal."""
        if line["kind"] not in ("step", "epoch") or not self._trackers:
            return
        names = STEP_CURVES if line["kind"] == "step" else EPOCH_CURVES
        values = {name: line[name] for name in names if name in line}
        if line["kind"] == "epoch":
            values |= {f"epoch_{name}": line[name] for name in ("loss", "top1_error")}
            self._pictures("predictions", self._predictions, line["step"])
            self._pictures("kernels", self._kernels)
        self._each("curves", values, line["step"])

    def close(self) -> None:
        """Show what the last epoch has left, and end."""
        self._pictures("kernels", self._kernels)
        self._each("close")

    def _each(self, what: str, *given: Any) -> None:
        """Give it to every tracker; one that cannot be written gets no more, and the run goes on."""
        for tracker in list(self._trackers):
            try:
                getattr(tracker, what)(*given)
            except Exception as error:  # of theirs, whatever it is
                self._trackers.remove(tracker)
                _warn(type(tracker).__name__, error)

    def _pictures(self, name: str, show: Callable[..., None], *given: Any) -> None:
        """Draw; what cannot be drawn is told once, and the run goes on."""
        if not self._trackers or name in self._undrawn:
            return
        try:
            show(*given)
        except Exception as error:  # a damaged shard, a full disk: no picture is worth a run
            self._undrawn.add(name)
            click.echo(f"warning: no more pictures of {name}: {error}; the run goes on", err=True)

    def _kernels(self) -> None:
        """Those that were kept since the last time: an epoch is saved after its line."""
        from ..figures.kernels import colours, mosaic

        for epoch, weights in kernel_snapshots.read(self._trainer.run).items():
            if self._shown < epoch <= self._trainer.state.epoch:
                self._shown = epoch
                pixels = mosaic(colours(weights), ACROSS, "#ffffff", TIMES)
                self._each("picture", "kernels", pixels, epoch * self._trainer.plan.steps)

    def _predictions(self, step: int) -> None:
        """What the net says of a few photos of val, the same after every epoch."""
        if self._trainer.examples is None:
            return
        from ..figures.answers import Answers
        from ..figures.open_run import names_of
        from ..figures.predictions import draw, stored_photos

        shard_set, answers = self._trainer.shard_set, Answers()
        records, labels, probabilities = self._trainer.examples
        answers.see(records[:PHOTOS], labels[:PHOTOS], probabilities[:PHOTOS])
        picked = answers.pick("random", PHOTOS)
        photos = stored_photos(shard_set, "val", [one.record for one in picked])
        pixels = drawn(draw(photos, picked, names_of(shard_set), shard_set.classes))
        self._each("picture", "predictions", pixels, step)


@contextmanager
def tracked(trainer: Trainer, show: Callable[[dict], object], wandb: bool) -> Iterator[Callable[[dict], None]]:
    """What a trainer reports to: a person's lines first, then the trackers, which are closed at the end."""
    tracking = Tracking(trainer, wandb)

    def report(line: dict) -> None:
        show(line)
        tracking(line)

    try:
        yield report
    finally:
        tracking.close()


class TensorBoard:
    """Events in the run's folder: `tensorboard --logdir runs` shows all runs beside each other."""

    def __init__(self, trainer: Trainer):
        from torch.utils.tensorboard import SummaryWriter

        # What lies beyond where a run goes on, or begins again, is not shown: a killed run has left it.
        self._writer: Any = SummaryWriter(str(trainer.run), purge_step=trainer.steps_done + 1)

    def curves(self, values: dict[str, float], step: int) -> None:
        """Points of some curves."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A picture."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write all events."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases; where it goes, offline too, wandb's own variables say (WANDB_MODE and others)."""

    def __init__(self, trainer: Trainer):
        try:
            import wandb
        except ImportError:
            raise UsageError("--wandb: wandb is not installed", "pip install wandb, or leave --wandb out") from None

        self._wandb: Any = wandb
        config = {**trainer.config.described(), "recipe": trainer.recipe.described()}
        self._run: Any = wandb.init(
            project=PROJECT,
            name=trainer.run.resolve().name,
            id=_own_id(trainer.run),
            resume="allow",
            dir=str(trainer.run),
            config=config,
        )
        # A resumed run writes again what lies beyond its checkpoint, and wandb's own steps never go back.
        self._run.define_metric("*", step_metric="trainer_step")

    def curves(self, values: dict[str, float], step: int) -> None:
        """Points of some curves."""
        self._run.log({**values, "trainer_step": step})

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A picture."""
        self._run.log({name: self._wandb.Image(pixels), "trainer_step": step})

    def close(self) -> None:
        """Wait until all is written, or sent."""
        self._run.finish()


def drawn(figure: Any) -> np.ndarray:
    """A matplotlib figure's pixels, uint8 (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _warn(name: str, error: Exception) -> None:
    click.echo(f"warning: {name} gets no more of this run: {error}; metrics.jsonl has all of it", err=True)


def _own_id(run: Path) -> str:
    file = run / WANDB_ID
    if not file.exists():
        write_atomically(file, uuid.uuid4().hex[:12].encode())
    return file.read_text().strip()
