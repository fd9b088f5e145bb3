"""Records by index, read into reused memory.

In:  record indices of a split.  Out: their payloads, labels and sizes; nothing is decoded here.
NumPy only. Each Datum's lengths are checked before use: DALI's own Caffe reader does not check them, and a record with
a wrong size overflows its buffer.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import ShardError
from ..shards import datum
from ..shards.datum import NO_LABEL
from ..shards.lmdb_shard import Shard, repair_hint
from ..shards.manifest import UNLABELLED_SPLIT, ShardSet
from ..shards.open_files import OpenFilesError, make_room


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
    """Reads records of one split by index.

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
        shards = {number: self.shard(number) for number in set(numbers.tolist())}
        indices = records - self._starts[numbers]
        lengths = [int(shards[n].places[i, 1]) for n, i in zip(numbers.tolist(), indices.tolist(), strict=True)]
        memory, start = self._buffers.take(sum(lengths)), 0
        data, labels, sides = [], np.empty(len(records), np.int64), np.empty((len(records), 2), np.int64)
        for place, (number, index, length) in enumerate(zip(numbers.tolist(), indices.tolist(), lengths, strict=True)):
            value, start = memory[start : start + length].data, start + length
            shards[number].read(index, value)
            payload = self._parsed(shards[number], index, value)
            pixels = np.frombuffer(payload.data, dtype=np.uint8)
            data.append(pixels if self.encoded else pixels.reshape(payload.height, payload.width, datum.CHANNELS))
            labels[place] = payload.label
            sides[place] = payload.height, payload.width
        for shard in shards.values():
            shard.check()
        return Payloads(data, labels, sides, memory)

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
        lowest = NO_LABEL if self.split.name == UNLABELLED_SPLIT else 0  # training and validation need labels
        if not lowest <= payload.label < self._classes:
            raise ShardError(f"label {payload.label} in a set of {self._classes} classes")
        short, long = sorted((payload.height, payload.width))
        if short != self.size or (self._fit == "crop" and long != self.size):
            raise ShardError(f"{payload.width}x{payload.height} pixels in a set of size {self.size}")


class Buffers:
    """A pool of reusable buffers.

    Args:
        pinned: page-locked, for asynchronous copies to a GPU.
    Attributes:
        made: number of buffers created. Their size grows to the largest batch, their number to the most in use at once.
    """

    def __init__(self, pinned: bool = False):
        self._pinned = pinned
        self._free: deque[tuple[np.ndarray, Callable[[], object]]] = deque()
        self.made = 0

    def take(self, size: int) -> np.ndarray:
        """Take a buffer of at least `size` bytes, uint8 (bytes,); waits until its last reader is done."""
        if not self._free:
            self.made += 1
            return self._new(size)
        buffer, wait = self._free.popleft()  # the one that was returned first
        wait()
        return buffer if len(buffer) >= size else self._new(size)

    def give(self, buffer: np.ndarray, wait: Callable[[], object] = lambda: None) -> None:
        """Return a buffer; `wait` returns once nothing reads it any more, such as a copy to a GPU."""
        self._free.append((buffer, wait))

    def _new(self, size: int) -> np.ndarray:
        if not self._pinned:
            return np.empty(size, np.uint8)
        import torch

        return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()  # keeps a reference to the tensor
