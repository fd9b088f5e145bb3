"""Files that are written atomically, folders for one process at a time, and system errors that name their file.

In:  bytes, or a function that writes them.  Out: the file under its final name, or the old state and an error.

    write_atomically, write_json               write beside, sync, rename, sync the folder
    locked, begin_or_resume                    one process at a time in a folder; a job that can be stopped and resumed
    writing_to, reading, with_final_name       give a system error the name of the file that the user knows

Symbolic links are followed. A pipe, a terminal or /dev/stdout is written into and not replaced.
"""

import errno
import fcntl
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
_UNREADABLE = (errno.EACCES, errno.EPERM)

# `.NAME.part` of files, `.NAME.lmdb.0a1b2c3d.part` of shards, also in the middle of a path.
_TEMPORARY = re.compile(r"(?<=/)\.([^/]+?)(?:\.[0-9a-f]{8})?\.part(?=[/:]|$)")
_SURROGATE = re.compile("[\ud800-\udfff]")

Content = bytes | Callable[[BinaryIO], object]


class NotWrittenError(OSError):
    """A file could not be written: the system's error, with the file's final name instead of the temporary one."""


def write_atomically(path: Path, content: Content, part: str = "part") -> None:
    """Replace a file at once; on any failure an existing one is untouched.

    Args:
        content: bytes, or a function that writes them into a binary file.
        part: suffix of the temporary file beside it; unique where two processes may write the same file.
    Raises:
        NotWrittenError: it cannot be written.
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


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically: indented, keys in the order given."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    with writing_to(folder):
        _sync(folder)


def _stream(path: Path) -> BinaryIO | None:
    """Open what is written through instead of replaced: an output of this process, a pipe, a terminal; None for files.

    Raises:
        OSError: it is a folder, a disk or a socket.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    for handle in (1, 2):  # /dev/stdout: with a shell's `> file`, earlier output in that file is kept
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), status):
                return open(os.dup(handle), "wb")
    if stat.S_ISREG(status.st_mode):
        return None
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
        return open(path, "wb")
    number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.ENXIO
    raise OSError(number, os.strerror(number))


def _write_through(stream: BinaryIO, content: Content) -> None:
    """Write into a stream that cannot seek; nothing is written where the content's function fails."""
    if not callable(content):
        stream.write(content)
        return
    with tempfile.TemporaryFile() as whole:
        content(whole)
        whole.seek(0)
        shutil.copyfileobj(whole, stream)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path):
    """Lock a folder for one process at a time; create it if needed.

    The lock is on the folder itself, so a killed process leaves nothing behind; on NFS it is on a file LOCK in it.

    Raises:
        UsageError: it is a file.
        ShardError: another process holds it.
        NotWrittenError: it cannot be created.
    """
    try:
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except NotWrittenError as error:
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise UsageError(f"{folder}: not a folder", "choose another") from None
        raise
    busy = ShardError(f"{folder}: another process is at work there", "wait for it, or stop it")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        except OSError:  # NFS locks only what is open for writing, so no folder
            os.close(handle)
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            except OSError:
                pass  # a file system without locks: the user has to run one process at a time
        yield
    finally:
        os.close(handle)


def begin_or_resume(
    folder: Path, what: str, finished: Path, started: Path, identity: dict, mark: str | None = None
) -> bool:
    """Begin a job in a locked, empty folder, or recognise the same job there, finished or not.

    Args:
        what: kind of job, for messages, with its article: `an export`.
        finished: file of a finished job, JSON of `identity`.
        started: file of an unfinished job, in `folder` or in a folder of its own there.
        identity: JSON object; jobs with equal ones write the same files.
        mark: content of `started`; by default JSON of `identity`.
    Returns:
        Whether the job is finished.
    Raises:
        UsageError: the folder holds another job, or something else.
        NotWrittenError: `started` cannot be written.
    """
    for path in (finished, started):
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            same = text == mark
            with suppress(ValueError):
                same = same or json.loads(text) == identity
            if not same:
                another = f"another {what.partition(' ')[2]}"
                raise UsageError(f"{folder}: holds {another}", "choose another folder, or remove that one")
            return path == finished
    ignored = (LOCK, f".{started.name}.part", started.relative_to(folder).parts[0])
    if any(name not in ignored for name in os.listdir(folder)):
        raise UsageError(f"{folder}: holds something that is not {what}", "choose an empty folder")
    started.parent.mkdir(exist_ok=True)
    write_atomically(started, (json.dumps(identity, indent=2) + "\n" if mark is None else mark).encode())
    return False


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Name the file that a block writes in a system error that names none, or a temporary file.

    Raises:
        NotWrittenError: the block met a system error other than a broken pipe.
    """
    try:
        yield
    except (NotWrittenError, BrokenPipeError):
        raise
    except OSError as error:
        raise NotWrittenError(error.errno, error.strerror or " ".join(str(error).split()), str(path)) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file that a block reads in a system error; the system names none once a file is open.

    Raises:
        AlexnetError: the block met a system error.
    """
    try:
        yield
    except OSError as error:
        raise _not_read(error, str(path)) from error


@contextmanager
def with_final_name(place: Path) -> Iterator[None]:
    """Name a file by its final name in a system error; where the system names no file, name the place.

    Args:
        place: the folder that the block writes; files elsewhere are taken for files that it reads.
    Raises:
        NotWrittenError: a file cannot be written.
        AlexnetError: a file elsewhere cannot be read.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, (ConnectionError, TimeoutError, BlockingIOError)):
            raise  # of a network or a process, not of a file
        # Of a rename, the second name is the final one; an error of an open file has no name.
        name = error.filename2 or error.filename
        path = final_names(os.fsdecode(name)) if isinstance(name, (str, bytes)) else str(place)
        written = isinstance(error, NotWrittenError) or error.filename2  # a rename
        if error.errno in _UNREADABLE and not written and not _is_below(path, place):
            raise _not_read(error, path) from error
        raise NotWrittenError(error.errno, error.strerror or str(error), path) from error


def remedy(number: int | None) -> str:
    """Suggest what to do about a file that cannot be written, by the system error's number."""
    if number in FORBIDDEN:
        return "check that you have write permission"
    if number in FULL:
        return "make room"
    return "check what is at that path, or choose another" if number in NO_FILE else "check the disk"


def final_names(text: str) -> str:
    """Replace temporary file names in a path or a message by the final ones."""
    return _TEMPORARY.sub(r"\1", text)


def printable(name: str) -> str:
    """Replace what is not a valid character in a file name by U+FFFD."""
    return _SURROGATE.sub("\ufffd", name)


def _not_read(error: OSError, path: str) -> AlexnetError:
    what = "check that you have read permission" if error.errno in _UNREADABLE else remedy(error.errno)
    return AlexnetError(f"{path}: {error.strerror or error}", f"{what}, then run the same command again")


def _is_below(path: str, place: Path) -> bool:
    """Whether a path is the place or below it; for a shard, whose receipt is elsewhere in its set, below the set."""
    root = place.parents[1] if place.suffix == ".lmdb" and len(place.parents) > 1 else place
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))
