"""What `alexnet-train` does: a Config from its options, then one process that trains, or a launcher of several.

In:  the options' values.  Out: lines for the user, the run's folder, an exit code.
"""

import hashlib
import os
import signal
import sys
import threading
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from ...model.nets.factory import resolve
from ...model.nets.lrn import TORCH, pick_form
from ...model.nets.options import ALEXNET
from ...model.recipes.config import Config, option
from ...model.training import checkpoint as checkpoints
from ...model.training.distributed import GoneError, Team, join
from ...model.training.run_files import lock_run, write_errors
from ...model.training.trainer import Trainer
from ...model.weights import trained as trained_nets
from ...pipeline.errors import DeviceError, TrainingError
from ...pipeline.files import write_json
from ...pipeline.shards.manifest import ShardSet, open_shard_set
from ...pipeline.shards.stats import Stats, load_stats
from .. import console
from ..output_guard import check_run_folder
from ..process import pick_device, stop_on_signals
from .configure import check_classes, last_checkpoint, new_config, resumed_config, world_size
from .launch import launch, stop_with_launcher
from .progress import Lines, check_stall
from .run_summary import introduction
from .tracking import tracked

CLOSING = 5.0  # seconds for a process to close its files after another one is gone; its GPU may never answer again


def run_command(options: dict[str, Any], given: set[str]) -> int:
    """Train as the options request, in this process or in several.

    Args:
        options: the values by the names of cli.py's parameters.
        given: names of the options that were given; the others have their defaults.
    Returns:
        The exit code.
    """
    model = options["model"] = resolve(options["model"])
    run = options["run"] or Path("runs") / (options["recipe"] if model == ALEXNET else model.replace(":", "-"))
    saved = last_checkpoint(run) if options["resume"] else None
    device_name, shards = options["device"], options["shards"]
    if saved and "device" not in given:  # on another device the results would not be bitwise the same
        device_name = torch.device(saved["config"]["device"]).type
    if saved and "shards" not in given:
        shards = Path(saved["config"]["shards"])
    device = pick_device(device_name)
    check_run_folder(run, options["resume"])
    shard_set = open_shard_set(shards)
    check_classes(shard_set)
    if saved:
        config = resumed_config(saved, options, given, shard_set, device)
    else:
        config = new_config(options, shard_set, device)
    if config.processes > 1 and not world_size():
        del saved  # half a gigabyte
        return launch(config.processes, sys.argv[1:])
    team = join(device, options["timeout"], _say_and_end)
    try:
        with team.reporting():
            code = _run_rank(config, shard_set, run, saved, options, team)
    except GoneError as error:  # it has been printed
        return error.exit_code
    except RuntimeError as error:
        if "deterministic implementation" not in str(error):
            raise
        raise DeviceError(
            f"--deterministic: a layer of {model} has no such operation on a GPU ({str(error).split()[0]})",
            "start the run without --deterministic",
        ) from error
    team.leave()  # not after an error: it may wait for the others, and main() ends the process without it
    return code


def _say_and_end(error: GoneError) -> None:
    """Print why the run ends, and give this process a few seconds to close what it has open."""
    console.show_error(error)
    sys.stderr.flush()
    last = threading.Timer(CLOSING, os._exit, [error.exit_code])
    last.daemon = True
    last.start()


def _run_rank(
    config: Config, shard_set: ShardSet, run: Path, saved: dict | None, options: dict[str, Any], team: Team
) -> int:
    """Train as one process of the team; return the exit code."""
    stats, init_from = load_stats(shard_set), options["init_from"]
    if saved:
        _check_same_data(saved, shard_set, run)
    first = trained_nets.load(checkpoints.run_checkpoint(init_from)) if init_from and not saved else None
    with lock_run(run) if team.first else nullcontext():
        if team.ranks > 1:
            team.check_same(facts(config, shard_set, stats, saved, first))
        trainer = Trainer(config, shard_set, stats, run, saved, first, team)
        del saved, first  # half a gigabyte
        for line in introduction(trainer, options["resume"]):
            _print(team, line)
        if trainer.finished:
            _print(team, f"{run}: {_finished(trainer)}")
            return 0
        if team.first:
            with write_errors(run / "config.json"):
                write_json(run / "config.json", {**config.described(), "recipe": trainer.recipe.described()})
        show = Lines(trainer)
        quiet = nullcontext(lambda line: None)
        with tracked(trainer, show, options["wandb"]) if team.first else quiet as report, stop_on_signals() as stop:
            stop_with_launcher(partial(os.kill, os.getpid(), signal.SIGTERM))
            completed = trainer.train(report, stop)
    for line in show.closing():
        _print(team, line)
    if not completed:
        if team.first:
            click.echo(
                f"stopped and saved after step {trainer.steps_done:,}; "
                f"continue with: alexnet-train --run {run} --resume",
                err=True,
            )
        return stop.exit_code or 128 + signal.SIGTERM  # another process received the signal
    if options["max_stall"] is not None and team.first:
        check_stall(trainer, options["max_stall"])
    return 0


def _print(team: Team, line: str) -> None:
    if team.first:
        click.echo(line)


def _finished(trainer: Trainer) -> str:
    if trainer.state.early_stop.now:
        return f"no lower validation error for {trainer.state.early_stop.waited} epochs; continue with --early-stop 0"
    return f"all {trainer.last_step:,} steps are done; continue with more --epochs or --steps"


def _check_same_data(saved: dict, shard_set: ShardSet, run: Path) -> None:
    checkpoints.check_classes(saved["classes"], shard_set, run / "last.pt")
    if saved["shards"] != shard_set.split("train").fingerprint():
        raise TrainingError(
            f"{run / 'last.pt'}: trained on another shard set than {shard_set.root}",
            "name its shard set with --shards, or start a new run with another --run",
        )


def facts(config: Config, shard_set: ShardSet, stats: Stats, saved: dict | None, first: dict | None) -> dict[str, Any]:
    """Return what all processes of a run must agree on: options, records, statistics, initial weights, arithmetic.

    Args:
        saved, first: the checkpoint to resume, and the one to take initial weights from; or None.
    """
    options = {option(name): value for name, value in config.described().items() if name != "shards"}
    options["--device"] = torch.device(config.device).type
    if config.model == ALEXNET:
        begun = saved.get("lrn", TORCH) if saved else None
        own = torch.device(torch.device(config.device).type)  # without a number: the GPU that `join` has set
        options["form of response normalisation"] = pick_form(own, begun)
    for name, checkpoint in (("last.pt", saved), ("--init-from", first)):
        if checkpoint:
            options[f"step of {name}"] = checkpoint.get("steps_done", 0)  # imported weights have none
            options[f"weights of {name}"] = _digest(checkpoint["model"])
    splits = {f"records of {name}": split.fingerprint() for name, split in shard_set.splits.items()}
    return {**options, **splits, "statistics": stats.fingerprint, "torch": torch.__version__}


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
