"""Records by index, read into reused memory.

In:  record indices of a split.  Out: their payloads, labels and sizes; nothing is decoded here.
NumPy only. Each Datum's lengths are checked before use: DALI's own Caffe reader does not check them, and a record with
a wrong size overflows its buffer. `_records.c` reads and checks records as `datum.encode` writes them, in a quarter of
the time; all others, and all where it was not compiled, are read here.
"""

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import compiled
from ..errors import ShardError
from ..shards import datum
from ..shards.datum import NO_LABEL
from ..shards.lmdb_shard import Shard, repair_hint
from ..shards.manifest import UNLABELLED_SPLIT, ShardSet
from ..shards.open_files import OpenFilesError, make_room
from .buffers import Buffers

_FIELDS = 5  # of a record, as in _records.c: height, width, label, start and length of its payload


@dataclass(frozen=True)
class Payloads:
    """The payloads of some records.

    Attributes:
        data: one array for each record, a read-only view of `memory`: uint8 (bytes,), a JPEG file, or uint8 (height,
            width, 3), pixels, RGB.
        labels: int64 (n,), -1 for none.
        sides: int64 (n, 2), height and width in pixels.
        memory: uint8 (bytes,), in use until it is released; None where it is not reused.
    """

    data: list[np.ndarray]
    labels: np.ndarray
    sides: np.ndarray
    memory: np.ndarray | None = None


class RecordReader:
    """Reads records of one split by index, in any number of threads.

    Shards are opened at their first read, so a reader may be created before a fork and used after it.

    Args:
        split: `train`, `val` or `test`.
    Attributes:
        encoded: payloads are JPEG files; otherwise raw pixels.
        size: short side of the pictures, pixels.
    Raises:
        ShardError: no records in the split.
    """

    def __init__(self, shard_set: ShardSet, split: str):
        self.split, self._made_of = shard_set.split(split), (shard_set, split)
        self.encoded = shard_set.encoding == "jpeg"
        self.size, self._fit = shard_set.size, shard_set.fit
        self._classes = len(shard_set.classes)
        records = [file.records for _, file in self.split.shards]
        self._ends = np.cumsum(records)
        self._starts = self._ends - records
        self._shards: dict[int, Shard] = {}
        # What _records.c needs of the shards that are open.
        self._places = np.zeros((len(self), 2), np.int64)  # of each record: offset and length in bytes
        self._handles = np.zeros(len(records), np.int32)
        self._opened = np.zeros((len(records), 2), np.int64)  # Shard.opened
        self._lowest = NO_LABEL if split == UNLABELLED_SPLIT else 0  # training and validation need labels
        self._set = np.array([self.encoded, self._lowest, self._classes, self.size, self._fit == "crop"], np.int64)
        self._opening = threading.RLock()  # reentrant: Python may collect a reader in a thread that opens a shard
        self._buffers = Buffers()
        make_room(self, len(self.split.shards))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __reduce__(self):
        # In another process, or as a copy, the reader opens its own files.
        return type(self), self._made_of

    def read(self, records: np.ndarray) -> Payloads:
        """Read records.

        Args:
            records: int64 (n,), 0..len-1, in any order.
        Returns:
            payloads, whose memory is reused after `release`.
        Raises:
            ShardError: a record is missing or damaged, the disk fails, or a shard was changed in place; the message
                names shard and record.
            OpenFilesError: too many files are open.
        """
        numbers = np.searchsorted(self._ends, records, side="right")
        for number in set(numbers.tolist()):
            self.shard(number)
        places = self._places[records]
        ends = np.cumsum(places[:, 1])
        memory = self._buffers.take(int(ends[-1]) if len(ends) else 0)
        fields = np.empty((len(records), _FIELDS), np.int64)
        done, others = 0, set()
        while (done := self._read_usual(done, numbers, places, memory, fields)) < len(records):
            number, start, end = int(numbers[done]), int(ends[done] - places[done, 1]), int(ends[done])
            self._read_other(number, int(records[done] - self._starts[number]), memory, start, end, fields[done])
            others.add(number)
            done += 1
        for number in others:
            self.shard(number).check()
        view, data = memory.data.toreadonly(), []
        for height, width, _, start, length in fields.tolist():
            payload = np.frombuffer(view, np.uint8, length, start)
            data.append(payload if self.encoded else payload.reshape(height, width, datum.CHANNELS))
        return Payloads(data, fields[:, 2].copy(), fields[:, :2].copy(), memory)

    def release(self, payloads: Payloads, wait: Callable[[], object] = lambda: None) -> None:
        """Return the payloads' memory for reuse; `wait` returns once nothing reads it any more."""
        if payloads.memory is not None:
            self._buffers.give(payloads.memory, wait)

    def locate(self, record: int) -> tuple[int, int]:
        """Return the number of a record's shard in the split, and the record's index in it."""
        number = int(np.searchsorted(self._ends, record, side="right"))
        return number, int(record - self._starts[number])

    def shard(self, number: int) -> Shard:
        """Return a shard of the split, opened; may be called from any thread.

        Raises:
            ShardError: it is missing or damaged.
            OpenFilesError: too many files are open.
        """
        with self._opening:
            shard = self._shards.get(number)
            if shard is None:
                path, file = self.split.shards[number]
                try:
                    shard = self._shards[number] = Shard(path, file, in_order=False)
                except OpenFilesError:  # nothing is wrong with the shard
                    raise
                except ShardError as error:
                    raise ShardError(error.message, repair_hint(path)) from None
                places = self._places[self._starts[number] : self._ends[number]]
                places[:] = shard.places
                shard.places = places  # held once
                self._handles[number], self._opened[number] = shard.handle, shard.opened
            return shard

    def name(self, record: int) -> str:
        """Describe a record for messages: `out/train/00003.lmdb, record 17`."""
        number, index = self.locate(record)
        return f"{self.split.shards[number][0]}, record {index}"

    def hint(self, record: int) -> str:
        """Return the hint of an error about a damaged record."""
        return repair_hint(self.split.shards[self.locate(record)[0]][0])

    def close(self) -> None:
        """Close the files."""
        self._shards.clear()

    def _read_usual(
        self, done: int, numbers: np.ndarray, places: np.ndarray, memory: np.ndarray, fields: np.ndarray
    ) -> int:
        """Read usual records from number `done` on; return the number of the first that was not read."""
        if _compiled is None:
            return done
        tables = (numbers, places, self._handles, self._opened, self._set, memory, fields)
        return _compiled(done, len(numbers), *(table.ctypes.data for table in tables))

    def _read_other(
        self, number: int, index: int, memory: np.ndarray, start: int, end: int, fields: np.ndarray
    ) -> None:
        """Read a record of any form into memory[start:end], and what it says into `fields`."""
        value = memory[start:end].data
        shard = self.shard(number)
        shard.read(index, value)
        payload = self._parsed(shard, index, value)
        start = np.frombuffer(payload.data, np.uint8).ctypes.data - memory.ctypes.data
        fields[:] = payload.height, payload.width, payload.label, start, len(payload.data)

    def _parsed(self, shard: Shard, index: int, value: memoryview) -> datum.Datum:
        try:
            payload = datum.parse(value.toreadonly())
            self._check(payload)
            return payload
        except ShardError as error:
            shard.check()  # raises where the file was changed in place, which is the cause
            raise ShardError(f"{shard.path}, record {index}: {error.message}", repair_hint(shard.path)) from None

    def _check(self, payload: datum.Datum) -> None:
        if payload.encoded != self.encoded:
            found, expected = ("a JPEG", "raw pixels") if payload.encoded else ("raw pixels", "a JPEG")
            raise ShardError(f"{found} where dataset.json says {expected}")
        if not self._lowest <= payload.label < self._classes:
            raise ShardError(f"label {payload.label} in a set of {self._classes} classes")
        short, long = sorted((payload.height, payload.width))
        if short != self.size or (self._fit == "crop" and long != self.size):
            raise ShardError(f"{payload.width}x{payload.height} pixels in a set of size {self.size}")


def _load() -> Any:
    """Return the function of `_records.c`; None where it was not compiled."""
    library = compiled.load(__package__, "_records")
    if library is None:
        return None
    size, address = ctypes.c_int64, ctypes.c_void_p
    library.read_records.argtypes = [size, size, *[address] * 7]
    library.read_records.restype = size
    return library.read_records


_compiled = _load()
