"""`alexnet-train`: options into one Config, the trainer into lines for a person."""

import shutil
import sys
import time
from pathlib import Path

import click
import torch
from click.core import ParameterSource

from ..model import checkpoint as checkpoints
from ..model.config import Config, resumed
from ..model.optim import CLASSES_2012, RATE_2012, diary_epochs, first_rate
from ..model.precision import PRECISIONS, default_precision
from ..model.recipes import RECIPES, recipe
from ..model.registry import ALEXNET, crop_for, first_rate_for, resolve
from ..model.trainer import Trainer
from ..pipeline import stats as statistics
from ..pipeline.choice import WAYS
from ..pipeline.errors import TrainingError, UsageError
from ..pipeline.files import locked, write_json
from ..pipeline.shardset import ShardSet, open_shard_set
from . import console
from .max_stall import Percent, check_stall
from .process import pick_device, stop_on_signals

FOLDER = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="alexnet-dali")
@click.option("--shards", type=FOLDER, default="out", show_default=True, help="The shard set, with its statistics.")
@click.option("--run", type=FOLDER, help="For checkpoints and metrics.  [default: runs/RECIPE, or runs/MODEL]")
@click.option(
    "--model",
    default=ALEXNET,
    show_default=True,
    help="Or another net, by plain SGD: resnet18, any classifier of torchvision; timm:NAME, where timm is installed.",
)
@click.option(
    "--recipe",
    "recipe_name",
    type=click.Choice(list(RECIPES)),
    default="source2012",
    show_default=True,
    help="source2012: what ran in 2012. paper: what the text says.",
)
@click.option("--crop", type=click.IntRange(1), help="Pixels of the window.  [default: 224, or what the model is for]")
@click.option("--epochs", type=click.IntRange(1), help="In all.  [default: the recipe's, 91 or 90]")
@click.option("--steps", type=click.IntRange(0), default=0, help="End after this many steps in all, if that is sooner.")
@click.option("--batch-size", type=click.IntRange(1), help="Of the global batch.  [default: the recipe's, 128]")
@click.option("--rate", type=float, help="To begin with.  [default: 0.01 at 1,000 classes, less for fewer]")
@click.option("--precision", type=click.Choice(PRECISIONS), help="[default: fp32 on the CPU, tf32 on a GPU]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--decode",
    type=click.Choice(["auto", *WAYS]),
    default="auto",
    show_default=True,
    help="Decode in threads of our own or in DALI (on a GPU: on it); auto measures both.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, order and draws.")
@click.option("--log-every", type=click.IntRange(1), default=20, show_default=True, help="Steps between lines.")
@click.option(
    "--save-every",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Steps between checkpoints within an epoch.",
)
@click.option(
    "--max-stall",
    type=Percent(),
    help="Such as 1%: exit with 1 at the end, saying what to change, if more of the time went into waiting.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --run from its last checkpoint.")
@click.pass_context
def train(context, shards, run, recipe_name, max_stall, resume, **options):
    """Train the net of 2012, or another, on a shard set.

    Ctrl-C finishes the step and saves; --resume goes on to the same weights as if nothing had happened.

    \b
    Examples:
      alexnet-train
      alexnet-train --shards out --run runs/first --epochs 10 --precision bf16
      alexnet-train --run runs/first --resume
      alexnet-train --model resnet18 --batch-size 256 --epochs 90
    """
    options["model"] = resolve(options["model"])
    run = run or Path("runs") / (recipe_name if options["model"] == ALEXNET else options["model"].replace(":", "-"))
    saved = _last_checkpoint(run) if resume else None
    asked_device = options.pop("device")
    if saved and _from_default(context, "device"):  # another device would end the promise of equal bits unasked
        asked_device = torch.device(saved["config"]["device"]).type
    device = pick_device(asked_device)
    if not resume and (run / "last.pt").exists():
        raise UsageError(f"{run}: holds a run already", "go on with it by --resume, or choose another --run")
    if saved and _from_default(context, "shards"):
        shards = Path(saved["config"]["shards"])
    shard_set = open_shard_set(shards)
    shards = shards.resolve()  # the run may be used from another folder
    asked = {
        name: value
        for name, value in {**options, "recipe": recipe_name}.items()
        if not _from_default(context, "recipe_name" if name == "recipe" else name)
    }
    if saved and "epochs" in asked and "steps" not in asked:
        asked["steps"] = 0  # more epochs are wanted, so an earlier --steps must not end them
    config = (
        resumed(saved["config"], {**asked, "shards": str(shards), "device": str(device)})
        if saved
        else _new_config(shards, recipe_name, device, options, shard_set)
    )
    stats = statistics.load(shard_set)
    if saved:
        _check_same(saved, shard_set, run)
    with locked(run):
        trainer = Trainer(config, shard_set, stats, run, saved)
        del saved  # half a gigabyte
        for line in _introduction(trainer, resume):
            click.echo(line)
        if trainer.finished:
            click.echo(f"{run}: all {trainer.last_step:,} steps are done; more with --epochs or --steps")
            return
        write_json(run / "config.json", {**config.described(), "recipe": trainer.recipe.described()})
        show = Lines(trainer)
        with stop_on_signals() as stop:
            ended = trainer.train(show, stop)
    for line in show.closing():
        click.echo(line)
    if not ended:
        click.echo(
            f"stopped and saved after step {trainer.steps_done:,}; go on with: alexnet-train --run {run} --resume",
            err=True,
        )
        context.exit(stop.exit_code)
    if max_stall is not None:
        check_stall(trainer, max_stall)


class Lines:
    """Shows the trainer's lines: one live line on a terminal, plain ones elsewhere, and those that stay."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.began, self.first = trainer, time.monotonic(), trainer.steps_done
        self.live = sys.stdout.isatty()
        self.last: dict = {}

    def __call__(self, line: dict) -> None:
        """Show one line of the metrics or a warning."""
        wipe = "\r\033[K" if self.live else ""
        if line["kind"] == "warning":
            click.echo(f"{wipe}warning: {line['text']}", err=True)
        elif line["kind"] == "note":
            click.echo(wipe + line["text"])
        elif line["kind"] == "epoch":
            self.last = line
            click.echo(wipe + self._epoch(line))
        else:
            text = self._step(line)
            if self.live:  # a line that wraps could not be wiped
                text = text[: shutil.get_terminal_size().columns - 1]
            click.echo(wipe + text, nl=not self.live)

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
        """What to say at the end."""
        trainer, total = self.trainer, self.trainer.meter.total()
        if self.live:
            click.echo("\r\033[K", nl=False)
        lines = [
            f"{console.duration(time.monotonic() - self.began)}: {trainer.images:,} images, "
            f"{trainer.images / max(total.seconds, 1e-9):,.0f} images/s, "
            f"stalled {total.stall_percent:.2f}% of the time (start-up {trainer.meter.startup_seconds:.1f} s)"
        ]
        best = f", best {trainer.run / 'best.pt'}" if (trainer.run / "best.pt").exists() else ""
        lines.append(f"last checkpoint {trainer.run / 'last.pt'}{best}")
        return lines


def _new_config(shards: Path, recipe_name: str, device, options: dict, shard_set: ShardSet) -> Config:
    chosen, model = recipe(recipe_name), options["model"]
    classes, batch_size = len(shard_set.classes), options["batch_size"] or chosen.batch_size
    first = first_rate(classes) if model == ALEXNET else first_rate_for(model, classes, batch_size)
    return Config(
        shards=str(shards),
        recipe=recipe_name,
        device=str(device),
        decode=options["decode"],
        seed=options["seed"],
        steps=options["steps"],
        log_every=options["log_every"],
        save_every=options["save_every"],
        epochs=options["epochs"] or chosen.epochs,
        batch_size=batch_size,
        rate=options["rate"] if options["rate"] is not None else first,
        precision=options["precision"] or default_precision(device),
        model=model,
        crop=crop_for(model, options["crop"] or 0, shard_set.size, chosen),
    )


def _introduction(trainer: Trainer, resume: bool) -> list[str]:
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
    if trainer.recipe.schedule == "diary":
        at = diary_epochs(config.epochs)
        lines.append(
            f"the diary of 2012: after epoch {at['tenth']} rate/10, {at['hundredth']} rate/100, "
            f"{at['conv1_and_light']} conv1 slow and lighting off, {at['conv1_frozen']} conv1 frozen, "
            f"{at['thousandth']} rate/1000"
        )
    elif not shard_set.has("val"):
        lines.append("the rate stays, since without val no error tells when to lower it")
    else:
        lines.append(f"rate/10 when val error has not improved for {trainer.plateau.patience} epochs, three times")
    if not shard_set.has("val"):
        lines.append("no photos in val: epochs are not evaluated, and there is no best checkpoint")
    if resume:
        lines.append(f"going on after step {trainer.steps_done:,} (epoch {trainer.epoch + 1})")
    return lines


def _last_checkpoint(run: Path) -> dict:
    if not (run / "last.pt").exists():
        raise UsageError(
            f"{run}: nothing to resume there (no last.pt)",
            "name the run's folder with --run, or begin one without --resume",
        )
    return checkpoints.load(run / "last.pt")


def _check_same(saved: dict, shard_set: ShardSet, run: Path) -> None:
    checkpoints.check_classes(saved["classes"], shard_set, run / "last.pt")
    if saved["shards"] != shard_set.split("train").fingerprint():
        raise TrainingError(
            f"{run / 'last.pt'}: was trained on another shard set than {shard_set.root}",
            "name its own with --shards, or begin a new run with another --run",
        )


def _from_default(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def main() -> None:
    """Entry of the console script."""
    console.run(train)


if __name__ == "__main__":
    main()
