"""Our rows of the paper's tables, and the contribution of each part of the net and its training.

In:  a run's folder or .pt file, or a JSON file of alexnet-eval.  Out: an `Ours` for each; a `Part` for each part.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from ...model.nets.factory import ALEXNET
from ...model.training import metrics
from ...model.training.checkpoint import fits_this_version, run_checkpoint
from ...model.weights.trained import load
from ...pipeline.errors import TrainingError, UsageError

WHOLE = "source2012"
# A part, the recipe without it, and its contribution in points of top-1 / top-5 in the paper (sections 3.2 to 4.2).
PARTS = (
    ("two columns, against one-gpu", "one-gpu", "1.7 / 1.2"),
    ("response normalisation (no-lrn)", "no-lrn", "1.4 / 1.2"),
    ("overlapping pooling (pool-2x2)", "pool-2x2", "0.4 / 0.3"),
    ("lighting (no-lighting)", "no-lighting", "over 1 / -"),
    ("dropout (no-dropout)", "no-dropout", "substantial"),
    ("random crops (no-crops)", "no-crops", "substantial"),
    ("columns that talk (no-talk)", "no-talk", ""),
    ("ReLU, against tanh", "tanh", ""),
)
MIDDLE = ("any middle layer", "about 2 / -")
TEN = ("ten views, against the centre", "1.5 / 1.3")


@dataclass(frozen=True)
class Ours:
    """One of our rows: a run, or an ensemble of runs.

    Attributes:
        recipes: of each run.
        files: their checkpoints, resolved.
        top1_error, top5_error: shares, 0..1; top-5 is None if only a checkpoint exists.
        split, views, resize, shards: the evaluation; `shards` is the name of the set's folder.
        fingerprints: of the training photos of each run; "" if its checkpoint does not exist.
        epochs: of training, for each run.
        evaluated: by alexnet-eval, not during the training.
    """

    recipes: tuple[str, ...]
    files: tuple[str, ...]
    top1_error: float
    top5_error: float | None
    split: str
    views: int
    resize: int | None
    shards: str
    fingerprints: tuple[str, ...]
    epochs: tuple[int, ...]
    evaluated: bool

    @property
    def name(self) -> str:
        """The row's name: the recipes and the number of runs of each."""
        counts = {recipe: self.recipes.count(recipe) for recipe in dict.fromkeys(self.recipes)}
        return " + ".join(f"{count} x {recipe}" if count > 1 else recipe for recipe, count in counts.items())

    @property
    def table(self) -> str:
        """The table below which the row is printed."""
        return "table1" if self.split == "test" else "table2"

    @property
    def conditions(self) -> str:
        """The evaluation and the epochs as text."""
        epochs = ", ".join(str(count) for count in dict.fromkeys(self.epochs) if count)
        return (
            f"{self.shards}/{self.split}, {self.views} view{'s' * (self.views > 1)}"
            + (f" of {self.resize}x{self.resize}" if self.resize else "")
            + (f", {epochs} epoch{'s' * (epochs != '1')}" if epochs else "")
        )

    def as_json(self) -> dict:
        """Return the row as JSON; scripts rely on its keys."""
        return {"row": self.name, **vars(self)}


def read_result(path: Path) -> Ours:
    """Read a run, or a result of alexnet-eval.

    Raises:
        UsageError: the path does not exist, is neither of the two, or is a run without a validation.
        TrainingError: a checkpoint is damaged.
    """
    return _read_json(path) if path.suffix == ".json" and not path.is_dir() else _read_run(path)


def distinct(rows: list[Ours]) -> list[Ours]:
    """Remove duplicates; a result of alexnet-eval replaces the run's own result for the same evaluation."""
    exact = {_measured(row) for row in rows if row.evaluated}
    kept = [row for row in rows if row.evaluated or _measured(row) not in exact]
    return list(dict.fromkeys(kept))


def _measured(row: Ours) -> tuple:
    return row.files, row.shards, row.split, row.views, row.resize


def _read_run(path: Path) -> Ours:
    file = run_checkpoint(path)
    about = _about(file)
    top1, top5 = about.top1_error, about.top5_error
    if top1 is None:
        raise UsageError(
            f"{path}: has no validation error",
            "train an epoch on shards with a split val, or name a result of alexnet-eval --json",
        )
    return Ours(
        recipes=(about.recipe,),
        files=(str(file.resolve()),),
        top1_error=top1,
        top5_error=top5,
        split="val",
        views=1,
        resize=None,
        shards=about.shards,
        fingerprints=(about.fingerprint,),
        epochs=(about.epochs,),
        evaluated=False,
    )


@dataclass(frozen=True)
class _About:
    """The properties of a run that its checkpoint and its metrics contain."""

    recipe: str
    shards: str
    fingerprint: str
    epochs: int
    top1_error: float | None
    top5_error: float | None


def _about(file: Path) -> _About:
    saved = load(file)
    with fits_this_version(file):
        config, best = saved["config"], saved["best_error"]
        name = config["recipe"] if config.get("model", ALEXNET) == ALEXNET else config["model"]
        name += ", pre-trained" if config.get("init_from") else ""
        done = [line for line in metrics.read(file.parent / "metrics.jsonl") if line["kind"] == "epoch"]
        tested = [line for line in done if "val_top1_error" in line]
        epochs = max([line["epoch"] for line in done], default=saved["epoch"])
        top1, top5 = (None if math.isinf(best) else best), None
        if tested:
            at_best = min(tested, key=lambda line: line["val_top1_error"])
            top1, top5 = at_best["val_top1_error"], at_best["val_top5_error"]
        return _About(name, Path(config["shards"]).name, saved["shards"], epochs, top1, top5)


def _read_json(path: Path) -> Ours:
    hint = "name a result of alexnet-eval --json, or a run's folder"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        runs = [Path(run) for run in result["runs"]]
        views, resize, split, shards = (result[name] for name in ("views", "resize", "split", "shards"))
        top1, top5 = (None if result[name] is None else float(result[name]) for name in ("top1_error", "top5_error"))
        if not runs or not all(isinstance(name, str) for name in (split, shards)) or not isinstance(views, int):
            raise ValueError("runs, split, shards or views have a wrong type")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", hint) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a result of alexnet-eval: {type(error).__name__} {error}", hint) from None
    if top1 is None:
        raise UsageError(f"{path}: the split has no labels, so there is no error", "leave it out")
    about = [_about_or_name(run) for run in runs]
    return Ours(
        recipes=tuple(one.recipe for one in about),
        files=tuple(str(run.resolve()) for run in runs),
        top1_error=top1,
        top5_error=top5,
        split=split,
        views=views,
        resize=resize,
        shards=Path(shards).name,
        fingerprints=tuple(one.fingerprint for one in about),
        epochs=tuple(one.epochs for one in about),
        evaluated=True,
    )


def _about_or_name(file: Path) -> _About:
    """Return a checkpoint's properties; only its folder's name if it cannot be read."""
    try:
        return _about(file)
    except (UsageError, TrainingError):
        return _About(file.parent.name or file.stem, "", "", 0, None, None)


@dataclass(frozen=True)
class Part:
    """The contribution of a part: differences as shares, positive if it helps; None if no two runs are comparable."""

    name: str
    published: str
    ours_top1: float | None = None
    ours_top5: float | None = None
    conditions: str = ""


def parts(rows: Iterable[Ours]) -> list[Part]:
    """Return the contributions of all parts, one for each condition (shard set, split, views, epochs)."""
    rows = list(rows)
    found: list[Part] = []
    for name, recipe, published in PARTS:
        compared = [
            _difference(name, published, without, whole)
            for without, whole in ((_of(group, recipe), _of(group, WHOLE)) for group in _comparable(rows))
            if without and whole
        ]
        found += compared or [Part(name, published)]
    found.append(Part(*MIDDLE))
    centres = {_evaluation(row): row for row in rows if row.views == 1}
    pairs = [(centres[_evaluation(row)], row) for row in rows if row.views == 10 and _evaluation(row) in centres]
    found += [
        replace(_difference(*TEN, [centre], [ten]), conditions=f"{ten.name}: {ten.conditions}") for centre, ten in pairs
    ] or [Part(*TEN)]
    return found


def _comparable(rows: list[Ours]) -> list[list[Ours]]:
    """Group single runs with the same training photos, epochs and evaluation."""
    groups: dict[tuple, list[Ours]] = {}
    for row in rows:
        if len(row.recipes) == 1 and row.fingerprints[0]:
            key = (row.fingerprints, row.epochs, row.shards, row.split, row.views, row.resize)
            groups.setdefault(key, []).append(row)
    return list(groups.values())


def _of(group: list[Ours], recipe: str) -> list[Ours]:
    return [row for row in group if row.recipes == (recipe,)]


def _evaluation(row: Ours) -> tuple:
    return row.files, row.shards, row.split, row.resize


def _difference(name: str, published: str, without: list[Ours], whole: list[Ours]) -> Part:
    top1 = mean(row.top1_error for row in without) - mean(row.top1_error for row in whole)
    fives = [[row.top5_error for row in side if row.top5_error is not None] for side in (without, whole)]
    known = len(fives[0]) == len(without) and len(fives[1]) == len(whole)
    top5 = mean(fives[0]) - mean(fives[1]) if known else None
    seeds = f", {len(without)} against {len(whole)} runs" if len(without) + len(whole) > 2 else ""
    return Part(name, published, top1, top5, whole[0].conditions + seeds)
