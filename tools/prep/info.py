"""`alexnet-prep info`: what a shard set contains, as a table, as JSON, or as a contact sheet."""

import json
from collections import Counter

import click
import numpy as np

from ...pipeline.csv_files import read_csv
from ...pipeline.errors import ShardError, StatsError, UsageError
from ...pipeline.files import write_atomically, writing_to
from ...pipeline.shards import stats
from ...pipeline.shards.contact_sheet import contact_sheet
from ...pipeline.shards.manifest import ShardSet, open_shard_set
from ...pipeline.shards.records_csv import ClassCounts, class_counts
from .. import console, options
from ..output_guard import check_output
from .doubts import lines_of

NAMED = 5  # classes and reasons that the table lists


@click.command("info", context_settings=options.SETTINGS)
@options.shards()
@options.path("--contact-sheet", "sheet", help="Draw 64 records, with their classes, into this PNG file.")
@click.option("--split", help="Split of the contact sheet.  [default: train, or the first]")
@options.seed("Seed of the contact sheet's records.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@options.force
def info(shards, sheet, split, seed, as_json, force):
    """Describe a shard set: pictures, splits, classes, rejected photos, source.

    \b
    Examples:
      alexnet-prep info --shards out
      alexnet-prep info --shards out --contact-sheet pictures.png
    """
    if sheet:
        if sheet.suffix.lower() != ".png":
            raise UsageError(f"--contact-sheet {sheet}: not a .png file", "choose a name that ends in .png")
        check_output(sheet, ".png", make=True, force=force)
    shard_set = open_shard_set(shards)
    facts = describe(shard_set)
    click.echo(json.dumps(facts, indent=2) if as_json else table(facts))
    for line in facts["doubts"]:
        click.echo(f"note: {console.plain(line)}", err=True)
    if sheet:
        if not split:
            split = (
                "train" if shard_set.has("train") else next(name for name in shard_set.splits if shard_set.has(name))
            )
        picture = contact_sheet(shard_set, split, seed)
        with writing_to(sheet):
            sheet.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(sheet, lambda file: picture.save(file, format="PNG", optimize=True))
        click.echo(f"written: {sheet}", err=as_json)


def describe(shard_set: ShardSet) -> dict:
    """Return all facts of `info` as JSON values.

    Raises:
        ShardError: a CSV in the set is missing or damaged.
    """
    manifest = shard_set.manifest
    counted = {name: class_counts(shard_set, name) for name in shard_set.splits}
    try:
        rejected = Counter(row[1] for row in read_csv(shard_set.root / "rejected.csv"))
    except (OSError, IndexError) as error:
        raise ShardError(f"{shard_set.root / 'rejected.csv'}: {error}", "alexnet-prep verify") from None
    return {
        "path": str(shard_set.root),
        "size": shard_set.size,
        "fit": shard_set.fit,
        "encoding": shard_set.encoding,
        "quality": manifest.get("quality"),
        "seed": manifest.get("seed"),
        "classes": manifest["classes"],
        "label_order": manifest.get("label_order"),
        "splits": {name: _split(shard_set, name, counts) for name, counts in counted.items()},
        "photos": _photos(list(counted.values())),
        "rejected": {"photos": sum(rejected.values()), "reasons": dict(rejected.most_common())},
        "source": manifest.get("source"),
        "versions": manifest.get("versions"),
        "statistics": _statistics(shard_set),
        "doubts": lines_of(shard_set),
    }


def _split(shard_set: ShardSet, name: str, counts: ClassCounts) -> dict:
    split = shard_set.splits[name]
    return {
        "records": split.records,
        "shards": len(split.shards),
        "bytes": sum(file.bytes for _, file in split.shards),
        "fingerprint": split.fingerprint(),
        "per_class": None
        if not counts.per_class.any()
        else {
            "min": int(counts.per_class.min()),
            "median": float(np.median(counts.per_class)),
            "max": int(counts.per_class.max()),
        },
        "unlabelled": int((counts.labels < 0).sum()),
    }


def _photos(counted: list[ClassCounts]) -> dict | None:
    sides = np.concatenate([counts.sides for counts in counted])
    if not len(sides):
        return None
    largest = sides[np.argmax(sides.prod(axis=1))]
    return {"median": [int(side) for side in np.median(sides, axis=0)], "largest": largest.tolist()}


def _statistics(shard_set: ShardSet) -> str:
    if not (shard_set.root / "stats.npz").exists():
        return "none"
    try:
        stats.load_stats(shard_set)
    except (StatsError, ShardError) as error:
        return error.message.rpartition("stats.npz: ")[2]
    return "of this set"


def table(facts: dict) -> str:
    """Format the facts of `describe` as a table, one line each."""
    square = facts["fit"] == "crop"
    shape = f"{facts['size']}x{facts['size']}" if square else f"whole, short side {facts['size']}"
    coding = f"JPEG of quality {facts['quality']}" if facts["encoding"] == "jpeg" else "raw RGB"
    lines = [("set", facts["path"]), ("pictures", f"{shape} pixels, {coding}")]
    names = [entry["name"] + (f" ({entry['words']})" if entry.get("words") else "") for entry in facts["classes"]]
    more = ", ..." if len(names) > NAMED else ""
    lines.append(("classes", f"{len(names):,}" + (f": {', '.join(names[:NAMED])}{more}" if names else "")))
    for name, split in facts["splits"].items():
        spread = split["per_class"]
        text = f"{split['records']:,} records in {split['shards']:,} shards, {console.size(split['bytes'])}" + (
            f"; {spread['min']:,} to {spread['max']:,} a class, median {spread['median']:,.6g}" if spread else ""
        )
        lines.append((name, text + (f"; {split['unlabelled']:,} without a label" if split["unlabelled"] else "")))
    reasons = facts["rejected"]["reasons"]
    listed = "; ".join([f"{count:,} {reason}" for reason, count in list(reasons.items())[:NAMED]])
    more = "; ..." if len(reasons) > NAMED else ""
    lines.append(("rejected", f"{facts['rejected']['photos']:,}" + (f": {listed}{more}" if listed else "")))
    if facts["photos"]:
        median, largest = ("x".join(f"{side}" for side in facts["photos"][name]) for name in ("median", "largest"))
        lines.append(("photos", f"median {median} pixels, largest {largest}"))
    source = facts["source"] or {}
    lines.append(("source", f"{source.get('path', 'unknown')} ({source.get('kind', 'unknown layout')})"))
    lines.append(("versions", ", ".join(f"{name} {version}" for name, version in (facts["versions"] or {}).items())))
    statistics = facts["statistics"]
    if statistics != "of this set":
        statistics += f"; compute them with alexnet-prep pca-stats --shards {facts['path']}"
    lines.append(("statistics", statistics))
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(console.plain(f"{name:{width}}{text}".rstrip()) for name, text in lines)
