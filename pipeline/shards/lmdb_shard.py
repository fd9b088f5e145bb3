"""One shard: an LMDB environment of records in key order, written once and read by index.

In:  record values, bytes.  Out: `NAME.lmdb/data.mdb`, keys b"00000000", b"00000001", ... without gaps.
LMDB's file format 1, which DALI's own reader, Caffe and all older tools read; py-lmdb 3 can also write a format 3.
Imports neither DALI nor torch.
"""

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np

from ..errors import ShardError
from ..files import sync_folder
from .lmdb_pages import HEAD_BYTES, describe_format, extents
from .open_files import OpenFilesError, too_many

MAP_BYTES = 1 << 36  # address space only, the file grows by what is written; enough for 5,000 records of 13 MB
FULL_BYTES = 1 << 20  # a disk with less free space counts as full
ROOM = "make room, then run the same command again: finished shards are kept"
MEMORY = f"LMDB reserves {MAP_BYTES >> 30} GiB of address space: raise the limit (ulimit -v)"
COMMIT_EVERY = 1000  # records, as Caffe does: bounds the dirty pages in memory
_REPLACE = "copy or build the shard set again"


@dataclass(frozen=True)
class ShardFile:
    """Number of records, size in bytes and SHA-256 of a data.mdb."""

    records: int
    bytes: int
    sha256: str


def key(index: int) -> bytes:
    """The key of a record: eight digits, so that bytes sort as numbers."""
    return b"%08d" % index


def repair_hint(shard: Path) -> str:
    """The hint of an error about a damaged shard `ROOT/SPLIT/NAME.lmdb` or its CSV."""
    return f"alexnet-prep verify --shards {shard.parents[1]} --repair finds and rebuilds what is damaged"


def write_shard(path: Path, values: Iterable[bytes]) -> ShardFile:
    """Write a shard under a temporary name, make it durable, rename it.

    Args:
        path: the folder `NAME.lmdb`; an existing one is replaced.
        values: record values, in key order.
    Returns:
        what dataset.json says of the shard.
    Raises:
        ShardError: LMDB cannot write: disk full, no permission.
    """
    # A random name: a cluster worker that was given up as lost may still be writing the same shard.
    for left in path.parent.glob(f".{path.name}.*part"):
        shutil.rmtree(left, ignore_errors=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    beside.mkdir(parents=True)
    try:
        records = _write_environment(beside, values)
        data = beside / "data.mdb"
        check_format(data)
        written = ShardFile(records, data.stat().st_size, sha256_of(data))
        sync_folder(beside)
        if path.exists():
            shutil.rmtree(path)
        os.rename(beside, path)
        sync_folder(path.parent)
        return written
    except lmdb.MapFullError:
        raise ShardError(
            f"{path}: the shard is larger than {MAP_BYTES >> 30} GiB", "build with a smaller --shard-records"
        ) from None
    except lmdb.MemoryError as error:
        raise ShardError(f"{path}: cannot be written: {error}", MEMORY) from None
    except lmdb.Error as error:
        # Where a full disk cuts a write short, LMDB reports an input/output error.
        full = os.strerror(errno.ENOSPC) in str(error)
        with suppress(OSError):  # where the disk fails, report LMDB's error
            status = os.statvfs(path.parent)
            full = full or status.f_bavail * status.f_frsize < FULL_BYTES
        if full:
            raise ShardError(f"{path}: cannot be written: the disk is full ({error})", ROOM) from None
        raise ShardError(f"{path}: cannot be written: {error}", "check free space and write permission") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_environment(folder: Path, values: Iterable[bytes]) -> int:
    # lib_version 0 writes format 1. writemap would turn a full disk into SIGBUS.
    environment = lmdb.open(
        os.fsencode(folder), map_size=MAP_BYTES, lock=False, sync=False, metasync=False, lib_version=0
    )
    records = 0
    try:
        transaction = environment.begin(write=True)
        for value in values:
            transaction.put(key(records), value, append=True)
            records += 1
            if records % COMMIT_EVERY == 0:
                transaction.commit()
                transaction = environment.begin(write=True)
        transaction.commit()
        environment.sync(True)
    finally:
        environment.close()
    return records


def check_format(data: Path) -> None:
    """Check that a data.mdb begins as LMDB format 1 of this machine's byte order.

    Raises:
        ShardError: another format, or it cannot be read.
    """
    try:
        if not stat.S_ISREG(data.stat().st_mode):  # reading a pipe would block for ever
            raise ShardError(f"{data}: not a file", _REPLACE)
        with open(data, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        if too_many(error):
            raise OpenFilesError(f"{data}: {error.strerror}") from None
        raise ShardError(f"{data}: {error.strerror}", "build the shard set again, or copy it completely") from None
    if len(head) < HEAD_BYTES:
        raise ShardError(f"{data}: not an LMDB file: {len(head)} bytes", _REPLACE)
    if other := describe_format(head):
        raise ShardError(f"{data}: {other}", "build the shard set again with alexnet-prep build-lmdb")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Shard:
    """A shard opened for reading: the records' offsets are read once, each record by one `pread` on request.

    Nothing is memory-mapped: touching a map of a truncated file or a failing disk kills the process with SIGBUS, where
    `pread` returns an error. Any number may be open on one file, and be used in other threads and after a fork.

    Args:
        path: the folder `NAME.lmdb`.
        file: what dataset.json says of it.
        in_order: records will be read in key order, so the kernel should read ahead.
    Attributes:
        places: int64 (records, 2), offset and length of each record in bytes.
        opened: the file's size in bytes and time of change in nanoseconds when it was opened.
    Raises:
        ShardError: missing, truncated, damaged, or not what dataset.json says.
        OpenFilesError: too many files are open.
    """

    def __init__(self, path: Path, file: ShardFile, in_order: bool = True):
        self.path, self.data = path, path / "data.mdb"
        self.records = file.records
        check_format(self.data)
        try:
            self.handle = os.open(self.data, os.O_RDONLY | os.O_CLOEXEC)
            self.opened = self._state()
            if self.opened[0] != file.bytes:
                raise self._refused(f"{self.opened[0]:,} bytes, but dataset.json says {file.bytes:,}")
            self.places = self._places()
        except OSError as error:
            if too_many(error):
                raise OpenFilesError(f"{self.data}: {error.strerror}") from None
            raise self._refused(error.strerror or str(error)) from None
        if len(self.places) != file.records:
            raise self._refused(f"{len(self.places)} records, but dataset.json says {file.records}")
        if not in_order:
            with suppress(OSError):  # some file systems take no advice
                os.posix_fadvise(self.handle, 0, 0, os.POSIX_FADV_RANDOM)

    def check(self) -> None:
        """Check that the file was not written to since it was opened, so that what was read is what was opened.

        A file that was removed or replaced is no error: the old one is still open.

        Raises:
            ShardError: it was changed in place.
        """
        now = self._state()
        if now != self.opened:
            raise ShardError(
                f"{self.data}: changed while it was being read: {now[0]:,} bytes, {self.opened[0]:,} before",
                "copy or build the shard set again, into another folder than the old one, and resume",
            )

    def value(self, index: int) -> memoryview:
        """Read a record's bytes into new, read-only memory.

        Args:
            index: 0..records-1.
        Raises:
            ShardError: there is no such record, or it cannot be read.
        """
        if not 0 <= index < self.records:
            raise ShardError(f"{self.path}: no record {index}", _REPLACE)
        value = memoryview(bytearray(int(self.places[index, 1])))
        self.read(index, value)
        return value.toreadonly()

    def read(self, index: int, out: memoryview) -> None:
        """Read a record, 0..records-1, into memory of exactly its length.

        Raises:
            ShardError: the file ends before it, or its disk fails.
        """
        offset, done = int(self.places[index, 0]), 0
        try:
            while done < len(out):  # a network file system may return less than requested
                count = os.preadv(self.handle, [out[done:]], offset + done)
                if count == 0:
                    self.check()  # raises where the file was truncated in place
                    raise ShardError(f"{self.path}, record {index}: the file ends within it", repair_hint(self.path))
                done += count
        except OSError as error:
            raise ShardError(f"{self.path}, record {index}: {error.strerror}", repair_hint(self.path)) from None

    def __del__(self):
        handle = self.__dict__.pop("handle", None)
        if handle is not None:
            os.close(handle)

    def _places(self) -> np.ndarray:
        try:
            return extents(self.handle)
        except ShardError as error:
            raise self._refused(f"damaged: {error.message}") from None

    def _state(self) -> tuple[int, int]:
        status = os.fstat(self.handle)
        return status.st_size, status.st_mtime_ns

    def _refused(self, what: str) -> ShardError:
        return ShardError(f"{self.data}: {what}", _REPLACE)
