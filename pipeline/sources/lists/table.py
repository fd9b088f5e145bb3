"""A text file with a photo a line, as columns: path or id, label, split.

    n01440764/a b.JPEG 0        blanks or a tab before the label; a path may be in quotation marks
    path,label,split            or columns, with commas, semicolons, tabs, bars or blanks; without a header, the columns
    a/1.jpg,cat,train           are found by what is in them
    {"file_name": "1.jpg", "label": "cat"}          or JSON Lines
    # a comment

In:  such a file.  Out: a Table; what a table says about a photo is used, named in a note, or refused with the line.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ...errors import SourceError
from ..photo import is_photo
from .table_columns import IDS, LABELS, PATHS, SPLITS, Columns, Rows, columns_of, plain

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".lst", ".list")
_HEAD_BYTES = 1 << 16  # read to see whether a file is a table
_FIRST = 100  # lines that are looked at for that
_QUOTED = re.compile(r'\s*"((?:[^"]|"")+)"(?:\s+(.*))?')
_SEVERAL = re.compile(r"(.*?\.\w{3,5})\s+(\S.*)")


class Line(NamedTuple):
    """A line of a table.

    Attributes:
        number: line number from 1.
        path: path or id, as written.
        label: as written; empty for none.
        name: class name, if there is one beside a number.
        split: `train`, `val` or `test`; empty if the table does not say it.
        words: human-readable class name, if there is one beside the name.
    """

    number: int
    path: str
    label: str
    name: str = ""
    split: str = ""
    words: str = ""


@dataclass
class Table:
    """A table of photos.

    Attributes:
        path: the file.
        lines: its lines, without the header.
        notes: what is not used, or had to be inferred.
        problem: why it cannot be used; None if it can.
        has_header: it has a header that names a column of paths or ids.
    """

    path: Path
    lines: list[Line]
    notes: list[str] = field(default_factory=list)
    problem: SourceError | None = None
    has_header: bool = False


def read_table(path: Path, fits: Callable[[str], bool] = is_photo, *, guess: bool = True) -> Table:
    """Read a table.

    Args:
        path: the file.
        fits: returns whether a cell names a photo, to choose among several columns of paths.
        guess: take the only column that is left as the label, whatever its name.
    Raises:
        SourceError: it cannot be read, or is not a text file.
    """
    try:
        return _parse(path, _decode(path, path.read_bytes()), fits, guess)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", "make the file readable") from None


def head_of(path: Path) -> Table:
    """Return the first lines of a file; none if it is not a table."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
        text = _decode(path, head)
        whole = text if len(head) < _HEAD_BYTES else text[: text.rfind("\n") + 1]
        table = _parse(path, "\n".join(islice(whole.split("\n"), 4 * _FIRST)), is_photo, True)
        return Table(path, table.lines[:_FIRST], problem=table.problem, has_header=table.has_header)
    except (OSError, SourceError):
        return Table(path, [])


def several_labels(line: Line) -> tuple[str, str]:
    """Return photo and labels of a line `a.jpg 0 1`, which was read as the path `a.jpg 0`; empty if it has but one."""
    parts = _SEVERAL.fullmatch(line.path)
    several = parts and is_photo(parts[1]) and not is_photo(line.path)
    return (parts[1], f"{parts[2]} {line.label}") if parts and several else ("", "")


def _decode(path: Path, data: bytes) -> str:
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as written by Windows PowerShell
    text = data.decode("utf-16" if utf16 else "utf-8-sig", "replace" if utf16 else "surrogateescape")
    if "\0" in text:
        raise SourceError(f"{path}: not a text file", "choose a list of lines `path label`")
    return text


def _parse(path: Path, text: str, fits: Callable[[str], bool], guess: bool) -> Table:
    lines = enumerate(text.split("\n"), 1)  # splitlines would also split at characters that names may contain
    entries = [(number, line) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not entries:
        return Table(path, [])
    suffix, first = path.suffix.lower(), entries[0][1]
    if suffix in (".jsonl", ".ndjson") or re.match(r'\s*\{\s*"', first):
        header, rows, problem = _json_rows(path, entries)
    elif separator := _separator(suffix, first):
        rows, problem = _csv_rows(path, entries, separator)
        header = _header(rows)
        rows = rows[1:] if header else rows
        width = len(header) if header else len(rows[0][1]) if rows else 0
        if wrong := next(((number, row) for number, row in rows if len(row) > width), None):
            problem = problem or SourceError(
                f"{path}: line {wrong[0]}: {len(wrong[1])} columns instead of {width}",
                "write a path or label that has the separator in it in quotation marks",
            )
        rows = [(number, (row + [""] * width)[:width]) for number, row in rows]
    else:
        return Table(path, list(_plain_lines(entries)))
    columns = columns_of(path, header, rows, fits, guess)
    return Table(path, list(_lines(rows, columns)), columns.notes, problem or columns.problem, bool(header))


def _lines(rows: Rows, columns: Columns) -> Iterator[Line]:
    for number, row in rows:
        label, name, words = (row[k] if k >= 0 else "" for k in (columns.label, columns.name, columns.words))
        split = columns.splits[row[columns.split]] if columns.split >= 0 else ""
        yield Line(number, row[columns.path], label, name, split, words)


def _plain_lines(entries: list[tuple[int, str]]) -> Iterator[Line]:
    """Yield lines of `path label`, where only the label is free of blanks."""
    if len(words := [plain(word) for word in entries[0][1].split()]) == 2 and words[0] in PATHS and words[1] in LABELS:
        entries = entries[1:]
    for number, line in entries:
        if quoted := _QUOTED.fullmatch(line.strip()):
            path, label = quoted[1].replace('""', '"'), (quoted[2] or "").strip().strip('"')
        elif "\t" in line.strip():
            path, label = line.strip().rsplit("\t", 1)
        elif is_photo(line.strip()):  # a path without a label
            path, label = line.strip(), ""
        else:
            path, label = (line.rsplit(None, 1) + [""])[:2]
        yield Line(number, path.strip(), label.strip())


def _separator(suffix: str, first: str) -> str:
    """Return the separator of columns; empty for lines of `path label`."""
    best = ""
    for separator in (",", ";", "|", "\t"):
        try:
            fields = _fields(first, separator)
        except csv.Error:
            continue
        if len(fields) < 2 or (separator == "\t" and len(fields) == 2 and is_photo(fields[0])):
            continue
        if is_photo(fields[0]) or any(plain(one) in PATHS or plain(one) in IDS for one in fields):
            return separator
        best = best or separator
    if suffix in (".csv", ".tsv"):
        return best or ("," if suffix == ".csv" else "\t")
    names = [plain(word) for word in first.split()]
    if len(names) > 2 and any(name in PATHS or name in IDS for name in names):
        return " " if any(name in LABELS or name in SPLITS for name in names) else ""
    return ""


def _fields(line: str, separator: str) -> list[str]:
    line = " ".join(line.split()) if separator == " " and '"' not in line else line.rstrip("\r\n")
    rows = csv.reader([line], delimiter=separator, skipinitialspace=separator != "\t", strict=True)
    return [field.strip() for field in next(rows, [])]


def _header(rows: Rows) -> list[str]:
    """Return the names of the columns; empty if the first row is a photo."""
    first, second = (rows[k][1] if len(rows) > k else [] for k in (0, 1))
    names = [plain(one) for one in first]
    if any(name in PATHS for name in names):
        return first
    if any(map(is_photo, first)) or any(re.fullmatch(r"[+-]?[\d.]+", one) for one in first):
        return []
    known = any(name in IDS or name in LABELS or name in SPLITS for name in names)
    by_content = any(is_photo(cell) and name for cell, name in zip(second, first, strict=False))
    return first if known or by_content else []


def _csv_rows(path: Path, entries: list[tuple[int, str]], separator: str) -> tuple[Rows, SourceError | None]:
    """Return line numbers and fields, and what is wrong with the first line that cannot be read."""
    rows: Rows = []
    problem = None
    for number, line in entries:
        try:
            rows.append((number, _fields(line, separator)))
        except csv.Error as error:
            problem = problem or SourceError(
                f"{path}: line {number}: invalid CSV: {error}", "check for an unclosed quotation mark"
            )
    return rows, problem


def _json_rows(path: Path, entries: list[tuple[int, str]]) -> tuple[list[str], Rows, SourceError | None]:
    found: list[tuple[int, dict]] = []
    problem = None
    for number, line in entries:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            found.append((number, row))
        else:
            problem = problem or SourceError(
                f"{path}: line {number}: not a JSON object", "write one object a line: JSON Lines"
            )
    header = list(dict.fromkeys(key for _, row in found for key in row))
    return header, [(number, [_as_text(row.get(key)) for key in header]) for number, row in found], problem


def _as_text(value: object) -> str:
    if isinstance(value, list) and all(isinstance(one, (str, int)) for one in value):
        return "|".join(map(str, value))  # several of them are refused as several labels
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return "" if value is None else str(value).strip()
