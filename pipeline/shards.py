"""One shard: an LMDB environment of records in key order, written at once and read by index.

In:  record values, bytes.  Out: `NAME.lmdb/data.mdb`, keys b"00000000", b"00000001", ... without gaps.
LMDB's file format 1, which DALI's own reader, Caffe and every older tool read; py-lmdb 3 also knows a format 3.
Neither DALI nor torch is imported.
"""

import hashlib
import os
import secrets
import shutil
import struct
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from .errors import ShardError
from .extents import do_not_overlap, extents
from .files import sync_folder
from .open_files import OpenFilesError, too_many

MAP_BYTES = 1 << 36  # address space only: the file grows by what is written. 5,000 records of 13 MB
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


def mend(shard: Path) -> str:
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
    except lmdb.Error as error:
        raise ShardError(f"{path}: cannot be written: {error}", "is there room, and the right to write?") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_environment(folder: Path, values: Iterable[bytes]) -> int:
    # lib_version came with py-lmdb 3.0; before that there was one format. writemap would turn a full disk into SIGBUS.
    pinned: dict[str, Any] = {"lib_version": 0} if int(lmdb.__version__.split(".")[0]) >= 3 else {}
    environment = lmdb.open(os.fsencode(folder), map_size=MAP_BYTES, lock=False, sync=False, metasync=False, **pinned)
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
    """A shard opened for reading. Its views are valid as long as the Shard lives, and not a moment longer.

    The environment is opened read-only and unlocked, so read-only mounts will do, with one long read transaction.
    It closes when the last reference to the Shard goes. Use `open_shard`: LMDB must not open a file twice in one
    process, and an open environment must not cross a fork.
    """

    def __init__(self, path: Path, file: ShardFile):
        data = path / "data.mdb"
        check_format(data)
        status = data.stat()
        if status.st_size != file.bytes:  # a truncated map would kill the process at the first touch
            raise ShardError(
                f"{data}: {status.st_size:,} bytes, but dataset.json says {file.bytes:,}",
                "copy or build the shard set again",
            )
        self._data, self._opened = os.fspath(data), _identity(status)
        self.path = path
        self.records = file.records
        self._process = os.getpid()
        try:
            self._environment = lmdb.open(os.fsencode(path), readonly=True, lock=False, max_readers=1, create=False)
            self._transaction = self._environment.begin(buffers=True)
        except lmdb.Error as error:
            if too_many(error):
                raise OpenFilesError(f"{path}: {str(error).rpartition(': ')[2]}") from None
            raise ShardError(f"{path}: {error}", "copy or build the shard set again") from None
        entries = self._environment.stat()["entries"]
        if entries != file.records:
            self._environment.close()  # at once: whoever keeps the error would keep it open, and nobody could open it
            raise ShardError(
                f"{data}: {entries} records, but dataset.json says {file.records}", "copy or build the shard set again"
            )
        if not _leads_to_records(data, file.records):
            self._environment.close()
            raise ShardError(
                f"{data}: damaged: its pages do not lead to {file.records} records", "copy or build the shard set again"
            )

    def check(self) -> None:
        """See that nobody has written to the file since it was opened: what is cut off kills the process when touched.

        That it was removed or replaced is harmless: the map is of the old file, as long as it lives.

        Raises:
            ShardError: it was changed in place.
        """
        try:
            now = _identity(os.stat(self._data))
        except OSError:
            return
        if now[:2] == self._opened[:2] and now != self._opened:
            raise ShardError(
                f"{self._data}: was written to while it was read: {now[2]:,} bytes, {self._opened[2]:,} before",
                "copy or build the shard set again, beside the old one and not over it, and resume",
            )

    def value(self, index: int) -> memoryview:
        """The bytes of a record, a view of the memory map.

        Raises:
            ShardError: there is no such record.
        """
        value = self._transaction.get(key(index))
        if value is None:
            raise ShardError(f"{self.path}: no record {index}", "copy or build the shard set again")
        return value

    def __del__(self):
        environment = self.__dict__.get("_environment")
        if environment is not None and self._process == os.getpid():
            environment.close()


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    """Which file it is, and in what state."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _leads_to_records(data: Path, records: int) -> bool:
    """Whether every record has a place of its own in the file: liblmdb would follow a flipped bit out of the map."""
    try:
        handle = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if too_many(error):
            raise OpenFilesError(f"{data}: {error.strerror}") from None
        raise ShardError(f"{data}: {error.strerror}", "copy or build the shard set again") from None
    try:
        places = extents(handle)
    finally:
        os.close(handle)
    return len(places) == records and do_not_overlap(places)


_open: "weakref.WeakValueDictionary[tuple, Shard]" = weakref.WeakValueDictionary()


def open_shard(path: Path, file: ShardFile) -> Shard:
    """Open a shard, or share the one this process has open already.

    Raises:
        ShardError: missing, truncated, or not what dataset.json says.
        OpenFilesError: too many files are open.
    """
    try:
        status = (path / "data.mdb").stat()
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}", "copy or build the shard set again") from None
    identity = (os.getpid(), status.st_dev, status.st_ino, status.st_mtime_ns, file)
    shard = _open.get(identity)
    if shard is None:
        for (process, *_), other in list(_open.items()):
            if process != os.getpid():  # inherited by a fork: LMDB would not open it again; the parent's own stays
                other._environment.close()
        shard = _open[identity] = Shard(path, file)
    return shard
