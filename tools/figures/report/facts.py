"""The text and numbers of a report: the run, its result beside the paper's, its throughput, the commands.

In:  a run as opened, its checkpoint, its metrics.  Out: plain values for the template; no figures.
"""

import platform
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ....model.nets.factory import ALEXNET
from ....model.recipes.config import Config, config_command, resumed
from ....model.recipes.published import TABLE_1, TABLE_2
from ....model.recipes.recipe import recipe
from ....model.training.checkpoint import fits_this_version
from ....model.training.evaluate import Result
from ....pipeline.shards.manifest import ShardSet
from ....pipeline.versions import installed_versions
from ... import console
from ..open_run import Opened

PAPER = next(row for row in TABLE_2 if row[0] == "1 CNN")
CENTRE = next(row for row in TABLE_1 if row[0].startswith("CNN, centre"))
IMAGENET, WORDNET = 1000, re.compile(r"n\d{8}")  # number of classes, and the pattern of their folder names
PUBLISHED = re.compile(r"([\d.]+) / ([\d.]+) (.+)")  # format in recipes: 40.7 / 18.2 val 2012, ten views
WAITS = {"disk_percent": "disk", "decode_percent": "decoding", "graph_percent": "graph", "copy_percent": "copying"}
SHOWN_AS_FACTS = {"name", "summary", "published", "epochs", "batch_size", "rate", "precision", "schedule"}


@dataclass(frozen=True)
class Row:
    """A row of results: errors in percent, None if unknown; `ours` marks this run."""

    name: str
    conditions: str
    top1: float | None
    top5: float | None
    ours: bool = False


@dataclass(frozen=True)
class Speed:
    """The throughput of a run.

    Attributes:
        images_per_second: in training, all processes together.
        stall_percent: share of the training time spent waiting for data, in percent.
        waits: cause of the waiting to its share of the time in percent; {} if not measured.
        seconds: of training and validation, over the completed epochs.
    """

    images_per_second: float
    stall_percent: float
    waits: dict[str, float]
    seconds: float


def config_of(opened: Opened, saved: dict) -> Config:
    """Return the run's complete configuration.

    Args:
        saved: the checkpoint's content.
    Raises:
        TrainingError: it was written by another version.
    """
    with fits_this_version(opened.trained.file):
        return resumed(saved["config"], {})


def facts(opened: Opened, saved: dict, config: Config, measured: str) -> list[tuple[str, str]]:
    """Return names and values that describe the net, its data and its training.

    Args:
        saved: the checkpoint's content.
        measured: the evaluated split.
    """
    shard_set, chosen = opened.shard_set, opened.trained.recipe
    photos = [f"{split.records:,} {name}" for name, split in shard_set.splits.items() if split.records]
    rows = [
        ("Net", config.model if config.model != ALEXNET else f"alexnet, {_count(saved):,} parameters"),
        ("Recipe", f"{config.recipe}: {chosen.summary}"),
        ("Shard set", str(shard_set.root)),
        ("Photos", f"{', '.join(photos)}; {shard_set.size}x{shard_set.size}, {shard_set.encoding}"),
        ("Classes", f"{len(shard_set.classes):,}: {_some(opened.names)}"),
        ("Length", _length(config)),
        ("Batch", f"{config.batch_size:,} photos"),
        ("Rate", f"{config.rate:.4g}; schedule {config.schedule or chosen.schedule}"),
        ("Precision", f"{config.precision} on {config.device}"),
        ("Processes", f"{config.processes}, {config.parallel}" if config.processes > 1 else "1"),
        ("Decoding", str(saved.get("decode", config.decode))),
        ("Seed", str(config.seed)),
        ("Checkpoint", f"{opened.trained.file.name}, {_when(saved)}"),
    ]
    if config.init_from:
        rows.insert(2, ("Initialised from", str(config.init_from)))
    trained_on = saved.get("shards")  # optional in an export
    if trained_on and shard_set.has("train") and trained_on != shard_set.split("train").fingerprint():
        rows.insert(3, ("Trained on", f"{config.shards}: not the photos of this page's {measured}"))
    built = shard_set.manifest.get("versions") or {}
    rows.append(("Page written by", ", ".join(f"{name} {version}" for name, version in versions().items())))
    if built:
        rows.append(("Shards written by", ", ".join(f"{name} {version}" for name, version in built.items())))
    return rows


def differences(saved: dict, config: Config) -> list[tuple[str, str, str]]:
    """Return the fields in which the recipe differs from source2012: name, this run's value, source2012's value."""
    here, source = saved["recipe"], recipe("source2012").described()
    rows = [
        (name, here[name], source[name])
        for name in source
        if name in here and name not in SHOWN_AS_FACTS | {"net"} and _plain(here[name]) != _plain(source[name])
    ]
    if config.model == ALEXNET:
        rows += [
            (f"net: {name}", here["net"][name], source["net"][name])
            for name in source["net"]
            if name in here["net"] and here["net"][name] != source["net"][name]
        ]
    return [(name.replace("_", " "), _plain(one), _plain(other)) for name, one, other in rows]


def results(opened: Opened, config: Config, result: Result | None, split: str, views: int) -> list[Row]:
    """Return the rows of the result table: this run's errors and the paper's."""
    rows = []
    if result is not None:
        conditions = f"{opened.shard_set.root.name}/{split}, {result.images:,} photos, {views_in_words(views)}"
        rows.append(Row("This run", conditions, 100 * result.top1_error, 100 * result.top5_error, True))
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
    """Return sentences on how far the run's errors can be compared with the paper's; "" without restriction."""
    shard_set = opened.shard_set
    name, classes = shard_set.root.name, len(shard_set.classes)
    sentences = []
    if not is_imagenet(shard_set):
        sentences.append(
            f"These errors cannot be compared with the paper's: {name} is not ImageNet. The error of guessing is "
            f"{100 * (1 - 1 / classes):.4g}% with its {classes:,} class{'es' * (classes != 1)}, and 99.9% with the "
            f"paper's 1,000."
        )
    elif result is not None and views != 10:
        sentences.append(
            "The paper's 40.7% and 18.2% are for ten views, which are about 1.5 points better than the centre view."
        )
    if config.model != ALEXNET:
        sentences.append(f"The net is {config.model}, not the paper's.")
    elif config.recipe not in ("source2012", "paper") and not opened.trained.recipe.published:
        sentences.append(f"The paper has no result for the recipe {config.recipe}; its rows are for its own net.")
    if result is not None and classes <= 5:
        sentences.append(f"With {classes} classes the top-5 error is always zero and not meaningful.")
    return " ".join(sentences)


def is_imagenet(shard_set: ShardSet) -> bool:
    """Return whether the classes are ImageNet's by their form: a thousand, named by WordNet numbers."""
    return len(shard_set.classes) == IMAGENET and all(WORDNET.fullmatch(name) for name in shard_set.classes)


def speed(lines: Sequence[dict], batch_size: int) -> Speed | None:
    """Return the throughput over the completed epochs, or over the steps before the first; None if not recorded."""
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
    """Return the command that repeats the training, with every option whose default may change."""
    values = {**config.described(), "decode": saved.get("decode") or config.decode}
    return _parts(config_command(values, f"{opened.trained.file.parent}-again"))


def evaluate_command(opened: Opened, split: str, views: int) -> tuple[str, ...]:
    """Return the command that repeats the evaluation."""
    words = ["alexnet-eval", str(opened.run), *_shards(opened), "--split", split, "--views", str(views)]
    return _parts(words)


def index_command(opened: Opened) -> tuple[str, ...]:
    """Return the command that writes the run's index."""
    return _parts(["alexnet-figures", "index", str(opened.run), *_shards(opened)])


def versions() -> dict[str, str]:
    """Return the versions of the software that writes the page."""
    return {**installed_versions(("alexnet-dali", "torch", "numpy")), "Python": platform.python_version()}


def duration(speed_: Speed | None) -> str:
    """Return the training time as text."""
    return console.duration(speed_.seconds).replace(" ", "\N{NO-BREAK SPACE}") if speed_ else ""


def views_in_words(views: int) -> str:
    """Return `centre view` or `ten views`."""
    return {1: "centre view", 10: "ten views"}.get(views, f"{views} views")


def _shards(opened: Opened) -> list[str]:
    same = opened.trained.shards == opened.shard_set.root
    return [] if same else ["--shards", str(opened.shard_set.root)]


def _parts(words: Sequence[str]) -> tuple[str, ...]:
    """Split a command into parts without line breaks: an option and its value."""
    parts: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not (parts and parts[-1][0].startswith("--") and len(parts[-1]) == 1):
            parts.append([])
        parts[-1].append(word)
    return tuple(shlex.join(part) for part in parts)


def _count(saved: dict) -> int:
    """Return the number of learned parameters; batch statistics do not count."""
    learned = saved.get("velocity", {}).keys() & saved["model"].keys() or saved["model"].keys()
    return sum(saved["model"][name].numel() for name in learned)


def _length(config: Config) -> str:
    length = f"{config.epochs:,} epochs" if config.epochs != 1 else "1 epoch"
    if config.steps:
        length += f", ended after {config.steps:,} steps"
    if config.early_stop:
        length += f"; early stopping after {config.early_stop} without a better error"
    return length


def _when(saved: dict) -> str:
    epoch, steps = saved.get("epoch"), saved.get("steps_done")
    if epoch is None or steps is None:
        return "exported"
    within = f" and {saved['step']:,} steps" if saved.get("step") else ""
    return f"after {epoch:,} epoch{'s' * (epoch != 1)}{within} ({steps:,} steps in all)"


def _some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _number(line: dict, name: str) -> float:
    """Return a number of a metrics line; 0 if it is missing or not a number."""
    value = line.get(name)
    return value if isinstance(value, int | float) else 0.0


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
