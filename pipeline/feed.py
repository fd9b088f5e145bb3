"""Planned records as views of the memory map.

In:  record indices of a split.  Out: their payloads, labels and sides; no payload is copied or decoded here.
NumPy and lmdb only. Each Datum's lengths are checked before anything reads them: DALI's own Caffe reader does not,
and a record that lies about its size overflows its buffer.
"""

from dataclasses import dataclass

import lmdb
import numpy as np

from . import datum
from .errors import ShardError
from .open_files import OpenFilesError, make_room
from .photo import UNLABELLED
from .shards import Shard, mend, open_shard
from .shardset import ShardSet


@dataclass(frozen=True)
class Payloads:
    """The payloads of some records.

    Attributes:
        data: a list of arrays, each a read-only view: uint8 (bytes,) JPEG files, or uint8 (height, width, 3) pixels.
        labels: int64 (n,).
        sides: int64 (n, 2), height and width in pixels.
        shards: what the views lie in. Whoever holds these payloads holds it open; a view alone does not.
    """

    data: list[np.ndarray]
    labels: np.ndarray
    sides: np.ndarray
    shards: tuple[Shard, ...] = ()

    def check(self) -> None:
        """See that the views still are what they were.

        Raises:
            ShardError: a shard was written to.
        """
        for shard in self.shards:
            shard.check()


class Feed:
    """Reads records of one split by index. Views are valid until the Feed is closed or dropped, and their Payloads too.

    Environments are opened at the first read, so a Feed may be made before a fork and used after it.
    """

    def __init__(self, shard_set: ShardSet, split: str):
        self.split = shard_set.split(split)
        self.encoded = shard_set.encoding == "jpeg"
        self.size, self._fit = shard_set.size, shard_set.fit
        self._classes = len(shard_set.classes)
        self._ends = np.cumsum([file.records for _, file in self.split.shards])
        self._shards: dict[int, Shard] = {}
        make_room(self, len(self.split.shards))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, records: np.ndarray) -> Payloads:
        """Look up records.

        Args:
            records: int64 (n,), 0..len-1, in any order.
        Raises:
            ShardError: a record is missing or damaged; the message names shard and record. Or a shard was written to.
            OpenFilesError: too many files are open.
        """
        numbers = np.searchsorted(self._ends, records, side="right")
        for number in self._shards.keys() & set(numbers.tolist()):
            self._shards[number].check()
        data, labels, sides = [], np.empty(len(records), np.int64), np.empty((len(records), 2), np.int64)
        for place, (number, record) in enumerate(zip(numbers.tolist(), records.tolist(), strict=True)):
            payload = self._parse(number, record)
            pixels = np.frombuffer(payload.data, dtype=np.uint8)
            data.append(pixels if self.encoded else pixels.reshape(payload.height, payload.width, datum.CHANNELS))
            labels[place] = payload.label
            sides[place] = payload.height, payload.width
        return Payloads(data, labels, sides, tuple(self._shards[number] for number in set(numbers.tolist())))

    def name(self, record: int) -> str:
        """Say where a record lies: `out/train/00003.lmdb, record 17`."""
        number = int(np.searchsorted(self._ends, record, side="right"))
        return f"{self.split.shards[number][0]}, record {self._index(number, record)}"

    def hint(self, record: int) -> str:
        """What to do about a damaged record."""
        return mend(self.split.shards[int(np.searchsorted(self._ends, record, side="right"))][0])

    def close(self) -> None:
        """Let go of the memory maps: views of them must not be used any more."""
        self._shards.clear()

    def _parse(self, number: int, record: int) -> datum.Datum:
        try:
            payload = datum.parse(self._shard(number).value(self._index(number, record)))
            self._check(payload)
            return payload
        except OpenFilesError:  # nothing is wrong with the record
            raise
        except (ShardError, lmdb.Error) as error:  # LMDB's own where a page of its tree is damaged
            raise ShardError(
                f"{self.name(record)}: {error.message if isinstance(error, ShardError) else error}",
                self.hint(record),
            ) from None

    def _check(self, payload: datum.Datum) -> None:
        if payload.encoded != self.encoded:
            raise ShardError(f"{'a JPEG' if payload.encoded else 'raw pixels'}, which dataset.json does not say")
        lowest = UNLABELLED if self.split.name == "test" else 0  # nothing is ever trained on without a label
        if not lowest <= payload.label < self._classes:
            raise ShardError(f"label {payload.label} in a set of {self._classes} classes")
        short, long = sorted((payload.height, payload.width))
        if short != self.size or (self._fit == "crop" and long != self.size):
            raise ShardError(f"{payload.width}x{payload.height} pixels in a set of size {self.size}")

    def _index(self, number: int, record: int) -> int:
        return int(record - (self._ends[number - 1] if number else 0))

    def _shard(self, number: int) -> Shard:
        shard = self._shards.get(number)
        if shard is None:
            shard = self._shards[number] = open_shard(*self.split.shards[number])
        return shard
