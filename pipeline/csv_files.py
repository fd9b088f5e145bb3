"""CSV files, written and read row by row; file names in them that are not UTF-8 keep their bytes.

In:  rows.  Out: the file under its final name, and its rows again.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from .files import write_atomically

_ROWS_AT_ONCE = 256


def write_csv(path: Path, header: tuple[str, ...], rows: Iterable) -> None:
    """Write a CSV atomically, row by row; file names that are not UTF-8 keep their bytes."""

    def write(file: BinaryIO) -> None:
        waiting = chain([header], rows)
        while part := list(islice(waiting, _ROWS_AT_ONCE)):
            text = io.StringIO()
            plain, quoted = (
                csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
            )
            for row in part:  # Python leaves a carriage return unquoted, and then reads it as the end of the line
                (quoted if any("\r" in str(field) for field in row) else plain).writerow(row)
            file.write(text.getvalue().encode("utf-8", "surrogateescape"))

    write_atomically(path, write)


def read_csv(path: Path) -> list[list[str]]:
    """Read the rows of a CSV without its header."""
    return list(csv_rows(path))


def csv_rows(path: Path) -> Iterator[list[str]]:
    """Yield the rows of a CSV without its header."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        yield from islice(csv.reader(file), 1, None)
