"""One photo: what it is called, and where its bytes are.

In:  a Photo.  Out: its bytes, read in place: from a file, or from the middle of a tar by its offset.
Nothing is unpacked to disk. The finders of the layouts (`layouts/`) make Entries, `sources.py`
makes Photos of them.
"""

import errno
import os
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import SourceError

SUFFIXES = frozenset([".jpeg", ".jpg", ".jpe", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"])
PARQUET = ".parquet"
LOST_ALONE = frozenset(  # errors that one photo can have while the disk is well
    [errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ENXIO]
)
_OPEN_ARCHIVES = 64  # file handles a process keeps; ILSVRC has 3 archives, a WebDataset thousands


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo.

    Attributes:
        path: what it is called, below the source's root; in an archive, the archive's path and then the member's.
        label: class index, or -1 where there is none.
        bytes: its size.
        archive: the file that holds it, below root; empty, the photo is a file of its own.
        offset: where in the archive: the byte it begins at, or its row in a parquet file.
    """

    path: str
    label: int
    bytes: int
    archive: str = ""
    offset: int = 0


class Entry(NamedTuple):
    """A photo as a layout's finder sees it: with its class's name, empty where there is none."""

    class_name: str
    path: str
    bytes: int
    archive: str = ""
    offset: int = 0

    def place(self) -> tuple[str, str, str, int]:
        """Sorts photos alike in every layout: by class, then by file name without its ending.

        Hugging Face appends the class to the name, `n01440764_10026_n01440764.JPEG`; that is no part of it.
        """
        return self.class_name, stem_of(self.path).removesuffix(f"_{self.class_name}"), self.path, self.offset


@dataclass
class Found:
    """What the finder of a layout found.

    Attributes:
        kind: the layout in words.
        entries: photos by split; under "" where the layout has no splits, so that some are held out.
        ignored: files that are no photo by their name.
        classes: all classes, where the layout knows of more than its photos show, or numbers them itself.
        words: what a class is called by people, by its name.
        devkit_order: the classes as the ILSVRC devkit numbers them.
        notes: sentences for the user, such as what was left out.
        root: the folder the entries' paths are relative to, where it is not the path that was asked for.
    """

    kind: str
    entries: dict[str, list[Entry]]
    ignored: int = 0
    classes: tuple[str, ...] = ()
    words: dict[str, str] = field(default_factory=dict)
    devkit_order: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    root: Path | None = None


def stem_of(path: str) -> str:
    """A file's name without folders and ending."""
    return os.path.splitext(path.rsplit("/", 1)[-1])[0]


def is_photo(name: str) -> bool:
    """Whether a file is a photo by its name; what it really is, its bytes say."""
    base = name.rsplit("/", 1)[-1]
    return os.path.splitext(base)[1].lower() in SUFFIXES and not base.startswith(".")


def read_photo(root: Path, photo: Photo) -> bytes:
    """Read a photo's bytes; not of a parquet file, which is read in order (`spool.py`).

    Raises:
        OSError: the photo's own file cannot be read: one photo is lost.
        SourceError: its archive cannot be read, or ends within the photo: many are.
    """
    if not photo.archive:
        return _whole(os.path.join(root, photo.path))
    path = root / photo.archive
    try:
        data = os.pread(_archive(path), photo.bytes, photo.offset)
    except OSError as error:
        raise SourceError(
            f"{path}: {error.strerror} (while reading {photo.path})",
            "when it can be read again, run the same command: it goes on where it stopped",
        ) from None
    if len(data) != photo.bytes:
        raise SourceError(f"{path}: ends within {photo.path}", "copy the archive again: it is shorter than it was")
    return data


def _whole(path: str) -> bytes:
    """A file's bytes. What was a file when it was found may be a pipe by now, to be waited for, or /dev/zero."""
    mode = os.stat(path).st_mode  # opened with O_NONBLOCK instead, a file that Samba has lent out would be an error
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO
        raise OSError(number, os.strerror(number), path)
    with open(path, "rb", buffering=0) as file:
        return file.read()


class _Archives(threading.local):
    """Handles of one thread: another one must not close them while it reads."""

    def __init__(self):
        self.open: OrderedDict[tuple, int] = OrderedDict()


_archives = _Archives()


def _archive(path: Path) -> int:
    """A kept handle of an archive: opening a file costs more than reading a photo from it.

    Of the file as it is now: a worker of a cluster lives on while archives are replaced.
    """
    status = os.stat(path)
    key = (os.getpid(), path, status.st_dev, status.st_ino, status.st_mtime_ns)
    handles = _archives.open
    if key in handles:
        handles.move_to_end(key)
        return handles[key]
    while len(handles) >= _OPEN_ARCHIVES:
        os.close(handles.popitem(last=False)[1])
    handle = handles[key] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return handle
