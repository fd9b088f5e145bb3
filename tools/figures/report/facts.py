"""What a report says in words and numbers: the run, its result beside the paper's, its speed, the commands.

In:  a run as opened, its checkpoint, its metrics.  Out: plain values for the template. Nothing is drawn here.
"""

import importlib.metadata
import platform
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ....model.nets.factory import ALEXNET
from ....model.recipes.config import Config, resumed
from ....model.recipes.published import TABLE_1, TABLE_2
from ....model.recipes.recipe import recipe
from ....model.training.checkpoint import fits_this_version
from ....model.training.evaluate import Result
from ....pipeline.shards.manifest import ShardSet
from ... import console
from ..open_run import Opened

PAPER = next(row for row in TABLE_2 if row[0] == "1 CNN")
CENTRE = next(row for row in TABLE_1 if row[0].startswith("CNN, centre"))
IMAGENET, WORDNET = 1000, re.compile(r"n\d{8}")  # classes, and what their folders are called
PUBLISHED = re.compile(r"([\d.]+) / ([\d.]+) (.+)")  # as recipes have it: 40.7 / 18.2 val 2012, ten views
WAITS = {"disk_percent": "disk", "decode_percent": "decoding", "graph_percent": "graph", "copy_percent": "copying"}
ELSEWHERE = {"name", "summary", "published", "epochs", "batch_size", "rate", "precision", "schedule"}  # told as facts


@dataclass(frozen=True)
class Row:
    """A row of results: errors in percent, None where nobody has them; `ours`, of this run."""

    name: str
    conditions: str
    top1: float | None
    top5: float | None
    ours: bool = False


@dataclass(frozen=True)
class Speed:
    """How fast a run was.

    Attributes:
        images_per_second: of training, all processes.
        stall_percent: of that time was waiting for data.
        waits: what was waited for, and its part of the time in percent; {} where that was not measured.
        seconds: of training and validation, of the epochs that have ended.
    """

    images_per_second: float
    stall_percent: float
    waits: dict[str, float]
    seconds: float


def config_of(opened: Opened, saved: dict) -> Config:
    """The run's configuration, complete.

    Raises:
        TrainingError: it is of another version.
    """
    with fits_this_version(opened.trained.file):
        return resumed(saved["config"], {})


def facts(opened: Opened, saved: dict, config: Config, measured: str) -> list[tuple[str, str]]:
    """What was trained on what: names and values.

    Args:
        measured: the split that was looked at.
    """
    shard_set, chosen = opened.shard_set, opened.trained.recipe
    photos = [f"{split.records:,} {name}" for name, split in shard_set.splits.items() if split.records]
    rows = [
        ("Net", config.model if config.model != ALEXNET else f"alexnet, {_count(saved):,} parameters"),
        ("Recipe", f"{config.recipe}: {chosen.summary}"),
        ("Shard set", str(shard_set.root)),
        ("Photos", f"{', '.join(photos)}; {shard_set.size}x{shard_set.size}, {shard_set.encoding}"),
        ("Classes", f"{len(shard_set.classes):,}: {_some(opened.names)}"),
        ("Length", _length(config, saved)),
        ("Batch", f"{config.batch_size:,} photos"),
        ("Rate", f"{config.rate:.4g}; schedule {config.schedule or chosen.schedule}"),
        ("Precision", f"{config.precision} on {config.device}"),
        ("Processes", f"{config.processes}, {config.parallel}" if config.processes > 1 else "1"),
        ("Decoding", str(saved.get("decode", config.decode))),
        ("Seed", str(config.seed)),
        ("Checkpoint", f"{opened.trained.file.name}, {_when(saved)}"),
    ]
    if config.init_from:
        rows.insert(2, ("Began with", f"the weights of {config.init_from}"))
    trained_on = saved.get("shards")  # an export need not say
    if trained_on and shard_set.has("train") and trained_on != shard_set.split("train").fingerprint():
        rows.insert(3, ("Trained on", f"{config.shards}: other photos than those of this page's {measured}"))
    built = shard_set.manifest.get("versions") or {}
    rows.append(("Page made by", ", ".join(f"{name} {version}" for name, version in versions().items())))
    if built:
        rows.append(("Shards made by", ", ".join(f"{name} {version}" for name, version in built.items())))
    return rows


def differences(saved: dict, config: Config) -> list[tuple[str, str, str]]:
    """What the recipe has otherwise than source2012, field by field: name, here, there."""
    here, there = saved["recipe"], recipe("source2012").described()
    rows = [
        (name, here[name], there[name])
        for name in there
        if name in here and name not in ELSEWHERE | {"net"} and _plain(here[name]) != _plain(there[name])
    ]
    if config.model == ALEXNET:
        rows += [
            (f"net: {name}", here["net"][name], there["net"][name])
            for name in there["net"]
            if name in here["net"] and here["net"][name] != there["net"][name]
        ]
    return [(name.replace("_", " "), _plain(one), _plain(other)) for name, one, other in rows]


def results(opened: Opened, config: Config, result: Result | None, split: str, views: int) -> list[Row]:
    """This run's errors, and the paper's to stand beside them."""
    rows = []
    if result is not None:
        said = f"{opened.shard_set.root.name}/{split}, {result.images:,} photos, {views_in_words(views)}"
        rows.append(Row("This run", said, 100 * result.top1_error, 100 * result.top5_error, True))
    own = opened.trained.recipe.published if config.model == ALEXNET else ""
    found = PUBLISHED.fullmatch(own)
    if found and float(found[1]) != PAPER[1]:
        rows.append(Row(f"The authors, {config.recipe}", found[3], float(found[1]), float(found[2])))
    elif own and not found:
        rows.append(Row(f"The authors, {config.recipe}", own, None, None))
    rows.append(Row("The paper, one net", "ILSVRC-2012 val, 50,000 photos, ten views", PAPER[1], PAPER[2]))
    if views == 1:
        rows.append(Row("The paper, one net", "ILSVRC-2010 test, centre view", CENTRE[1], CENTRE[2]))
    return rows


def comparison(opened: Opened, config: Config, result: Result | None, views: int) -> str:
    """Whether the two may be compared at all, in a sentence or two."""
    shard_set = opened.shard_set
    name, classes = shard_set.root.name, len(shard_set.classes)
    said = []
    if not is_imagenet(shard_set):
        said.append(
            f"These errors do not compare with the paper's: {name} is not ImageNet. Guessing among its {classes:,} "
            f"class{'es' * (classes != 1)} is wrong {100 * (1 - 1 / classes):.4g}% of the time, among the paper's "
            f"1,000 it is 99.9%."
        )
    elif result is not None and views != 10:
        said.append(
            "The paper's 40.7% and 18.2% are of ten views, which are about 1.5 points better than the centre's."
        )
    if config.model != ALEXNET:
        said.append(f"The net is {config.model}, not the paper's.")
    elif config.recipe not in ("source2012", "paper") and not opened.trained.recipe.published:
        said.append(f"The paper has no result for the recipe {config.recipe}: what stands below is its own net's.")
    if result is not None and classes <= 5:
        said.append(f"Of {classes} classes all are among the first five, so the top-5 error says nothing.")
    return " ".join(said)


def is_imagenet(shard_set: ShardSet) -> bool:
    """Whether the classes look like those of the competition: a thousand, called by WordNet's numbers."""
    return len(shard_set.classes) == IMAGENET and all(WORDNET.fullmatch(name) for name in shard_set.classes)


def speed(lines: Sequence[dict], batch_size: int) -> Speed | None:
    """How fast the epochs were that have ended; before the first has, the steps. None where no line says it."""
    for kind in ("epoch", "step"):
        before, seconds, images, stalled, tested = 0.0, 0.0, 0.0, 0.0, 0.0
        waits = dict.fromkeys(WAITS, 0.0)
        for line in lines:
            rate, stall, step = (_number(line, name) for name in ("images_per_second", "stall_percent", "step"))
            if line["kind"] != kind or rate <= 0 or "stall_percent" not in line:
                continue
            count = (step - before) * batch_size
            before, took = step, count / rate
            seconds, images, stalled = seconds + took, images + count, stalled + took * stall
            tested += _number(line, "val_seconds")
            for name in WAITS:
                waits[name] += took * _number(line, name)
        if seconds > 0:
            parts = {WAITS[name]: value / seconds for name, value in waits.items()}
            return Speed(images / seconds, stalled / seconds, parts if any(parts.values()) else {}, seconds + tested)
    return None


def train_command(opened: Opened, config: Config, saved: dict) -> tuple[str, ...]:
    """What trains such a run again, with everything said that a default might change."""
    folder = opened.trained.file.parent
    words = ["alexnet-train", "--shards", config.shards, "--run", f"{folder}-again", "--recipe", config.recipe]
    if config.model != ALEXNET:
        words += ["--model", config.model, "--crop", str(config.crop)]
    for name in ("epochs", "batch_size", "rate", "schedule", "precision", "seed"):
        if getattr(config, name) != "":
            words += [_option(name), str(getattr(config, name))]
    words += ["--device", torch.device(config.device).type, "--decode", saved.get("decode") or config.decode]
    words += ["--processes", str(config.processes)]
    if config.processes > 1:
        words += ["--parallel", config.parallel]
    for name, default in (("steps", 0), ("early_stop", 0), ("init_from", ""), ("log_every", 20), ("save_every", 1000)):
        if getattr(config, name) != default:
            words += [_option(name), str(getattr(config, name))]
    return _parts(words)


def evaluate_command(opened: Opened, split: str, views: int) -> tuple[str, ...]:
    """What measures this page's errors again."""
    words = ["alexnet-eval", str(opened.run), *_shards(opened), "--split", split, "--views", str(views)]
    return _parts(words)


def index_command(opened: Opened) -> tuple[str, ...]:
    """What makes the index that neighbours are found in."""
    return _parts(["alexnet-figures", "index", str(opened.run), *_shards(opened)])


def versions() -> dict[str, str]:
    """Of what made the page."""
    names = ("alexnet-dali", "torch", "numpy")
    return {**{name: importlib.metadata.version(name) for name in names}, "Python": platform.python_version()}


def duration(speed_: Speed | None) -> str:
    """The time of training in words."""
    return console.duration(speed_.seconds).replace(" ", "\N{NO-BREAK SPACE}") if speed_ else ""


def views_in_words(views: int) -> str:
    """`the centre view`, `ten views`."""
    return {1: "centre view", 10: "ten views"}.get(views, f"{views} views")


def _shards(opened: Opened) -> list[str]:
    same = opened.trained.shards == opened.shard_set.root
    return [] if same else ["--shards", str(opened.shard_set.root)]


def _parts(words: Sequence[str]) -> tuple[str, ...]:
    """A command in parts that a line may not break: an option and its value."""
    parts: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not (parts and parts[-1][0].startswith("--") and len(parts[-1]) == 1):
            parts.append([])
        parts[-1].append(word)
    return tuple(shlex.join(part) for part in parts)


def _count(saved: dict) -> int:
    """Numbers that were learned: statistics of batches are not."""
    learned = saved.get("velocity", {}).keys() & saved["model"].keys() or saved["model"].keys()
    return sum(saved["model"][name].numel() for name in learned)


def _length(config: Config, saved: dict) -> str:
    said = f"{config.epochs:,} epochs" if config.epochs != 1 else "1 epoch"
    if config.steps:
        said += f", ended after {config.steps:,} steps"
    if config.early_stop:
        said += f"; sooner where {config.early_stop} give no better error"
    return said


def _when(saved: dict) -> str:
    epoch, steps = saved.get("epoch"), saved.get("steps_done")
    if epoch is None or steps is None:
        return "exported"
    within = f" and {saved['step']:,} steps" if saved.get("step") else ""
    return f"after {epoch:,} epoch{'s' * (epoch != 1)}{within} ({steps:,} steps in all)"


def _some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _number(line: dict, name: str) -> float:
    """A value of a line of metrics; 0 where there is none, or something else."""
    value = line.get(name)
    return value if isinstance(value, int | float) else 0.0


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
