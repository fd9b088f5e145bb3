"""`alexnet-train`: its options. The work is in run.py, which imports torch and DALI; `--help` needs neither."""

import os
import sys

import click
from click.core import ParameterSource

from ...model.nets.options import ALEXNET
from ...model.recipes.config import PARALLEL, TIMEOUT
from ...model.recipes.recipe import RECIPES, recipe
from ...model.recipes.schedules import SCHEDULES
from ...pipeline.stream.autotune import DECODERS
from .. import console, options


class Percent(click.ParamType):
    """A percentage, 0..100, as a float: `1%`, `1` and `0.5%` are accepted."""

    name = "percent"

    def convert(self, value, param, ctx) -> float:
        """Return the number."""
        if isinstance(value, float):
            return value
        try:
            percent = float(value.strip().removesuffix("%"))
        except ValueError:
            self.fail(f"{value!r} is not a percentage such as 1% or 0.5%", param, ctx)
        if not 0 <= percent <= 100:
            self.fail(f"{value} is not between 0% and 100%", param, ctx)
        return percent


def list_recipes(context: click.Context, option: click.Parameter, requested: bool) -> None:
    """Print the table of recipes and exit."""
    if not requested:
        return
    for name in RECIPES:
        each = recipe(name)
        click.echo(f"{name:<14}  {each.summary}" + (f"  [{each.published}]" if each.published else ""))
    context.exit()


@click.command(context_settings=options.SETTINGS)
@options.version
@options.shards("The shard set, with its statistics.")
@options.path("--run", help="Folder of checkpoints and metrics.  [default: runs/RECIPE, or runs/MODEL]")
@click.option(
    "--model",
    default=ALEXNET,
    show_default=True,
    help="alexnet; or, by plain SGD, a classifier of torchvision such as resnet18, or timm:NAME if timm is installed.",
)
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    default="source2012",
    show_default=True,
    help="source2012: the program of 2012. paper: the paper's text. Others: --list-recipes.",
)
@click.option("--crop", type=click.IntRange(1), help="Side of the input, pixels.  [default: 224, or the model's]")
@click.option("--epochs", type=click.IntRange(1), help="Total epochs.  [default: the recipe's; 91 for source2012]")
@click.option(
    "--steps",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Total steps, if they end before the epochs do; 0: no limit.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Images per global batch.  [default: the recipe's, 128]")
@click.option(
    "--rate",
    "--lr",
    "rate",
    type=float,
    help="Initial learning rate.  [default: 0.01 for 1,000 classes, less for fewer]",
)
@click.option(
    "--schedule", type=click.Choice(SCHEDULES), help="How the learning rate changes.  [default: the recipe's]"
)
@options.precision()
@options.device
@click.option(
    "--deterministic",
    is_flag=True,
    help="On a GPU, use only operations that repeat bit for bit, so that a resumed run does too; slower. A CPU's do.",
)
@click.option(
    "--decode",
    type=click.Choice(["auto", *DECODERS]),
    default="auto",
    show_default=True,
    help="Who decodes: dali (on a GPU if there is one); threads of this program, before DALI's graph; fused: threads "
    "without that graph (only on a CPU). auto: fused on a CPU; on a GPU threads, or dali with fewer than 4 cores.",
)
@options.seed("Seed of initial weights, order and augmentation.")
@click.option("--log-every", type=click.IntRange(1), default=20, show_default=True, help="Steps between log lines.")
@click.option(
    "--save-every",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Steps between checkpoints within an epoch; each epoch ends with one.",
)
@click.option(
    "--max-stall",
    type=Percent(),
    help="For example 1%: exit with code 1 after training if more of the time was spent waiting for data.",
)
@click.option("--processes", type=click.IntRange(1), help="Number of processes.  [default: one per GPU; 1 on the CPU]")
@click.option(
    "--parallel",
    type=click.Choice(PARALLEL),
    help="columns: one column of the net per process, as in the paper. data: a part of each batch per process.  "
    "[default: columns for two processes, else data]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=TIMEOUT,
    show_default=True,
    help="Seconds to wait for the other processes.",
)
@options.path("--init-from", help="Start from the weights of this run: all layers but the last.")
@click.option(
    "--early-stop",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Stop after this many epochs without a lower validation error; 0: never.",
)
@click.option("--wandb", is_flag=True, help="Also log to Weights & Biases; needs wandb.")
@click.option(
    "--list-recipes",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=list_recipes,
    help="List the recipes and exit.",
)
@click.option("--resume", is_flag=True, help="Continue the run in --run from its last checkpoint.")
@click.pass_context
def train(context, **values):
    """Train AlexNet, or another net, on a shard set.

    Ctrl-C finishes the current step and saves; --resume then continues to the same weights as without the
    interruption.

    \b
    Examples:
      alexnet-train
      alexnet-train --shards out --run runs/first --epochs 10 --precision bf16
      alexnet-train --run runs/first --resume
      alexnet-train --recipe paper --processes 2 --parallel columns
      alexnet-train --recipe six-conv --shards other --init-from runs/six-conv-2009
      alexnet-train --model resnet18 --batch-size 256 --epochs 90
    """
    from .run import run_command

    defaults = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    given = {name for name in values if context.get_parameter_source(name) not in defaults}
    context.exit(run_command(values, given))


def main() -> None:
    """Run the console script."""
    console.ensure_utf8()
    try:
        console.run(train)
    except SystemExit as end:
        if "WORLD_SIZE" not in os.environ:
            raise
        # One of several processes, with everything saved and closed. The interpreter's own shutdown would stop
        # threads that gloo or DALI still run, which sometimes aborts instead of returning the exit code.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    main()
