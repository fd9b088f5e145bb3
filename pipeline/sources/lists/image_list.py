"""Photos listed in text files, a path or id and a label per line: Caffe's `train.txt`, tables as Kaggle has them.

    train.txt and val.txt, or test.txt      also in meta/ beside the photos' folders, and named places365_val.txt
    labels.csv                              one table in the folder: path or id, label, and perhaps split
    train/metadata.csv                      or one in each split's folder

In:  such a file; or a folder with such files.  Out: Found.  table.py says what may be in a file, photo_lookup.py where
the photos may be. A list may name any readable file. A test list may lack labels. Reads the photos' sizes only.
"""

import os
import re
from pathlib import Path

from ...errors import SourceError, UsageError
from ...shards.datum import NO_LABEL
from ...shards.manifest import SPLITS
from ..entries import Declined, Entries, Found, LeftOut, Request
from ..inventory import Inventory
from ..label_names import Row, find_classes, read_words
from ..splits import flat_if_train_alone, split_of
from .list_files import Lists, find_lists
from .list_or_folders import add_train_folders, folders_fit, refuse_conflict, take_folders
from .photo_lookup import Lookup
from .table import Line, Table, several_labels

KIND = "list"
_NUMBER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_UNLABELLED = {
    "": "without labels: in none of the lists",
    "test": "without labels: in none of the lists (--split test builds them)",
}


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if the path is a list of photos, or a folder with lists of photos that are there.

    Class folders win over tables that only repeat what they say.

    Raises:
        UsageError: class folders and lists give the same photos other labels or splits, or lists name only some of the
            photos in class folders; or a list's photos are not there, and what is there has no classes.
    """
    wanted = "lists of lines `path label`: train.txt and val.txt; or a table of photos that are beside it"
    lists = find_lists(look, ask)
    if lists and lists.why and not lists.tables and look.top.total and not folders_fit(look, ask):
        raise UsageError(
            f"{look.source}: there is {lists.why}, and no two class folders", f"{lists.hint}; or --layout folders"
        )
    if lists is None or lists.why:
        return Declined(wanted, lists.why if lists else "", lists.hint if lists else "")
    if look.source.is_file() or lists.caffe or ask.paths_root is not None:
        return None
    return take_folders(look, ask, lists, lambda: _read(look, ask, lists), wanted)


def find(look: Inventory, ask: Request) -> Found:
    """List the photos in the lists.

    Raises:
        UsageError: there is no list; or, where the layout was detected, class folders say something else.
        SourceError: a photo is missing or has two labels, or a label is missing or of another kind than the others.
    """
    lists = find_lists(look, ask)
    if lists is None or not lists.tables:
        raise UsageError(
            f"{look.source}: no train.txt, val.txt or test.txt, and no table of photos",
            "choose the list itself, or its folder",
        )
    found = _read(look, ask, lists)
    if ask.layout == "auto" and (lists.caffe or ask.paths_root is not None) and look.source.is_dir():
        refuse_conflict(look, ask, found, lists)
    return found


def _read(look: Inventory, ask: Request, lists: Lists) -> Found:
    for table in lists.tables.values():
        if table.problem:
            raise table.problem
    notes = [note for table in lists.tables.values() for note in table.notes]
    if lists.unused:
        notes.append(f"not read: {', '.join(lists.unused)}; the photos are those of {lists.names()}")
    rows: dict[str, list[Row]] = {}
    for name, table in lists.tables.items():
        for split, some in _by_split(name, _rows(table, name, lists.lookups[name], notes), ask, notes).items():
            rows.setdefault(split, []).extend(some)
    rows = {name: rows[name] for name in ("", *SPLITS) if name in rows}
    rows = _train_beside_test(rows, lists)
    rows = flat_if_train_alone(rows)
    _name_by_folders(rows, ask, notes)
    _name_by_categories(rows, lists)
    _forget_zeros(rows, notes)
    found = find_classes(KIND, rows, ask.split, lambda name, row: f"{lists.of(name).path}: line {row.line}")
    paths = [{row.path for row in some} for some in rows.values()]
    if twice := sum(map(len, paths)) - len(set().union(*paths)):
        notes.append(f"{twice:,} photos are listed in more than one split")
    found.root = lists.home
    found.words = read_words(lists.home) | found.words
    found.notes = notes + found.notes
    if not look.source.is_file() and not {"", "train"} & rows.keys():
        add_train_folders(look, ask, found)
    _leave_out(look, ask, found, rows)
    return found


def _rows(table: Table, name: str, lookup: Lookup, notes: list[str]) -> list[tuple[str, Row]]:
    """Return split and photo of each line in its order, with sizes and labels; equal lines count once."""
    path, lines = table.path, table.lines
    if not lines:
        raise SourceError(f"{path}: contains no photos", "write a line `path label` for each photo")
    rows: dict[str, tuple[str, Row]] = {}
    missing: list[Line] = []
    again = ignored = 0
    for line in lines:
        number, class_name = _label(path, line)
        try:
            photo, size = lookup.find(line.path, line.split or name)
        except SourceError as error:
            raise SourceError(f"{path}: line {line.number}: {error.message}", error.hint) from None
        row = Row(number, class_name, photo, size, line=line.number, words=line.words)
        if lookup.ignores(photo):
            ignored += 1
        elif size < 0:
            missing.append(line)
        elif (before := rows.setdefault(photo, (line.split, row)))[1].line != line.number:
            _check_same(path, line, row, *before)
            again += 1
    if missing:
        raise _missing(table, missing, lookup)
    if again:
        notes.append(f"{path}: {again:,} duplicate lines are ignored")
    if ignored:
        notes.append(f"{path}: {ignored:,} lines are ignored, as requested")
    return list(rows.values())


def _check_same(path: Path, line: Line, row: Row, split: str, before: Row) -> None:
    where = f"{path}: line {line.number}: {line.path}"
    if (before.number, before.name) != (row.number, row.name):
        raise SourceError(
            f"{where} has the label {line.label or 'none'}, but another in line {before.line}",
            "remove one of these lines",
        )
    if split != line.split:
        raise SourceError(
            f"{where} is in the split {line.split}, but in {split} in line {before.line}", "remove one of these lines"
        )


def _missing(table: Table, missing: list[Line], lookup: Lookup) -> SourceError:
    first = missing[0]
    if several := several_labels(first)[1]:
        return SourceError(
            f"{table.path}: line {first.number}: several labels of a photo: {several}",
            "a photo has one class here; write one label a line",
        )
    places = " or ".join(str(lookup.home / base) for base in lookup.bases)
    return SourceError(
        f"{table.path}: line {first.number}: {first.path or 'an empty path'}: no such file "
        f"({len(missing):,} of {len(table.lines):,} photos are missing)",
        f"remove these lines, or add the photos below {places}"
        + ("" if lookup.is_root else "; if they are elsewhere: --root DIR"),
    )


def _label(path: Path, line: Line) -> tuple[int | None, str]:
    if _NUMBER.fullmatch(line.label):
        return int(line.label), line.name
    if _FRACTION.fullmatch(line.label):
        raise SourceError(
            f"{path}: line {line.number}: the label {line.label} is not a whole number", "write it as 0, 1, 2, ..."
        )
    return (None, line.label) if line.label else (NO_LABEL, "")


def _by_split(name: str, rows: list[tuple[str, Row]], ask: Request, notes: list[str]) -> dict[str, list[Row]]:
    """Return the photos by split: by the table's column, its name, or the folders that paths name."""
    by_split: dict[str, list[Row]] = {}
    if not name and rows and not any(split for split, _ in rows) and ask.rules > 1:
        named = [split_of(row.path.split("/")[0]) if "/" in row.path else "" for _, row in rows]
        if len({*named} - {""}) > 1 and all(named):
            notes.append("the splits are those that the photos' folders are named after")
            rows = [(split, row) for split, (_, row) in zip(named, rows, strict=True)]
        elif len({*named} - {""}) > 1 and not ask.split:
            row = rows[named.index("")][1]
            raise UsageError(
                f"photos are in folders of several splits, but {row.path} (line {row.line}) is in none of them",
                "add a column split; or put all of them into one split: --split train",
            )
    for split, row in rows:
        by_split.setdefault(split or name, []).append(row)
    return by_split


def _train_beside_test(rows: dict[str, list[Row]], lists: Lists) -> dict[str, list[Row]]:
    """Rename the photos of a table that does not say the split to train, where another has those of test."""
    if "" not in rows or len(rows) == 1:
        return rows
    test = {row.path for row in rows["test"]}
    twice = [row.path for row in rows[""] if row.path in test]
    if twice:
        raise UsageError(
            f"{lists.names()} both list {len(twice):,} photos, first {twice[0]}, and only one of them says the split",
            f"leave one out: --ignore '{lists.of('test').path.name}'",
        )
    return {"train": rows[""], **{name: some for name, some in rows.items() if name}}


def _name_by_folders(rows: dict[str, list[Row]], ask: Request, notes: list[str]) -> None:
    """Set the names of photos in lists without any label to their folders', as in Food-101: `apple_pie/1005649`.

    There must be a list of train, alone only if lists were asked for.
    """
    everything = [row for some in rows.values() for row in some]
    folders = {row.path.rpartition("/")[0].rpartition("/")[2] for row in everything}
    alone = "" in rows and ask.layout == "list" and ask.split != "test"
    if not ("train" in rows or alone) or any(row.has_label() for row in everything):
        return
    if len(folders) < 2 or "" in folders or any(map(split_of, folders)):
        return
    for name, some in rows.items():
        rows[name] = [row._replace(number=None, name=row.path.split("/")[-2]) for row in some]
    notes.append("the lists have no labels: the class is the folder of a photo")


def _name_by_categories(rows: dict[str, list[Row]], lists: Lists) -> None:
    """Set the names of numbers to those of `categories_places365.txt`, lines of `/a/airfield 0`."""
    for name, some in rows.items():
        rows[name] = [
            row._replace(name=lists.categories[row.number]) if row.number in lists.categories and not row.name else row
            for row in some
        ]


def _forget_zeros(rows: dict[str, list[Row]], notes: list[str]) -> None:
    """Remove labels that are all 0 from a test list: Caffe's tools require labels, which ILSVRC's test set lacks."""
    test = rows.get("test", [])
    classes = {(row.number, row.name) for name, some in rows.items() if name != "test" for row in some}
    if len(classes) > 1 and len(test) > len(classes) and all(row.number == 0 for row in test):
        rows["test"] = [row._replace(number=NO_LABEL, name="") for row in test]
        notes.append(f"test: all {len(test):,} labels are 0 and are ignored")


def _leave_out(look: Inventory, ask: Request, found: Found, rows: dict[str, list[Row]]) -> None:
    """Say why photos below the source are in no split; add those of a test folder in no list, if they are asked for."""
    omitted = next((one.why for one in found.left_out if "test" in rows and one.path == ""), "")
    found.left_out = [one for one in found.left_out if one.path]
    loose = [folder for folder in look.top.classes() if split_of(folder.name) and not folder.classes()]
    prefix = os.path.relpath(found.root or look.root, look.root)
    used = {_place(prefix, folder) for entries in found.entries.values() for folder in entries.folder_counts()}
    if omitted and look.source.is_dir():
        folders = {_place(prefix, row.path.rpartition("/")[0]) for row in rows["test"]}
        found.left_out += [LeftOut(folder, -1, omitted) for folder in sorted(folders - used - {""})]
    told = {one.path for one in found.left_out}
    for folder in loose:
        if any(f"{path}/".startswith(f"{folder.path}/") for path in used | told):
            continue
        if ask.split == split_of(folder.name) == "test" and "test" not in found.entries and found.root == look.root:
            found.entries = {name or "train": entries for name, entries in found.entries.items()}
            found.entries["test"] = Entries(look.photos_in(folder, ""))
        else:
            found.left_out.append(LeftOut(folder.path, -1, _UNLABELLED.get(split_of(folder.name), _UNLABELLED[""])))
    mixed = bool(omitted) and not any(one.why == omitted for one in found.left_out)
    found.left_out.append(LeftOut("", -1, omitted if mixed else "in none of the lists"))


def _place(prefix: str, folder: str) -> str:
    """Return a folder relative to the source."""
    return os.path.normpath(os.path.join(prefix, folder)).removeprefix(".")
