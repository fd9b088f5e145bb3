"""Photos whose labels are numbers, or names, in a file: which classes are these?

In:  a Row for each photo.  Out: Found. Number 3 is called what the source says, or else as the folder its photos lie
in or the wnid in their names, where that is one name for one number; else it is called 3. So the same photos have the
same classes in every layout.
"""

import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import SourceError
from ..shards.datum import NO_LABEL
from .photo import Entry, Found, stem_of
from .splits import WORDS

_WNID = re.compile(r"n\d{8}")


class Row(NamedTuple):
    """A photo as a file lists it.

    Attributes:
        number: its label; None, if the file gives names instead; -1, it has none.
        name: its class's name, where the file says it.
        path, bytes, archive, offset: as in Entry.
        line: of the list.
        words: what people call its class, where the file says it.
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
        """Whether it has one."""
        return bool(self.name) if self.number is None else self.number != NO_LABEL


def find_classes(
    kind: str,
    rows: dict[str, list[Row]],
    split: str | None,
    where: Callable[[str, Row], str],
    names: Sequence[str] = (),
) -> Found:
    """Give every photo its class.

    Args:
        kind: of the layout.
        rows: by split; under "" where there are no splits.
        split: the one that is asked for.
        where: says where a row stands, from its split and itself.
        names: of the classes by number, where the source lists them.
    Raises:
        SourceError: a label is missing, negative, beyond the names, or of another kind than those before.
    """
    found = Found(f"{kind}, {_in_words([*rows])}", {})
    test = rows.get("test", [])
    if len(rows) > 1 and test and split != "test" and not any(row.has_label() for row in test):
        found.notes.append(f"test: {len(test):,} photos without labels are skipped (--split test builds them)")
        rows = {name: some for name, some in rows.items() if name != "test"}
    rows = {name: _labelled(name, some, split, where) for name, some in rows.items()}
    labelled = [(name, row) for name, some in rows.items() for row in some if row.has_label()]
    _check(labelled, where, names)
    numbers = {row.number for _, row in labelled if row.number is not None}
    called = _names_of_numbers(rows, numbers, names, found) if numbers else {}
    called[NO_LABEL] = ""
    for name, some in rows.items():
        found.entries[name] = []
        for row in some:
            class_name = row.name if row.number is None else called[row.number]
            found.entries[name].append(Entry(class_name, *row[2:6]))
            if row.words and class_name:
                found.words.setdefault(class_name, row.words)
    return found


def _in_words(splits: list[str]) -> str:
    named = [name for name in splits if name != "test"] or splits
    return " and ".join(named) if len(named) > 1 else f"all {named[0]}" if named[0] else "flat"


def _labelled(name: str, rows: list[Row], split: str | None, where: Callable) -> list[Row]:
    """The rows that have a label; all of them, where a test split may lack it and is asked for."""
    lacking = [row for row in rows if not row.has_label()]
    if not lacking or (split == "test" and name in ("", "test")):
        return rows
    if name == "" or split in (None, name):
        raise SourceError(
            f"{where(name, lacking[0])}: no label"
            + (f", and so {len(lacking) - 1:,} more of {len(rows):,} photos" if len(lacking) > 1 else ""),
            "add the labels; only a test split may be without, and is built by --split test",
        )
    return [row for row in rows if row.has_label()]


def _check(labelled: list[tuple[str, Row]], where: Callable, names: Sequence[str]) -> None:
    for name, row in labelled:
        first = labelled[0][1].number
        if (row.number is None) != (first is None):
            this, others = (f"the name {row.name!r}", "numbers") if row.number is None else (row.number, "names")
            raise SourceError(
                f"{where(name, row)}: the label is {this}, while those before are {others}",
                "label all photos by numbers, or all by names",
            )
        if row.number is None:
            continue
        if row.number < 0:
            raise SourceError(f"{where(name, row)}: the label {row.number} is negative", "classes are numbered from 0")
        if names and row.number >= len(names):
            raise SourceError(
                f"{where(name, row)}: the label {row.number} has no name: there are {len(names)}, numbered from 0",
                "are the labels and the names of one data set?",
            )


def _names_of_numbers(rows: dict, numbers: set[int], names: Sequence[str], found: Found) -> dict[int, str]:
    """The class names; writes down classes, words and notes."""
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
            f"the labels run up to {everything[-1]:,} and leave out {missing:,} numbers, {first} the first: "
            "the classes are numbered anew, from 0 and without gaps"
        )
    return called


def _called_alike(rows: dict[str, list[Row]]) -> dict[int, str]:
    """What the splits call their numbers.

    Raises:
        SourceError: one split numbers the classes otherwise than another.
    """
    called: dict[int, str] = {}
    numbers: dict[str, tuple[int, str]] = {}
    for split, some in rows.items():
        for number, name in _called_in([row for row in some if row.has_label()]).items():
            if name in numbers and numbers[name][0] != number:
                other, there = numbers[name]
                raise SourceError(
                    f"{name} has the label {other} in {there} and {number} in {split}",
                    "are the labels of both by the same order of classes?",
                )
            if called.setdefault(number, name) == name:
                numbers.setdefault(name, (number, split))
    return called


def _called_in(rows: list[Row]) -> dict[int, str]:
    """By the first of the hints that gives every number one name of its own; empty, if none does."""
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
    """Of a photo in its archive, or on the disk; not the split's."""
    inside = row.path[len(row.archive) + 1 :] if row.archive else row.path
    name = os.path.basename(os.path.dirname(inside))
    return "" if name.lower() in WORDS or name in (".", "..") else name


def _wnid_at_end(row: Row) -> str:
    return _wnid(stem_of(row.path).rpartition("_")[2])


def _wnid_at_start(row: Row) -> str:
    return _wnid(stem_of(row.path).partition("_")[0])


def _wnid(token: str) -> str:
    return token if _WNID.fullmatch(token) else ""
