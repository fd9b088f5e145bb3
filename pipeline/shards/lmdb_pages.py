"""Where the records of a shard lie in its file, read off LMDB's own pages without touching a record.

In:  a data.mdb of format 1, as shards.py writes it.  Out: offset and length of every value, in key order.
Neither lmdb nor torch. liblmdb reads by a map of the file and believes its pages: one flipped bit that leads out of
the file, a file that was cut short, or a disk that fails ends the process. Here each of them is an error.
"""

import os
import struct

import numpy as np

from ..errors import ShardError

# mdb.c: a page begins with its number, 2 unused bytes, flags, and the ends of the list of node offsets behind them;
# a node with two halves of a number, flags and the length of its key. All little-endian.
_PAGE = struct.Struct("<QHHHH")
_NODE = np.dtype([("low", "<u2"), ("high", "<u2"), ("flags", "<u2"), ("key", "<u2")])
_BRANCH, _LEAF, _ELSEWHERE = 0x01, 0x02, 0x01  # flags of pages; of a node whose value has pages of its own

# A meta page: magic, version, and the accounts of two trees, the free pages' and the records'. Of each: page size or
# nothing, flags, depth, pages of three kinds, entries, root. Then the last page and the transaction's number.
_TREE = "IHH5Q"
_META = struct.Struct(f"<16xII16x{_TREE}{_TREE}QQ")
_MAGIC, _FORMAT = 0xBEEFC0DE, 1
_KEY = 8  # bytes of a key
_NONSENSE = "its pages do not lead to its records"
_MOST_PAGES = np.uint64(1 << 40)  # more are nonsense, and would not fit 64 bits as bytes


def extents(file: int) -> np.ndarray:
    """Find the values of the file behind a descriptor.

    Returns:
        int64 (records, 2): offset and length in bytes of record 0, 1, ...; inside the file, and none shares a byte.
    Raises:
        ShardError: the pages make no sense, or the keys are not b"00000000", b"00000001", ... without a gap.
        OSError: the file cannot be read.
    """
    try:
        places, keys = _walk(file)
    except (struct.error, ValueError, IndexError, OverflowError):  # what reading past an end comes to
        raise ShardError(_NONSENSE) from None
    expected = _digits(len(keys))
    wrong = (keys != expected).any(axis=1).nonzero()[0]
    if len(wrong):
        raise ShardError(f"no record {wrong[0]} where it should be")
    in_file = np.argsort(places[:, 0])
    if (places[in_file][:-1].sum(axis=1) > places[in_file][1:, 0]).any():
        raise ShardError("two of its records share bytes")
    return places


def _walk(file: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and lengths, int64 (records, 2), and keys, uint8 (records, 8), in the order of the tree."""
    size = os.fstat(file).st_size
    first = _META.unpack(os.pread(file, _META.size, 0))
    page_size = first[2]
    metas = [first, _META.unpack(os.pread(file, _META.size, page_size))]
    if any(meta[:2] != (_MAGIC, _FORMAT) for meta in metas) or not 512 <= page_size <= 1 << 16:
        raise ValueError
    *_, branches, leaves, _, entries, root, _, _ = max(metas, key=lambda meta: meta[-1])  # the later transaction's
    ahead, places, keys = [root] if entries else [], [np.empty((0, 2), np.int64)], [np.empty((0, _KEY), np.uint8)]
    if branches + leaves > size // page_size:
        raise ValueError
    for _ in range(branches + leaves):  # a tree with a loop in it ends too
        offset = ahead.pop() * page_size
        page = os.pread(file, page_size, offset)
        _, _, flags, lower, _ = _PAGE.unpack_from(page)
        starts = np.frombuffer(page, "<u2", (lower - _PAGE.size) // 2, _PAGE.size).astype(np.int64)
        nodes = _gathered(page, starts, _NODE.itemsize).view(_NODE)[:, 0]
        numbers = nodes["low"].astype(np.int64) | nodes["high"].astype(np.int64) << 16
        if flags & _BRANCH:
            ahead += (numbers | nodes["flags"].astype(np.int64) << 32)[::-1].tolist()
        elif flags & _LEAF and (nodes["key"] == _KEY).all():
            places.append(_values(page, offset, page_size, starts, nodes, numbers))
            keys.append(_gathered(page, starts + _NODE.itemsize, _KEY))
        else:
            raise ValueError
    every = np.concatenate(places)
    if ahead or len(every) != entries or (every < 0).any() or (every.sum(axis=1) > size).any():
        raise ValueError
    return every, np.concatenate(keys)


def _digits(count: int) -> np.ndarray:
    """The keys of records 0..count-1: uint8 (count, 8) of ASCII digits."""
    powers = 10 ** np.arange(_KEY - 1, -1, -1)
    return (np.arange(count)[:, None] // powers % 10 + ord("0")).astype(np.uint8)


def _values(page: bytes, offset: int, page_size: int, starts, nodes, lengths) -> np.ndarray:
    """Offset and length of a leaf's values: in the leaf itself, or behind the head of pages of their own."""
    inside = starts + _NODE.itemsize + nodes["key"]
    elsewhere = (nodes["flags"] & _ELSEWHERE).astype(bool)
    offsets = offset + inside
    pages = np.minimum(_gathered(page, inside[elsewhere], 8).view("<u8")[:, 0], _MOST_PAGES).astype(np.int64)
    offsets[elsewhere] = pages * page_size + _PAGE.size
    return np.stack([offsets, lengths], axis=1)


def _gathered(page: bytes, starts: np.ndarray, count: int) -> np.ndarray:
    """uint8 (n, count): the bytes from each start on."""
    return np.ascontiguousarray(np.frombuffer(page, np.uint8)[starts[:, None] + np.arange(count)])
