"""From the options of `alexnet-train` to the Config of a new or a resumed run.

In:  the options' values, which of them were given, the run's last checkpoint.  Out: a Config.
"""

import os
from pathlib import Path
from typing import Any

import torch

from ...model.nets.options import ALEXNET, COLUMNS
from ...model.recipes.config import Config, default_precision, resumed
from ...model.recipes.recipe import recipe
from ...model.recipes.schedules import first_rate
from ...model.recipes.setup import crop_for, first_rate_for, recipe_for
from ...model.training import checkpoint as checkpoints
from ...model.training.parallel import check_parallel, default_parallel
from ...pipeline.errors import ShardError, UsageError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.records_csv import read_listing
from ..process import PARENT

WITH_VAL = "hold photos out for val: alexnet-prep build-lmdb --val-share 0.1"  # for hints
# Options that become fields of the Config as they are; the others are resolved first.
DIRECT = (
    *("model", "crop", "epochs", "steps", "batch_size", "rate", "schedule", "precision", "decode", "seed"),
    *("log_every", "save_every", "early_stop", "recipe", "deterministic"),
)


def last_checkpoint(run: Path) -> dict:
    """Load the checkpoint from which a run is resumed.

    Raises:
        UsageError: the folder has none.
        TrainingError: the file is damaged or belongs to another program.
    """
    if not (run / "last.pt").exists():
        raise UsageError(
            f"{run}: no last.pt to resume from",
            "name the run's folder with --run, or start a new run without --resume",
        )
    return checkpoints.check_run(checkpoints.load(run / "last.pt"), run / "last.pt")


def check_classes(shard_set: ShardSet) -> None:
    """Check that the training photos are of more than one class.

    Raises:
        UsageError: they are not, so there is nothing to learn.
    """
    trained = set(shard_set.classes)
    if len(trained) > 1 and shard_set.has("train"):
        trained = set()
        try:
            for folder, _ in shard_set.splits["train"].shards:
                trained |= {shard_set.classes[row.label] for row in read_listing(folder) if row.label >= 0}
                if len(trained) > 1:  # in the first shard, since the build shuffles
                    return
        except (ShardError, IndexError):  # a record list is missing or damaged, which training does not need
            return
    if len(trained) == 1:
        raise UsageError(
            f"{shard_set.root}: all training photos are of one class ({min(trained)}): there is nothing to tell apart, "
            "and any net would have an error of 0",
            "build a set of two or more classes; to compare photos of one class by the features of a net that was "
            f"trained on others: alexnet-figures index RUN --shards {shard_set.root}",
        )


def new_config(options: dict[str, Any], shard_set: ShardSet, device: torch.device) -> Config:
    """Return the configuration of a new run: the options, and the recipe's value where an option was not given.

    Raises:
        UsageError: an option out of its range, or options that contradict each other.
    """
    name, model, init_from = options["recipe"], options["model"], options["init_from"]
    parallelism = choose_parallelism(None, options["processes"], options["parallel"], device, model, name)
    chosen = recipe(name)
    chosen = chosen.with_weights() if init_from else chosen
    classes, batch_size = len(shard_set.classes), options["batch_size"] or chosen.batch_size
    crop = crop_for(model, options["crop"] or 0, shard_set.size, chosen)
    chosen = recipe_for(model, crop, chosen, options["schedule"] or "")
    rate = chosen.rate or first_rate(classes) if model == ALEXNET else first_rate_for(model, classes, batch_size)
    if chosen.schedule == "plateau" and not shard_set.has("val"):
        raise UsageError(
            f"{shard_set.root}: no photos in val, but the schedule plateau lowers the rate by the validation error",
            f"choose one that needs none: --schedule steps or one-cycle; or {WITH_VAL}",
        )
    _check_early_stop(options, shard_set)
    return Config(
        shards=str(shard_set.root.resolve()),
        recipe=name,
        device=str(device),
        decode=options["decode"],
        seed=options["seed"],
        steps=options["steps"],
        log_every=options["log_every"],
        save_every=options["save_every"],
        epochs=options["epochs"] or chosen.epochs,
        batch_size=batch_size,
        rate=options["rate"] if options["rate"] is not None else rate,
        precision=options["precision"] or chosen.precision or default_precision(device),
        model=model,
        **parallelism,
        schedule=chosen.schedule,
        early_stop=options["early_stop"],
        init_from=_checkpoint_of(init_from) if init_from else "",
        crop=crop,
        deterministic=options["deterministic"],
    )


def resumed_config(
    saved: dict, options: dict[str, Any], given: set[str], shard_set: ShardSet, device: torch.device
) -> Config:
    """Return the configuration of a resumed run: the checkpoint's, changed by the options that were given.

    Args:
        saved: the run's last checkpoint.
        given: names of the options that were given.
    Raises:
        UsageError: an option was given that a resumed run cannot change.
    """
    changes = {name: options[name] for name in DIRECT if name in given}
    if "early_stop" in given:
        _check_early_stop(options, shard_set)
    if options["init_from"]:  # accepted if the run was started from it
        changes["init_from"] = _checkpoint_of(options["init_from"])
    if "epochs" in changes and "steps" not in changes:
        changes["steps"] = 0  # an earlier --steps must not end the additional epochs
    changes |= choose_parallelism(
        saved, options["processes"], options["parallel"], device, options["model"], options["recipe"]
    )
    changes |= {"shards": str(shard_set.root.resolve()), "device": str(device)}
    return resumed(saved["config"], changes)


def choose_parallelism(
    saved: dict | None, processes: int | None, parallel: str | None, device: torch.device, model: str, name: str
) -> dict[str, Any]:
    """Return the fields `processes` and `parallel`: as requested, as in the checkpoint, or one process per GPU.

    Args:
        saved: the checkpoint of a resumed run, or None.
        processes, parallel: the options' values, None where they were not given.
        model, name: the net and the recipe.
    Raises:
        UsageError: a number of processes or a mode that the net or the environment does not allow.
    """
    outside = world_size()
    if outside and os.environ.get(PARENT) is None and processes not in (None, outside):
        raise UsageError(
            f"--processes {processes}, but WORLD_SIZE says that {outside} were started from outside",
            "with torchrun leave --processes out; otherwise unset WORLD_SIZE",
        )
    before = saved["config"] if saved else {}
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    if outside:
        processes = outside
    elif processes is None:
        processes = before.get("processes") or (2 if parallel == "columns" else gpus or 1)
        if gpus and processes > gpus:  # the run was started on several machines
            processes = gpus
    model, name = before.get("model", model), before.get("recipe", name)
    chosen = parallel or default_parallel(processes, model, recipe(name))
    if parallel is None and processes == before.get("processes"):
        chosen = before["parallel"]
    if processes == 1 and parallel is not None:
        raise UsageError(f"--parallel {parallel} needs several processes", f"add --processes {COLUMNS}")
    if processes > 1:
        columns = recipe(name).net.columns if model == ALEXNET else 1
        check_parallel(chosen, processes, name if model == ALEXNET else model, columns)
    return {"processes": processes, "parallel": chosen if processes > 1 else "alone"}


def world_size() -> int:
    """Return the number of processes that torchrun or launch.py has started; 0 if neither has.

    Raises:
        UsageError: WORLD_SIZE is not a number.
    """
    value = os.environ.get("WORLD_SIZE", "0")
    if not value.isdigit():
        raise UsageError(f"WORLD_SIZE is {value!r}, not a number", "unset it, or start with torchrun")
    return int(value)


def _check_early_stop(options: dict[str, Any], shard_set: ShardSet) -> None:
    if options["early_stop"] and not shard_set.has("val"):
        raise UsageError(
            f"--early-stop {options['early_stop']}: {shard_set.root} has no photos in val, so no validation error "
            "could ever stop the run",
            f"omit it; or {WITH_VAL}",
        )


def _checkpoint_of(run: Path) -> str:
    return str(checkpoints.run_checkpoint(run).resolve())
