"""Nearest neighbours: of vectors by Euclidean distance, of binary codes by Hamming distance (paper, section 6.1).

In:  NumPy arrays, which may be memory-mapped.  Out: indices and distances in ascending order.  NumPy only.
Of equal distances the smaller index comes first. Float32 products select the candidates, with a margin for rounding;
float64 differences order them. Memory does not grow with the number of vectors.
"""

import numpy as np

ROWS, QUERIES = 4096, 256  # in a product: 64 MB of vectors, 4 MB of distances


def nearest(vectors: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest vectors of each query, exactly.

    Args:
        vectors: float32 (n, dimensions), may be memory-mapped; read once.
        queries: float32 (q, dimensions).
        count: number of neighbours; all vectors if there are fewer.
    Returns:
        indices int64 and distances float64, (q, min(count, n)) each.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    count = min(count, len(vectors))
    lengths = _squares(queries)
    best = np.full((len(queries), count), np.inf, np.float32)  # approximate squared distances, unordered
    slack = np.zeros(len(queries))
    indices, distances = np.zeros((len(queries), count), np.int64), np.full((len(queries), count), np.inf)
    for top in range(0, len(vectors), ROWS):
        some = np.asarray(vectors[top : top + ROWS])
        squares = _squares(some)
        # An upper bound of the error of a float32 product, whatever the order of its sums.
        error = some.shape[1] * 2.0**-23 * (np.sqrt(squares.max()) + np.sqrt(lengths)) ** 2
        np.maximum(slack, 2 * error, out=slack)
        for left in range(0, len(queries), QUERIES):
            part = slice(left, left + QUERIES)
            squared = queries[part] @ some.T  # (256, 4096)
            squared *= -2
            squared += squares
            squared += lengths[part, None]
            best[part] = _smallest(np.concatenate([best[part], _smallest(squared, count)], axis=1), count)
            near = squared <= (best[part].max(axis=1) + slack[part])[:, None]
            for query in left + np.flatnonzero(near.any(axis=1)):  # ordered block by block, so memory stays bounded
                candidates = np.flatnonzero(near[query - left])
                found, apart = among(some, queries[query], candidates, count)
                apart = np.concatenate([distances[query], apart])
                found = np.concatenate([indices[query], found + top])
                order = np.lexsort((found, apart))[:count]
                indices[query], distances[query] = found[order], apart[order]
    return indices, distances


def among(vectors: np.ndarray, query: np.ndarray, candidates: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest of some candidates, exactly.

    Args:
        vectors: float32 (n, dimensions), may be memory-mapped.
        query: float32 (dimensions,).
        candidates: int64 (c,), indices of vectors.
        count: number of neighbours.
    Returns:
        indices int64 and distances float64, (min(count, c),) each.
    """
    distances = _distances(vectors, query, candidates)
    order = np.lexsort((candidates, distances))[:count]
    return candidates[order], distances[order]


def columns_of(codes: np.ndarray) -> np.ndarray:
    """Transpose codes for `nearest_codes`.

    Args:
        codes: uint8 (n, bytes), packed bits.
    Returns:
        uint64 (words, n), contiguous: one word of all codes after the other.
    """
    return np.ascontiguousarray(_words(codes).T)


def nearest_codes(columns: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the codes with the fewest different bits.

    Args:
        columns: the codes, see `columns_of`.
        queries: uint8 (q, bytes).
        count: number of neighbours; all codes if there are fewer.
    Returns:
        indices and numbers of different bits, int64 (q, min(count, n)) each.
    """
    number = columns.shape[1]
    count = min(count, number)
    indices, bits = (np.empty((len(queries), count), np.int64) for _ in range(2))
    for place, query in enumerate(_words(queries)):
        apart = np.zeros(number, np.uint16)
        for column, word in zip(columns, query, strict=True):
            apart += _ones(column ^ word)
        furthest = np.partition(apart, count - 1)[count - 1]
        candidates = np.flatnonzero(apart <= furthest)  # ascending, so a stable sort puts smaller indices first
        order = candidates[np.argsort(apart[candidates], kind="stable")[:count]]
        indices[place], bits[place] = order, apart[order]
    return indices, bits


def _squares(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", vectors, vectors)


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` smallest values of each row, unordered."""
    return values if values.shape[1] <= count else np.partition(values, count - 1, axis=1)[:, :count]


def _distances(vectors: np.ndarray, query: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    some = np.asarray(vectors[candidates], np.float64) - query
    return np.sqrt(_squares(some))


def _words(codes: np.ndarray) -> np.ndarray:
    """Return codes as uint64 (n, words), the last word padded with zeros."""
    padded = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return padded.view(np.uint64)


def _ones(words: np.ndarray) -> np.ndarray:
    """Return the number of set bits of each uint64, as uint8."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(words)
    return _ONES[words.view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.uint8)


_ONES = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(1, dtype=np.uint8)
