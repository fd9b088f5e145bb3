"""Where the records of a shard lie in its file, read off LMDB's own pages without touching a record.

In:  a data.mdb of format 1, as shards.py writes it.  Out: offset and length of every value, in key order.
Neither lmdb nor torch. LMDB's own lookup touches every page of the value that it finds, which on a cold file is the
very wait that reading ahead is to avoid; and it believes its pages, where one flipped bit leads out of the file and
ends the process. So a shard whose pages make no sense here is not opened.
"""

import os
import struct

import numpy as np

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
_MOST_PAGES = np.uint64(1 << 40)  # more are nonsense, and would not fit 64 bits as bytes


def extents(file: int) -> np.ndarray:
    """Find the values of the file behind a descriptor.

    Returns:
        int64 (records, 2): offset and length in bytes, in key order; (0, 2) where the file is not understood, or its
        keys are not of eight bytes or not in order.
    """
    try:
        found = _walk(file)
    except (struct.error, ValueError, IndexError, OverflowError):  # what reading past an end comes to
        found = []
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def do_not_overlap(places: np.ndarray) -> bool:
    """Whether values, int64 (records, 2) of offset and length, share no byte: two keys would lead to one record."""
    places = places[np.argsort(places[:, 0])]
    return bool((places[:-1].sum(axis=1) <= places[1:, 0]).all())


def _walk(file: int) -> list[np.ndarray]:
    size = os.fstat(file).st_size
    first = _META.unpack(os.pread(file, _META.size, 0))
    page_size = first[2]
    metas = [first, _META.unpack(os.pread(file, _META.size, page_size))]
    if any(meta[:2] != (_MAGIC, _FORMAT) for meta in metas) or not 512 <= page_size <= 1 << 16:
        return []
    *_, branches, leaves, _, _, root, _, _ = max(metas, key=lambda meta: meta[-1])  # the later transaction's
    ahead, found, keys = [root], [], [np.empty((0, _KEY), np.uint8)]
    while ahead and branches + leaves > 0:  # a tree with a loop in it ends too
        branches -= 1
        offset = ahead.pop() * page_size
        page = os.pread(file, page_size, offset)
        _, _, flags, lower, _ = _PAGE.unpack_from(page)
        starts = np.frombuffer(page, "<u2", (lower - _PAGE.size) // 2, _PAGE.size).astype(np.int64)
        nodes = _gathered(page, starts, _NODE.itemsize).view(_NODE)[:, 0]
        numbers = nodes["low"].astype(np.int64) | nodes["high"].astype(np.int64) << 16
        if flags & _BRANCH:
            ahead += (numbers | nodes["flags"].astype(np.int64) << 32)[::-1].tolist()
        elif flags & _LEAF:
            found.append(_values(page, offset, page_size, starts, nodes, numbers))
            keys.append(_gathered(page, starts + _NODE.itemsize, _KEY)[nodes["key"] == _KEY])
    every = np.concatenate(keys).view(">u8")[:, 0]  # a flipped bit in a key makes a record go by another's number
    ascending = len(every) == sum(map(len, found)) and (every[:-1] < every[1:]).all()
    sound = ascending and all((values >= 0).all() and (values.sum(axis=1) <= size).all() for values in found)
    return found if sound and not ahead else []


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
