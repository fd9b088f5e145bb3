"""Files that are old or new and never between: write beside, sync, rename, sync the folder.

In:  bytes, or a function that writes them.  Out: the file under its final name, or nothing there.
"""

import csv
import fcntl
import io
import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import ShardError, UsageError

LOCK = ".lock"


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Put a file in place at once; on any failure the old one, if there was one, is untouched."""
    beside = path.with_name(f".{path.name}.part")
    try:
        with open(beside, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write JSON for people and programs: indented, sorted as given, atomically."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_csv(path: Path, header: tuple[str, ...], rows: list) -> None:
    """Write a CSV atomically; file names that are not UTF-8 keep their bytes."""
    text = io.StringIO()
    plain, quoted = (csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in (header, *rows):  # Python leaves a carriage return unquoted, and then reads it as the end of the line
        (quoted if any("\r" in str(field) for field in row) else plain).writerow(row)
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_csv(path: Path) -> list[list[str]]:
    """The rows of a CSV without its header."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))[1:]


@contextmanager
def locked(folder: Path):
    """Hold a folder for one process at a time; made if need be.

    The lock is the folder's own, so a killed process leaves nothing behind; on NFS it is that of a file LOCK in it.

    Raises:
        UsageError: it is a file.
        ShardError: another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{folder}: not a folder", "choose another") from None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ShardError(f"{folder}: another process is at work there", "wait for it, or stop it") from None
        except OSError:  # NFS locks what is open for writing, so no folder
            os.close(handle)
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ShardError(f"{folder}: another process is at work there", "wait for it, or stop it") from None
            except OSError:
                pass  # no locks at all: one builder at a time is then up to the user
        yield
    finally:
        os.close(handle)
