"""What a checkpoint holds of a run, and how a run goes on from it, in the same split or in another.

In:  a Trainer.  Out: `last.pt` and `best.pt` in its folder, of the whole net; or the Trainer as it was.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...pipeline.errors import TrainingError
from ...pipeline.stream.stall import Elapsed
from ..nets.options import HEAD, NetOptions
from ..recipes.recipe import Recipe
from ..recipes.schedules import EarlyStop
from . import checkpoint as checkpoints
from . import kernel_snapshots
from .metrics import Sums
from .run_files import check_finite

if TYPE_CHECKING:
    from .trainer import Trainer


def save(trainer: "Trainer", best: bool) -> None:
    """Write the run's checkpoint, under both names where it is the best; every process must, the first one writes.

    Raises:
        TrainingError: it cannot be written.
    """
    work = trainer.work
    model = work.whole(dict(trainer.net.state_dict()))
    velocity = work.whole(trainer.optimizer.velocities())
    in_epoch, window = work.totals(trainer.in_epoch), work.totals(trainer.window)
    failure = None
    if trainer.team.first:
        last, written = trainer.run / "last.pt", trainer.run / ("best.pt" if best else "last.pt")
        state = {
            "config": trainer.config.described(),
            "recipe": trainer.recipe.described(),
            "epoch": trainer.epoch,
            "step": trainer.step,
            "steps_done": trainer.steps_done,
            "decode": trainer.decode,
            "model": model,
            "velocity": velocity,
            "schedule": trainer.schedule.state(),
            "early_stop": vars(trainer.early_stop),
            "best_error": trainer.best_error,
            "in_epoch": in_epoch.values(),
            "window": window.values(),
            "epoch_seconds": [trainer.epoch_lap.waiting_seconds, trainer.epoch_lap.working_seconds],
            "classes": list(trainer.shard_set.classes),
            "shards": trainer.shard_set.split("train").fingerprint(),
            "stats": checkpoints.stats_to_save(trainer.stats),
        }
        try:
            if trainer.step == 0:  # before the checkpoint: what lies beyond it is dropped when the run goes on
                kernel_snapshots.keep(trainer.run, trainer.epoch, model)
            checkpoints.save(written, state)
            if best:  # the best first: killed here, it goes on from the last before it, and comes to the same best
                checkpoints.hard_link(written, last)
        except TrainingError as error:
            failure = error
    failed = trainer.team.broadcast(None if failure is None else str(failure))  # nobody trains on what cannot be saved
    if failure is not None:
        raise failure
    if failed:
        raise TrainingError(f"rank 0: {failed}", "see what rank 0 said")


def first_kernels(trainer: "Trainer") -> None:
    """Keep the first layer's kernels as they are before the first step; every process must ask for it."""
    weights = trainer.work.whole(kernel_snapshots.first_kernels(trainer.net.state_dict()))
    if trainer.team.first:
        kernel_snapshots.keep(trainer.run, 0, weights)


def restore(trainer: "Trainer", saved: dict) -> None:
    """Go on from a checkpoint.

    Raises:
        TrainingError: it is of another version of the recipe, or of another net.
    """
    file = trainer.run / "last.pt"
    with checkpoints.fits_this_version(file):
        today = trainer.recipe.described()
        then = {**Recipe("", "").described(), **saved["recipe"]}  # what a recipe did not have yet is as it was
        then["net"] = vars(NetOptions(**then["net"]))
        for told in ("summary", "published"):
            then[told] = today[told]
        changed = [name for name in today if then.get(name) != today[name]]
        if changed:
            raise TrainingError(
                f"{file}: recipe {trainer.recipe.name} is another in this version ({', '.join(changed)})",
                "go on with the version of alexnet-dali that began this run",
            )
        trainer.net.load_state_dict(trainer.work.part(saved["model"]))
        trainer.optimizer.restore(trainer.work.part(saved["velocity"]))
        trainer.epoch, trainer.step = saved["epoch"], saved["step"]
        schedule, early = saved.get("schedule", saved.get("plateau", {})), saved.get("early_stop", vars(EarlyStop()))
        for own, there in ((trainer.schedule.state(), schedule), (vars(trainer.early_stop), early)):
            for name in own.keys() & there.keys():
                checkpoints.check_kind(name, there[name], type(own[name]))
        trainer.schedule.restore(schedule)
        trainer.early_stop.best, trainer.early_stop.waited = early["best"], early["waited"]
        trainer.best_error = saved["best_error"]
        if trainer.config.decode == "auto":
            trainer.decode = saved["decode"]
        trainer.epoch_lap = Elapsed(*saved["epoch_seconds"])
        trainer.in_epoch = trainer.work.share(Sums(*saved["in_epoch"]))
        trainer.window = trainer.work.share(Sums(*saved["window"]))


def begin_with(trainer: "Trainer", first: dict) -> None:
    """Begin with the weights of another run: all layers that the recipe takes, which are not the last.

    Raises:
        TrainingError: a layer there has another shape, or weights that are not finite.
    """
    file = Path(trainer.config.init_from)
    with checkpoints.fits_this_version(file):
        check_finite(first, file)
        taken = _taken(trainer, first["model"])
        with torch.no_grad():
            here = dict(trainer.net.state_dict())
            for name, tensor in trainer.work.part(taken).items():
                here[name].copy_(tensor)


def _taken(trainer: "Trainer", there: dict) -> dict:
    """What a net takes of another's weights."""
    here = dict(trainer.net.state_dict())
    taken = {}
    for name, own in here.items():
        layer = name.split(".")[0]
        wanted = layer in trainer.recipe.takes if trainer.recipe.takes else layer not in HEAD
        if not wanted or (name not in there and layer == "conv6"):
            continue
        shape = trainer.work.whole_shape(name, own)
        if name not in there or there[name].shape != shape:
            has = tuple(there[name].shape) if name in there else "nothing"
            raise TrainingError(
                f"{trainer.config.init_from}: its {name} is {has}, but {trainer.recipe.name} wants {tuple(shape)}",
                "name a run of a net with the same layers",
            )
        taken[name] = there[name]
    return taken
