"""CSV files, written and read row by row; file names in them that are not UTF-8 keep their bytes.

In:  rows.  Out: the file under its final name, and its rows again.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from .files import write_atomically


def write_csv(path: Path, header: tuple[str, ...], rows: Iterable) -> None:
    """Write a CSV atomically, row by row; file names that are not UTF-8 keep their bytes."""

    def write(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        plain, quoted = (
            csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        )
        try:
            for row in chain([header], rows):  # Python leaves a carriage return unquoted, and reads it as a line's end
                (quoted if any("\r" in str(field) for field in row) else plain).writerow(row)
            text.flush()
        finally:
            with suppress(OSError, ValueError):
                text.detach()  # the file is the caller's

    write_atomically(path, write)


def read_csv(path: Path) -> list[list[str]]:
    """Read the rows of a CSV without its header."""
    return list(csv_rows(path))


def csv_rows(path: Path) -> Iterator[list[str]]:
    """Yield the rows of a CSV without its header."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        yield from islice(csv.reader(file), 1, None)
