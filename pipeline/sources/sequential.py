"""Files of photos that can only be read from their start: parquet files, by their row groups, and gzipped tars.

In:  a file, and the places of some of its photos, ascending.  Out: their bytes, in one pass.
A photo's place (`Photo.offset`) is its row in a parquet file, and in a gzipped tar its first byte in the unpacked
stream.  Nothing is written to disk.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from ..errors import SourceError
from .photo import PARQUET

_SKIPPED_AT_ONCE = 1 << 20  # bytes unpacked and dropped at a time
_GZIP = b"\x1f\x8b"


class Stream:
    """The unpacked bytes of a gzipped file, by position, which only grows.

    A file that is not compressed, whatever its name, is read as it is: browsers unpack downloads and keep the name.
    """

    def __init__(self, path: Path):
        """Open the file.

        Raises:
            SourceError: it cannot be read.
        """
        self._path, self._at = path, 0
        try:
            self._file = open(path, "rb")  # noqa: SIM115
            packed = self._file.peek(len(_GZIP)).startswith(_GZIP)
        except OSError as error:
            raise SourceError(
                f"{path}: {error.strerror}", "make the archives readable, or choose another folder"
            ) from None
        self._data = gzip.GzipFile(fileobj=self._file) if packed else self._file

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on; fewer at the end.

        Raises:
            ValueError: these bytes have passed.
            SourceError: the file cannot be read, is truncated or damaged.
        """
        if offset < self._at:
            raise ValueError(f"{self._path}: byte {offset} has passed")
        while (ahead := min(offset - self._at, _SKIPPED_AT_ONCE)) and self._next(ahead):
            pass
        return self._next(count) if offset == self._at else b""

    def close(self) -> None:
        """Close the file."""
        self._data.close()
        self._file.close()

    def _next(self, count: int) -> bytes:
        try:
            data = self._data.read(count)
        except EOFError:
            what = f"is truncated: its compressed data end within byte {self._at:,} and those that follow, unpacked"
        except (zlib.error, gzip.BadGzipFile) as error:
            what = f"is damaged: {error}, after byte {self._at:,}, unpacked"
        except OSError as error:
            raise SourceError(
                f"{self._path}: {error.strerror or error}", "when it can be read again, run the same command"
            ) from None
        else:
            self._at += len(data)
            return data
        raise SourceError(
            f"{self._path}: {what}", f"copy or download it again, and check it: gzip -t '{self._path}'"
        ) from None


def read_in_order(path: Path, places: Sequence[int], sizes: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Read photos of a file in one pass.

    Args:
        path: the file, for whose name `photo.is_sequential` is true.
        places: rows, or bytes in the unpacked stream, ascending.
        sizes: the photos' sizes in bytes; not needed for parquet.
    Yields:
        The place and its photo's bytes.
    Raises:
        ValueError: the places are not ascending.
        SourceError: the file cannot be read, is damaged, or ends before a photo.
    """
    if path.name.lower().endswith(PARQUET):
        from . import parquet

        yield from parquet.read_rows(path, places)
        return
    if any(after < before + size for (before, after), size in zip(pairwise(places), sizes, strict=False)):
        raise ValueError("photos must be ascending and apart")
    stream = Stream(path)
    try:
        for place, size in zip(places, sizes, strict=True):
            data = stream.read(int(place), int(size))
            if len(data) != size:
                raise SourceError(
                    f"{path}: ends before byte {place + size:,}, unpacked",
                    "copy the archive again: it is shorter than it was",
                )
            yield int(place), data
    finally:
        stream.close()
