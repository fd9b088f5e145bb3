"""Photos that a source has twice: in two classes, or in two splits, where val then tests what was trained on.

    out/.build/SPLIT-NUMBER.hashes   hash and label of every record of a shard, in key order; written before its receipt

In:  the photos' bytes, while shards are built; then these files.  Out: counts and examples for dataset.json.
Nothing is removed. If the hashes of some shards are not known any more, as in a repair, nothing is counted.

The hash has 64 bits and takes about 1% of the time of a build: CRC-32 of the whole file, then BLAKE2b of this, of the
file's length and of a sample. (BLAKE2b of whole files would take 5 to 8%, SHA-256 3 to 4%.) Two different photos share
it by chance once in 100,000 sets of 14 million photos.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ShardError
from ..files import write_atomically
from ..shards.records_csv import read_listing

_RECORD = np.dtype([("hash", "<u8"), ("label", "<i4")])
_SAMPLE_BYTES = 1024  # at the start, in the middle and at the end
_EXAMPLES = 3  # of each kind
_COPIES = 4  # that an example names


@dataclass(frozen=True)
class HashedShard:
    """A finished shard and the file with its records' hashes."""

    folder: Path
    hashes: Path
    split: str
    records: int


@dataclass
class Duplicates:
    """Photos that are there several times, by a hash of their files.

    Attributes:
        across_splits: number of different photos that are in more than one split; None if they were not counted.
        across_classes: number of those that are in more than one class; None if they were not counted.
        examples: some of them: split, class and path of each copy.
    """

    across_splits: int | None = None
    across_classes: int | None = None
    examples: list[list[tuple[str, str, str]]] = field(default_factory=list)

    def as_json(self) -> dict:
        """Return the entry of dataset.json."""
        return asdict(self)


def hash_of(photo: bytes) -> int:
    """Return the hash of a photo's file, 0..2^64-1."""
    middle, size = len(photo) // 2, _SAMPLE_BYTES
    digest = hashlib.blake2b(b"%d %d " % (zlib.crc32(photo), len(photo)), digest_size=8)
    digest.update(photo if len(photo) <= 3 * size else photo[:size] + photo[middle : middle + size] + photo[-size:])
    return int.from_bytes(digest.digest(), "little")


def write_hashes(path: Path, hashes: Sequence[int], labels: Sequence[int]) -> None:
    """Write the hashes and labels of a shard's records, in key order, atomically.

    Raises:
        NotWrittenError: the file cannot be written.
    """
    records = np.zeros(len(hashes), dtype=_RECORD)
    records["hash"], records["label"] = np.array(hashes, dtype=np.uint64), labels
    write_atomically(path, lambda file: np.save(file, records))


def find_duplicates(shards: Sequence[HashedShard], classes: Sequence[str]) -> Duplicates:
    """Find the photos that are in several splits or several classes, in 10 to 24 bytes of memory a record.

    Args:
        shards: all shards of a set.
        classes: class names by label.
    Returns:
        Counts, and the first examples; without counts if the hashes of a shard are missing or damaged.
    Raises:
        OSError: hashes cannot be read; the same command will find them when they can be.
    """
    hashes = np.zeros(sum(shard.records for shard in shards), dtype=np.uint64)
    end = 0
    for shard in shards:
        try:
            records = _records_of(shard)
        except (FileNotFoundError, ValueError, EOFError):
            return Duplicates()
        hashes[end : end + len(records)] = records["hash"]
        end += len(records)
    hashes.sort()
    again = hashes[1:] == hashes[:-1]
    again[1:] &= ~again[:-1]  # of many copies, the second alone
    repeated = hashes[1:][again]
    del hashes, again
    if not len(repeated):
        return Duplicates(0, 0)
    first, across = _compared(shards, repeated)
    examples = []
    for by, found in across.items():
        groups = np.flatnonzero(found)
        for group in groups[np.argsort(first[groups], kind="stable")][:_EXAMPLES]:
            examples.append(_named(_copies(shards, repeated[group]), by, shards, classes))
    return Duplicates(int(across["split"].sum()), int(across["label"].sum()), [one for one in examples if one])


def duplicate_lines(manifest: dict) -> list[str]:
    """Return what to print about a set's duplicates, from its dataset.json; nothing for sets of older versions."""
    if not (found := manifest.get("duplicates")):
        return []
    if found["across_splits"] is None:
        return ["photos that are there twice were not counted: some shards were built anew after the set was finished"]
    lines = []
    for kind, where in (("across_splits", "split"), ("across_classes", "class")):
        if count := found[kind]:
            differing = ("split", "class").index(where)
            shown: list = next((one for one in found["examples"] if len({copy[differing] for copy in one}) > 1), [])
            named = " = ".join(f"{path} ({split}{', ' * bool(name)}{name})" for split, name, path in shown)
            are = "photo is" if count == 1 else "photos are"
            such = f", such as {named}" if named else ""
            lines.append(f"{count:,} {are} in more than one {where}, by a hash of the files{such}")
    return lines


def _records_of(shard: HashedShard) -> np.ndarray:
    """Return the records' hashes and labels of a shard.

    Raises:
        OSError, ValueError, EOFError: they are not known.
    """
    records = np.load(shard.hashes, allow_pickle=False)
    if records.dtype != _RECORD or records.shape != (shard.records,):
        raise ValueError(f"{shard.hashes}: not the hashes of {shard.records} records")
    return records


def _compared(shards: Sequence[HashedShard], repeated: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Compare the splits and labels of the copies of photos, by their hashes, sorted.

    Returns:
        The number of each photo's first record in the set; whether it is in several splits, and with several labels.
    """
    splits = list(dict.fromkeys(shard.split for shard in shards))
    most = np.iinfo(np.int32).max
    first = np.full(len(repeated), np.iinfo(np.int64).max)
    least = {by: np.full(len(repeated), most, dtype=np.int32) for by in ("split", "label")}
    greatest = {by: np.full(len(repeated), -1, dtype=np.int32) for by in ("split", "label")}
    begin = 0
    for shard in shards:
        records = _records_of(shard)
        hashes = np.ascontiguousarray(records["hash"])
        place = np.minimum(np.searchsorted(repeated, hashes), len(repeated) - 1)
        keys = np.flatnonzero(repeated[place] == hashes)
        place = place[keys]
        np.minimum.at(first, place, begin + keys)
        label = records["label"][keys]
        split = np.full(len(keys), splits.index(shard.split), dtype=np.int32)
        for by, values in (("split", split), ("label", label)):
            np.minimum.at(least[by], place, np.where(values < 0, most, values))  # no label differs from none
            np.maximum.at(greatest[by], place, values)
        begin += shard.records
    return first, {by: greatest[by] > least[by] for by in least}


def _copies(shards: Sequence[HashedShard], photo: np.uint64) -> list[tuple[int, int, int]]:
    """Return shard, key and label of copies of a photo: in each shard the first, and the first of every label."""
    copies = []
    for number, shard in enumerate(shards):
        records = _records_of(shard)
        keys = np.flatnonzero(records["hash"] == photo)
        chosen = {*keys[:_COPIES].tolist(), *keys[np.unique(records["label"][keys], return_index=True)[1]].tolist()}
        copies += [(number, key, int(records["label"][key])) for key in sorted(chosen)]
    return copies


def _named(
    copies: list[tuple[int, int, int]], by: str, shards: Sequence[HashedShard], classes: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return split, class and path of some copies, those of different splits or labels first; none without a CSV."""
    differing: dict = {}
    for copy in copies:
        differing.setdefault(shards[copy[0]].split if by == "split" else copy[2], copy)
    chosen = list(dict.fromkeys([*differing.values(), *copies]))[:_COPIES]
    named = []
    for number, key, label in chosen:
        try:
            path = read_listing(shards[number].folder)[key].source_path
        except (ShardError, IndexError):
            return []
        named.append((shards[number].split, classes[label] if label >= 0 else "", path))
    return named
