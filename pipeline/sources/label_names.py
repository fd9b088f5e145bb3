"""Class names for photos whose labels, numbers or names, come from a file.

In:  one Row per photo.  Out: Found.  A number's class name is the one in the source, or else the folder of its photos
or the wnid in their file names, if these map one to one to the numbers; else the number itself. So the same photos
have the same class names in every layout.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import SourceError
from ..shards.datum import NO_LABEL
from .entries import Entries, Entry, Found, LeftOut
from .photo import stem_of
from .splits import WORDS

LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")  # Kaggle's, Caffe's, ImageNet's own
_MOST_BYTES = 16 << 20  # of such a list; ImageNet's words.txt has 3 MB
_WNID = re.compile(r"n\d{8}")


class Row(NamedTuple):
    """A photo as listed in a file.

    Attributes:
        number: label; None if the file has names instead; -1 for no label.
        name: class name, if the file has it.
        path, bytes, archive, offset: as in Entry.
        line: line number in the list, from 1.
        words: human-readable class name, if the file has it.
    """

    number: int | None
    name: str
    path: str
    bytes: int
    archive: str = ""
    offset: int = 0
    line: int = 0
    words: str = ""

    def has_label(self) -> bool:
        """Return whether the photo has a label."""
        return bool(self.name) if self.number is None else self.number != NO_LABEL


def find_classes(
    kind: str,
    rows: dict[str, list[Row]],
    split: str | None,
    where: Callable[[str, Row], str],
    names: Sequence[str] = (),
) -> Found:
    """Assign a class name to every photo.

    Args:
        kind: name of the layout.
        rows: photos by split; under "" where there are no splits.
        split: the requested split; None for all.
        where: returns the location of a row, given its split and the row, for error messages.
        names: class names by number, if the source lists them.
    Returns:
        The photos by split, with class names, human-readable names and notes.
    Raises:
        SourceError: a label is missing, negative, has no name, or is of another kind than those before it.
    """
    found = Found(f"{kind}, {_in_words([*rows])}", {})
    test = rows.get("test", [])
    if len(rows) > 1 and test and split != "test" and not any(row.has_label() for row in test):
        archives = Counter(row.archive for row in test)
        why = "test, without labels (--split test builds them)"
        found.left_out += [LeftOut(path, count, why) for path, count in archives.items()]
        rows = {name: some for name, some in rows.items() if name != "test"}
    rows = {name: _labelled(name, some, split, where) for name, some in rows.items()}
    labelled = [(name, row) for name, some in rows.items() for row in some if row.has_label()]
    _check(labelled, where, names)
    numbers = {row.number for _, row in labelled if row.number is not None}
    called = _names_of_numbers(rows, numbers, names, found) if numbers else {}
    called[NO_LABEL] = ""
    for name, some in rows.items():
        found.entries[name] = Entries()
        for row in some:
            class_name = row.name if row.number is None else called[row.number]
            found.entries[name].append(Entry(class_name, row.path, row.bytes, row.archive, row.offset))
            if row.words and class_name:
                found.words.setdefault(class_name, row.words)
    return found


def _in_words(splits: list[str]) -> str:
    named = splits if len(splits) == 2 else [name for name in splits if name != "test"] or splits
    return " and ".join(named) if len(named) > 1 else f"all {named[0]}" if named[0] else "flat"


def _labelled(name: str, rows: list[Row], split: str | None, where: Callable) -> list[Row]:
    """Return the rows with a label; all rows of a requested test split, which may be without."""
    lacking = [row for row in rows if not row.has_label()]
    if not lacking or (split == "test" and name in ("", "test")):
        return rows
    if name == "" or split in (None, name):
        raise SourceError(
            f"{where(name, lacking[0])}: no label"
            + (f"; {len(lacking):,} of {len(rows):,} photos have none" if len(lacking) > 1 else ""),
            "add the labels; only a test split, built with --split test, may be without",
        )
    return [row for row in rows if row.has_label()]


def _check(labelled: list[tuple[str, Row]], where: Callable, names: Sequence[str]) -> None:
    for name, row in labelled:
        first = labelled[0][1].number
        if (row.number is None) != (first is None):
            this, others = (f"the name {row.name!r}", "numbers") if row.number is None else (row.number, "names")
            raise SourceError(
                f"{where(name, row)}: the label is {this}, while earlier labels are {others}",
                "label all photos by numbers, or all by names",
            )
        if row.number is None:
            continue
        if row.number < 0:
            raise SourceError(f"{where(name, row)}: the label {row.number} is negative", "classes are numbered from 0")
        if names and row.number >= len(names):
            raise SourceError(
                f"{where(name, row)}: the label {row.number} is out of range: there are {len(names)} names, from 0",
                "check that labels and names belong to the same data set",
            )


def _names_of_numbers(rows: dict, numbers: set[int], names: Sequence[str], found: Found) -> dict[int, str]:
    """Return the class name of every number; set classes, words and notes of `found`."""
    everything = list(range(len(names))) if names else sorted(numbers)
    called = _called_alike(rows)
    if not all(number in called for number in everything):
        called = dict(enumerate(names)) if names and len({*names}) == len(names) and all(names) else {}
    called = {number: called.get(number, str(number)) for number in everything}
    found.classes = tuple(called.values())
    found.words = {called[number]: name for number, name in enumerate(names) if called[number] != name}
    if missing := everything[-1] + 1 - len(everything):
        first = next(k for k, number in enumerate([*everything, -1]) if k != number)
        found.notes.append(
            f"the labels run up to {everything[-1]:,} and skip {missing:,} numbers, first {first}: "
            "classes are renumbered from 0 without gaps"
        )
    return called


def _called_alike(rows: dict[str, list[Row]]) -> dict[int, str]:
    """Return the names that paths and rows give to the numbers, over all splits.

    Raises:
        SourceError: two splits number the classes differently.
    """
    called: dict[int, str] = {}
    numbers: dict[str, tuple[int, str]] = {}
    for split, some in rows.items():
        for number, name in _called_in([row for row in some if row.has_label()]).items():
            if name in numbers and numbers[name][0] != number:
                other, other_split = numbers[name]
                raise SourceError(
                    f"{name} has the label {other} in {other_split} and {number} in {split}",
                    "use the same class order for both splits",
                )
            if called.setdefault(number, name) == name:
                numbers.setdefault(name, (number, split))
    return called


def _called_in(rows: list[Row]) -> dict[int, str]:
    """Return the names of numbers by the first hint that maps one to one; empty if none does."""
    for hint in (_name, _folder, _wnid_at_end, _wnid_at_start):
        names: dict[int, str] = {}
        numbers: dict[str, int] = {}
        for row in rows:
            name, number = hint(row), row.number or 0
            if not name or names.setdefault(number, name) != name or numbers.setdefault(name, number) != number:
                break
        else:
            return names
    return {}


def _name(row: Row) -> str:
    return row.name


def _folder(row: Row) -> str:
    """Return the name of the photo's folder, in its archive or on disk, unless it names a split."""
    inside = row.path[len(row.archive) + 1 :] if row.archive else row.path
    name = os.path.basename(os.path.dirname(inside))
    return "" if name.lower() in WORDS or name in (".", "..") else name


def _wnid_at_end(row: Row) -> str:
    return _wnid(stem_of(row.path).rpartition("_")[2])


def _wnid_at_start(row: Row) -> str:
    return _wnid(stem_of(row.path).partition("_")[0])


def _wnid(token: str) -> str:
    return token if _WNID.fullmatch(token) else ""


def read_words(folder: Path) -> dict[str, str]:
    """Read human-readable class names from the first of LISTS in the folder: lines of `name words`.

    Returns:
        Readable names by class name; empty if no list can be read, which is no error: they are for display only.
    """
    for name in LISTS:
        try:
            with open(folder / name, encoding="utf-8-sig", errors="replace") as file:
                lines = file.read(_MOST_BYTES).splitlines()
        except OSError:
            continue
        pairs = (line.split(None, 1) for line in lines)
        return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    return {}
