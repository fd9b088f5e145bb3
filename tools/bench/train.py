"""`alexnet-bench train`: training steps of our net, of variants of it, and of torchvision's AlexNet.

In:  a shard set.  Out: a table, and a JSON file.
"""

from contextlib import ExitStack
from itertools import repeat

import click
import torch

from ...model.recipes.config import PRECISIONS, check_precision
from ...model.recipes.recipe import recipe
from ...model.training.precision import lacks, set_precision
from ...pipeline.errors import DeviceError, TrainingError, UsageError
from ...pipeline.files import write_json
from ...pipeline.plan.plan import Plan
from ...pipeline.shards import stats as statistics
from ...pipeline.shards.manifest import open_shard_set
from ...pipeline.stream.streams import train_stream
from .. import options
from ..output_guard import check_outputs
from ..process import pick_device
from .timing import as_json, machine, pick, ratio, rounds, row, table
from .train_cases import NETS, WITH_DATA, Case, Steps, make

NAMES = (*NETS, WITH_DATA)
# Title of a column, its cases, and the case by which they are divided.
RATIOS = (
    ("to torch's LRN", ("paper",), "paper-torch-lrn"),
    ("to no LRN", ("paper",), "paper-no-lrn"),
    ("to torchvision", ("source2012", "paper", "no-lrn", "paper-no-lrn"), "torchvision"),
    ("data to resident", (WITH_DATA,), "paper"),
)


@click.command("train", context_settings=options.SETTINGS)
@options.shards()
@options.json_file("Also write the results and their ratios to this JSON file.")
@click.option("--cases", help=f"Some of {', '.join(NAMES)}, separated by commas.  [default: all]")
@click.option("--precision", help="Some of fp32, tf32, bf16, separated by commas.  [default: all of the device]")
@options.batch_size
@click.option("--steps", type=click.IntRange(1), help="Steps per round.  [default: 3; 100 on a GPU]")
@options.repeats
@click.option(
    "--compile", "compiled", is_flag=True, help="Each case with torch.compile too; needs a C++ compiler on the CPU."
)
@click.option("--graphs", is_flag=True, help="Each resident case as a CUDA graph too.")
@options.device
@options.force
def bench_train(shards, json_file, cases, precision, batch_size, steps, repeats, compiled, graphs, device, force):
    """Measure training steps of several nets in interleaved rounds.

    All cases train on the same pictures in channels_last memory. The paper's net has our response normalisation,
    torch's own, one per column (paper-torch-lrn), or none (paper-no-lrn); source2012 and no-lrn are the nets of those
    recipes; torchvision is its `alexnet`. One batch stays in memory; paper-data reads the shard set instead. The few
    batches that it prefetches during other cases' rounds are counted: on a GPU choose many --steps.

    \b
    Examples:
      alexnet-bench train --shards out --json train.json
      alexnet-bench train --cases paper,paper-torch-lrn,paper-no-lrn --precision bf16 --steps 2
    """
    names = pick("case", cases, NAMES)
    check_outputs([(json_file, ".json")], force)
    where = pick_device(device)
    on_gpu = where.type == "cuda"
    if graphs and not on_gpu:
        raise DeviceError("--graphs needs a GPU", "leave the option out, or use --device cuda")
    has = [name for name in PRECISIONS if not lacks(name, where) and (on_gpu or name != "tf32")]
    precisions = pick("precision", precision, PRECISIONS) if precision else has
    for each in precisions:
        check_precision(each, where.type)
        set_precision(each, where)  # refuses what the GPU lacks before anything is opened
    ways = ["eager", *["compile"] * compiled, *["graph"] * graphs]
    chosen = [
        Case(name, each, way)
        for each in precisions
        for way in ways
        for name in names
        if not (way == "graph" and name == WITH_DATA)  # a CUDA graph reads its batch at a fixed address
    ]
    shard_set = open_shard_set(shards)
    stats = statistics.load_stats(shard_set)
    read = recipe("paper")
    plan = Plan(shard_set.split("train").records, batch_size, size=shard_set.size, augmentation=read.augmentation)
    steps = steps or (100 if on_gpu else 3)
    head = f"{machine()}\n{_device(where)}, batches of {batch_size}, {steps} steps per round, {repeats} rounds"
    click.echo(head)
    with ExitStack() as stack:
        stream = stack.enter_context(
            train_stream(shard_set, stats, plan, light=read.light(read.epochs), mean=read.mean, device=where)
        )
        batches = iter(stream)
        resident = next(batches)
        if len(resident.labels) < batch_size:
            raise UsageError(
                f"{shards}: {len(resident.labels)} training records, fewer than a batch of {batch_size}",
                "choose a smaller --batch-size",
            )
        nets = {name: make(name, len(shard_set.classes), stats, where) for name in dict.fromkeys(map(_net, chosen))}
        running = {
            case.name: Steps(case, *nets[_net(case)], batches if case.has_data else repeat(resident), steps, where)
            for case in chosen
        }
        rates = rounds(running, repeats)  # type: ignore[arg-type]
        for name, ran in running.items():
            if not ran.loss.isfinite():
                raise TrainingError(f"case {name}: the loss is not finite, so the rate is meaningless")
    rows = [row(name, measured) for name, measured in rates.items()]
    found = ratios(chosen, rates)
    click.echo(table(rows, found))
    if json_file:
        write_json(json_file, {"machine": head, "rows": as_json(rows), "ratios": found})


def ratios(chosen: list[Case], rates: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return the ratios of RATIOS by title and case, each within the same precision and way of running."""
    found: dict[str, dict[str, float]] = {}
    for title, names, other in RATIOS:
        for case in chosen:
            to = Case(other, case.precision, case.way).name
            if case.net in names and to in rates:
                found.setdefault(title, {})[case.name] = ratio(rates[case.name], rates[to])
    return found


def _net(case: Case) -> str:
    return "paper" if case.has_data else case.net


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
