"""What `alexnet-train` says before the first step: the recipes there are; the run, its rate and its schedule.

In:  a Trainer.  Out: lines for people.
"""

import click
import numpy as np

from ...model.nets.factory import ALEXNET
from ...model.recipes.diaries import Diary
from ...model.recipes.recipe import RECIPES, recipe
from ...model.recipes.schedules import CLASSES_2012, RATE_2012, OneCycle, Plateau, Steps, first_rate
from ...model.training.trainer import Trainer
from ...pipeline.errors import ShardError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.records_csv import class_counts
from .. import console


def introduction(trainer: Trainer, resume: bool) -> list[str]:
    """What a run is, in a few lines."""
    config, shard_set = trainer.config, trainer.shard_set
    classes = len(shard_set.classes)
    val = f", {shard_set.splits['val'].records:,} in val" if shard_set.has("val") else ""
    lines = [
        f"{trainer.recipe.name}: {trainer.recipe.summary}",
        f"{shard_set.root}: {trainer.plan.records:,} photos of {classes:,} classes{val}",
        f"{config.epochs} epochs of {trainer.plan.steps:,} steps; "
        f"global batch {min(config.batch_size, trainer.plan.records)}, {config.precision} on {config.device}, "
        f"run {trainer.run}",
    ]
    if config.model != ALEXNET:
        lines.append(
            f"rate {config.rate:.4g}; momentum 0.9, weight decay {trainer.recipe.decay:g}, not of norms and biases; "
            f"windows of {config.crop}x{config.crop}"
        )
    elif config.rate == first_rate(classes) and classes < CLASSES_2012:
        lines.append(
            f"rate {config.rate:.4g}: {RATE_2012} x sqrt({classes} / {CLASSES_2012:,}), since the rate of "
            f"2012 belongs to {CLASSES_2012:,} classes and kills a net of few; --rate overrules"
        )
    else:
        lines.append(f"rate {config.rate:.4g}")
    schedule = trainer.schedule
    if isinstance(schedule, Diary):
        lines.append(f"the diary of {schedule.source}: {schedule.told(trainer.plan.steps, config.epochs)}")
    elif isinstance(schedule, OneCycle):
        lines.append(f"one cycle: the rate rises for {schedule.rise:.0%} of the run, and falls to nothing")
    elif isinstance(schedule, Steps):
        lines.append("rate/10 after each third of the run")
    elif not shard_set.has("val"):
        lines.append("the rate stays, since without val no error tells when to lower it")
    elif isinstance(schedule, Plateau):
        waits = f"{schedule.patience} epoch" + ("s" if schedule.patience > 1 else "")
        lines.append(f"rate/10 when val error has not improved for {waits}, three times")
    if trainer.team.ranks > 1:
        share = -(-config.batch_size // trainer.team.ranks)
        lines.append(
            f"{trainer.team.ranks} processes, --parallel {config.parallel}: each decodes {share} of the global batch"
            + ("; each trains a column, on all of it" if config.parallel == "columns" else " and trains on them")
        )
    lines += _missing_classes(shard_set)
    if config.init_from:
        lines.append(f"begins with the weights of {config.init_from}")
    if not shard_set.has("val"):
        lines.append("no photos in val: epochs are not evaluated, and there is no best checkpoint")
    if resume:
        lines.append(f"going on after step {trainer.steps_done:,} (epoch {trainer.epoch + 1})")
    return [console.plain(line) for line in lines]


def _missing_classes(shard_set: ShardSet) -> list[str]:
    """A warning where classes have no photos to train on; a set without lists is not asked."""
    try:
        empty = [shard_set.classes[k] for k in np.flatnonzero(class_counts(shard_set, "train").per_class == 0)]
    except ShardError:
        return []
    if not empty:
        return []
    names = ", ".join(str(name) for name in empty[:5]) + (", ..." if len(empty) > 5 else "")
    are = "classes have" if len(empty) > 1 else "class has"
    return [f"warning: {len(empty)} {are} no photos to train on, and the net will learn never to say: {names}"]


def list_recipes(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    """Print the table of recipes."""
    if not wanted:
        return
    for name in RECIPES:
        each = recipe(name)
        click.echo(f"{name:<14}  {each.summary}" + (f"  [{each.published}]" if each.published else ""))
    context.exit()
