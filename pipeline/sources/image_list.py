"""Photos listed in a text file, a path and a label per line, as in Caffe's `train.txt`.

    n01440764/a b.JPEG 0        spaces or a tab before the label, which is a number or a name
    path,label                  or a CSV, with or without this header
    # a comment

In:  such a file; or a folder with `train.txt`, `val.txt` and optionally `test.txt`.  Out: Found.  Paths are absolute,
relative to the list's folder, or relative to `train/` in it if the list is `train.txt`. A list may name any readable
file. A test list may lack labels. Reads the photos' sizes only.
"""

import codecs
import csv
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..errors import SourceError, UsageError
from ..shards.datum import NO_LABEL
from ..shards.manifest import SPLITS
from .class_folders import read_words
from .entries import Declined, Found, LeftOut, Request
from .inventory import Inventory
from .label_names import Row, find_classes
from .photo import is_photo
from .splits import WORDS, flat_if_train_alone

KIND = "list"
PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img", "img_path")
LABELS = ("label", "labels", "class", "class_id", "class_name", "class_index", "category", "target", "cls", "wnid")
_HEAD_BYTES = 1 << 16  # read to detect a list
_FIRST = 100  # photos that determine the folder of relative paths
_NUMBER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class Line(NamedTuple):
    """An entry of a list: line number from 1, path, and label as written, empty for none."""

    number: int
    path: str
    label: str


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if the path is a text file that begins with photos, or a folder with such lists of both splits."""
    root, declined = look.source, Declined("lists of lines `path label`: train.txt and val.txt")
    if root.is_file():
        return None if any(is_photo(line.path) for line in _head(root)) else declined
    if not all((root / f"{name}.txt").is_file() for name in ("train", "val")):
        return declined
    train, val = (_head(root / f"{name}.txt") for name in ("train", "val"))
    if not all(lines and all(is_photo(line.path) and line.label for line in lines) for lines in (train, val)):
        return declined
    fits = _base(root, "train", train) is not None or not look.at("train").classes()
    return None if fits else replace(declined, found="train.txt, whose photos are not there")


def find(look: Inventory, ask: Request) -> Found:
    """List the photos in the lists.

    Raises:
        UsageError: there is no list.
        SourceError: a photo is missing or has two labels, or a label is missing or of another kind than the others.
    """
    root, split = look.source, ask.split
    if root.is_file():
        lists = {WORDS.get(root.stem.lower(), ""): root}
        folder = root.parent
    else:
        lists = {name: root / f"{name}.txt" for name in SPLITS if (root / f"{name}.txt").is_file()}
        folder = root
    if not lists:
        raise UsageError(f"{root}: no train.txt, val.txt or test.txt", "choose the list itself, or its folder")
    lists = flat_if_train_alone(lists)
    notes: list[str] = []
    rows = {name: _rows(path, folder, notes) for name, path in lists.items()}
    _forget_zeros(rows, notes)
    found = find_classes(KIND, rows, split, lambda name, row: f"{lists[name]}: line {row.line}")
    paths = [{row.path for row in some} for some in rows.values()]
    if twice := sum(map(len, paths)) - len(set().union(*paths)):
        notes.append(f"{twice:,} photos are listed in more than one split")
    found.root, found.words, found.notes = folder, read_words(folder), notes + found.notes
    found.left_out.append(LeftOut("", -1, "in none of the lists"))
    return found


def read_list(path: Path) -> list[Line]:
    """Read a list.

    Raises:
        SourceError: it cannot be read, or is not a text or CSV file.
    """
    try:
        return list(_parse(_decode(path, path.read_bytes()), is_csv=path.suffix.lower() == ".csv"))
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", "make the file readable") from None
    except csv.Error as error:
        raise SourceError(f"{path}: invalid CSV: {error}", "check for an unclosed quotation mark") from None


def _head(path: Path) -> list[Line]:
    """Return the first entries of a file; empty if it is not a list."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
        text = _decode(path, head)
        whole = text if len(head) < _HEAD_BYTES else text[: text.rfind("\n") + 1]
        return list(islice(_parse(whole, is_csv=path.suffix.lower() == ".csv"), _FIRST))
    except (OSError, SourceError, csv.Error):
        return []


def _decode(path: Path, data: bytes) -> str:
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as written by Windows PowerShell
    text = data.decode("utf-16" if utf16 else "utf-8-sig", "replace" if utf16 else "surrogateescape")
    if "\0" in text:
        raise SourceError(f"{path}: not a text file", "choose a list of lines `path label`")
    return text


def _parse(text: str, *, is_csv: bool) -> Iterator[Line]:
    lines = enumerate(text.split("\n"), 1)  # splitlines would also split at characters that names may contain
    entries = [(number, line) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not entries:
        return
    first = entries[0][1]
    if is_csv or _is_csv(first):
        yield from _parse_csv(entries)
        return
    if len(words := first.lower().split()) == 2 and words[0] in PATHS and words[1] in LABELS:
        del entries[0]
    for number, line in entries:
        if "\t" in line.strip():
            path, label = line.strip().rsplit("\t", 1)
        elif is_photo(line.strip()):  # a path without a label
            path, label = line.strip(), ""
        else:
            path, label = (line.rsplit(None, 1) + [""])[:2]
        yield Line(number, path.strip(), label.strip())


def _is_csv(first: str) -> bool:
    fields = next(csv.reader([first]), [])
    return len(fields) > 1 and (is_photo(fields[0].strip()) or any(field.strip().lower() in PATHS for field in fields))


def _parse_csv(entries: Iterable[tuple[int, str]]) -> Iterator[Line]:
    path, label = 0, 1
    for place, (number, line) in enumerate(entries):
        fields = [field.strip() for field in next(csv.reader([line], strict=True), [])]
        if place == 0 and any(field.lower() in PATHS for field in fields):
            names = [field.lower() for field in fields]
            path = next(k for k, name in enumerate(names) if name in PATHS)
            label = next((k for k, name in enumerate(names) if name in LABELS), len(names))
            continue
        yield Line(number, fields[path] if path < len(fields) else "", fields[label] if label < len(fields) else "")


def _rows(path: Path, folder: Path, notes: list[str]) -> list[Row]:
    """Return the photos of a list in its order, with sizes and labels; equal lines count once."""
    lines = read_list(path)
    if not lines:
        raise SourceError(f"{path}: contains no photos", "write a line `path label` for each photo")
    base = _base(folder, path.stem, lines) or ""
    rows: dict[str, Row] = {}
    missing: list[Line] = []
    again = 0
    for line in lines:
        number, name = _label(path, line)
        photo = _below(folder, base, line.path)
        size = _bytes(folder / photo)
        if size < 0:
            missing.append(line)
        elif (before := rows.setdefault(photo, Row(number, name, photo, size, line=line.number))).line != line.number:
            if (before.number, before.name) != (number, name):
                raise SourceError(
                    f"{path}: line {line.number}: {line.path} has the label {line.label or 'none'}, but another in "
                    f"line {before.line}",
                    "remove one of these lines",
                )
            again += 1
    if missing:
        places = " or ".join(str(folder / base) for base in _bases(folder, path.stem))
        raise SourceError(
            f"{path}: line {missing[0].number}: {missing[0].path or 'an empty path'}: no such file "
            f"({len(missing):,} of {len(lines):,} photos are missing)",
            f"remove these lines, or add the photos below {places}",
        )
    if again:
        notes.append(f"{path}: {again:,} duplicate lines are ignored")
    return list(rows.values())


def _label(path: Path, line: Line) -> tuple[int | None, str]:
    if _NUMBER.fullmatch(line.label):
        return int(line.label), ""
    if _FRACTION.fullmatch(line.label):
        raise SourceError(
            f"{path}: line {line.number}: the label {line.label} is not a whole number", "write it as 0, 1, 2, ..."
        )
    return (None, line.label) if line.label else (NO_LABEL, "")


def _bases(folder: Path, stem: str) -> list[str]:
    """Return the folders that paths may be relative to; those in Caffe's train.txt are relative to train/."""
    return ["", *([stem] if stem in WORDS and (folder / stem).is_dir() else [])]


def _base(folder: Path, stem: str, lines: list[Line]) -> str | None:
    """Return the first of the bases that contains one of the first photos; None if none does."""
    for base in _bases(folder, stem):
        if any(_bytes(folder / _below(folder, base, line.path)) >= 0 for line in lines[:_FIRST]):
            return base
    return None


def _below(folder: Path, base: str, path: str) -> str:
    """Return a photo's path, relative to the folder if it is below it, so that a copy has the same paths."""
    if ".." not in path.split("/"):  # with symbolic links, normalizing `..` changes the path
        path = os.path.normpath(path)
    top = os.path.join(os.path.abspath(folder), "")
    return path[len(top) :] if path.startswith(top) else os.path.join(base, path)


def _bytes(path: Path) -> int:
    """Return the size of a regular file; -1 if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _forget_zeros(rows: dict[str, list[Row]], notes: list[str]) -> None:
    """Remove labels that are all 0 from a test list: Caffe's tools require labels, which ILSVRC's test set lacks."""
    test = rows.get("test", [])
    classes = {(row.number, row.name) for name, some in rows.items() if name != "test" for row in some}
    if len(classes) > 1 and len(test) > len(classes) and all(row.number == 0 for row in test):
        rows["test"] = [row._replace(number=NO_LABEL) for row in test]
        notes.append(f"test: all {len(test):,} labels are 0 and are ignored")
