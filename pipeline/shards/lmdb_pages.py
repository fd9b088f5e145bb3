"""LMDB's own pages: the offset and length of each record of a shard, read without touching a record.

In:  a data.mdb of format 1, as lmdb_shard.py writes it.  Out: offset and length of every value, in key order.
Imports neither lmdb nor torch. liblmdb memory-maps the file and trusts its pages: a flipped bit that points outside
the file, a truncated file or a failing disk kills the process. Here each of these is an error.
"""

import os
import struct
from typing import NamedTuple

import numpy as np

from ..errors import ShardError

# mdb.c: a page begins with its number, 2 unused bytes, flags, and the ends of the list of node offsets that follows;
# a node with two halves of a number, flags and the length of its key. All little-endian.
_PAGE = struct.Struct("<QHHHH")
_NODE = np.dtype([("low", "<u2"), ("high", "<u2"), ("flags", "<u2"), ("key", "<u2")])
_BRANCH, _LEAF, _OVERFLOW = 0x01, 0x02, 0x01  # flags of pages; of a node whose value has pages of its own

# A meta page: page header, magic, version, two addresses; the accounts of two trees, that of the free pages and that
# of the records; then the last page and the transaction's number. A tree: the page size or nothing, flags, depth,
# pages of three kinds, entries, root.
_META = struct.Struct("<16xII16x I44x 8x3Q2Q QQ")
_MAGIC, _FORMAT = 0xBEEFC0DE, 1
_MAGIC_OFFSET, _MAGIC_OFFSET_3 = 16, 24  # bytes; the latter in format 3, whose page header is longer
HEAD_BYTES = 64  # of a file, by which `describe_format` recognises it

_KEY = 8  # bytes of a key
_INCONSISTENT = "its pages do not lead to its records"
_MOST_PAGES = np.uint64(1 << 40)  # a larger page number is invalid, and its offset in bytes would overflow int64


class Meta(NamedTuple):
    """One of the two meta pages; the one with the larger transaction number counts.

    `branches`, `leaves` and `overflow` are numbers of pages, `root` and `last_page` page numbers.
    """

    magic: int
    version: int
    page_bytes: int
    branches: int
    leaves: int
    overflow: int
    entries: int
    root: int
    last_page: int
    transaction: int


def describe_format(head: bytes) -> str:
    """Describe what a file is that is not LMDB format 1, by its first HEAD_BYTES; empty for format 1."""
    magic = struct.pack("<I", _MAGIC)
    if head[_MAGIC_OFFSET : _MAGIC_OFFSET + 8] == magic + struct.pack("<I", _FORMAT):
        return ""
    if head[_MAGIC_OFFSET_3 : _MAGIC_OFFSET_3 + 4] == magic:
        return "LMDB format 3, which DALI and Caffe cannot read"
    if head[_MAGIC_OFFSET : _MAGIC_OFFSET + 4] == magic[::-1]:
        return "an LMDB file of a machine with the other byte order"
    return "not an LMDB file of format 1"


def read_metas(file: int) -> tuple[Meta, Meta]:
    """Read both meta pages of the file behind a descriptor, whatever their values.

    Raises:
        struct.error: the file ends within one.
        OSError: the file cannot be read.
    """
    first = Meta._make(_META.unpack(os.pread(file, _META.size, 0)))
    return first, Meta._make(_META.unpack(os.pread(file, _META.size, first.page_bytes)))


def newest(metas: tuple[Meta, Meta]) -> Meta:
    """Select the meta page of the later transaction."""
    return max(metas, key=lambda meta: meta.transaction)


def extents(file: int) -> np.ndarray:
    """Find the values of the file behind a descriptor.

    Returns:
        int64 (records, 2): offset and length in bytes of record 0, 1, ...; inside the file and without overlap.
    Raises:
        ShardError: the pages are inconsistent, or the keys are not b"00000000", b"00000001", ... without a gap.
        OSError: the file cannot be read.
    """
    try:
        places, keys = _walk(file)
    except (struct.error, ValueError, IndexError, OverflowError):  # what reading past an end raises
        raise ShardError(_INCONSISTENT) from None
    expected = _digits(len(keys))
    wrong = (keys != expected).any(axis=1).nonzero()[0]
    if len(wrong):
        raise ShardError(f"record {wrong[0]} is missing or out of order")
    in_file = np.argsort(places[:, 0])
    if (places[in_file][:-1].sum(axis=1) > places[in_file][1:, 0]).any():
        raise ShardError("two of its records overlap")
    return places


def _walk(file: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and lengths, int64 (records, 2), and keys, uint8 (records, 8), in the order of the tree."""
    size = os.fstat(file).st_size
    metas = read_metas(file)
    meta, page_bytes = newest(metas), metas[0].page_bytes
    if any((one.magic, one.version) != (_MAGIC, _FORMAT) for one in metas) or not 512 <= page_bytes <= 1 << 16:
        raise ValueError
    ahead = [meta.root] if meta.entries else []
    places, keys = [np.empty((0, 2), np.int64)], [np.empty((0, _KEY), np.uint8)]
    if meta.branches + meta.leaves > size // page_bytes:
        raise ValueError
    for _ in range(meta.branches + meta.leaves):  # bounded, so that a tree with a loop ends too
        offset = ahead.pop() * page_bytes
        page = os.pread(file, page_bytes, offset)
        _, _, flags, lower, _ = _PAGE.unpack_from(page)
        starts = np.frombuffer(page, "<u2", (lower - _PAGE.size) // 2, _PAGE.size).astype(np.int64)
        nodes = _gather(page, starts, _NODE.itemsize).view(_NODE)[:, 0]
        numbers = nodes["low"].astype(np.int64) | nodes["high"].astype(np.int64) << 16
        if flags & _BRANCH:
            ahead += (numbers | nodes["flags"].astype(np.int64) << 32)[::-1].tolist()
        elif flags & _LEAF and (nodes["key"] == _KEY).all():
            places.append(_values(page, offset, page_bytes, starts, nodes, numbers))
            keys.append(_gather(page, starts + _NODE.itemsize, _KEY))
        else:
            raise ValueError
    every = np.concatenate(places)
    if ahead or len(every) != meta.entries or (every < 0).any() or (every.sum(axis=1) > size).any():
        raise ValueError
    return every, np.concatenate(keys)


def _digits(count: int) -> np.ndarray:
    """The keys of records 0..count-1: uint8 (count, 8) of ASCII digits."""
    powers = 10 ** np.arange(_KEY - 1, -1, -1)
    return (np.arange(count)[:, None] // powers % 10 + ord("0")).astype(np.uint8)


def _values(page: bytes, offset: int, page_bytes: int, starts, nodes, lengths) -> np.ndarray:
    """Offset and length of a leaf's values: in the leaf itself, or after the header of overflow pages."""
    inside = starts + _NODE.itemsize + nodes["key"]
    overflow = (nodes["flags"] & _OVERFLOW).astype(bool)
    offsets = offset + inside
    pages = np.minimum(_gather(page, inside[overflow], 8).view("<u8")[:, 0], _MOST_PAGES).astype(np.int64)
    offsets[overflow] = pages * page_bytes + _PAGE.size
    return np.stack([offsets, lengths], axis=1)


def _gather(page: bytes, starts: np.ndarray, count: int) -> np.ndarray:
    """Copy `count` bytes from each start on: uint8 (n, count)."""
    return np.ascontiguousarray(np.frombuffer(page, np.uint8)[starts[:, None] + np.arange(count)])
