"""A photo's name and location, and reading its bytes.

In:  a Photo.  Out: its bytes, read in place from its file or from a tar by offset; nothing is unpacked. Raw pixels of
CIFAR become a PPM file.
"""

import errno
import os
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from ..errors import SourceError

SUFFIXES = frozenset(
    """.jpeg .jpg .jpe .jfif .pjpeg .pjp .png .gif .bmp .dib .webp .tif .tiff .ppm .pgm .pbm .pnm .avif .heic .heif .jp2
    .jxl""".split()
)
PARQUET = ".parquet"
PLANES = ".planes"  # ending of the path of a picture of CIFAR: 32x32 pixels, first all of red, then green, then blue
PLANES_BYTES = 3 * 32 * 32
TAR_GZ = (".tar.gz", ".tgz")
LOST_ALONE = frozenset(  # errors of a single photo on a working disk
    [errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ENXIO]
)
_OPEN_ARCHIVES = 64  # open files per thread; ILSVRC has 3 archives, a WebDataset thousands


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo with its label.

    Attributes:
        path: path relative to the source's root; in an archive, the archive's path followed by the member's.
        label: class index; -1 for no label.
        bytes: size in bytes.
        archive: file that contains the photo, relative to root; empty if the photo is a file itself.
        offset: the photo's first byte in a tar, for a gzipped one in the unpacked stream, or its row in a parquet file.
    """

    path: str
    label: int
    bytes: int
    archive: str = ""
    offset: int = 0


def stem_of(path: str) -> str:
    """Return a file's name without folders and suffix."""
    return os.path.splitext(path.rsplit("/", 1)[-1])[0]


def is_photo(name: str) -> bool:
    """Return whether a file has a photo's suffix and is not hidden."""
    base = name.rsplit("/", 1)[-1]
    return os.path.splitext(base)[1].lower() in SUFFIXES and not base.startswith(".")


def is_sequential(archive: str) -> bool:
    """Return whether an archive can only be read from its start, by `sequential.read_in_order`; false for "", none."""
    return archive.lower().endswith((PARQUET, *TAR_GZ))


def read_photo(root: Path, photo: Photo) -> bytes:
    """Read a photo's bytes; those in sequential archives are read in order instead (`sequential.read_in_order`).

    Raises:
        OSError: the photo's own file cannot be read.
        SourceError: its archive cannot be read, or ends within the photo.
    """
    if not photo.archive:
        return _whole(os.path.join(root, photo.path))
    path = root / photo.archive
    try:
        data = os.pread(_archive(path), photo.bytes, photo.offset)
    except OSError as error:
        raise SourceError(
            f"{path}: {error.strerror} (while reading {photo.path})",
            "when it can be read again, run the same command to resume",
        ) from None
    if len(data) != photo.bytes:
        raise SourceError(f"{path}: ends within {photo.path}", "copy the archive again: it is shorter than it was")
    return _as_ppm(data) if photo.path.endswith(PLANES) else data


def _as_ppm(planes: bytes) -> bytes:
    """Return a picture of PLANES_BYTES bytes as a PPM file."""
    pixels = bytearray(PLANES_BYTES)
    for channel in range(3):
        pixels[channel::3] = planes[channel * 1024 : (channel + 1) * 1024]
    return b"P6 32 32 255\n" + bytes(pixels)


def _whole(path: str) -> bytes:
    """Read a regular file; pipes and devices, which may have replaced it, raise OSError instead of blocking."""
    mode = os.stat(path).st_mode  # O_NONBLOCK instead would fail for a file that Samba has leased
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO
        raise OSError(number, os.strerror(number), path)
    with open(path, "rb", buffering=0) as file:
        return file.read()


class _Archives(threading.local):
    """Open archives of one thread, so that no other thread closes them during a read."""

    def __init__(self):
        self.open: OrderedDict[tuple, int] = OrderedDict()


_archives = _Archives()


def _archive(path: Path) -> int:
    """Return a cached file descriptor of an archive; opening one takes longer than reading a photo.

    It is of the current file: archives may be replaced during the life of a cluster's worker.
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
