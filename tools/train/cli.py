"""`alexnet-train`: options into one Config, the trainer into lines for a person."""

import os
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import click
import torch
from click.core import ParameterSource

from ...model.nets.factory import ALEXNET, resolve
from ...model.recipes.config import PRECISIONS, Config, default_precision, resumed
from ...model.recipes.recipe import RECIPES, recipe
from ...model.recipes.schedules import SCHEDULES, first_rate
from ...model.recipes.setup import crop_for, first_rate_for, recipe_for
from ...model.training import checkpoint as checkpoints
from ...model.training.distributed import TIMEOUT, Team, join
from ...model.training.parallel import PARALLEL
from ...model.training.run_files import lock_run, write_errors
from ...model.training.trainer import Trainer
from ...model.weights import trained as trained_nets
from ...pipeline.errors import TrainingError, UsageError
from ...pipeline.files import write_json
from ...pipeline.shards import stats as statistics
from ...pipeline.shards.manifest import ShardSet, open_shard_set
from ...pipeline.stream.autotune import DECODERS
from .. import console
from ..output_guard import check_run_folder
from ..process import pick_device, stop_on_signals
from .launch import ended_with_parent, facts, launch, shared_work, world_size
from .progress import Lines, Percent, check_stall
from .run_summary import introduction, list_recipes
from .tracking import tracked

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
    help="source2012: what ran in 2012. paper: what the text says. Others: --list-recipes.",
)
@click.option("--crop", type=click.IntRange(1), help="Pixels of the window.  [default: 224, or what the model is for]")
@click.option("--epochs", type=click.IntRange(1), help="In all.  [default: the recipe's, 91 of source2012]")
@click.option("--steps", type=click.IntRange(0), default=0, help="End after this many steps in all, if that is sooner.")
@click.option("--batch-size", type=click.IntRange(1), help="Of the global batch.  [default: the recipe's, 128]")
@click.option("--rate", type=float, help="To begin with.  [default: 0.01 at 1,000 classes, less for fewer]")
@click.option("--schedule", type=click.Choice(SCHEDULES), help="Of the rate.  [default: the recipe's]")
@click.option("--precision", type=click.Choice(PRECISIONS), help="[default: fp32 on the CPU, tf32 on a GPU]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--decode",
    type=click.Choice(["auto", *DECODERS]),
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
@click.option("--processes", type=click.IntRange(1), help="That share the work.  [default: one a GPU; on the CPU, 1]")
@click.option(
    "--parallel",
    type=click.Choice(PARALLEL),
    help="columns: the paper's, a column of the net each. data: a share of a batch.  [default: columns, of two]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=TIMEOUT,
    show_default=True,
    help="Seconds to wait for the other processes.",
)
@click.option("--init-from", type=FOLDER, help="Begin with the weights of this run: all layers but the last.")
@click.option(
    "--early-stop", type=click.IntRange(0), default=0, help="End after so many epochs without a better error."
)
@click.option("--wandb", is_flag=True, help="Show the run in Weights & Biases too, where wandb is installed.")
@click.option("--list-recipes", is_flag=True, is_eager=True, expose_value=False, callback=list_recipes, help="And end.")
@click.option("--resume", is_flag=True, help="Go on with the run in --run from its last checkpoint.")
@click.pass_context
def train(
    context, shards, run, recipe_name, max_stall, resume, processes, parallel, timeout, init_from, wandb, **options
):
    """Train the net of 2012, or another, on a shard set.

    Ctrl-C finishes the step and saves; --resume goes on to the same weights as if nothing had happened.

    \b
    Examples:
      alexnet-train
      alexnet-train --shards out --run runs/first --epochs 10 --precision bf16
      alexnet-train --run runs/first --resume
      alexnet-train --recipe paper --processes 2 --parallel columns
      alexnet-train --recipe six-conv --shards other --init-from runs/six-conv-2009
      alexnet-train --model resnet18 --batch-size 256 --epochs 90
    """
    options["model"] = resolve(options["model"])
    run = run or Path("runs") / (recipe_name if options["model"] == ALEXNET else options["model"].replace(":", "-"))
    saved = _last_checkpoint(run) if resume else None
    asked_device = options.pop("device")
    if saved and _from_default(context, "device"):  # another device would end the promise of equal bits unasked
        asked_device = torch.device(saved["config"]["device"]).type
    device = pick_device(asked_device)
    check_run_folder(run, resume)
    if saved and _from_default(context, "shards"):
        shards = Path(saved["config"]["shards"])
    shard_set = open_shard_set(shards)
    shards = shards.resolve()  # the run may be used from another folder
    asked = {
        name: value
        for name, value in {**options, "recipe": recipe_name}.items()
        if not _from_default(context, "recipe_name" if name == "recipe" else name)
    }
    if saved and init_from:  # refused unless it is the one that the run began with
        asked["init_from"] = str(checkpoints.run_checkpoint(init_from).resolve())
    if saved and "epochs" in asked and "steps" not in asked:
        asked["steps"] = 0  # more epochs are wanted, so an earlier --steps must not end them
    shared = shared_work(saved, processes, parallel, device, options["model"], recipe_name)
    if saved:
        config = resumed(saved["config"], {**asked, **shared, "shards": str(shards), "device": str(device)})
    else:
        config = _new_config(shards, recipe_name, device, options, shard_set, shared, init_from)
    if config.processes > 1 and not world_size():
        del saved
        context.exit(launch(config.processes, sys.argv[1:]))
    team = join(device, timeout)
    try:
        ended = _run(config, shard_set, run, saved, init_from, team, resume, max_stall, wandb)
    except RuntimeError as error:
        told = team.diagnose(error)
        if told is error:
            raise
        raise told from error
    finally:
        team.leave()
    context.exit(ended)


def _run(
    config: Config,
    shard_set: ShardSet,
    run: Path,
    saved: dict | None,
    init_from: Path | None,
    team: Team,
    resume: bool,
    max_stall: float | None,
    wandb: bool,
) -> int:
    """Train as one of the processes; the exit code."""
    stats = statistics.load_stats(shard_set)
    if saved:
        _check_same(saved, shard_set, run)
    first = trained_nets.load(checkpoints.run_checkpoint(init_from)) if init_from and not saved else None
    with lock_run(run) if team.first else nullcontext():
        if team.ranks > 1:
            team.check_same(facts(config, shard_set, stats, saved, first))
        trainer = Trainer(config, shard_set, stats, run, saved, first, team)
        del saved, first  # half a gigabyte
        for line in introduction(trainer, resume):
            _say(team, line)
        if trainer.finished:
            more = f"all {trainer.last_step:,} steps are done; more with --epochs or --steps"
            if trainer.early_stop.now:
                more = f"{trainer.early_stop.waited} epochs gave no better error; more with --early-stop 0"
            _say(team, f"{run}: {more}")
            return 0
        if team.first:
            with write_errors(run / "config.json"):
                write_json(run / "config.json", {**config.described(), "recipe": trainer.recipe.described()})
        show = Lines(trainer)
        quiet = nullcontext(lambda line: None)
        with tracked(trainer, show, wandb) if team.first else quiet as report, stop_on_signals() as stop:
            ended_with_parent(partial(os.kill, os.getpid(), signal.SIGTERM))
            ended = trainer.train(report, stop)
    for line in show.closing():
        _say(team, line)
    if not ended:
        if team.first:
            click.echo(
                f"stopped and saved after step {trainer.steps_done:,}; go on with: alexnet-train --run {run} --resume",
                err=True,
            )
        return stop.exit_code or 128 + signal.SIGTERM  # another process was asked
    if max_stall is not None and team.first:
        check_stall(trainer, max_stall)
    return 0


def _say(team: Team, line: str) -> None:
    if team.first:
        click.echo(line)


def _new_config(
    shards: Path,
    recipe_name: str,
    device: torch.device,
    options: dict,
    shard_set: ShardSet,
    shared: dict,
    init_from: Path | None,
) -> Config:
    chosen, model = recipe(recipe_name), options["model"]
    chosen = chosen.with_weights() if init_from else chosen
    classes, batch_size = len(shard_set.classes), options["batch_size"] or chosen.batch_size
    crop = crop_for(model, options["crop"] or 0, shard_set.size, chosen)
    chosen = recipe_for(model, crop, chosen, options["schedule"] or "")
    first = chosen.rate or first_rate(classes) if model == ALEXNET else first_rate_for(model, classes, batch_size)
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
        precision=options["precision"] or chosen.precision or default_precision(device),
        model=model,
        **shared,
        schedule=chosen.schedule,
        early_stop=options["early_stop"],
        init_from=str(checkpoints.run_checkpoint(init_from).resolve()) if init_from else "",
        crop=crop,
    )


def _last_checkpoint(run: Path) -> dict:
    if not (run / "last.pt").exists():
        raise UsageError(
            f"{run}: nothing to resume there (no last.pt)",
            "name the run's folder with --run, or begin one without --resume",
        )
    return checkpoints.check_run(checkpoints.load(run / "last.pt"), run / "last.pt")


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
    console.ensure_utf8()
    try:
        console.run(train)
    except SystemExit as end:
        if "WORLD_SIZE" not in os.environ:
            raise
        # One of several: all is saved and closed. Python's own end would stop threads that gloo or DALI still have,
        # which now and then is an abort in place of the exit code.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    main()
