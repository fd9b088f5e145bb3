"""`alexnet-eval`: the error of runs on a split, one view or ten, averaged; by class, and what each photo is taken for.

In:  runs, a shard set.  Out: two lines, and the files that were asked for, all of one pass.
"""

import math
from dataclasses import replace
from pathlib import Path

import click
import torch

from ..model.analysis.confusion import ANSWERS, WORST, Tally
from ..model.recipes.config import PRECISIONS, check_precision, default_precision
from ..model.training import checkpoint as checkpoints
from ..model.training.evaluate import Result, evaluate
from ..model.training.precision import set_precision
from ..model.weights.trained import Trained, load_trained
from ..pipeline.errors import UsageError
from ..pipeline.files import write_csv, write_json
from ..pipeline.plan.views import views_of
from ..pipeline.shards.manifest import MANIFEST, ShardSet, open_shard_set, read_manifest
from . import console
from .output_guard import check_outputs
from .process import pick_device
from .submission import TOP, Predictions


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
@click.option("--weights", help="Of the runs' probabilities: 1,2 counts the second twice.  [default: all the same]")
@click.option("--per-class", type=click.Path(path_type=Path), help="Write each class's errors to a CSV.")
@click.option(
    "--confusion",
    type=click.Path(path_type=Path),
    help=f"Write a CSV of what the {WORST} worst classes are taken for, the {ANSWERS} most frequent answers of each.",
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help=f"Write a line a photo, by file name: its {TOP} most probable classes, as labels from 0, or as ILSVRC IDs "
    "from 1 of shards in the devkit's order. Such a split may lack labels.",
)
def evaluate_runs(
    runs, shards, split, views, resize, precision, device, json_file, weights, per_class, confusion, predictions
):
    """Measure top-1 and top-5 error of RUNS, folders or .pt files; of several, the probabilities are averaged.

    Of a folder the best checkpoint is used, or the last where there is no best.

    \b
    Examples:
      alexnet-eval runs/source2012
      alexnet-eval runs/a runs/b --views 10 --json result.json
      alexnet-eval runs/a --per-class classes.csv --confusion confusion.csv
      alexnet-eval runs/a runs/b --weights 2,1 --views 10 --split test --predictions submission.txt
    """
    device = pick_device(device)
    check_outputs([(json_file, ".json"), (per_class, ".csv"), (confusion, ".csv"), (predictions, ".txt")])
    shares = _shares(weights, len(runs))
    precision = precision or default_precision(device)
    check_precision(precision, device.type)
    set_precision(precision)
    files = [checkpoints.run_checkpoint(run) for run in runs]
    trained = [load_trained(file) for file in files]
    shard_set = open_shard_set(shards or _own_shards(trained[0]))
    # A set of unlabelled photos alone has no classes of its own: the net's will do.
    known = shard_set if shard_set.classes else replace(shard_set, classes=tuple(trained[0].classes))
    for each in trained:
        each.check_set(known)
        each.check_pictures(trained[0])
    stats, recipe = trained[0].stats, trained[0].recipe
    nets = [each.net.to(device).to(memory_format=torch.channels_last) for each in trained]
    views_of(views, resize or shard_set.size, recipe.crop)  # said before a photo is read
    tally = Tally(len(known.classes), device) if per_class or confusion else None
    kept = None
    if predictions:
        kept = Predictions(shard_set.split(split), _label_order(shard_set, trained[0]), len(known.classes))
    watching = [one.see for one in (tally, kept) if one is not None]

    def see(*batch) -> None:
        for one in watching:
            one(*batch)

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
            weights=shares,
            see=see if watching else None,
            without_labels=kept is not None and tally is None,
            advance=advance,
        )
    assert result is not None, "nobody asked the pass to stop"
    names = ", ".join(str(file) for file in files)
    weighted = f", weights {', '.join(f'{share:.3g}' for share in shares)}" if shares else ""
    click.echo(
        f"{names}{weighted}: {result.images:,} photos of {shard_set.root}/{split}, {views} view{'s' * (views > 1)}"
        + (f" of {resize}x{resize}" if resize else "")
    )
    click.echo(_errors(result))
    if kept is not None:
        kept.write(predictions)
        kept.close()
        top = min(TOP, len(known.classes))
        click.echo(f"{predictions}: {result.images:,} lines by file name, {top} classes each: {kept.numbering()}")
    if tally is not None:
        _write_classes(tally, shard_set, per_class, confusion)
    if json_file:
        loss, top1, top5 = (
            None if math.isnan(value) else value for value in (result.loss, result.top1_error, result.top5_error)
        )
        write_json(
            json_file,
            {
                "runs": [str(file) for file in files],
                **({"weights": shares} if shares else {}),
                "shards": str(shard_set.root),
                "split": split,
                "views": views,
                "resize": resize,
                "images": result.images,
                "loss": loss,
                "top1_error": top1,
                "top5_error": top5,
            },
        )


def _shares(weights: str | None, runs: int) -> list[float] | None:
    """The runs' shares of the average, whose sum is one; None where all have the same."""
    if weights is None:
        return None
    try:
        numbers = [float(text) for text in weights.split(",")]
    except ValueError:
        raise UsageError(f"--weights {weights} are not numbers", "say --weights 1,2 of two runs") from None
    if len(numbers) != runs:
        raise UsageError(f"--weights {weights}: {len(numbers)} of {runs} runs", "name one for each run, in their order")
    if not all(0 < number < math.inf for number in numbers):
        raise UsageError(f"--weights {weights}: not all positive", "leave a run out that should not count")
    largest = max(numbers)  # so that their sum is finite
    scaled = [number / largest for number in numbers]
    return [number / sum(scaled) for number in scaled]


def _errors(result: Result) -> str:
    if math.isnan(result.top1_error):
        return "no labels, so no error"
    return (
        f"top-1 error {100 * result.top1_error:.2f}%   top-5 error {100 * result.top5_error:.2f}%   "
        f"loss {result.loss:.4f}"
    )


def _label_order(shard_set: ShardSet, trained: Trained) -> str:
    """How the net's classes are numbered, as dataset.json says it; "" where nothing is left that says so."""
    if not shard_set.classes:
        if not (trained.shards / MANIFEST).exists():
            return ""
        shard_set = read_manifest(trained.shards)
    return shard_set.manifest.get("label_order", "")


def _write_classes(tally: Tally, shard_set: ShardSet, per_class: Path | None, confusion: Path | None) -> None:
    names = shard_set.classes
    if per_class:
        words = [entry.get("words", "") for entry in shard_set.manifest["classes"]]
        errors = [
            (names[one.label], words[one.label], one.images, _decimals(one.top1_error), _decimals(one.top5_error))
            for one in tally.errors()
        ]
        write_csv(per_class, ("class", "words", "images", "top1_error", "top5_error"), errors)
        click.echo(f"{per_class}: errors of {len(errors):,} classes")
    if confusion:
        answers = [(names[one.label], names[one.answer], one.count, _decimals(one.share)) for one in tally.confusions()]
        write_csv(confusion, ("true", "predicted", "count", "share"), answers)
        click.echo(f"{confusion}: wrong answers of the {min(WORST, len(names))} worst classes")


def _decimals(share: float) -> str:
    """A share for a CSV; nothing where a class has no photos."""
    return "" if math.isnan(share) else f"{share:.6f}"


def _own_shards(trained: Trained) -> Path:
    if not trained.shards.exists():
        raise UsageError(f"{trained.file}: its shard set {trained.shards} is gone", "say where it is with --shards")
    return trained.shards


def main() -> None:
    """Entry of the console script."""
    console.ensure_utf8()
    console.run(evaluate_runs)


if __name__ == "__main__":
    main()
