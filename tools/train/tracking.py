"""Curves, first-layer kernels and example predictions of a run for TensorBoard and Weights & Biases.

In:  the trainer's lines.  Out: TensorBoard events in the run's folder if tensorboard is installed (the extra
`tensorboard`), and a run of Weights & Biases with `--wandb` (the extra `wandb`). Neither is imported otherwise.
Nothing depends on them: metrics.jsonl has the same numbers, and a tracker that fails does not stop the run.
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
WANDB_ID = "wandb-id.txt"  # in the run's folder: a resumed run continues its curves
ACROSS, TIMES = 16, 3  # kernels per row, and their magnification
PHOTOS = 8
STEP_CURVES = ("loss", "top1_error", "rate", "images_per_second", "stall_percent")
EPOCH_CURVES = ("val_loss", "val_top1_error", "val_top5_error")


class Tracker(Protocol):
    """A destination of curves and pictures."""

    def curves(self, values: dict[str, float], step: int) -> None:
        """Add a point to each of some curves."""

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Add a picture, uint8 (height, width, 3)."""

    def close(self) -> None:
        """Write everything that is pending."""


class Tracking:
    """Passes the trainer's lines, as `report` receives them, to the available trackers."""

    def __init__(self, trainer: Trainer, wandb: bool = False):
        """Open the trackers.

        Raises:
            UsageError: wandb is requested and not installed.
        """
        self._trainer = trainer
        self._shown = trainer.state.epoch if trainer.steps_done else -1  # epochs whose kernels were shown
        self._trackers: list[Tracker] = []
        self._undrawn: set[str] = set()  # pictures that failed once and are not tried again
        if importlib.util.find_spec("tensorboard"):
            try:
                self._trackers.append(TensorBoard(trainer))
            except Exception as error:  # a tracker can raise anything
                _warn("TensorBoard", error)
        if wandb:
            try:
                self._trackers.append(Wandb(trainer))
            except UsageError:
                raise
            except Exception as error:  # a tracker can raise anything
                _warn("wandb", error)

    def __call__(self, line: dict) -> None:
        """Pass a line of the metrics on; warnings and notes are only printed."""
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
        """Add the last epoch's kernels and close the trackers."""
        self._pictures("kernels", self._kernels)
        self._each("close")

    def _each(self, method: str, *arguments: Any) -> None:
        """Call a method of every tracker; one that fails is dropped, and the run continues."""
        for tracker in list(self._trackers):
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:  # a tracker can raise anything
                self._trackers.remove(tracker)
                _warn(type(tracker).__name__, error)

    def _pictures(self, name: str, show: Callable[..., None], *arguments: Any) -> None:
        """Draw pictures; a failure is reported once, and the run continues."""
        if not self._trackers or name in self._undrawn:
            return
        try:
            show(*arguments)
        except Exception as error:  # a damaged shard, a full disk: not worth the run
            self._undrawn.add(name)
            click.echo(f"warning: no more pictures of {name}: {error}; the run continues", err=True)

    def _kernels(self) -> None:
        """Add the kernels saved since the last call: an epoch is saved after its line."""
        from ..figures.kernels import colours, mosaic

        for epoch, weights in kernel_snapshots.read(self._trainer.run).items():
            if self._shown < epoch <= self._trainer.state.epoch:
                self._shown = epoch
                pixels = mosaic(colours(weights), ACROSS, "#ffffff", TIMES)
                self._each("picture", "kernels", pixels, epoch * self._trainer.plan.steps)

    def _predictions(self, step: int) -> None:
        """Add the net's predictions for a few photos of val, the same after every epoch."""
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
        pixels = pixels_of(draw(photos, picked, names_of(shard_set), shard_set.classes))
        self._each("picture", "predictions", pixels, step)


@contextmanager
def tracked(trainer: Trainer, show: Callable[[dict], object], wandb: bool) -> Iterator[Callable[[dict], None]]:
    """Yield a function that passes a line to `show` and to the trackers, which are closed at the end of the block."""
    tracking = Tracking(trainer, wandb)

    def report(line: dict) -> None:
        show(line)
        tracking(line)

    try:
        yield report
    finally:
        tracking.close()


class TensorBoard:
    """Events in the run's folder; `tensorboard --logdir runs` compares all runs."""

    def __init__(self, trainer: Trainer):
        from torch.utils.tensorboard import SummaryWriter

        # Later events are of a run that was killed after its last checkpoint, and are hidden.
        self._writer: Any = SummaryWriter(str(trainer.run), purge_step=trainer.steps_done + 1)

    def curves(self, values: dict[str, float], step: int) -> None:
        """Add a point to each of some curves."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Add a picture."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write all events."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, configured by wandb's own variables (WANDB_MODE and others)."""

    def __init__(self, trainer: Trainer):
        try:
            import wandb
        except ImportError:
            raise UsageError("--wandb: wandb is not installed", "pip install wandb, or omit --wandb") from None

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
        # A resumed run repeats steps after its checkpoint, and wandb's own step count cannot decrease.
        self._run.define_metric("*", step_metric="trainer_step")

    def curves(self, values: dict[str, float], step: int) -> None:
        """Add a point to each of some curves."""
        self._run.log({**values, "trainer_step": step})

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Add a picture."""
        self._run.log({name: self._wandb.Image(pixels), "trainer_step": step})

    def close(self) -> None:
        """Wait until everything is written or sent."""
        self._run.finish()


def pixels_of(figure: Any) -> np.ndarray:
    """Render a matplotlib figure to pixels, uint8 (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _warn(name: str, error: Exception) -> None:
    click.echo(f"warning: {name} failed and is off for this run: {error}; metrics.jsonl has all metrics", err=True)


def _own_id(run: Path) -> str:
    file = run / WANDB_ID
    if not file.exists():
        write_atomically(file, uuid.uuid4().hex[:12].encode())
    return file.read_text().strip()
