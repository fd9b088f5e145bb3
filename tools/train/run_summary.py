"""What `alexnet-train` prints before the first step: recipe, data, learning rate, schedule, warnings.

In:  a Trainer.  Out: text for the user.
"""

import numpy as np

from ...model.nets.heads import layers_of
from ...model.nets.options import ALEXNET
from ...model.recipes.diaries import Diary
from ...model.recipes.schedules import CLASSES_2012, RATE_2012, OneCycle, Plateau, Steps, first_rate
from ...model.training.trainer import Trainer
from ...pipeline.errors import ShardError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.records_csv import class_counts
from ...pipeline.stream.autotune import DALI, FUSED, THREADS
from .. import console


def introduction(trainer: Trainer, resume: bool) -> list[str]:
    """Return the description of a run, one line each."""
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
            f"rate {config.rate:.4g}; momentum 0.9, weight decay {trainer.recipe.decay:g} except for norms and biases; "
            f"input {config.crop}x{config.crop}"
        )
    elif config.rate == first_rate(classes) and classes < CLASSES_2012:
        lines.append(
            f"rate {config.rate:.4g}: {RATE_2012} x sqrt({classes} / {CLASSES_2012:,}), since the rate of "
            f"2012 is tuned for {CLASSES_2012:,} classes and diverges with few; --rate overrides"
        )
    else:
        lines.append(f"rate {config.rate:.4g}")
    schedule = trainer.state.schedule
    if isinstance(schedule, Diary):
        lines.append(f"the diary of {schedule.source}: {schedule.summary(trainer.plan.steps, config.epochs)}")
    elif isinstance(schedule, OneCycle):
        lines.append(f"one cycle: the rate rises for {schedule.rise:.0%} of the run, then falls to 0")
    elif isinstance(schedule, Steps):
        lines.append("rate/10 after each third of the run")
    elif not shard_set.has("val"):  # a run of an earlier version; new ones are refused
        lines.append("constant rate: without val there is no validation error to lower it by")
    elif isinstance(schedule, Plateau):
        waits = f"{schedule.patience} epoch" + ("s" if schedule.patience > 1 else "")
        lines.append(f"rate/10 when the validation error has not improved for {waits}, three times")
    if trainer.team.ranks > 1:
        share = -(-config.batch_size // trainer.team.ranks)
        lines.append(
            f"{trainer.team.ranks} processes, --parallel {config.parallel}: "
            f"each decodes {share} images of the global batch"
            + (" and trains one column on all of it" if config.parallel == "columns" else " and trains on them")
        )
    lines.append(_input(trainer))
    lines += _missing_classes(shard_set)
    if config.init_from:
        left = trainer.state.left
        lines.append(
            f"initial weights from {config.init_from}" + (f"; newly initialised: {layers_of(left)}" if left else "")
        )
    if not shard_set.has("val"):
        test = f"; evaluate it with alexnet-eval {trainer.run} --split test" if shard_set.has("test") else ""
        lines.append(
            "no photos in val: no evaluation after epochs, and nothing to choose the best checkpoint by: only the last "
            f"one is kept{test}"
        )
    if resume:
        lines.append(f"resuming after step {trainer.steps_done:,} (epoch {trainer.state.epoch + 1})")
        if trainer.device.type == "cuda" and not config.deterministic:
            lines.append("without --deterministic the results on a GPU differ by rounding from those without the stop")
    return [console.plain(line) for line in lines]


def _input(trainer: Trainer) -> str:
    """Say what this program's threads do to the pictures, and what DALI does."""
    decode, on_cpu, count = trainer.state.decode, trainer.device.type == "cpu", trainer.team.threads
    threads = f"{count} thread{'s' if count > 1 else ''}"
    decoding = "decode, crop" if trainer.shard_set.encoding == "jpeg" else "crop"
    views = "; DALI cuts the evaluation views" if trainer.shard_set.has("val") else ""
    told = {
        FUSED: f"{threads} read, {decoding}, mirror and normalise{views}",
        THREADS: f"{threads} read, {decoding} and mirror; DALI normalises{'' if on_cpu else ' on the GPU'}",
        DALI: f"DALI decodes, crops, mirrors and normalises, {f'with {threads}' if on_cpu else 'on the GPU'}",
    }
    return f"input: {told[decode]} ({trainer.state.chosen or f'--decode {decode}'})"


def _missing_classes(shard_set: ShardSet) -> list[str]:
    """Return warnings about classes that only one of train and val has; none for a set whose record lists are missing.

    A val that lacks some classes is usual if it is small; only one with fewer than half of them is told.
    """
    try:
        train, val = (_counts(shard_set, split) for split in ("train", "val"))
    except ShardError:
        return []
    lines, never, trained = [], train == 0, int((train > 0).sum())
    if never.any():
        empty = [str(shard_set.classes[k]) for k in np.flatnonzero(never)]
        names = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        are = "classes have" if len(empty) > 1 else "class has"
        lost = int(val[never].sum())
        least = (
            f"; {lost:,} of the {val.sum():,} photos of val are of such classes, so its error will be at least "
            f"{100 * lost / val.sum():.1f}%"
        )
        text = f"warning: {len(empty)} {are} no training photos and will never be predicted: {names}"
        lines.append(text + (least if lost else ""))
    tested = int((val[~never] > 0).sum())
    if val.any() and 2 * tested < trained:
        lines.append(
            f"warning: val has photos of only {tested:,} of the {trained:,} classes of train, and the best checkpoint "
            "is chosen by them alone"
        )
    return lines


def _counts(shard_set: ShardSet, split: str) -> np.ndarray:
    """The number of photos of each class in a split, int64 (classes,); zeros if there is no such split."""
    if not shard_set.has(split):
        return np.zeros(len(shard_set.classes), np.int64)
    return class_counts(shard_set, split).per_class
