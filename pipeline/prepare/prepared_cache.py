"""A cache of prepared photos from files that are read in order, kept until their shards are written.

A parquet file is read by row groups of megabytes, while a shard needs 5,000 photos from all files: read singly, each
group would be read a hundred times. So each file is read once, in order, and its prepared pictures are cached; shards
are then written from the cache. It is as large as the finished set and is removed at the end of the build.

    out/.build/spool/HASH.bin   pictures, concatenated
    out/.build/spool/HASH.npy   one row per picture: its offset, size and format; written last

In:  a SpoolJob.  Out: the two files.  Each file is a job for the executor, as a shard is, and resumable by file.
"""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import ShardError
from ..files import write_atomically
from ..sources.photo import Photo
from .decode import PhotoError
from .options import BuildOptions
from .resize import Picture, prepare

FOLDER = "spool"
_OPEN_FILES = 128  # ImageNet-1k comes in 294 files; 4,400 rows of 65 bytes each
_INDEX = np.dtype(
    [("row", "<i8"), ("offset", "<i8"), ("bytes", "<i8"), ("rejected", "?")]
    + [(side, "<i4") for side in ("height", "width", "source_height", "source_width")]
    + [("form", "S24")]
)


@dataclass(frozen=True)
class SpoolJob:
    """A file to cache, and those of its rows that missing shards need, ascending."""

    root: Path
    out: Path
    archive: str
    rows: Sequence[int]
    options: BuildOptions

    @property
    def path(self) -> Path:
        """The path of the pictures' file."""
        return spool_path(self.out, self.archive)

    def is_done(self) -> bool:
        """Return whether all rows are in the cache already."""
        try:
            cached = np.load(self.path.with_suffix(".npy"), allow_pickle=False)["row"]
            return self.path.exists() and bool(np.isin(self.rows, cached).all())
        except (OSError, ValueError, IndexError):
            return False


def spool_path(out: Path, archive: str) -> Path:
    """Return the path of the cached pictures of a file."""
    name = hashlib.sha256(os.fsencode(archive)).hexdigest()[:24]
    return out / ".build" / FOLDER / f"{name}.bin"


def spool(job: SpoolJob) -> int:
    """Read a file in order and write its prepared pictures to the cache.

    Returns:
        The number of photos.
    Raises:
        SourceError: the file cannot be read.
        NotWrittenError: the cache cannot be written.
    """
    from ..sources.parquet import read_rows

    job.path.parent.mkdir(parents=True, exist_ok=True)
    index = np.zeros(len(job.rows), dtype=_INDEX)

    def write(file) -> None:
        offset = 0
        for place, (row, photo) in enumerate(read_rows(job.root / job.archive, job.rows)):
            try:
                picture = prepare(photo, **job.options.of_a_picture())
            except PhotoError as error:
                data = str(error).encode("utf-8", "surrogateescape")
                index[place] = (row, offset, len(data), True, 0, 0, 0, 0, b"")
            else:
                data, form = picture.data, picture.form.encode()
                sides = (picture.height, picture.width, picture.source_height, picture.source_width)
                index[place] = (row, offset, len(data), False, *sides, form)
            file.write(data)
            offset += len(data)

    write_atomically(job.path, write)
    write_atomically(job.path.with_suffix(".npy"), lambda file: np.save(file, index))
    return len(job.rows)


class Spool:
    """Random access to the cached pictures of a build, with at most _OPEN_FILES open files."""

    def __init__(self, out: Path):
        self._out = out
        self._open: OrderedDict[str, tuple[np.ndarray, np.ndarray, BinaryIO]] = OrderedDict()

    def picture(self, photo: Photo) -> Picture:
        """Return the prepared picture of a photo.

        Raises:
            PhotoError: the photo was rejected.
            ShardError: the photo is not in the cache.
        """
        path = spool_path(self._out, photo.archive)
        try:
            rows, index, file = self._opened(photo.archive, path)
            entry = index[np.searchsorted(rows, photo.offset)]
            data = os.pread(file.fileno(), int(entry["bytes"]), int(entry["offset"]))
        except (OSError, ValueError, IndexError):
            entry, data = None, b""
        if entry is None or entry["row"] != photo.offset or len(data) != entry["bytes"]:
            raise ShardError(f"{path}: {photo.path} is not in the cache", "run the same command again")
        if entry["rejected"]:
            raise PhotoError(data.decode("utf-8", "surrogateescape"))
        return Picture(
            data,
            *(int(entry[side]) for side in ("height", "width", "source_height", "source_width")),
            form=entry["form"].decode(),
        )

    def _opened(self, archive: str, path: Path) -> tuple[np.ndarray, np.ndarray, BinaryIO]:
        """Return the rows and the index of a file, and its open pictures' file."""
        if archive not in self._open:
            while len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)
            index = np.load(path.with_suffix(".npy"), allow_pickle=False)
            self._open[archive] = np.ascontiguousarray(index["row"]), index, open(path, "rb")  # noqa: SIM115
        self._open.move_to_end(archive)
        return self._open[archive]
