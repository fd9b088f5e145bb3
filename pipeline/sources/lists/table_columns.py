"""Which column of a table is the path, the label and the split.

In:  names of columns, if there are any, and rows of text.  Out: Columns.  By the names that people use (Kaggle, fastai,
autogluon, Hugging Face's metadata.csv, Vertex AI); else by what is in them. What can be read in two ways is refused.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from ...errors import SourceError
from ..photo import is_photo
from ..splits import split_of

PATHS = frozenset(  # as `plain` writes them: file_name, Image Path
    """path paths file files filename filenames filepath filepaths fname fpath image images imagepath imagepaths
    imagename imagenames imagefile imagefilename imagefilepath img imgs imgpath imgname imgfile imname relpath
    relativepath fullpath pathname photo photopath picture gcsfilepath imagegcsuri""".split()
)
IDS = frozenset("id imageid imgid idcode isicid fileid photoid pictureid key uid uuid".split())
LABELS = frozenset(
    """label labels labelid labelname labelidx labelindex class classes classid classname classindex classidx classlabel
    category categories categoryid categoryname target targets cls wnid synset y breed species diagnosis dx groundtruth
    findinglabels""".split()
)
_SURE = frozenset("split splits subset partition mluse traintestsplit".split())  # of these every value must be a split
_BOOLEAN = {"isvalid": "val", "isval": "val", "isvalidation": "val", "valid": "val", "istest": "test"}
_TRAIN_OR_NOT = frozenset("istrain istraining istrainingimage".split())
SPLITS = _SURE | {"dataset", "set", "usage", "phase", "fold"} | _BOOLEAN.keys() | _TRAIN_OR_NOT
_INDEX = frozenset(["", "unnamed0", "index", "idx", "no"])  # row numbers, as pandas writes them
_YES_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_FIRST = 100  # rows that show which column is the path
_NUMBER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBERS = re.compile(r"\d+(\s*[ ,]\s*\d+)+", re.ASCII)
Rows = list[tuple[int, list[str]]]


@dataclass
class Columns:
    """The numbers of the columns, -1 for none.

    Attributes:
        path, label, name, words, split: path or id; label; class name beside a number; readable name; split.
        splits: split by the cell of its column.
        notes: what is not used, or had to be inferred.
        problem: why the labels cannot be used.
    """

    path: int = 0
    label: int = -1
    name: int = -1
    words: int = -1
    split: int = -1
    splits: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problem: SourceError | None = None


def plain(name: str) -> str:
    """Return a column's name in small letters, without blanks and signs: `Image_ID` is imageid."""
    return re.sub(r"[\W_]+", "", name.lower())


def columns_of(path: Path, header: list[str], rows: Rows, fits: Callable[[str], bool], guess: bool) -> Columns:
    """Find the columns.

    Args:
        path: the file, for messages.
        header: names of the columns; empty if there are none.
        rows: line number and cells, as many in each.
        fits: returns whether a cell names a photo.
        guess: the only other column is the label, whatever its name.
    """
    if not rows:
        return Columns()
    names = [plain(name) for name in header] or [""] * len(rows[0][1])
    columns = Columns(_path_column(names, rows, fits))
    _set_split(path, header, names, rows, columns)
    rest = [k for k in range(len(names)) if k not in (columns.path, columns.split)]
    labels = [k for k in rest if names[k] in LABELS]
    if not labels and (guess or not header):
        labels = _only_other(header, names, rows, rest)
        if labels and header:
            columns.notes.append(f"{path}: the label is the column {header[labels[0]]}")
    problem = _set_labels(path, header, rows, labels, columns)
    columns.problem = columns.problem or problem
    if not columns.problem and not labels and rest and (guess or not header):
        columns.problem = _no_label(path, header, rows, [k for k in rest if names[k] not in _INDEX] or rest)
    used = (columns.path, columns.split, columns.label, columns.name, columns.words)
    if unused := [repr(name) if not plain(name) else name for k, name in enumerate(header) if k not in used]:
        shown = ", ".join(unused[:8]) + (f" and {len(unused) - 8} more" if len(unused) > 8 else "")
        columns.notes.append(f"{path}: columns that are not used: {shown}")
    return columns


def _path_column(names: list[str], rows: Rows, fits: Callable[[str], bool]) -> int:
    head = [cells for _, cells in rows[:_FIRST]]
    named = [k for known in (PATHS, IDS) for k, name in enumerate(names) if name in known]
    photos = [k for k in range(len(names)) if k not in named and any(is_photo(cells[k]) for cells in head)]
    for k in (*named, *photos):
        if any(cells[k] and fits(cells[k]) for cells in head):
            return k
    others = [k for k, name in enumerate(names) if name not in LABELS and name not in SPLITS and name not in _INDEX]
    return (*named, *photos, *others, 0)[0]


def _set_split(path: Path, header: list[str], names: list[str], rows: Rows, columns: Columns) -> None:
    """Set the column of splits, and the split of each of its values."""
    found: list[tuple[int, dict[str, str]]] = []
    for k, name in enumerate(names):
        if k == columns.path or name in LABELS:
            continue
        values = dict.fromkeys(cells[k] for _, cells in rows)
        if name in _BOOLEAN or name in _TRAIN_OR_NOT:
            splits = {value: _by_boolean(name, value) for value in values}
        else:
            splits = {value: split_of(value) if len(value) < 40 else "" for value in values}
        known = [split for split in splits.values() if split]
        if name in _SURE or (known and name in SPLITS) or (len(known) == len(values) and len({*known}) > 1):
            found.append((k, splits))
    for k, splits in found:
        called = header[k] if header else f"{k + 1}"
        wrong = next(((number, cells[k]) for number, cells in rows if not splits[cells[k]]), None)
        if wrong and not columns.problem:
            columns.problem = SourceError(
                f"{path}: line {wrong[0]}: the split {wrong[1]!r} (column {called}) is not known",
                "write train, val or test in a column named split",
            )
    for (k, one), (m, other) in pairwise(found):
        differs = next((number for number, cells in rows if one[cells[k]] != other[cells[m]]), 0)
        if differs and not columns.problem:
            names_of = f"{header[k]} and {header[m]}" if header else f"{k + 1} and {m + 1}"
            columns.problem = SourceError(
                f"{path}: line {differs}: the columns {names_of} say different splits", "remove all of them but one"
            )
    if found:
        columns.split, columns.splits = found[0]


def _by_boolean(name: str, value: str) -> str:
    yes = _YES_NO.get(value.lower())
    if name in _TRAIN_OR_NOT:
        return "train" if yes else ""  # what is not train may be val or test
    return "" if yes is None else _BOOLEAN[name] if yes else "train"


def _only_other(header: list[str], names: list[str], rows: Rows, rest: list[int]) -> list[int]:
    """Return the only column that may be the label: the only one that is left, and its values recur."""
    left = [k for k in rest if names[k] not in _INDEX] if header else rest
    left = [k for k in left if names[k] not in IDS and names[k] not in PATHS] or left
    if len(left) != 1:
        return []
    recur = len({cells[left[0]] for _, cells in rows}) < len(rows)
    return left if recur or not header or len(rows) < 4 else []


def _set_labels(path: Path, header: list[str], rows: Rows, labels: list[int], columns: Columns) -> SourceError | None:
    """Set label, name and words, of columns that must map one to one; return why they cannot be used."""
    if not labels:
        return None
    for k in labels[1:]:
        there: dict[str, str] = {}
        back: dict[str, str] = {}
        for number, cells in rows:
            one, other = cells[labels[0]], cells[k]
            if there.setdefault(one, other) != other or back.setdefault(other, one) != one:
                columns.label = labels[0]
                return SourceError(
                    f"{path}: line {number}: the columns {header[labels[0]]} and {header[k]} are both labels, and do "
                    f"not map one to one: {one!r} with {other!r}",
                    "rename the one that is not the class, such as to other",
                )
    numbers = [k for k in labels if all(_NUMBER.fullmatch(cells[k]) for _, cells in rows)]
    texts = [k for k in labels if k not in numbers]
    columns.label = (*numbers, *texts)[0]
    if numbers:
        columns.name, columns.words = (*texts, -1, -1)[:2]
    else:
        columns.words = (*texts[1:], -1)[0]
    return _several(path, rows, labels[0])


def _several(path: Path, rows: Rows, k: int) -> SourceError | None:
    """Return an error if cells have several labels.

    They have if there is a bar or semicolon in them, or numbers; or if every word of every cell of several words
    recurs in another cell, as in `clear primary`, `haze primary`, `clear`, but not in `tiger shark`, `tiger cat`.
    """
    values = dict.fromkeys(cells[k] for _, cells in rows)
    wrong = next((value for value in values if re.search(r"[|;]", value) or _NUMBERS.fullmatch(value)), "")
    for separator in (",", None):
        if wrong:
            break
        parts = {value: {*map(str.strip, value.split(separator))} for value in values}
        times: dict[str, int] = {}
        for words in parts.values():
            for word in words:
                times[word] = times.get(word, 0) + 1
        compound = [value for value, words in parts.items() if len(words) > 1]
        if compound and all(times[word] > 1 for value in compound for word in parts[value]):
            wrong = compound[0]
    if not wrong:
        return None
    number = next(number for number, cells in rows if cells[k] == wrong)
    return SourceError(
        f"{path}: line {number}: several labels of a photo: {wrong!r}",
        "a photo has one class here; write one label a line, or join the words of a name by _",
    )


def _no_label(path: Path, header: list[str], rows: Rows, rest: list[int]) -> SourceError:
    first, cells = rows[0]
    named = ", ".join(header[k] for k in rest[:8]) if header else f"{len(rest)} columns beside the path"
    named += f" and {len(rest) - 8} more" if header and len(rest) > 8 else ""
    if len(rest) > 1 and all(re.fullmatch(r"[01](\.0*)?", row[k]) for _, row in rows for k in rest):
        return SourceError(
            f"{path}: line {first}: one-hot: a 0 or 1 for each of {named}, which may say several labels of a photo",
            "write one column label with the class's name",
        )
    return SourceError(
        f"{path}: line {first}: which column is the label? There is {named}: "
        f"{', '.join(cells[k] for k in rest[:8])[:80]}",
        "rename the column of the classes to label" if header else "write a first line such as path,label,split",
    )
