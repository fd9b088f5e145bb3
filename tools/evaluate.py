"""`alexnet-eval`: its options. The work is in evaluation.py, which imports torch and DALI; `--help` needs neither."""

import click

from . import console, options


@click.command(context_settings=options.SETTINGS)
@options.version
@click.argument("runs", nargs=-1, required=True, type=options.PATH)
@options.run_shards
@click.option("--split", default="val", show_default=True, help="The split to evaluate.")
@click.option(
    "--views",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Crops per photo, whose probabilities are averaged. 1: the centre. 10: corners, centre and their reflections, "
    "as in the paper. Also 5, k*k (a grid) and 2*k*k (with reflections).",
)
@click.option("--resize", type=click.IntRange(8), help="Resize the square to this side before it is cropped.")
@options.precision()
@options.device
@options.json_file()
@click.option("--weights", help="One weight per run for the average: 1,2 counts the second twice.  [default: equal]")
@options.path("--per-class", help="Write each class's errors to this CSV file.")
@options.path(
    "--confusion",
    help="Write the 20 worst classes, with the 5 most frequent wrong answers of each, to this CSV file.",
)
@options.path(
    "--predictions",
    help="Write a line per photo, in the order of the file names: its 5 most probable classes, as labels from 0, or as "
    "ILSVRC IDs from 1 for a shard set in the devkit's order. The split may lack labels.",
)
@options.force
def evaluate_runs(**values):
    """Measure top-1 and top-5 error of RUNS, folders or .pt files; the probabilities of several are averaged.

    In a folder the best checkpoint is used, or the last if there is no best.

    \b
    Examples:
      alexnet-eval runs/source2012
      alexnet-eval runs/a runs/b --views 10 --json result.json
      alexnet-eval runs/a --per-class classes.csv --confusion confusion.csv
      alexnet-eval runs/a runs/b --weights 2,1 --views 10 --split test --predictions submission.txt
    """
    from .evaluation import Request, run_command

    run_command(Request(**values))


def main() -> None:
    """Run the console script."""
    console.ensure_utf8()
    console.run(evaluate_runs)


if __name__ == "__main__":
    main()
