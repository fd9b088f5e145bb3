"""Photos that a JSON file in the style of COCO classifies, one category a photo, as iNaturalist's of 2017 to 2019.

    train2018.json, val2018.json         {"images": [{"id", "file_name"}], "annotations": [{"image_id", "category_id"}],
    train_val2018/Plantae/7477/x.jpg      "categories": [{"id", "name"}]}; the last may be missing

In:  an Inventory with such files in the source, or up to two levels below it.  Out: Found.  A test file without
annotations has no labels. Sets for detection, with boxes or several categories a photo, are refused. The files are
read element by element, so that those of millions of photos need little memory.
"""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import SourceError, UsageError
from ..entries import Declined, Entries, Found, LeftOut, Request
from ..inventory import Inventory
from ..photo_tables import below, has_file, places
from ..splits import flat_if_train_alone, split_of
from .json_stream import elements

KIND = "JSON in COCO's style"
_HEAD_BYTES = 1 << 16  # read to detect such a file
_FIRST = 100  # photos that determine the folder that file names are relative to
_HEAD = re.compile(
    r'"images"\s*:\s*\[\s*\{.{0,4000}?"file_name"|"annotations"\s*:\s*\[\s*\{.{0,4000}?"image_id"'
    r'|"categories"\s*:\s*\[\s*\{[^{}]{0,4000}?"id"',
    re.DOTALL,
)
_WANTED = "JSON files that classify photos in COCO's style: train.json and val.json, as iNaturalist's train2018.json"
Id = int | str


@dataclass
class Table:
    """The content of a file.

    Attributes:
        path: the file.
        names: file name by image ID.
        labels: category ID by image ID.
        categories: name and folder of a category by its ID; each may be empty.
    """

    path: Path
    names: dict[Id, str] = field(default_factory=dict)
    labels: dict[Id, Id] = field(default_factory=dict)
    categories: dict[Id, tuple[str, str]] = field(default_factory=dict)


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if there is a JSON file that begins like COCO's, or the path is one."""
    alone = not look.source.is_dir() and look.source.suffix.lower() == ".json" and _is_coco(look.source)
    return None if alone or _files(look) else Declined(_WANTED)


def find(look: Inventory, ask: Request) -> Found:
    """List the photos in the files.

    Raises:
        UsageError: there is no such file, or two for one split; or it is one for detection.
        SourceError: a file is damaged or inconsistent, or photos are missing.
    """
    listed = _files(look)
    if not listed and not look.source.is_dir():
        raise UsageError(f"{look.source}: a list of photos, but not their folder", f"choose {look.root}")
    if not listed:
        raise UsageError(f"{look.source}: no {_WANTED}", "choose the folder of these files")
    tables, files = dict[str, Table](), dict[str, str]()
    for split, path in listed:
        table = _read(look, path)
        if split in files or (files and "" in (split, *files)):
            other = files.get(split) or next(iter(files.values()))
            raise UsageError(
                f"{look.root}: {other} and {path} are both lists of "
                + (f"{split} photos" if split in files and split else "photos, but not both are named after a split"),
                f"go on without one of them: --ignore '{path}'",
            )
        tables[split], files[split] = table, path
    _check(tables)
    found = Found(KIND, {})
    names = _class_names(look.root, tables, found)
    places_of: dict[str, tuple[str, str]] = {}  # split and class by path
    for split, table in tables.items():
        base = _base(look, ask, files[split], split, table)
        paths = {number: below(base, name.lstrip("/")) for number, name in table.names.items()}
        if split == "test" and not table.labels and ask.split != "test":
            above = os.path.commonpath(map(os.path.dirname, paths.values()))
            found.left_out.append(LeftOut(above, -1, "without labels (--split test builds them)"))
            continue
        for number, path in paths.items():
            if path in places_of:
                raise SourceError(
                    f"{table.path}: {path} is there twice, or in another split too",
                    f"remove one of the two, or go on without this file: --ignore '{files[split]}'",
                )
            places_of[path] = split, names[table.labels[number]] if table.labels else ""
        found.entries[split] = Entries()
    if not found.entries:
        raise UsageError(f"{look.source}: only test photos without labels", "--split test builds them")
    _add(look, places_of, found)
    found.entries = flat_if_train_alone(found.entries)
    found.kind = f"{KIND}, {', '.join(name or 'flat' for name in found.entries)}"
    found.left_out.append(LeftOut("", -1, f"in none of {', '.join(sorted(files.values()))}"))
    return found


def _files(look: Inventory) -> list[tuple[str, str]]:
    """Return splits and paths of the files; the split is "" where neither file nor folder is named after one."""
    found = []
    for base in places(look) if ".json" in look.others else ():
        for name in sorted(os.listdir(look.root / base)):
            path = below(base, name)
            if name.lower().endswith(".json") and not name.startswith(".") and has_file(look, base, name):
                split = split_of(os.path.splitext(name)[0]) or split_of(base.rpartition("/")[2])
                found += [(split, path)] if _is_coco(look.root / path) else []
    return found


def _is_coco(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return head.lstrip().startswith("{") and bool(_HEAD.search(head))


def _read(look: Inventory, file: str) -> Table:
    """Read a file; raise UsageError if it is not for classification."""
    path = look.root / file
    table = Table(path)
    hint = f"convert it to a list of lines `path label`, or go on without this file: --ignore '{file}'"
    if look.top.classes():
        hint += "; if the folders are the classes: --layout folders"
    for key, one in elements(path):
        if key not in ("images", "annotations", "categories"):
            continue
        if not isinstance(one, dict):
            raise SourceError(f"{path}: {json.dumps(one)[:80]} is not one of {key}", "use a file in COCO's format")
        if key == "images":
            number, name = _id(path, one, "id"), one.get("file_name")
            if not isinstance(name, str) or number in table.names:
                raise SourceError(f"{path}: image {number}: " + ("twice" if isinstance(name, str) else "no file_name"))
            table.names[number] = name
        elif key == "annotations":
            number = _id(path, one, "image_id")
            if one.get("bbox") or one.get("segmentation") or one.get("segments_info") or one.get("keypoints"):
                raise UsageError(f"{path}: image {number} has boxes: a set for detection, not classification", hint)
            if one.get("category_id") is None:
                raise UsageError(f"{path}: image {number} has an annotation without category_id", hint)
            label = _id(path, one, "category_id")
            if table.labels.setdefault(number, label) != label:
                raise UsageError(
                    f"{path}: image {number} has several categories, {table.labels[number]} and {label}", hint
                )
        else:
            words = (one.get(name) for name in ("name", "image_dir_name"))
            name, folder = (word.strip() if isinstance(word, str) else "" for word in words)
            table.categories[_id(path, one, "id")] = name, folder
    return table


def _id(path: Path, one: dict, key: str) -> Id:
    value = one.get(key)
    if not isinstance(value, (int, str)):
        raise SourceError(f"{path}: {json.dumps(one)[:80]} has no {key}", "use a file in COCO's format")
    return value


def _check(tables: dict[str, Table]) -> None:
    """Check that every image has a category and that the files agree on the categories."""
    categories: dict[Id, tuple[str, str]] = {}
    for split, table in tables.items():
        if not table.names:
            raise SourceError(f"{table.path}: lists no images")
        unlabelled = table.names.keys() - table.labels.keys()
        if unlabelled and (split != "test" or table.labels):
            raise SourceError(
                f"{table.path}: {len(unlabelled):,} images have no annotation, first {min(map(str, unlabelled))}",
                "only a test split may be without labels",
            )
        if other := table.labels.keys() - table.names.keys():
            raise SourceError(f"{table.path}: the annotation of image {min(map(str, other))} has no image")
        for number, name in table.categories.items():
            if categories.setdefault(number, name) != name:
                raise SourceError(f"{table.path}: category {number} has another name than in the other files")
    for table in tables.values():
        if categories and (unknown := {*table.labels.values()} - categories.keys()):
            raise SourceError(f"{table.path}: category {min(map(str, unknown))} is not among the categories")


def _class_names(root: Path, tables: dict[str, Table], found: Found) -> dict[Id, str]:
    """Return the class name by category ID: its folder, its name, or if not all have one of their own, its number."""
    categories = {number: names for table in tables.values() for number, names in table.categories.items()}
    numbers = categories.keys() | {label for table in tables.values() for label in table.labels.values()}
    order = sorted(numbers, key=lambda number: (isinstance(number, str), number))
    words, folders = ([categories.get(number, ("", ""))[k] for number in order] for k in (0, 1))
    names = next((some for some in (folders, words) if all(some) and len({*some}) == len(order)), None)
    if names is None:
        names = list(map(str, order))
        found.notes.append("not every category has a name of its own: classes are named by their numbers")
    if len({*names}) < len(order):
        raise SourceError(f"{root}: category IDs that are a number in one place and a text in another")
    found.classes = tuple(names)
    found.words = {name: word for name, word in zip(names, words, strict=True) if word not in ("", name)}
    return dict(zip(order, names, strict=True))


def _base(look: Inventory, ask: Request, file: str, split: str, table: Table) -> str:
    """Return the folder that a table's file names are relative to: where most of the first ones are."""
    beside = os.path.dirname(file)
    candidates = [beside, os.path.dirname(beside)]
    candidates += [folder.path for place in candidates for folder in look.at(place).folders.values()]
    if ask.paths_root is not None:
        candidates = [os.path.relpath(os.path.realpath(ask.paths_root), os.path.realpath(look.root))]
        if candidates[0].split("/")[0] == "..":
            raise UsageError(f"{ask.paths_root}: is not in {look.root}", "choose SOURCE so that it contains the photos")
    names = [name.lstrip("/") for name, _ in zip(table.names.values(), range(_FIRST), strict=False)]
    there = {place: sum((look.root / place / name).is_file() for name in names) for place in dict.fromkeys(candidates)}
    best = max(there, key=lambda place: there[place])
    if not there[best]:
        raise SourceError(
            f"{table.path}: {names[0]} is neither in its folder nor in those beside it"
            if ask.paths_root is None
            else f"{table.path}: {names[0]} is not in {ask.paths_root}",
            "choose a SOURCE that contains the photos, or name the folder that file names are relative to: --root DIR",
        )
    rivals = [place for place in there if there[place] == there[best]]
    named = [place for place in rivals if split and split_of(place.rpartition("/")[2]) == split]
    if len(rivals) > 1 and len(named) == 1:
        best = named[0]
    elif len(rivals) > 1:
        raise UsageError(
            f"{table.path}: {names[0]} is in {look.root / rivals[0]} and in {look.root / rivals[1]}",
            "name the folder that file names are relative to: --root DIR",
        )
    return "" if best == "." else best


def _add(look: Inventory, places_of: dict[str, tuple[str, str]], found: Found) -> None:
    """Add the photos that are in `places_of`, which loses them; raise SourceError if some are left."""
    for folder in look.top.leaves():
        for entry in look.photos_in(folder, ""):
            if split_and_class := places_of.pop(entry.path, None):
                split, class_name = split_and_class
                found.entries[split].append(entry._replace(class_name=class_name))
    if missing := [path for path in places_of if not look.ignores(path)]:
        raise SourceError(
            f"{look.root}: {len(missing):,} listed photos are missing, first {missing[0]}",
            "unpack the archives again: photos and lists must be complete",
        )
