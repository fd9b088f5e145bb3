"""The columns of a parquet file: photos, label, split, by the names and types that people use.

In:  a file's schema, or values of columns.  Out: Columns; labels and splits of rows.  Reads no file.
Of several columns of labels the first is used, if the others say the same in other words, or less (coarse_label).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SourceError
from ..shards.datum import NO_LABEL
from .splits import split_of

IMAGES = ("image", "img", "jpg", "jpeg", "png")
LABELS = (  # the first that exists is used
    *("label", "labels", "fine_label", "cls", "class", "target", "category", "label_id", "class_id", "category_id"),
    *("label_name", "class_name", "category_name", "label_text", "class_text", "wnid", "synset", "synset_id"),
)
COARSE = ("coarse_label", "coarse_labels", "superclass", "supercategory", "coarse_label_name")
SPLIT_COLUMNS = ("split", "subset", "partition", "set", "usage")


class Columns(NamedTuple):
    """Names of a file's columns: image, its fields with bytes and path, and label; empty if missing.

    Others: further columns of labels, those of coarser labels, and a column that may say each row's split.
    """

    image: str
    bytes: str
    path: str
    label: str
    more_labels: tuple[str, ...] = ()
    coarse: tuple[str, ...] = ()
    split: str = ""


class Agreement:
    """Whether two columns of labels say the same, one to one, in all files."""

    def __init__(self):
        self._there: dict[tuple[str, str], tuple[dict, dict]] = {}

    def check(self, path: Path, label: str, other: str, values: Sequence, others: Sequence) -> None:
        """Compare two columns of a file, except where the first has no label.

        Raises:
            SourceError: they are two labels.
        """
        to, back = self._there.setdefault((label, other), ({}, {}))
        for k, (one, two) in enumerate(zip(values, others, strict=True)):
            if has_label(one) and (to.setdefault(one, two) != two or back.setdefault(two, one) != one):
                raise SourceError(
                    f"{path}: row {k}: {label} is {one!r} and {other} is {two!r}, unlike in earlier rows: "
                    "the columns are two different labels",
                    f"save the file without the column that is not the label, {label} or {other}",
                )


def has_label(value: Any) -> bool:
    """Return whether the value of a label is one."""
    return value is not None and value not in (NO_LABEL, str(NO_LABEL), "")


def number_and_name(label: int | str | None) -> tuple[int | None, str]:
    """Return a label as a number or else as a name; a number written as text is a name, -1 is none."""
    if isinstance(label, str):
        return None, label if has_label(label) else ""
    return (NO_LABEL if label is None else label), ""


def splits_of_rows(path: Path, column: str, values: Sequence) -> list[str] | None:
    """Return the split of every row by a column of splits; None if it is of something else.

    Raises:
        SourceError: only some of the values name a split.
    """
    names = {value: split_of(value) if isinstance(value, str) else "" for value in set(values)}
    if all(names.values()):
        return [names[value] for value in values]
    if not any(names.values()) and column != "split":
        return None
    wrong = next(k for k, value in enumerate(values) if not names[value])
    raise SourceError(
        f"{path}: row {wrong}: the column {column} is {values[wrong]!r}, which names no split",
        "write train, val or test; or save the file without that column",
    )


def columns_of(path: Path, schema: Any) -> Columns:
    """Determine the columns of a file.

    Raises:
        SourceError: there are no photos, or labels are of an unsupported type.
    """
    image = next((name for name in IMAGES if name in schema.names), "")
    if not image:
        names, columns = ", ".join(IMAGES), _in_words(schema)
        raise SourceError(f"{path}: no column is named {names}; columns: {columns}", "rename the column of the photos")
    kind = schema.field(image).type
    fields = {field.name: field.type for field in kind} if _is(kind, "struct") else {}
    if is_text(kind) or set(fields) == {"path"}:
        raise paths_only(path, image)
    if not is_binary(fields.get("bytes", kind)):
        raise SourceError(
            f"{path}: the column {image} is {kind}; photos must be binary or struct{{bytes: binary, path: string}}",
            "save the encoded files of the photos",
        )
    there = [name for name in LABELS if name in schema.names]
    labels = [name for name in there if _is_label(schema.field(name).type)]
    if there and not labels:
        raise _no_label_type(path, there[0], schema.field(there[0]).type)
    splits = [name for name in SPLIT_COLUMNS if name in schema.names and is_text(schema.field(name).type)]
    return Columns(
        image,
        f"{image}.bytes" if fields else image,
        f"{image}.path" if "path" in fields and is_text(fields["path"]) else "",
        labels[0] if labels else "",
        tuple(labels[1:]),
        tuple(name for name in (*COARSE, *there) if labels and name in schema.names and name not in labels),
        splits[0] if splits else "",
    )


def _no_label_type(path: Path, name: str, kind: Any) -> SourceError:
    several = any(_is(kind, one) for one in ("list", "large_list", "fixed_size_list", "list_view", "large_list_view"))
    return SourceError(
        f"{path}: the column {name} is {kind}; labels must be integers or class names"
        + (", one a photo, and a list may have several" if several else ""),
        "save one label per photo, as an integer or a class name",
    )


def paths_only(path: Path, column: str) -> SourceError:
    """Return the error of a file that names photos in place of containing them."""
    return SourceError(
        f"{path}: the column {column} has paths of photos, not their bytes",
        "save the photos in the file (datasets: dataset.cast_column, then to_parquet), "
        "or use a list of lines `path label`",
    )


def is_text(kind: Any) -> bool:
    """Return whether a type is text: plain, large, view, or a dictionary of these."""
    kind = _in_dictionary(kind)
    return any(_is(kind, name) for name in ("string", "large_string", "string_view"))


def is_binary(kind: Any) -> bool:
    """Return whether a type is bytes: plain, large, view, or a dictionary of these."""
    kind = _in_dictionary(kind)
    return any(_is(kind, name) for name in ("binary", "large_binary", "binary_view"))


def _is_label(kind: Any) -> bool:
    return is_text(kind) or _is(_in_dictionary(kind), "integer") or _is(kind, "null")


def _in_dictionary(kind: Any) -> Any:
    return kind.value_type if _is(kind, "dictionary") else kind


def _is(kind: Any, name: str) -> bool:
    import pyarrow

    check = getattr(pyarrow.types, f"is_{name}", None)  # an old pyarrow has no views
    return check is not None and check(kind)


def _in_words(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
