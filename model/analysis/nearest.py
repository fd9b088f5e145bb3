"""The nearest among many vectors, by Euclidean distance, and among binary codes, by Hamming distance (section 6.1).

In:  NumPy arrays, also memory-mapped ones.  Out: indices and distances, the nearest first. NumPy alone.
Of equal distances the smaller index comes first, so that an answer is one on every machine: products of float32 find
the candidates, and float64 differences put them in order. Memory is bounded whatever the number of vectors.
"""

import numpy as np

ROWS, QUERIES = 4096, 256  # in a product: 64 MB of vectors, 4 MB of distances


def nearest(vectors: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest vectors of each query, exactly.

    Args:
        vectors: float32 (n, dimensions), may be memory-mapped; read once.
        queries: float32 (q, dimensions).
        count: how many; all of them where there are fewer.
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
        # Whatever the order of its sums, a product of float32 errs by no more than this.
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
            for query in left + np.flatnonzero(near.any(axis=1)):  # in order at once: nothing grows with the vectors
                candidates = np.flatnonzero(near[query - left])
                found, apart = among(some, queries[query], candidates, count)
                apart = np.concatenate([distances[query], apart])
                found = np.concatenate([indices[query], found + top])
                order = np.lexsort((found, apart))[:count]
                indices[query], distances[query] = found[order], apart[order]
    return indices, distances


def among(vectors: np.ndarray, query: np.ndarray, candidates: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest of some vectors, exactly.

    Args:
        query: float32 (dimensions,).
        candidates: int64 (c,), indices of vectors.
    Returns:
        indices int64 and distances float64, (min(count, c),) each.
    """
    distances = _distances(vectors, query, candidates)
    order = np.lexsort((candidates, distances))[:count]
    return candidates[order], distances[order]


def columns_of(codes: np.ndarray) -> np.ndarray:
    """Codes as `nearest_codes` reads them.

    Args:
        codes: uint8 (n, bytes), packed bits.
    Returns:
        uint64 (words, n): a word of all codes lies together in memory.
    """
    return np.ascontiguousarray(_words(codes).T)


def nearest_codes(columns: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the codes of fewest different bits.

    Args:
        columns: of the codes, see `columns_of`.
        queries: uint8 (q, bytes).
        count: how many; all of them where there are fewer.
    Returns:
        indices and different bits, int64 (q, min(count, n)) each.
    """
    number = columns.shape[1]
    count = min(count, number)
    indices, bits = (np.empty((len(queries), count), np.int64) for _ in range(2))
    for place, query in enumerate(_words(queries)):
        apart = np.zeros(number, np.uint16)
        for column, word in zip(columns, query, strict=True):
            apart += _ones(column ^ word)
        furthest = np.partition(apart, count - 1)[count - 1]
        candidates = np.flatnonzero(apart <= furthest)  # ascending, so a stable sort is the order wanted
        order = candidates[np.argsort(apart[candidates], kind="stable")[:count]]
        indices[place], bits[place] = order, apart[order]
    return indices, bits


def _squares(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", vectors, vectors)


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """The `count` smallest of each row, in any order."""
    return values if values.shape[1] <= count else np.partition(values, count - 1, axis=1)[:, :count]


def _distances(vectors: np.ndarray, query: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    some = np.asarray(vectors[candidates], np.float64) - query
    return np.sqrt(_squares(some))


def _words(codes: np.ndarray) -> np.ndarray:
    """Codes as uint64 (n, words), the last word filled up with zeros."""
    padded = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
    padded[:, : codes.shape[1]] = codes
    return padded.view(np.uint64)


def _ones(words: np.ndarray) -> np.ndarray:
    """How many bits are set in each: uint8, of uint64."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(words)
    return _ONES[words.view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.uint8)


_ONES = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(1, dtype=np.uint8)
