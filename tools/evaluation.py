"""What `alexnet-eval` does: one pass over a split, then its errors, printed and written to the requested files.

In:  the options' values.  Out: two lines, and files: JSON, CSV, a submission file.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch

from ..model.analysis.confusion import WORST, Tally
from ..model.recipes.config import check_precision, default_precision
from ..model.training import checkpoint as checkpoints
from ..model.training.evaluate import EvalOptions, Result, evaluate
from ..model.training.precision import set_precision
from ..model.weights.trained import Trained, load_trained
from ..pipeline.csv_files import write_csv
from ..pipeline.errors import ShardError, UsageError
from ..pipeline.files import write_json
from ..pipeline.plan.views import views_of
from ..pipeline.shards.manifest import MANIFEST, ShardSet, open_shard_set, read_manifest
from . import console
from .output_guard import check_outputs
from .process import pick_device
from .submission import TOP, Predictions


@dataclass(frozen=True)
class Request:
    """The options' values, by the names of evaluate.py's parameters; None for one that was not given."""

    runs: tuple[Path, ...]
    shards: Path | None
    split: str
    views: int
    resize: int | None
    precision: str | None
    device: str
    json_file: Path | None
    weights: str | None
    per_class: Path | None
    confusion: Path | None
    predictions: Path | None
    force: bool

    def outputs(self) -> list[tuple[Path | None, str]]:
        """The output files, each with its suffix."""
        files = [(self.json_file, ".json"), (self.per_class, ".csv"), (self.confusion, ".csv")]
        return [*files, (self.predictions, ".txt")]


@dataclass(frozen=True)
class Ensemble:
    """Trained nets and the shard set that they are evaluated on.

    Attributes:
        files: their checkpoints, in the order of the runs.
        trained: the nets; the first one's statistics, crop and mean are used for all.
        weights: of the nets in the average, with sum 1; None: equal.
        shard_set: checked to fit each net.
        classes: its class names; the nets' for a set without labels.
    """

    files: list[Path]
    trained: list[Trained]
    weights: list[float] | None
    shard_set: ShardSet
    classes: tuple[str, ...]


def run_command(request: Request) -> None:
    """Evaluate as requested, print the errors and write the files.

    Raises:
        UsageError: options that are wrong or contradict each other, an output file that must not be overwritten.
        ShardError, StatsError, TrainingError: a shard set or a run that cannot be read, or that do not fit each other.
    """
    device = pick_device(request.device)
    check_outputs(request.outputs(), request.force)
    weights = normalized_weights(request.weights, len(request.runs))
    precision = request.precision or default_precision(device)
    check_precision(precision, device.type)
    set_precision(precision, device)
    ensemble = load_ensemble(request, weights)
    tally = Tally(len(ensemble.classes), device) if request.per_class or request.confusion else None
    submission = None
    if request.predictions:
        split = ensemble.shard_set.split(request.split)
        submission = Predictions(split, _label_order(ensemble), len(ensemble.classes))
    result = _measure(request, ensemble, device, precision, tally, submission)
    _print_result(request, ensemble, result)
    if request.predictions and submission is not None:
        submission.write(request.predictions)
        submission.close()
        top, numbering = min(TOP, len(ensemble.classes)), submission.numbering()
        click.echo(f"{request.predictions}: {result.images:,} lines by file name, {top} classes each: {numbering}")
    if tally is not None:
        _write_classes(tally, ensemble.shard_set, request.per_class, request.confusion)
    if request.json_file:
        write_json(request.json_file, _as_json(request, ensemble, result))


def normalized_weights(weights: str | None, runs: int) -> list[float] | None:
    """Parse `--weights 1,2` into weights with sum 1; None for equal weights.

    Raises:
        UsageError: not one positive, finite number for each run.
    """
    if weights is None:
        return None
    try:
        numbers = [float(text) for text in weights.split(",")]
    except ValueError:
        raise UsageError(f"--weights {weights}: not numbers", "for two runs, for example --weights 1,2") from None
    if len(numbers) != runs:
        raise UsageError(f"--weights {weights}: {len(numbers)} weights for {runs} runs", "name one weight for each run")
    if not all(0 < number < math.inf for number in numbers):
        raise UsageError(f"--weights {weights}: not all positive", "leave out the runs that should not count")
    largest = max(numbers)  # divided first, so that their sum is finite
    scaled = [number / largest for number in numbers]
    return [number / sum(scaled) for number in scaled]


def load_ensemble(request: Request, weights: list[float] | None) -> Ensemble:
    """Load the runs, open the shard set and check that they fit each other and the requested views.

    Raises:
        UsageError: a run or the shard set does not exist.
        ShardError, StatsError, TrainingError: one cannot be read, or they do not fit.
    """
    files = [checkpoints.run_checkpoint(run) for run in request.runs]
    trained = [load_trained(file) for file in files]
    first = trained[0]
    shard_set = open_shard_set(request.shards or _own_shards(first))
    labelled = shard_set if shard_set.classes else replace(shard_set, classes=tuple(first.classes))
    for each in trained:
        each.check_set(labelled)
        each.check_pictures(first)
    _check_split(shard_set, request.split)
    views_of(request.views, request.resize or shard_set.size, first.recipe.crop)  # raises before a photo is read
    return Ensemble(files, trained, weights, shard_set, labelled.classes)


def _check_split(shard_set: ShardSet, split: str) -> None:
    """Check that the set has photos in a split; the hint names another one, preferably not that of the training."""
    try:
        shard_set.split(split)
    except ShardError as error:
        others = [name for name in ("val", "test") if shard_set.has(name)]
        if not others:
            raise
        raise ShardError(error.message, f"evaluate the split that it has: --split {others[0]}") from None


def _own_shards(trained: Trained) -> Path:
    if not trained.shards.exists():
        raise UsageError(f"{trained.file}: its shard set {trained.shards} does not exist", "name its folder: --shards")
    return trained.shards


def _label_order(ensemble: Ensemble) -> str:
    """How the nets' classes are numbered, as in dataset.json; "" if no shard set is left that says so."""
    shard_set, trained = ensemble.shard_set, ensemble.trained[0]
    if not shard_set.classes:
        if not (trained.shards / MANIFEST).exists():
            return ""
        shard_set = read_manifest(trained.shards)
    return shard_set.manifest.get("label_order", "")


def _measure(
    request: Request,
    ensemble: Ensemble,
    device: torch.device,
    precision: str,
    tally: Tally | None,
    submission: Predictions | None,
) -> Result:
    """Evaluate all nets in one pass, which also fills the tally and the submission."""
    stats, recipe = ensemble.trained[0].stats, ensemble.trained[0].recipe
    nets = [each.net.to(device).to(memory_format=torch.channels_last) for each in ensemble.trained]
    options = EvalOptions(
        views=request.views,
        resize=request.resize,
        crop=recipe.crop,
        mean=recipe.mean if request.resize is None else "rgb",  # the mean image has the stored size
        device=device,
        precision=precision,
        weights=ensemble.weights,
        allow_unlabelled=submission is not None and tally is None,
    )
    with console.progress("evaluating", ensemble.shard_set.split(request.split).records) as advance:

        def see(records, labels, probabilities) -> None:
            for each in (tally, submission):
                if each is not None:
                    each.see(records, labels, probabilities)
            advance(len(records))

        result = evaluate(nets, ensemble.shard_set, stats, request.split, options, see=see)
    assert result is not None, "only `stop` abandons an evaluation"
    return result


def _print_result(request: Request, ensemble: Ensemble, result: Result) -> None:
    names, weights = ", ".join(map(str, ensemble.files)), ensemble.weights
    weighted = f", weights {', '.join(f'{weight:.3g}' for weight in weights)}" if weights else ""
    views = f"{request.views} view{'s' * (request.views > 1)}"
    resized = f" of {request.resize}x{request.resize}" if request.resize else ""
    split = f"{ensemble.shard_set.root}/{request.split}"
    click.echo(f"{names}{weighted}: {result.images:,} photos of {split}, {views}{resized}")
    if math.isnan(result.top1_error):
        click.echo("no labels, so no error")
    else:
        click.echo(
            f"top-1 error {100 * result.top1_error:.2f}%   top-5 error {100 * result.top5_error:.2f}%   "
            f"loss {result.loss:.4f}"
        )


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
    """A fraction for a CSV; empty for a class without photos."""
    return "" if math.isnan(share) else f"{share:.6f}"


def _as_json(request: Request, ensemble: Ensemble, result: Result) -> dict:
    numbers = {"loss": result.loss, "top1_error": result.top1_error, "top5_error": result.top5_error}
    return {
        "runs": [str(file) for file in ensemble.files],
        **({"weights": ensemble.weights} if ensemble.weights else {}),
        "shards": str(ensemble.shard_set.root),
        "split": request.split,
        "views": request.views,
        "resize": request.resize,
        "images": result.images,
        **{name: None if math.isnan(value) else value for name, value in numbers.items()},
    }
