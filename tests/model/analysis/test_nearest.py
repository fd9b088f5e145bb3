"""The nearest vectors and codes, against plain NumPy that sorts all distances."""

import numpy as np
import pytest
from alexnet_dali.model.analysis import nearest as module
from alexnet_dali.model.analysis.nearest import among, columns_of, nearest, nearest_codes


def by_sorting(vectors, queries, count):
    """Every distance in float64, sorted; of equals the smaller index."""
    distances = np.array([[np.linalg.norm(x.astype(float) - q.astype(float)) for x in vectors] for q in queries])
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(distances, order, axis=1)


def ones_apart(code, other):
    return sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(code, other, strict=True))


@pytest.fixture
def small_blocks(monkeypatch):
    """Many blocks of few vectors."""
    monkeypatch.setattr(module, "ROWS", 7)
    monkeypatch.setattr(module, "QUERIES", 3)


@pytest.mark.parametrize("count", [1, 6, 10, 50, 99])
def test_as_sorting_all_finds_them(small_blocks, count):
    random = np.random.default_rng(count)
    vectors, queries = (random.standard_normal((n, 12), dtype=np.float32) for n in (50, 8))
    indices, distances = nearest(vectors, queries, count)
    expected, far = by_sorting(vectors, queries, count)
    assert indices.dtype == np.int64 and indices.shape == (8, min(count, 50))
    # The same order on any processor: float64 differences decide, and no two distances are as close as rounding.
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, far, rtol=1e-12)


def test_of_equals_the_smaller_index_comes_first(small_blocks):
    """Whole numbers, so that many distances are equal, in one block and across blocks."""
    random = np.random.default_rng(3)
    vectors = random.integers(0, 3, (60, 4)).astype(np.float32)
    queries = vectors[[59, 3, 17]]
    indices, distances = nearest(vectors, queries, 12)
    np.testing.assert_array_equal(indices, by_sorting(vectors, queries, 12)[0])
    assert (distances[:, 0] == 0).all() and indices[0, 0] < 59, "an equal one comes before"


def test_where_a_product_of_float32_says_nothing(small_blocks):
    """Far from zero and near to each other: float32 loses the distances, and the order must be right all the same."""
    random = np.random.default_rng(4)
    vectors = (1000 + random.standard_normal((40, 16)) * 1e-2).astype(np.float32)
    queries = (1000 + random.standard_normal((4, 16)) * 1e-2).astype(np.float32)
    squares = (vectors**2).sum(axis=1) - 2 * queries @ vectors.T
    expected = by_sorting(vectors, queries, 5)[0]
    assert (np.argsort(squares, axis=1)[:, :5] != expected).any(), "the trap is one"
    np.testing.assert_array_equal(nearest(vectors, queries, 5)[0], expected)


def test_a_memory_mapped_file_is_enough(small_blocks, tmp_path):
    vectors = np.random.default_rng(5).standard_normal((30, 8), dtype=np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    indices, distances = nearest(mapped, vectors, 1)
    assert indices[:, 0].tolist() == list(range(30)) and not distances.any()


def test_among_some():
    vectors = np.array([[0, 0], [3, 4], [1, 0], [0, 1], [9, 9]], np.float32)
    indices, distances = among(vectors, np.zeros(2, np.float32), np.array([4, 3, 2, 1]), 3)
    assert indices.tolist() == [2, 3, 1] and distances.tolist() == [1, 1, 5]


@pytest.mark.parametrize("length", [1, 2, 8, 12, 32])
@pytest.mark.parametrize("old_numpy", [False, True])
def test_codes_of_fewest_different_bits(length, old_numpy, monkeypatch):
    if old_numpy and hasattr(np, "bitwise_count"):  # that of NumPy 1 must count alike
        monkeypatch.delattr(np, "bitwise_count")
    random = np.random.default_rng(length)
    codes, queries = (random.integers(0, 256, (n, length), dtype=np.uint8) for n in (80, 5))
    indices, bits = nearest_codes(columns_of(codes), queries, 20)
    apart = np.array([[ones_apart(code, query) for code in codes] for query in queries])
    expected = np.argsort(apart, axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(bits, np.take_along_axis(apart, expected, axis=1))
    assert nearest_codes(columns_of(codes), queries, 500)[0].shape == (5, 80)


def test_vectors_that_lie_close_together_are_told_apart_a_block_at_a_time(monkeypatch):
    """Float32 products cannot tell them apart: all are candidates, but never more than a block at once."""
    random = np.random.default_rng(3)
    vectors = (100 + random.normal(size=(500, 64)) * 1e-3).astype(np.float32)
    queries = vectors[[7, 400]] + np.float32(1e-4)
    seen = []
    monkeypatch.setattr(module, "ROWS", 64)
    whole = among
    monkeypatch.setattr(module, "among", lambda *given: (seen.append(len(given[2])), whole(*given))[1])
    indices, distances = nearest(vectors, queries, 5)
    exact = np.linalg.norm(vectors.astype(np.float64)[None] - queries.astype(np.float64)[:, None], axis=2)
    expected = np.argsort(exact, axis=1, kind="stable")[:, :5]
    assert np.array_equal(indices, expected) and np.allclose(distances, np.take_along_axis(exact, expected, axis=1))
    assert max(seen) == 64 and len(seen) == 2 * 8
