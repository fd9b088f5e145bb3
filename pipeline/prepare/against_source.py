"""Whether a shard set has the classes and splits that its photos have by today's rules.

In:  a shard set and its source.  Out: how the records differ from the photos. Reads names and lists, no pixels.
Version 0.1 read some sources wrongly without an error: splits were taken for classes, or were not seen.
"""

import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from ..csv_files import csv_rows
from ..errors import ShardError, UsageError
from ..shards.manifest import ShardSet
from ..shards.records_csv import read_listing
from ..sources.entries import Request
from ..sources.find import DEFAULT_SHARE, PhotoSource, find_photos

EXAMPLES = 3  # photos named in a message
RULES = Request().rules  # today's
POOL = "train or val"  # the split of photos of which a random share was held out

Place = tuple[str, str]  # split and class name


def rules_of(manifest: dict) -> int:
    """Return the version of the rules that a set was built by, from its dataset.json; 1 is alexnet-dali 0.1's."""
    source = manifest.get("source")
    request = source.get("request") if isinstance(source, dict) else None
    rules = request.get("rules", 1) if isinstance(request, dict) else 1
    return rules if isinstance(rules, int) else 1


def check_command(manifest: dict, shards: Path, source: Path | None = None) -> str:
    """Return the command that compares a set with its source, by default the recorded one."""
    place = source or manifest.get("source", {}).get("path", "SOURCE")
    return f"alexnet-prep verify --shards {shlex.quote(str(shards))} --against {shlex.quote(str(place))}"


@dataclass
class Difference:
    """Photos that differ in one way.

    Attributes:
        what: the difference, as a phrase after the number of photos.
        is_fault: whether the set is wrong, or incomplete.
        photos: their number.
        examples: the first of them, each with both values.
    """

    what: str
    is_fault: bool = True
    photos: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Count a photo."""
        self.photos += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


@dataclass(frozen=True)
class Comparison:
    """How a shard set differs from its source.

    Attributes:
        today: the photos by today's rules.
        same: number of photos with the class and the split that they have in the set.
        rejected: number of photos that the build rejected.
        differences: what differs, without what no photo has.
        notes: other messages for the user.
    """

    today: PhotoSource
    same: int
    rejected: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def find_by_todays_rules(shard_set: ShardSet, source: Path) -> PhotoSource:
    """List the photos of a source as a build with the set's options lists them today.

    Version 0.1 recorded its defaults as if they had been given: a share of 0.1, the sorted order, the detected layout.

    Args:
        shard_set: the set, for its options.
        source: the path of the photos.
    Raises:
        ShardError: the set does not record its options.
        UsageError, SourceError: as `find_photos`.
    """
    try:
        request = dict(shard_set.manifest["source"]["request"])
    except (KeyError, TypeError, ValueError):
        raise ShardError(
            f"{shard_set.root}: dataset.json does not record the source of the set", "build the set again"
        ) from None
    if unknown := sorted(request.keys() - asdict(Request()).keys()):
        raise ShardError(f"dataset.json: unknown source options: {', '.join(unknown)}", "update alexnet-dali")
    old = rules_of(shard_set.manifest) < RULES
    request.pop("rules", None)
    request["ignore"] = tuple(request.get("ignore", ()))
    if request.get("paths_root"):
        request["paths_root"] = (source if source.is_dir() else source.parent) / request["paths_root"]
    if old:
        request["layout"] = "auto"
        request["val_share"] = None if request.get("val_share") == DEFAULT_SHARE else request.get("val_share")
        request["label_order"] = None if request.get("label_order") == "sorted" else request.get("label_order")
    try:
        return find_photos(source, **request)
    except UsageError as error:
        if not old or not source.exists():
            raise
        raise UsageError(
            f"alexnet-dali 0.1 built {shard_set.root} without a question that is asked now: {error.message}",
            f"look at the set's classes (alexnet-prep info); if they are wrong, build it again, and {error.hint}",
            error.details,
        ) from None


def compare(shard_set: ShardSet, today: PhotoSource) -> Comparison:
    """Compare the records of a set with the photos of its source, by path.

    A photo of which a random share was held out may be in train or in val.

    Args:
        shard_set: the set.
        today: the photos, from `find_by_todays_rules`.
    Raises:
        ShardError: a list of the set is damaged.
        UsageError: no photo of the source is in the set.
    """
    is_pool = _is_pool(shard_set, today)
    records = _records(shard_set, is_pool)
    if not any(path in records for path, _ in _photos(today, is_pool)):
        raise UsageError(
            f"{today.requested or today.root} ({today.kind}): none of its photos is in {shard_set.root}, which has "
            f"{next(iter(records), 'none')}",
            f"choose the folder, or the list, that the set was built from: {shard_set.manifest['source'].get('path')}",
        )
    same, was_rejected, found = _differences(shard_set.root, records, today, is_pool)
    return Comparison(today, same, was_rejected, found, tuple(_notes(shard_set, today)))


def _differences(
    root: Path, records: dict[str, Place | list[Place]], today: PhotoSource, is_pool: bool
) -> tuple[int, int, tuple[Difference, ...]]:
    """Return the numbers of photos that agree and that were rejected, and the differences; empties `records`."""
    moved, wrong = Difference("in another split"), Difference("of another class")
    absent, gone = Difference("of SOURCE not in the set"), Difference("no longer in SOURCE", is_fault=False)
    left = Difference("of the set in SOURCE, but left out by today's rules")
    rejected = _rejected(root)
    same = was_rejected = 0
    for path, now in _photos(today, is_pool):
        before = _take(records, path, now)
        if before is None and path in rejected:
            was_rejected += 1
        elif before is None:
            absent.add(f"{path}: {_in_words(now)}")
        else:
            if before[1] != now[1]:
                wrong.add(f"{path}: {before[1] or 'no label'} in the set, {now[1] or 'no label'} in SOURCE")
            if before[0] != now[0]:
                moved.add(f"{path}: {before[0]} in the set, {now[0]} in SOURCE")
            same += before == now
    is_file = cache(os.path.isfile)
    for path, stored in records.items():
        for place in stored if isinstance(stored, list) else [stored]:
            there = os.path.lexists(today.root / path) or any(map(is_file, (today.root / path).parents))  # an archive
            (left if there else gone).add(f"{path}: {_in_words(place)}")
    return same, was_rejected, tuple(one for one in (wrong, moved, absent, left, gone) if one.photos)


def _rejected(root: Path) -> set[str]:
    try:
        return {row[0] for row in csv_rows(root / "rejected.csv")}
    except (OSError, IndexError) as error:
        raise ShardError(f"{root / 'rejected.csv'}: {error}", "copy it from a copy of the set") from None


def _take(records: dict[str, Place | list[Place]], path: str, now: Place) -> Place | None:
    """Remove and return a photo's place in the set; of several, which lists can give a photo, that of now."""
    stored = records.pop(path, None)
    if not isinstance(stored, list):
        return stored
    before = stored.pop(stored.index(now) if now in stored else 0)
    if stored:
        records[path] = stored
    return before


def _is_pool(shard_set: ShardSet, today: PhotoSource) -> bool:
    """Return whether both the set and today's rules hold out a random share of the same photos as val."""
    source = shard_set.manifest["source"]
    kind = source["kind"].replace(",", " ").split()
    held_out = not source["request"].get("split") and {"train", "val"} <= shard_set.splits.keys()
    held_out = held_out and ("flat" in kind or ("train" in kind and "val" not in kind))
    return held_out and {"train", "val"} <= today.splits.keys() and "val" not in today.account.used


def _records(shard_set: ShardSet, is_pool: bool) -> dict[str, Place | list[Place]]:
    """Return the places of all photos of a set by path; each place exists once, so that a photo costs its path."""
    records: dict[str, Place | list[Place]] = {}
    names = dict(enumerate(shard_set.classes))
    for split in shard_set.splits.values():
        places = _Places(split.name, is_pool, names)
        for folder, _ in split.shards:
            for row in read_listing(folder):
                place = places[row.label]
                before = records.get(row.source_path)
                if before is None:
                    records[row.source_path] = place
                elif isinstance(before, list):
                    before.append(place)
                else:
                    records[row.source_path] = [before, place]
    return records


def _photos(today: PhotoSource, is_pool: bool) -> Iterator[tuple[str, Place]]:
    """Yield the path and the place of each photo of a source."""
    names = dict(enumerate(today.classes))
    for split, photos in today.splits.items():
        places = _Places(split, is_pool, names)
        for photo in photos:
            yield photo.path, places[photo.label]


class _Places(dict[int, Place]):
    """The places of a split by label."""

    def __init__(self, split: str, is_pool: bool, names: dict[int, str]):
        super().__init__()
        self._split, self._names = POOL if is_pool and split in ("train", "val") else split, names

    def __missing__(self, label: int) -> Place:
        place = self[label] = self._split, self._names.get(label, "")
        return place


def _in_words(place: Place) -> str:
    return f"{place[0]}, {place[1] or 'no label'}"


def _notes(shard_set: ShardSet, today: PhotoSource) -> Iterator[str]:
    kind = shard_set.manifest["source"]["kind"]
    if kind != today.kind:
        yield f"SOURCE is read as {today.kind} today; the set was built from {kind}"
    if set(shard_set.classes) == set(today.classes) and shard_set.classes != today.classes:
        pairs = zip(shard_set.classes, today.classes, strict=True)
        label, (before, now) = next((k, pair) for k, pair in enumerate(pairs) if pair[0] != pair[1])
        yield (
            f"the order of the classes is another today: label {label} is {before} in the set, and would be {now} "
            f"({today.label_order})"
        )
