"""The auto-encoder's codes: alike vectors have alike codes, and one seed makes one code."""

import numpy as np
import pytest
import torch
from alexnet_dali.model.analysis import hash_codes
from alexnet_dali.model.analysis.hash_codes import Encoder, check_bits, train
from alexnet_dali.model.analysis.nearest import columns_of, nearest, nearest_codes
from alexnet_dali.pipeline.errors import UsageError


@pytest.fixture(scope="module")
def clusters():
    """400 vectors and 40 queries of 64 numbers around 20 centres, and which centre each is of."""
    random = np.random.default_rng(0)
    centres = 2 * random.standard_normal((20, 64))

    def some(count):
        own = np.arange(count) % 20
        return np.maximum(centres[own] + random.standard_normal((count, 64)), 0).astype(np.float32), own

    return *some(400), *some(40)


def recall(exact, found):
    return np.mean([len(set(one) & set(other)) / len(one) for one, other in zip(exact.tolist(), found, strict=True)])


@pytest.mark.parametrize("bits", [16, 64])
def test_codes_find_the_cluster_and_much_of_the_ten_nearest(clusters, bits):
    vectors, own, queries, of = clusters
    encoder, unexplained = train(vectors, bits, epochs=10)
    found = nearest_codes(columns_of(encoder.encode(vectors)), encoder.encode(queries), 10)[0]
    assert np.mean(own[found] == of[:, None]) > 0.9, "chance is 0.05"
    exact = nearest(vectors, queries, 10)[0]
    assert recall(exact, found.tolist()) > 0.4, "chance is 0.025, and 0.5 within the cluster"
    assert 0 < unexplained < 0.6


def test_training_explains_more_than_it_began_with(clusters):
    vectors = clusters[0]
    (_, before), (_, after) = (train(vectors, 32, epochs=epochs) for epochs in (0, 40))
    assert after < before


def test_one_seed_one_code_and_no_trace_in_torchs_own_draws(clusters):
    vectors = clusters[0]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, two, other = (train(vectors, 16, epochs=2, seed=seed)[0] for seed in (1, 1, 2))
    # Bit for bit: the same operations on the same aligned memory, with the same threads, in one process.
    assert torch.equal(one.weight, two.weight) and not torch.equal(one.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_bits_are_packed_the_first_highest():
    encoder = Encoder(torch.ones(3), torch.tensor([[1.0, 0, 0]] + [[0.0, 0, -1]] * 7))
    vectors = np.array([[2, 0, 2], [1, 0, 0]], np.float32)
    assert encoder.encode(vectors).tolist() == [[0b10000000], [0b01111111]], "at zero a bit is not set"
    assert encoder.bits == 8


def test_encoding_does_not_depend_on_the_blocks(clusters, monkeypatch):
    vectors = clusters[0]
    encoder = train(vectors, 32, epochs=0)[0]
    whole = encoder.encode(vectors)
    monkeypatch.setattr(hash_codes, "ROWS", 7)
    assert (encoder.encode(vectors) != whole).mean() < 0.01, "but for a product's rounding at zero"


@pytest.mark.parametrize("vectors", [np.zeros((5, 16), np.float32), np.eye(16, dtype=np.float32)[:3]])
def test_more_bits_than_there_is_to_say(vectors):
    encoder, unexplained = train(vectors, 16, epochs=2)
    assert torch.isfinite(encoder.weight).all() and np.isfinite(unexplained)


@pytest.mark.parametrize("bits", [0, -8, 12, 72])
def test_lengths_that_no_code_has(bits):
    with pytest.raises(UsageError, match=f"--bits {bits} is not a multiple of 8 from 8 to 64, the vectors' dimensions"):
        check_bits(bits, 64)
