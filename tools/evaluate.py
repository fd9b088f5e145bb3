"""`alexnet-eval`: the error of runs on a split, one view or ten, averaged."""

from pathlib import Path

import click
import torch

from ..model import checkpoint as checkpoints
from ..model.evaluate import evaluate
from ..model.precision import PRECISIONS, check_precision, default_precision, set_precision
from ..pipeline.errors import UsageError
from ..pipeline.files import write_json
from ..pipeline.shardset import open_shard_set
from ..pipeline.views import views_of
from . import console
from .process import pick_device


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="alexnet-dali")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--shards", type=click.Path(path_type=Path), help="The shard set.  [default: the one trained on]")
@click.option("--split", default="val", show_default=True, help="Which split to measure.")
@click.option(
    "--views",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="1: the centre. 10: corners, centre and their reflections, as the paper's results. 5, k*k or 2*k*k: views.py.",
)
@click.option("--resize", type=click.IntRange(8), help="Resize the square to this side before views are cut.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="[default: fp32 on the CPU, tf32 on a GPU]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result there too.")
def evaluate_runs(runs, shards, split, views, resize, precision, device, json_file):
    """Measure top-1 and top-5 error of RUNS, folders or .pt files; of several, the probabilities are averaged.

    Of a folder the best checkpoint is used, or the last where there is no best.

    \b
    Examples:
      alexnet-eval runs/source2012
      alexnet-eval runs/a runs/b --views 10 --json result.json
    """
    device = pick_device(device)
    if json_file and not json_file.absolute().parent.is_dir():
        raise UsageError(f"{json_file}: no such folder to write it to", "make the folder first")
    precision = precision or default_precision(device)
    check_precision(precision, device.type)
    set_precision(precision)
    files = [checkpoints.run_checkpoint(run) for run in runs]
    trained = [checkpoints.load_trained(file) for file in files]
    shard_set = open_shard_set(shards or _own_shards(trained[0]))
    for each in trained:
        each.check_set(shard_set)
        each.check_pictures(trained[0])
    stats, recipe = trained[0].stats, trained[0].recipe
    nets = [each.net.to(device).to(memory_format=torch.channels_last) for each in trained]
    views_of(views, resize or shard_set.size, recipe.crop)  # said before a photo is read
    with console.progress("evaluating", shard_set.split(split).records) as advance:
        result = evaluate(
            nets,
            shard_set,
            stats,
            split=split,
            views=views,
            resize=resize,
            crop=recipe.crop,
            mean=recipe.mean if resize is None else "rgb",  # the mean image has the stored size
            device=device,
            precision=precision,
            advance=advance,
        )
    assert result is not None, "nobody asked the pass to stop"
    names = ", ".join(str(file) for file in files)
    click.echo(
        f"{names}: {result.images:,} photos of {shard_set.root}/{split}, {views} view{'s' * (views > 1)}"
        + (f" of {resize}x{resize}" if resize else "")
    )
    click.echo(
        f"top-1 error {100 * result.top1_error:.2f}%   top-5 error {100 * result.top5_error:.2f}%   "
        f"loss {result.loss:.4f}"
    )
    if json_file:
        write_json(
            json_file,
            {
                "runs": [str(file) for file in files],
                "shards": str(shard_set.root),
                "split": split,
                "views": views,
                "resize": resize,
                "images": result.images,
                "loss": result.loss,
                "top1_error": result.top1_error,
                "top5_error": result.top5_error,
            },
        )


def _own_shards(trained: checkpoints.Trained) -> Path:
    if not trained.shards.exists():
        raise UsageError(f"{trained.file}: its shard set {trained.shards} is gone", "say where it is with --shards")
    return trained.shards


def main() -> None:
    """Entry of the console script."""
    console.run(evaluate_runs)


if __name__ == "__main__":
    main()
