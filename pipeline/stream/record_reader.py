"""Planned records, read into memory that is kept and used over and over.

In:  record indices of a split.  Out: their payloads, labels and sides; nothing is decoded here.
NumPy alone. Each Datum's lengths are checked before anything reads them: DALI's own Caffe reader does not,
and a record that lies about its size overflows its buffer.
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
from ..shards.manifest import ShardSet
from ..shards.open_files import OpenFilesError, make_room


@dataclass(frozen=True)
class Payloads:
    """The payloads of some records.

    Attributes:
        data: a list of arrays, each a read-only view of `memory`: uint8 (bytes,) JPEG files, or uint8 (height, width,
            3) pixels.
        labels: int64 (n,).
        sides: int64 (n, 2), height and width in pixels.
        memory: uint8 (bytes,), theirs until they are released; None where nobody wants it back.
    """

    data: list[np.ndarray]
    labels: np.ndarray
    sides: np.ndarray
    memory: np.ndarray | None = None


class RecordReader:
    """Reads records of one split by index.

    Shards are opened when they are first read, so a Feed may be made before a fork and used after it.
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
        self._opening = threading.RLock()  # Python may collect a lost Feed in the very thread that is opening a shard
        self._buffers = Buffers()
        make_room(self, len(self.split.shards))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __reduce__(self):
        # In another process, or as a copy, it opens its own files.
        return type(self), self._made_of

    def read(self, records: np.ndarray) -> Payloads:
        """Read records.

        Args:
            records: int64 (n,), 0..len-1, in any order.
        Raises:
            ShardError: a record is missing or damaged, or its disk fails; the message names shard and record. Or a
                shard was written to.
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
        """Give their memory back; `wait` returns once nothing reads it any more."""
        if payloads.memory is not None:
            self._buffers.give(payloads.memory, wait)

    def locate(self, record: int) -> tuple[int, int]:
        """The number of a record's shard, and the record's index in it."""
        number = int(np.searchsorted(self._ends, record, side="right"))
        return number, int(record - self._starts[number])

    def shard(self, number: int) -> Shard:
        """A shard of the split, opened; from any thread.

        Raises:
            ShardError, OpenFilesError: it cannot be opened.
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
        """Say where a record lies: `out/train/00003.lmdb, record 17`."""
        number, index = self.locate(record)
        return f"{self.split.shards[number][0]}, record {index}"

    def hint(self, record: int) -> str:
        """What to do about a damaged record."""
        return repair_hint(self.split.shards[self.locate(record)[0]][0])

    def close(self) -> None:
        """Let go of the files."""
        self._shards.clear()

    def _parsed(self, shard: Shard, index: int, value: memoryview) -> datum.Datum:
        try:
            payload = datum.parse(value.toreadonly())
            self._check(payload)
            return payload
        except ShardError as error:
            shard.check()  # if somebody writes to the file, that is what is to be told
            raise ShardError(f"{shard.path}, record {index}: {error.message}", repair_hint(shard.path)) from None

    def _check(self, payload: datum.Datum) -> None:
        if payload.encoded != self.encoded:
            raise ShardError(f"{'a JPEG' if payload.encoded else 'raw pixels'}, which dataset.json does not say")
        lowest = NO_LABEL if self.split.name == "test" else 0  # nothing is ever trained on without a label
        if not lowest <= payload.label < self._classes:
            raise ShardError(f"label {payload.label} in a set of {self._classes} classes")
        short, long = sorted((payload.height, payload.width))
        if short != self.size or (self._fit == "crop" and long != self.size):
            raise ShardError(f"{payload.width}x{payload.height} pixels in a set of size {self.size}")


# --- from pipeline/stream/buffers.py


class Buffers:
    """Lends buffers and takes them back.

    Args:
        pinned: page-locked, for copies to a GPU that nobody waits for. Untested: written without one.
    Attributes:
        made: buffers so far. They grow to the largest batch, and their number to the most that were out at once.
    """

    def __init__(self, pinned: bool = False):
        self._pinned = pinned
        self._free: deque[tuple[np.ndarray, Callable[[], object]]] = deque()
        self.made = 0

    def take(self, size: int) -> np.ndarray:
        """A buffer of at least `size` bytes, uint8 (bytes,), once whoever used it last is done."""
        if not self._free:
            self.made += 1
            return self._new(size)
        buffer, wait = self._free.popleft()  # the one that was given back first
        wait()
        return buffer if len(buffer) >= size else self._new(size)

    def give(self, buffer: np.ndarray, wait: Callable[[], object] = lambda: None) -> None:
        """Take a buffer back; `wait` returns once nothing reads it any more, a copy to a GPU say."""
        self._free.append((buffer, wait))

    def _new(self, size: int) -> np.ndarray:
        if not self._pinned:
            return np.empty(size, np.uint8)
        import torch

        return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()  # which keeps the tensor
