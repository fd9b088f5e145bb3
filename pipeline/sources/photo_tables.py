"""Tables that name photos and their classes, beside the photos; where below a source such a set may be.

In:  an Inventory and the rows of a table.  Out: the photos, added to Found.  A photo that a table names but that is
missing is an error, as is a photo that is named twice.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import SourceError
from .entries import Entries, Found, LeftOut
from .imagenet.devkit import read_small
from .imagenet.matfile import MatError
from .inventory import Folder, Inventory

COMPLETE = "unpack the archives again: photos and tables must be complete"
_MOST_FOLDERS = 16  # that are looked into for a set; more are probably class folders
_MOST_MAT_BYTES = 64 << 20


class Row(NamedTuple):
    """A photo that a table names: where, its path below the folder of photos, its class and its split."""

    where: str
    path: str
    class_name: str
    split: str


def places(look: Inventory) -> list[str]:
    """Return the paths of folders that a set may be in: the source, and folders up to two levels below it."""
    level, found = [look.top], [""] if look.source.is_dir() else []
    for _ in range(2):
        level = [
            inside for folder in level if len(folder.folders) <= _MOST_FOLDERS for inside in folder.folders.values()
        ]
        found += [folder.path for folder in level]
    return found


def below(base: str, name: str) -> str:
    """Return the path of a file or folder in the folder `base`, which is "" for the source."""
    return os.path.normpath(f"{base}/{name}") if base else name


def has_file(look: Inventory, base: str, name: str) -> bool:
    """Return whether a file is there, and not ignored."""
    path = below(base, name)
    return (look.root / path).is_file() and not look.ignores(path)


def add_rows(look: Inventory, folder: Folder, rows: list[Row], found: Found, unlisted: str = "") -> None:
    """Add the photos of a folder as a table names them.

    Args:
        look: what is below the source.
        folder: the folder that the rows' paths are relative to.
        rows: the photos of the table.
        found: receives the photos by split.
        unlisted: why photos may be in no row; empty if that is an error.
    Raises:
        SourceError: photos are missing, are named twice, or are in no row.
    """
    entries = (entry for inside in folder.leaves() for entry in look.photos_in(inside, ""))
    photos = {entry.path[len(folder.path) + 1 :]: entry for entry in entries}
    named: dict[str, str] = {}
    missing = []
    for row in rows:
        if row.path in named:
            raise SourceError(f"{row.where}: {row.path} is already named by {named[row.path]}", COMPLETE)
        named[row.path] = row.where
        if row.path in photos:
            entry = photos.pop(row.path)._replace(class_name=row.class_name)
            found.entries.setdefault(row.split, Entries()).append(entry)
        elif not look.ignores(below(folder.path, row.path)):
            missing.append(row)
    if missing:
        raise SourceError(
            f"{missing[0].where}: {missing[0].path} is not in {look.root / folder.path}"
            + (f", nor are {len(missing) - 1:,} others" if missing[1:] else ""),
            COMPLETE,
        )
    if photos and not unlisted:
        table = re.sub(r", (line|photo) \d+$", "", rows[0].where) if rows else "the table"
        raise SourceError(
            f"{table}: {len(photos):,} photos of {look.root / folder.path} have no line, first {min(photos)}", COMPLETE
        )
    if photos:
        found.left_out.append(LeftOut(folder.path, -1, unlisted))


def one_to_one(labelled: Iterable[tuple[str, Row]], table: Path) -> dict[str, str]:
    """Return the class name by label.

    Raises:
        SourceError: photos of one class have two labels, or photos of two classes the same.
    """
    names: dict[str, str] = {}
    labels: dict[str, str] = {}
    for label, row in labelled:
        name = row.class_name
        if names.setdefault(label, name) != name or labels.setdefault(name, label) != label:
            other = f"class {names[label]}" if names[label] != name else f"label {labels[name]}"
            raise SourceError(
                f"{table}: {row.path} has the label {label}, but others of its class or label have the {other}",
                "the folders or names of the photos must agree with their labels",
            )
    return names


def numbered_lines(path: Path) -> dict[int, str]:
    """Return the lines of a table that are neither empty nor comments, by their number."""
    text = read_small(path).decode("utf-8-sig", "surrogateescape")
    lines = {number: line.strip() for number, line in enumerate(text.split("\n"), 1)}
    return {number: line for number, line in lines.items() if line and not line.startswith("#")}


def pairs_of(path: Path) -> dict[str, str]:
    """Return a table of lines `number text`."""
    pairs: dict[str, str] = {}
    for number, line in numbered_lines(path).items():
        key, text = [*line.split(None, 1), ""][:2]
        if not text or key in pairs:
            wrong = f"{key[:40]} is there twice" if text else f"one word, {key[:40]!r}, instead of a number and a text"
            raise SourceError(f"{path}, line {number}: {wrong}", COMPLETE)
        pairs[key] = text
    return pairs


def read_mat(path: Path, read: Callable, name: str) -> list:
    """Return a variable of a MATLAB file."""
    try:
        return read(read_small(path), name, _MOST_MAT_BYTES)
    except MatError as error:
        raise SourceError(f"{path}: {error}", "download the file again") from None
