"""Photos in parquet files, as in Hugging Face's image data sets.

    data/train-00000-of-00294.parquet    image: struct{bytes, path}, label: int64
    train/0000.parquet                   the split in the folder's name
    x.parquet                            (flat: find.py holds out a seeded share)

In:  a folder, or one file.  Out: Found; `read_rows` reads the photos of a file in order.
Finding photos reads labels and names only. A photo's size is then unknown: Entry.bytes is the row group's size divided
by its rows, which keeps the sum correct, so that photos of other sizes usually give another fingerprint.
"""

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SourceError, UsageError
from ..shards.datum import NO_LABEL
from .class_folders import read_words
from .entries import Declined, Found, Request
from .inventory import Inventory
from .label_names import Row, find_classes
from .photo import PARQUET
from .splits import files_by_split, first_file

KIND = "parquet"
IMAGES = ("image", "img", "jpg", "jpeg", "png")
LABELS = ("label", "labels", "fine_label", "cls")
_ROWS_AT_ONCE = 16  # photos decoded together: a few MB
_AGAIN = "copy or download it again"
_FEWEST_BYTES = 512  # per row; fewer suggest paths instead of photos
_BUFFER_BYTES = 1 << 20  # read at a time, instead of a row group's whole column


class Columns(NamedTuple):
    """Names of a file's columns: image, its fields with bytes and path, and label; empty if missing."""

    image: str
    bytes: str
    path: str
    label: str


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if the path is a parquet file, or a folder with some in it or one level below."""
    return None if first_file(look.source, PARQUET) else Declined("parquet files, in SOURCE, its data/ or train/, val/")


def find(look: Inventory, ask: Request) -> Found:
    """List the photos in the files.

    Raises:
        UsageError: pyarrow is not installed, there are no files, or their names do not determine the splits.
        SourceError: a file is damaged, has no photos or labels, or its labels are inconsistent with the others'.
    """
    _pyarrow()
    root, split = look.source, ask.split
    folder = root.parent if root.is_file() else root
    files = files_by_split(root, PARQUET)
    if not files:
        raise UsageError(f"{root}: no parquet files", "put them into the folder itself, its data/, or train/ and val/")
    rows: dict[str, list[Row]] = {}
    names: tuple[str, ...] = ()
    named_by = ""
    for name, paths in files.items():
        rows[name] = []
        for path in paths:
            inside, its_names = _rows(folder, path)
            rows[name] += inside
            if its_names and names and its_names != names:
                raise SourceError(
                    f"{folder / path}: class names differ from those of {folder / named_by}",
                    "check that all files are of the same data set",
                )
            names, named_by = its_names or names, path
    if not any(rows.values()):
        raise UsageError(f"{root}: {sum(map(len, files.values()))} parquet files without rows", "are these all files?")
    found = find_classes(KIND, rows, split, lambda _, row: f"{folder / row.archive}: row {row.offset}", names)
    found.root, found.words = folder, read_words(folder) | found.words
    found.notes = [*_absent(files), *found.notes]
    return found


def read_rows(path: Path, rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Read photos, in the order of the file, each row group at most once and a few photos at a time.

    Args:
        path: the file.
        rows: row numbers in the file, ascending.
    Yields:
        The row number and its photo's bytes; empty for null.
    Raises:
        ValueError: the rows are not ascending.
        SourceError: the file cannot be read, is damaged, or has fewer rows.
    """
    if any(after <= before for before, after in pairwise([-1, *rows])):
        raise ValueError("rows must be ascending, from 0")
    with _opened(path) as file:
        count = file.metadata.num_rows
        if len(rows) and rows[-1] >= count:
            raise SourceError(
                f"{path}: no row {rows[-1]}: the file has {count:,} rows", "the file was replaced: build the set again"
            )
        columns = _columns(path, file)
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            wanted = rows[bisect_left(rows, start) : bisect_left(rows, end)]
            if len(wanted):
                yield from _rows_of_group(path, file, columns, group, start, wanted)
            start = end


def _rows_of_group(
    path: Path, file: Any, columns: Columns, group: int, start: int, wanted: Sequence[int]
) -> Iterator[tuple[int, bytes]]:
    place = 0
    for batch in file.iter_batches(_ROWS_AT_ONCE, [group], [columns.bytes], use_threads=False):
        photos = _photos(columns, batch.column(0))
        while wanted[place] < start + len(photos):
            yield wanted[place], photos[wanted[place] - start].as_py() or b""
            place += 1
            if place == len(wanted):
                return
        start += len(photos)
    raise SourceError(f"{path}: ends before row {wanted[place]}", _AGAIN)


def _rows(folder: Path, path: str) -> tuple[list[Row], tuple[str, ...]]:
    """Return the photos of a file, and its list of class names."""
    with _opened(folder / path) as file:
        columns = _columns(folder / path, file)
        count = file.metadata.num_rows
        in_groups = sum(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
        labels = names = [None] * (count if count == in_groups else 0)
        if columns.label and count:
            labels = file.read([columns.label], use_threads=False).column(0).to_pylist()
        if columns.path and count:
            table = file.read([columns.path], use_threads=False)
            names = _compute().struct_field(table.column(columns.image), "path").to_pylist()
        if not count == len(labels) == len(names):
            raise SourceError(f"{folder / path}: columns have different lengths", _AGAIN)
        sizes = _sizes(folder / path, file, columns)
        classes = _class_names(file, columns.label)
    rows = []
    taken: set[str] = set()
    for k, (label, name) in enumerate(zip(labels, names, strict=True)):
        called = _file_name(name) or f"row-{k:07d}"
        if called in taken:
            called = f"row-{k:07d}/{called}"
        taken.add(called)
        rows.append(Row(*_number_and_name(label), f"{path}/{called}", sizes[k], path, k))
    return rows, classes


def _number_and_name(label: int | str | None) -> tuple[int | None, str]:
    if isinstance(label, str):
        return None, label
    return (NO_LABEL if label is None else label), ""


def _columns(path: Path, file: Any) -> Columns:
    """Determine the columns from the schema.

    Raises:
        SourceError: there are no photos, or labels are of an unsupported type.
    """
    types = _pyarrow().types
    schema = file.schema_arrow
    image = next((name for name in IMAGES if name in schema.names), "")
    label = next((name for name in LABELS if name in schema.names), "")
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if not image:
        names = ", ".join(IMAGES)
        raise SourceError(f"{path}: no column is named {names}; columns: {columns}", "rename the column of the photos")
    kind = schema.field(image).type
    fields = {field.name: field.type for field in kind} if types.is_struct(kind) else {}
    if types.is_string(kind) or types.is_large_string(kind) or (set(fields) == {"path"}):
        raise _paths_only(path, image)
    binary = fields.get("bytes", kind)
    if not (types.is_binary(binary) or types.is_large_binary(binary)):
        raise SourceError(
            f"{path}: the column {image} is {kind}; photos must be binary or struct{{bytes: binary, path: string}}",
            "save the encoded files of the photos",
        )
    if label and not _is_label(types, schema.field(label).type):
        raise SourceError(
            f"{path}: the column {label} is {schema.field(label).type}; labels must be integers or class names",
            "save one label per photo",
        )
    has_path = "path" in fields and (types.is_string(fields["path"]) or types.is_large_string(fields["path"]))
    return Columns(image, f"{image}.bytes" if fields else image, f"{image}.path" if has_path else "", label)


def _is_label(types: Any, kind: Any) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)


def _sizes(path: Path, file: Any, columns: Columns) -> list[int]:
    """Return a size for each row; the sum over a row group is correct, including other columns.

    The size of the photos' column alone is not read: `row_group.column` of pyarrow 26 crashes on a damaged footer.
    """
    sizes: list[int] = []
    for group in range(file.num_row_groups):
        about = file.metadata.row_group(group)
        if about.num_rows:
            each, more = divmod(max(0, about.total_byte_size), about.num_rows)
            sizes += [each + (k < more) for k in range(about.num_rows)]
    if sizes and sum(sizes) < _FEWEST_BYTES * len(sizes):
        column = file.read([columns.bytes], use_threads=False).column(0)
        if all(len(photos) == photos.null_count for photos in map(partial(_photos, columns), column.chunks)):
            raise _paths_only(path, columns.image)
    return sizes


def _class_names(file: Any, label: str) -> tuple[str, ...]:
    """Return the class names that the library `datasets` writes into the schema."""
    try:
        about = json.loads((file.schema_arrow.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
        return tuple(names) if all(isinstance(name, str) for name in names) else ()
    except (KeyError, TypeError, ValueError):
        return ()


def _photos(columns: Columns, column: Any) -> Any:
    return column if columns.bytes == columns.image else _compute().struct_field(column, "bytes")


def _file_name(path: str | None) -> str:
    name = (path or "").rsplit("/", 1)[-1]
    return "" if name in (".", "..") else name


def _absent(files: dict[str, list[str]]) -> list[str]:
    """Return notes on incomplete downloads, by names such as `train-00003-of-00294`."""
    notes = []
    for paths in files.values():
        totals = {path.removesuffix(PARQUET).rpartition("-of-")[2] for path in paths if "-of-" in path}
        total = totals.pop() if len(totals) == 1 else ""
        if total.isdecimal() and len(paths) < int(total):
            notes.append(f"only {len(paths):,} of {int(total):,} files such as {paths[0]} exist")
    return notes


def _paths_only(path: Path, column: str) -> SourceError:
    return SourceError(
        f"{path}: the column {column} has paths of photos, not their bytes",
        "save the photos in the file (datasets: dataset.cast_column, then to_parquet), "
        "or use a list of lines `path label`",
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a parquet file; all its errors become SourceError."""
    pyarrow = _pyarrow()
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True) as file:
            yield file
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise SourceError(f"{path}: not a complete parquet file: {message}", _AGAIN) from None


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UsageError(
            "reading parquet files requires pyarrow, which is not installed",
            "pip install pyarrow  (or the extra: alexnet-dali[parquet])",
        ) from None
    return pyarrow


def _compute() -> Any:
    import pyarrow.compute

    return pyarrow.compute
