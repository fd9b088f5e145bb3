"""One shard: an LMDB environment of records in key order, written at once and read by index.

In:  record values, bytes.  Out: `NAME.lmdb/data.mdb`, keys b"00000000", b"00000001", ... without gaps.
LMDB's file format 1, which DALI's own reader, Caffe and every older tool read; py-lmdb 3 also knows a format 3.
Neither DALI nor torch is imported.
"""

import errno
import hashlib
import os
import secrets
import shutil
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np

from ..errors import ShardError
from ..files import sync_folder
from .lmdb_pages import extents
from .open_files import OpenFilesError, too_many

MAP_BYTES = 1 << 36  # address space only: the file grows by what is written. 5,000 records of 13 MB
FULL_BYTES = 1 << 20  # so little is left of a disk that is full
ROOM = "make room, then run the same command again: what is done is kept"
MEMORY = f"more memory: LMDB maps {MAP_BYTES >> 30} GiB of addresses, which ulimit -v must allow"
COMMIT_EVERY = 1000  # records, as Caffe does: bounds the dirty pages in memory

# The first meta page: 16 bytes of page header, then magic and version (mdb.c, struct MDB_meta).
_META = struct.Struct("=II")
_META_OFFSET, _MAGIC, FORMAT = 16, 0xBEEFC0DE, 1


@dataclass(frozen=True)
class ShardFile:
    """What was written: number of records, bytes and SHA-256 of data.mdb."""

    records: int
    bytes: int
    sha256: str


def key(index: int) -> bytes:
    """The key of a record: eight digits, so that bytes sort as numbers."""
    return b"%08d" % index


def repair_hint(shard: Path) -> str:
    """The hint for a damaged shard of a set."""
    return f"alexnet-prep verify --shards {shard.parents[1]} --repair finds and rebuilds what is damaged"


def write_shard(path: Path, values: Iterable[bytes]) -> ShardFile:
    """Write a shard under a temporary name, make it durable, rename it.

    Args:
        path: the folder `NAME.lmdb`; what is there is replaced.
        values: record values, in key order.
    Raises:
        ShardError: LMDB refused: disk full, no right to write.
    """
    # A name of its own: a worker of a cluster that was given up may still be writing the same shard.
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
            f"{path}: more than {MAP_BYTES >> 30} GiB for one shard", "build with a smaller --shard-records"
        ) from None
    except lmdb.MemoryError as error:
        raise ShardError(f"{path}: cannot be written: {error}", MEMORY) from None
    except lmdb.Error as error:
        # Of a full disk, on which a write ends short, LMDB says that input or output failed.
        full = os.strerror(errno.ENOSPC) in str(error)
        with suppress(OSError):  # of a disk that fails it is LMDB's error that is told
            there = os.statvfs(path.parent)
            full = full or there.f_bavail * there.f_frsize < FULL_BYTES
        if full:
            raise ShardError(f"{path}: cannot be written: the disk is full ({error})", ROOM) from None
        raise ShardError(f"{path}: cannot be written: {error}", "is there room, and the right to write?") from None
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
        ShardError: it does not, or cannot be read.
    """
    try:
        if not stat.S_ISREG(data.stat().st_mode):  # a pipe would keep us waiting for ever
            raise ShardError(f"{data}: not a file", "copy or build the shard set again")
        with open(data, "rb") as file:
            head = file.read(64)
    except OSError as error:
        if too_many(error):
            raise OpenFilesError(f"{data}: {error.strerror}") from None
        raise ShardError(f"{data}: {error.strerror}", "build the shard set again, or copy it completely") from None
    if len(head) < 64:
        raise ShardError(f"{data}: {len(head)} bytes are no LMDB file", "copy or build the shard again")
    magic, version = _META.unpack_from(head, _META_OFFSET)
    if (magic, version) == (_MAGIC, FORMAT):
        return
    if head[24:28] == struct.pack("=I", _MAGIC):
        what = "LMDB format 3, which DALI and Caffe cannot read"
    elif head[_META_OFFSET : _META_OFFSET + 4] == struct.pack("=I", _MAGIC)[::-1]:
        what = "an LMDB file of a machine of the other byte order"
    else:
        what = "not an LMDB file of format 1"
    raise ShardError(f"{data}: {what}", "build the shard set again with alexnet-prep build-lmdb")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Shard:
    """A shard opened for reading: where its records lie is read once, each record by one `pread` when it is asked for.

    Nothing is mapped. Touching a map of a file that was cut short, or whose disk fails, ends the process with SIGBUS;
    `pread` says so. Any number may be open on one file, and they may be used in other threads and after a fork.

    Args:
        path: the folder `NAME.lmdb`.
        file: what dataset.json says of it.
        in_order: records will be read in key order, so what lies behind one is wanted with it.
    Attributes:
        places: int64 (records, 2), offset and length of each record in bytes.
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
            self._opened = self._state()
            if self._opened[0] != file.bytes:
                raise self._refused(f"{self._opened[0]:,} bytes, but dataset.json says {file.bytes:,}")
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
        """See that nobody has written to the file since it was opened: then what was read is what was meant.

        That it was removed or replaced is harmless: this is still the old file.

        Raises:
            ShardError: it was changed in place.
        """
        now = self._state()
        if now != self._opened:
            raise ShardError(
                f"{self.data}: was written to while it was read: {now[0]:,} bytes, {self._opened[0]:,} before",
                "copy or build the shard set again, beside the old one and not over it, and resume",
            )

    def value(self, index: int) -> memoryview:
        """The bytes of a record, read-only, in memory of their own.

        Raises:
            ShardError: there is no such record, or it cannot be read.
        """
        if not 0 <= index < self.records:
            raise ShardError(f"{self.path}: no record {index}", "copy or build the shard set again")
        value = memoryview(bytearray(int(self.places[index, 1])))
        self.read(index, value)
        return value.toreadonly()

    def read(self, index: int, out: memoryview) -> None:
        """Read a record, 0..records-1, into memory of just its length.

        Raises:
            ShardError: the file ends before it, or its disk fails.
        """
        offset, done = int(self.places[index, 0]), 0
        try:
            while done < len(out):  # a network's file system may give less than was asked for
                count = os.preadv(self.handle, [out[done:]], offset + done)
                if count == 0:
                    self.check()  # names what happened
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
        return ShardError(f"{self.data}: {what}", "copy or build the shard set again")
