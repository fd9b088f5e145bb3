"""Photos in parquet files, as in Hugging Face's image data sets.

    data/train-00000-of-00294.parquet    image: struct{bytes, path}, label: int64
    train/0000.parquet                   the split in the folder's name; or in a column of the table
    x.parquet                            (flat: find.py holds out a seeded share)

In:  an Inventory.  Out: Found; `read_rows` reads the photos of a file in order.  Which files: `parquet_files.py`; which
columns: `parquet_columns.py`.
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
from ..shards.manifest import SPLITS
from .entries import Declined, Found, Request
from .inventory import Inventory
from .label_names import Row, find_classes, read_words
from .parquet_columns import Agreement, Columns, columns_of, has_label, number_and_name, paths_only, splits_of_rows
from .parquet_files import files_by_split, notes_on, parquet_sets
from .splits import flat_if_train_alone

KIND = "parquet"
_ROWS_AT_ONCE = 16  # photos decoded together: a few MB
_AGAIN = "copy or download it again"
_FEWEST_BYTES = 512  # per row; fewer suggest paths instead of photos
_BUFFER_BYTES = 1 << 20  # read at a time, instead of a row group's whole column


class _Table(NamedTuple):
    """A file: its rows, the split of each or None, its class names by number, its columns and notes on them."""

    rows: list[Row]
    splits: list[str] | None
    names: tuple[str, ...]
    columns: Columns
    notes: list[str]


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if the path is a parquet file, or a folder with some in it or in folders of splits or sets."""
    if parquet_sets(look):
        return None
    files = [path for path in look.archives if path.lower().endswith(".parquet")]
    return Declined(
        "parquet files, in SOURCE, its data/ or train/, val/",
        f"{len(files):,} of them in folders of photos, such as {files[0]}" if files else "",
        "choose the folder of the parquet files" if files else "",
    )


def find(look: Inventory, ask: Request) -> Found:
    """List the photos in the files.

    Raises:
        UsageError: pyarrow is not installed, there are no files, or names or columns do not determine the splits.
        SourceError: a file is damaged, has no photos or labels, or its labels are inconsistent with the others'.
    """
    _pyarrow()
    folder = look.root
    files = files_by_split(look)
    notes = notes_on(look, files)
    rows: dict[str, list[Row]] = {}
    names: tuple[str, ...] = ()
    named_by, unlabelled = "", ""
    agreement = Agreement()
    for name, paths in files.items():
        for path in paths:
            try:
                table = _table(folder, path, agreement)
            except SourceError as error:
                other = error.hint != _AGAIN and look.source.is_dir()  # it may be another table than photos
                go_on = f"; or go on without the file: --ignore '{path}'" if other else ""
                raise SourceError(error.message, error.hint + go_on) from None
            _sort_rows(folder / path, name, table, rows)
            notes += [note for note in table.notes if note not in notes]
            unlabelled = unlabelled or ("" if table.columns.label else path)
            if table.names and names and table.names != names:
                raise SourceError(
                    f"{folder / path}: class names differ from those of {folder / named_by}",
                    "check that all files are of the same data set",
                )
            names, named_by = table.names or names, path
    if not any(rows.values()):
        count = sum(map(len, files.values()))
        raise UsageError(f"{look.source}: {count} parquet files without rows", "are these all files?")
    rows = flat_if_train_alone({split: rows[split] for split in ("", *SPLITS) if split in rows})
    try:
        found = find_classes(KIND, rows, ask.split, lambda _, row: f"{folder / row.archive}: row {row.offset}", names)
    except SourceError as error:
        if not unlabelled or not error.message.startswith(f"{folder / unlabelled}: row"):
            raise
        raise SourceError(f"{error.message}; no column is named label, labels, class, ...", error.hint) from None
    found.root, found.words = folder, read_words(folder) | found.words
    used = {archive for entries in found.entries.values() for archive in entries.archives()}
    for left in found.left_out:
        if left.path in used or not look.source.is_dir():  # the account is of whole files
            notes.append(f"{left.path}: {left.photos:,} photos are left out: {left.why}")
    found.notes = [*notes, *found.notes]
    return found


def _sort_rows(path: Path, split: str, table: _Table, rows: dict[str, list[Row]]) -> None:
    """Add the rows of a file to their splits, by the file's name or by its column of splits."""
    if table.splits is None:
        rows.setdefault(split, []).extend(table.rows)
        return
    for row, named in zip(table.rows, table.splits, strict=True):
        if split not in ("", named):
            raise SourceError(
                f"{path}: row {row.offset}: the column {table.columns.split} says {named}, the file's name {split}",
                "rename the file, or save it without that column",
            )
        rows.setdefault(named, []).append(row)


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
        columns = columns_of(path, file.schema_arrow)
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


def _table(folder: Path, path: str, agreement: Agreement) -> _Table:
    """Read what a file says about its photos."""
    with _opened(folder / path) as file:
        columns = columns_of(folder / path, file.schema_arrow)
        count = file.metadata.num_rows
        in_groups = sum(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
        nothing: list[Any] = [None] * (count if count == in_groups else 0)
        labels = _values(file, columns.label) if columns.label and count else nothing
        names = words = nothing
        if columns.path and count:
            names = _values(file, columns.image, "path")
        splits = _values(file, columns.split) if columns.split and count else nothing
        others = [_values(file, name) if count else nothing for name in columns.more_labels]
        if any(len(column) != count for column in (labels, names, splits, *others)):
            raise SourceError(f"{folder / path}: columns have different lengths", _AGAIN)
        for name, values in zip(columns.more_labels, others, strict=True):
            agreement.check(folder / path, columns.label, name, labels, values)
            if words is nothing and not any(isinstance(value, (int, float)) for value in values):
                words = values
        sizes = _sizes(folder / path, file, columns)
        classes = _class_names(file, columns.label)
    rows = []
    taken: set[str] = set()
    for k, (label, name, word) in enumerate(zip(labels, names, words, strict=True)):
        called = _file_name(name) or f"row-{k:07d}"
        if called in taken:
            called = f"row-{k:07d}/{called}"
        taken.add(called)
        its_words = word if word and word != label and has_label(label) else ""
        rows.append(Row(*number_and_name(label), f"{path}/{called}", sizes[k], path, k, words=its_words))
    by_row = splits_of_rows(folder / path, columns.split, splits) if columns.split and count else None
    return _Table(rows, by_row, classes, columns, _notes(columns, by_row is not None))


def _values(file: Any, column: str, field: str = "") -> list:
    values = file.read([f"{column}.{field}" if field else column], use_threads=False).column(0)
    return (_compute().struct_field(values, field) if field else values).to_pylist()


def _notes(columns: Columns, by_row: bool) -> list[str]:
    notes = []
    if columns.coarse:
        notes.append(f"the labels are those of the column {columns.label}; {', '.join(columns.coarse)}: not used")
    if columns.more_labels:
        notes.append(
            f"the labels are those of the column {columns.label}; the same say {', '.join(columns.more_labels)}"
        )
    if by_row:
        notes.append(f"the splits are those of the column {columns.split}")
    return notes


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
            raise paths_only(path, columns.image)
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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a parquet file; all its errors become SourceError."""
    pyarrow = _pyarrow()
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True) as file:
            yield file
    except pyarrow.ArrowNotImplementedError as error:
        message, now = str(error).partition("\n")[0], pyarrow.__version__
        raise SourceError(
            f"{path}: pyarrow {now} cannot read its columns: {message}",
            "save the photos as binary, their names as string, labels as int64; or update pyarrow",
        ) from None
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
