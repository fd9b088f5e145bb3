"""Files that are old or new and never between: write beside, sync, rename, sync the folder.

In:  bytes, or a function that writes them.  Out: the file under its final name, or nothing there and an error with it.
A symbolic link is followed, and what is no file, a pipe or /dev/stdout, is written into and stays.
"""

import csv
import errno
import fcntl
import io
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import AlexnetError, ShardError, UsageError

LOCK = ".lock"
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT)

Content = bytes | Callable[[BinaryIO], object]


class NotWrittenError(OSError):
    """A file could not be written: the system's error with the file's own name, not that of the one beside it."""


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Name the file that a block writes where the system's error does not, or names another.

    Raises:
        NotWrittenError: the block met an error of the system; a reader who has left is none.
    """
    try:
        yield
    except (NotWrittenError, BrokenPipeError):
        raise
    except OSError as error:
        raise NotWrittenError(error.errno, error.strerror or " ".join(str(error).split()), str(path)) from error


def remedy(number: int | None) -> str:
    """What to do where a file could not be written, by the number of the system's error."""
    if number in FORBIDDEN:
        return "see that you may write there"
    if number in FULL:
        return "make room"
    return "see what is there, or name another" if number in NO_FILE else "see to the disk"


def write_atomically(path: Path, content: Content, part: str = "part") -> None:
    """Put a file in place at once; on any failure the old one, if there was one, is untouched.

    Args:
        part: ends the name of the file beside it; one of its own where two processes may write one file.
    Raises:
        NotWrittenError: it cannot be written; the error has the file's own name.
    """
    with writing_to(path):
        stream = _stream(path)
        if stream is not None:
            with stream:
                _write_through(stream, content)
            return
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        beside = target.with_name(f".{target.name}.{part}")
        try:
            with open(beside, "wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync(target.parent)


def _stream(path: Path) -> BinaryIO | None:
    """What a path that is no file is written through: an output of this process, a pipe, a terminal; None for files.

    Raises:
        OSError: it is a folder, a disk or a socket.
    """
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return None
    for handle in (1, 2):  # /dev/stdout: of a shell's `> file` too the lines before are kept
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), there):
                return open(os.dup(handle), "wb")
    if stat.S_ISREG(there.st_mode):
        return None
    if stat.S_ISFIFO(there.st_mode) or stat.S_ISCHR(there.st_mode):
        return open(path, "wb")
    number = errno.EISDIR if stat.S_ISDIR(there.st_mode) else errno.ENXIO
    raise OSError(number, os.strerror(number))


def _write_through(stream: BinaryIO, content: Content) -> None:
    """Write into what cannot seek, and nothing of a content that fails half way."""
    if not callable(content):
        stream.write(content)
        return
    with tempfile.TemporaryFile() as whole:
        content(whole)
        whole.seek(0)
        shutil.copyfileobj(whole, stream)


def write_json(path: Path, value: object) -> None:
    """Write JSON for people and programs: indented, sorted as given, atomically."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    with writing_to(folder):
        _sync(folder)


def _sync(folder: Path) -> None:
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
        NotWrittenError: it cannot be made.
    """
    try:
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except NotWrittenError as error:
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise UsageError(f"{folder}: not a folder", "choose another") from None
        raise
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


# --- from pipeline/names.py

_LONE = re.compile("[\ud800-\udfff]")


def printable(name: str) -> str:
    """The name with U+FFFD in place of what is no character."""
    return _LONE.sub("\ufffd", name)


# --- from pipeline/refused.py

# `.NAME.part` of files, `.NAME.lmdb.0a1b2c3d.part` of shards; the latter may stand in the middle of a path.
_BESIDE = re.compile(r"(?<=/)\.([^/]+?)(?:\.[0-9a-f]{8})?\.part(?=[/:]|$)")
_UNREADABLE = (errno.EACCES, errno.EPERM)


@contextmanager
def with_final_name(place: Path):
    """Have an error of the system name a file by its final name; the place, where the system names none.

    Raises:
        NotWrittenError: the block met an error of the system.
        AlexnetError: it may not read a file that lies elsewhere.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, (ConnectionError, TimeoutError, BlockingIOError)):
            raise  # a network's, a process's: not of a file
        # Of a rename the second name is the one that people know; what is done to a handle has none.
        name = error.filename2 or error.filename
        path = final_names(os.fsdecode(name)) if isinstance(name, (str, bytes)) else str(place)
        written = isinstance(error, NotWrittenError) or error.filename2  # a rename
        if error.errno in _UNREADABLE and not written and not _is_of(path, place):
            raise _not_read(error, path) from error
        raise NotWrittenError(error.errno, error.strerror or str(error), path) from error


@contextmanager
def reading(path: Path):
    """Have an error of the system name the file that a block reads; it names none once the file is open.

    Raises:
        AlexnetError: the block met an error of the system.
    """
    try:
        yield
    except OSError as error:
        raise _not_read(error, str(path)) from error


def _not_read(error: OSError, path: str) -> AlexnetError:
    what = "see that you may read it" if error.errno in _UNREADABLE else remedy(error.errno)
    return AlexnetError(f"{path}: {error.strerror or error}", f"{what}, then run the same command again")


def _is_of(path: str, place: Path) -> bool:
    """Whether a path is the place or below it; of a shard, whose receipt lies elsewhere in its set, of the set."""
    root = place.parents[1] if place.suffix == ".lmdb" and len(place.parents) > 1 else place
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))


def final_names(text: str) -> str:
    """A path, or a message, with the names that files have while they are written replaced by those they will have."""
    return _BESIDE.sub(r"\1", text)
