"""A cache of prepared photos from files that are read in order, kept until their shards are written.

A parquet file is read by row groups of megabytes, a gzipped tar from its start, while a shard needs 5,000 photos from
all files. So each file is read once, in order, and its prepared pictures are cached; shards are then written from the
cache. It is as large as the finished set and is removed at the end of the build.
A gzipped tar of a terabyte would keep one core busy for hours: it is prepared in parts of PART_BYTES, each a job that
unpacks what comes before its part too, at 0.2 GB/s, but prepares nothing of it (docs/cluster.md).

    out/.build/spool/HASH.bin   pictures, concatenated
    out/.build/spool/HASH.npy   one row per picture: its offset, size, format, ...; the photo's hash; written last

In:  a SpoolJob.  Out: the two files.  Each part of a file is a job for the executor, as a shard is, and resumable.
"""

import hashlib
import os
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import ShardError
from ..files import write_atomically
from ..sources.photo import Photo, is_sequential
from ..sources.sequential import read_in_order
from .decode import PhotoError
from .duplicates import hash_of
from .options import BuildOptions
from .resize import Picture, prepare

FOLDER = "spool"
MOST_BYTES = 1 << 29  # of a photo's file; ImageNet's largest has 15 MB
PART_BYTES = 256 << 30  # of an unpacked tar: smaller parts would unpack more than they prepare; no table has such rows
_OPEN_FILES = 128  # ImageNet-1k comes in 294 files; 4,400 rows of 97 bytes each
_INDEX = np.dtype(
    [("row", "<i8"), ("offset", "<i8"), ("bytes", "<i8"), ("rejected", "?")]
    + [(side, "<i4") for side in ("height", "width", "source_height", "source_width")]
    + [("form", "S24"), ("empty", "S24"), ("hash", "<u8")]
)


@dataclass(frozen=True)
class SpoolJob:
    """A part of a file to cache, and those of its rows that missing shards need, ascending; of a tar with sizes."""

    root: Path
    out: Path
    archive: str
    rows: Sequence[int]
    options: BuildOptions
    sizes: Sequence[int] = ()
    part: int = 0

    @property
    def path(self) -> Path:
        """The path of the pictures' file."""
        return spool_path(self.out, self.archive, self.part)

    def is_done(self) -> bool:
        """Return whether all rows are in the cache already."""
        try:
            index = np.load(self.path.with_suffix(".npy"), allow_pickle=False)
            complete = index.dtype == _INDEX and np.isin(self.rows, index["row"]).all()  # an older version's has less
            return self.path.exists() and bool(complete)
        except (OSError, ValueError, IndexError):
            return False


def part_of(photo: Photo) -> tuple[str, int] | None:
    """Return the file and its part that a photo is prepared with; None if it is read by itself."""
    return (photo.archive, photo.offset // PART_BYTES) if is_sequential(photo.archive) else None


def spool_jobs(root: Path, out: Path, photos: Iterable[Photo], options: BuildOptions) -> list[SpoolJob]:
    """Return the jobs for those photos that are in files that are read in order."""
    places: dict[tuple[str, int], tuple[array, array]] = {}
    for photo in photos:
        if part := part_of(photo):
            offsets, bytes_ = places.setdefault(part, (array("q"), array("q")))
            offsets.append(photo.offset)
            bytes_.append(photo.bytes)
    jobs = []
    for archive, number in sorted(places):
        columns = [np.frombuffer(column, np.int64) for column in places[archive, number]]
        rows, sizes = (array("q", column[np.argsort(columns[0])].tobytes()) for column in columns)
        jobs.append(SpoolJob(root, out, archive, rows, options, sizes, number))
    return jobs


def spool_path(out: Path, archive: str, part: int = 0) -> Path:
    """Return the path of the cached pictures of a part of a file."""
    name = hashlib.sha256(os.fsencode(archive)).hexdigest()[:24]
    return out / ".build" / FOLDER / (f"{name}-{part}.bin" if part else f"{name}.bin")


def spool(job: SpoolJob) -> int:
    """Read a file in order and write its prepared pictures to the cache.

    Returns:
        The number of photos.
    Raises:
        SourceError: the file cannot be read.
        NotWrittenError: the cache cannot be written.
    """
    job.path.parent.mkdir(parents=True, exist_ok=True)
    index = np.zeros(len(job.rows), dtype=_INDEX)

    def write(file) -> None:
        offset = 0
        sizes = [min(size, MOST_BYTES + 1) for size in job.sizes]
        for place, (row, photo) in enumerate(read_in_order(job.root / job.archive, job.rows, sizes)):
            try:
                if len(photo) > MOST_BYTES:
                    raise PhotoError(f"the file has more than {MOST_BYTES:,} bytes")
                picture = prepare(photo, **job.options.of_a_picture())
            except PhotoError as error:
                data = str(error).encode("utf-8", "surrogateescape")
                index[place] = (row, offset, len(data), True, 0, 0, 0, 0, b"", b"", 0)
            else:
                data, form = picture.data, picture.form.encode()
                sides = (picture.height, picture.width, picture.source_height, picture.source_width)
                index[place] = (row, offset, len(data), False, *sides, form, picture.empty.encode(), hash_of(photo))
            file.write(data)
            offset += len(data)

    write_atomically(job.path, write)
    write_atomically(job.path.with_suffix(".npy"), lambda file: np.save(file, index))
    return len(job.rows)


class Spool:
    """Random access to the cached pictures of a build, with at most _OPEN_FILES open files."""

    def __init__(self, out: Path):
        self._out = out
        self._open: OrderedDict[Path, tuple[np.ndarray, BinaryIO]] = OrderedDict()

    def picture(self, photo: Photo) -> Picture:
        """Return the prepared picture of a photo; raises as `picture_and_hash`."""
        return self.picture_and_hash(photo)[0]

    def picture_and_hash(self, photo: Photo) -> tuple[Picture, int]:
        """Return the prepared picture of a photo, and the hash of its file.

        Raises:
            PhotoError: the photo was rejected.
            ShardError: the photo is not in the cache.
        """
        path = spool_path(self._out, *(part_of(photo) or (photo.archive,)))
        try:
            index, file = self._opened(path)
            entry = index[bisect_left(index, photo.offset, key=lambda one: one["row"])]
            data = os.pread(file.fileno(), int(entry["bytes"]), int(entry["offset"]))
        except (OSError, ValueError, IndexError):
            entry, data = None, b""
        if entry is None or entry["row"] != photo.offset or len(data) != entry["bytes"]:
            raise ShardError(f"{path}: {photo.path} is not in the cache", "run the same command again")
        if entry["rejected"]:
            raise PhotoError(data.decode("utf-8", "surrogateescape"))
        sides = (int(entry[side]) for side in ("height", "width", "source_height", "source_width"))
        picture = Picture(data, *sides, form=entry["form"].decode(), empty=entry["empty"].decode())
        return picture, int(entry["hash"])

    def _opened(self, path: Path) -> tuple[np.ndarray, BinaryIO]:
        """Return the index of a part of a file, mapped, since it has 97 bytes a photo, and its open pictures' file."""
        if path not in self._open:
            while len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)
            index = np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
            self._open[path] = index, open(path, "rb")  # noqa: SIM115
        self._open.move_to_end(path)
        return self._open[path]
