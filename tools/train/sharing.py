"""How `alexnet-train` shares a run: how many processes, which way, and what all of them must have in common.

In:  what was asked for, and what the run was before.  Out: plain values for its Config.
"""

import hashlib
import os

import torch

from ...model.nets.alexnet import COLUMNS
from ...model.nets.registry import ALEXNET
from ...model.recipes.config import Config, option
from ...model.recipes.recipe import recipe
from ...model.training.parallel import check_parallel, default_parallel
from ...pipeline.errors import UsageError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from .launch import PARENT


def shared_work(
    saved: dict | None, processes: int | None, parallel: str | None, device: torch.device, model: str, name: str
) -> dict:
    """How many processes share the work, and how: as asked, as it was, or as many as there are GPUs."""
    outside = world_size()
    if outside and os.environ.get(PARENT) is None and processes not in (None, outside):
        raise UsageError(
            f"--processes {processes}, but WORLD_SIZE says that {outside} were started from outside",
            "leave --processes to torchrun, or unset WORLD_SIZE",
        )
    before = saved["config"] if saved else {}
    cards = torch.cuda.device_count() if device.type == "cuda" else 0
    if outside:
        processes = outside
    elif processes is None:
        processes = before.get("processes") or (2 if parallel == "columns" else cards or 1)
        if cards and processes > cards:  # of a run that several machines began
            processes = cards
    model, name = before.get("model", model), before.get("recipe", name)
    chosen = parallel or default_parallel(processes, model, recipe(name))
    if parallel is None and processes == before.get("processes"):
        chosen = before["parallel"]
    if processes == 1 and parallel is not None:
        raise UsageError(f"--parallel {parallel} is for several processes", f"say how many: --processes {COLUMNS}")
    if processes > 1:
        columns = recipe(name).net.columns if model == ALEXNET else 1
        check_parallel(chosen, processes, name if model == ALEXNET else model, columns)
    return {"processes": processes, "parallel": chosen if processes > 1 else "alone"}


def world_size() -> int:
    """How many processes were started from outside, or by launch.py; 0, none.

    Raises:
        UsageError: WORLD_SIZE is no number.
    """
    said = os.environ.get("WORLD_SIZE", "0")
    if not said.isdigit():
        raise UsageError(f"WORLD_SIZE is {said!r}, no number", "unset it, or start with torchrun")
    return int(said)


def facts(config: Config, shard_set: ShardSet, stats: Stats, saved: dict | None, first: dict | None) -> dict:
    """What all processes of a run must have in common: options, records, statistics, and where they begin.

    Args:
        saved, first: the checkpoints to go on from, or to begin with.
    """
    options = {option(name): value for name, value in config.described().items() if name != "shards"}
    options["--device"] = torch.device(config.device).type
    for name, checkpoint in (("last.pt", saved), ("--init-from", first)):
        if checkpoint:
            options[f"step of {name}"] = checkpoint["steps_done"]
            options[f"weights of {name}"] = _digest(checkpoint["model"])
    splits = {f"records of {name}": split.fingerprint() for name, split in shard_set.splits.items()}
    return {**options, **splits, "statistics": stats.fingerprint, "torch": torch.__version__}


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
