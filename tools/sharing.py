"""How `alexnet-train` shares a run: how many processes, which way, and what all of them must have in common.

In:  what was asked for, and what the run was before.  Out: plain values for its Config.
"""

import os

import torch

from ..model.config import Config, option
from ..model.parallel import check_parallel, default_parallel
from ..model.recipes import recipe
from ..model.registry import ALEXNET
from ..pipeline.errors import UsageError
from ..pipeline.shardset import ShardSet
from ..pipeline.stats import Stats
from .launch import PARENT


def shared_work(
    saved: dict | None, processes: int | None, parallel: str | None, device: torch.device, model: str, name: str
) -> dict:
    """How many processes share the work, and how: as asked, as it was, or as many as there are GPUs."""
    outside = int(os.environ.get("WORLD_SIZE", "1"))
    if outside > 1 and os.environ.get(PARENT) is None and processes not in (None, outside):
        raise UsageError(
            f"--processes {processes}, but {outside} were started from outside", "leave --processes to torchrun"
        )
    before = saved["config"] if saved else {}
    if outside > 1:
        processes = outside
    elif processes is None:
        processes = before.get("processes") or (torch.cuda.device_count() if device.type == "cuda" else 1)
    model, name = before.get("model", model), before.get("recipe", name)
    if parallel is None and processes == before.get("processes"):
        parallel = before.get("parallel")
    chosen = parallel or default_parallel(processes, model, recipe(name))
    if processes > 1:
        columns = recipe(name).net.columns if model == ALEXNET else 1
        check_parallel(chosen, processes, name if model == ALEXNET else model, columns)
    return {"processes": processes, "parallel": chosen if processes > 1 else "alone"}


def facts(config: Config, shard_set: ShardSet, stats: Stats) -> dict:
    """What all processes of a run must have in common."""
    options = {option(name): value for name, value in config.described().items() if name not in ("shards", "device")}
    splits = {f"records of {name}": split.fingerprint() for name, split in shard_set.splits.items()}
    return {**options, **splits, "statistics": stats.fingerprint, "torch": torch.__version__}
