"""The state of a run: what a checkpoint holds of it, and how a run continues from one, in the same split or another.

In:  a RunState.  Out: `last.pt` and `best.pt` in the run's folder, of the whole net; and the state, restored.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ...pipeline.errors import TrainingError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ...pipeline.stream.stall import Elapsed
from ..nets.heads import head_of
from ..nets.lrn import TORCH, set_form, triton_trouble
from ..nets.options import ALEXNET, HEAD, NetOptions
from ..recipes.config import Config
from ..recipes.optim import Momentum2012, PlainSgd
from ..recipes.recipe import Recipe
from ..recipes.schedules import EarlyStop, Schedule
from . import checkpoint as checkpoints
from . import kernel_snapshots
from .distributed import Team
from .metrics import Sums
from .parallel import SingleProcess
from .run_files import check_finite


@dataclass
class RunState:
    """Everything that changes during a run and that a checkpoint holds.

    Attributes:
        work: the net, or this process's part of it.
        optimizer: holds the velocities.
        schedule, early_stop: hold what they have observed.
        epoch_steps: steps per epoch; constant.
        decode: the decoder; on a GPU another one rounds differently.
        chosen: why it is this one, where the user left it open (decoders.py); constant.
        lrn: the form of response normalisation (nets/lrn.py): another one rounds differently; empty without any.
        epoch, step: the position: whole epochs done, and steps done of the current one.
        best_error: lowest top-1 validation error so far, 0..1.
        in_epoch, window: sums of this process since the epoch began, and since the last line of the metrics.
        epoch_elapsed: time spent on the current epoch, over all resumes.
        left: arrays that the net did not take from the run that it started with (`begin_with`), by name; constant.
        note: what the user should know of how the run goes on; constant.
    """

    work: SingleProcess
    optimizer: Momentum2012 | PlainSgd
    schedule: Schedule
    early_stop: EarlyStop
    epoch_steps: int
    decode: str
    epoch: int = 0
    step: int = 0
    best_error: float = math.inf
    in_epoch: Sums = field(default_factory=Sums)
    window: Sums = field(default_factory=Sums)
    epoch_elapsed: Elapsed = Elapsed(0.0, 0.0)
    left: tuple[str, ...] = ()
    lrn: str = ""
    note: str = ""
    chosen: str = ""

    def __post_init__(self) -> None:
        self.lrn = set_form(self.work.net)
        device = next(self.work.net.parameters()).device
        if self.lrn == TORCH and device.type == "cuda":
            trouble = triton_trouble(device)
            self.note = (
                f"response normalisation runs by torch's operations, several times slower than by Triton: {trouble}"
            )

    @property
    def steps_done(self) -> int:
        """Steps done, over all epochs."""
        return self.epoch * self.epoch_steps + self.step

    def end_step(self, loss: torch.Tensor, wrong: torch.Tensor, images: int) -> None:
        """Count a step over `images` pictures of the global batch."""
        self.step += 1
        for sums in (self.window, self.in_epoch):
            sums.add(loss, wrong, images)

    def end_epoch(self, error: float | None) -> bool:
        """Count an epoch and its top-1 validation error, if there is one.

        Returns:
            Whether the error is the lowest so far.
        """
        self.epoch, self.step, self.in_epoch, self.epoch_elapsed = self.epoch + 1, 0, Sums(), Elapsed(0.0, 0.0)
        if error is None:
            return False
        better = error < self.best_error
        self.best_error = min(self.best_error, error)
        self.schedule.observe(error)
        self.early_stop.observe(error)
        return better


def constants(config: Config, recipe: Recipe, shard_set: ShardSet, stats: Stats) -> dict:
    """Return the entries of a checkpoint that do not change during a run."""
    return {
        "config": config.described(),
        "recipe": recipe.described(),
        "classes": list(shard_set.classes),
        "shards": shard_set.split("train").fingerprint(),
        "stats": checkpoints.stats_to_save(stats),
    }


def save(state: RunState, constants: dict, run: Path, team: Team, best: bool) -> None:
    """Write the run's checkpoint, under both names if it is the best. Collective: all processes call it, rank 0 writes.

    Args:
        constants: the checkpoint's other entries, see `constants`.
    Raises:
        TrainingError: the checkpoint cannot be written.
    """
    model = state.work.whole(dict(state.work.net.state_dict()))
    velocity = state.work.whole(state.optimizer.velocities())
    in_epoch, window = state.work.totals(state.in_epoch), state.work.totals(state.window)
    failure = None
    if team.first:
        values = {
            **constants,
            "epoch": state.epoch,
            "step": state.step,
            "steps_done": state.steps_done,
            "decode": state.decode,
            "lrn": state.lrn,
            "model": model,
            "velocity": velocity,
            "schedule": state.schedule.state(),
            "early_stop": vars(state.early_stop),
            "best_error": state.best_error,
            "in_epoch": in_epoch.values(),
            "window": window.values(),
            "epoch_seconds": [state.epoch_elapsed.waiting_seconds, state.epoch_elapsed.working_seconds],
        }
        try:
            if state.step == 0:  # before the checkpoint: snapshots beyond it are dropped when the run is resumed
                kernel_snapshots.keep(run, state.epoch, model)
            last, written = run / "last.pt", run / ("best.pt" if best else "last.pt")
            checkpoints.save(written, values)
            if best:  # best.pt first: killed here, the run resumes from the previous last.pt and reaches the same best
                checkpoints.hard_link(written, last)
        except TrainingError as error:
            failure = error
    failed = team.broadcast(None if failure is None else str(failure))  # no rank goes on if the state is not saved
    if failure is not None:
        raise failure
    if failed:
        raise TrainingError(f"rank 0: {failed}", "see the message of rank 0")


def restore(state: RunState, saved: dict, recipe: Recipe, file: Path) -> None:
    """Continue from a checkpoint.

    Args:
        saved: the checkpoint, read from `file`.
        recipe: of the run, as this version defines it.
    Raises:
        TrainingError: the checkpoint belongs to another version of the recipe, or to another net.
    """
    with checkpoints.fits_this_version(file):
        _check_recipe(saved["recipe"], recipe, file)
        state.work.net.load_state_dict(state.work.part(saved["model"]))
        state.optimizer.restore(state.work.part(saved["velocity"]))
        schedule, early = saved.get("schedule", saved.get("plateau", {})), saved.get("early_stop", vars(EarlyStop()))
        for own, theirs in ((state.schedule.state(), schedule), (vars(state.early_stop), early)):
            for name in own.keys() & theirs.keys():
                checkpoints.check_kind(name, theirs[name], type(own[name]))
        state.schedule.restore(schedule)
        state.early_stop.best, state.early_stop.waited = early["best"], early["waited"]
        state.epoch, state.step, state.best_error = saved["epoch"], saved["step"], saved["best_error"]
        if state.decode == "auto":
            state.decode = saved["decode"]
        _restore_norm(state, saved.get("lrn", TORCH))
        state.epoch_elapsed = Elapsed(*saved["epoch_seconds"])
        state.in_epoch = state.work.share(Sums(*saved["in_epoch"]))
        state.window = state.work.share(Sums(*saved["window"]))


def _restore_norm(state: RunState, begun: str) -> None:
    """Continue with the form of response normalisation that the run began with; earlier versions had torch's alone."""
    fastest, state.lrn = state.lrn, set_form(state.work.net, begun)
    if state.lrn and state.lrn != begun:
        state.note = (
            f"this run used the {begun} form of response normalisation, which is missing here: it continues with the "
            f"{state.lrn} form, and the results differ by rounding"
        )
    elif state.lrn != fastest:
        state.note = (
            f"this run used the {begun} form of response normalisation and continues with it; "
            f"the {fastest} form of a new run is faster"
        )


def _check_recipe(saved: dict, recipe: Recipe, file: Path) -> None:
    today = recipe.described()
    then = {**Recipe("", "").described(), **saved}  # a field that recipes did not have yet has its default
    then["net"] = vars(NetOptions(**then["net"]))
    changed = [name for name in today if name not in ("summary", "published") and then.get(name) != today[name]]
    if changed:
        raise TrainingError(
            f"{file}: recipe {recipe.name} differs in this version ({', '.join(changed)})",
            "resume with the version of alexnet-dali that started this run",
        )


def begin_with(state: RunState, first: dict, recipe: Recipe, config: Config) -> None:
    """Start from the weights of another run: all layers that the recipe takes, which excludes the last.

    Args:
        first: that run's checkpoint, read from the file `config.init_from`.
    Raises:
        TrainingError: a layer has another shape there, or weights that are not finite.
    """
    file = Path(config.init_from)
    with checkpoints.fits_this_version(file):
        check_finite(first, file)
        taken = _taken(state.work, first, recipe, config)
        own = dict(state.work.net.state_dict())
        with torch.no_grad():
            for name, tensor in state.work.part(taken).items():
                own[name].copy_(tensor)
        state.left = tuple(name for name in own if name not in taken)


def _taken(work: SingleProcess, first: dict, recipe: Recipe, config: Config) -> dict:
    """The parameters and buffers that a net takes from another's checkpoint: never those of its last layer."""
    taken, theirs = {}, first["model"]
    net = recipe.name if config.model == ALEXNET else config.model
    head = () if config.model == ALEXNET else head_of(config.model)
    for name, own in work.net.state_dict().items():
        layer = name.split(".")[0]
        if config.model != ALEXNET:  # a recipe's `takes` are layers of AlexNet
            wanted = name not in head
        else:
            wanted = layer in recipe.takes if recipe.takes else layer not in HEAD
        if not wanted or (name not in theirs and layer == "conv6"):
            continue
        shape = work.whole_shape(name, own)
        if name not in theirs or theirs[name].shape != shape:
            found = f"has shape {tuple(theirs[name].shape)}" if name in theirs else "is missing"
            other = first["config"].get("model", ALEXNET)
            raise TrainingError(
                f"{config.init_from}: {name} {found}, but {net} requires {tuple(shape)}",
                "name a run of a net with the same layers"
                + (f"; that one is of --model {other}" if other != config.model else ""),
            )
        taken[name] = theirs[name]
    return taken
