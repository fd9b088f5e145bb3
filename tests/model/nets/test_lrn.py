"""Response normalisation against slow NumPy and against torch: outputs, gradients, columns, edges, bfloat16."""

import numpy as np
import oracle
import pytest
import torch
from alexnet_dali.model.nets.lrn import AcrossMaps, WithinMap

# Scales large enough that every term of the sum and of the gradient counts.
STRONG = 0.3


def drawn(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, shape))


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("size, constant, scale", [(5, 2.0, STRONG), (3, 1.0, 0.7), (5, 2.0, 1e-4)])
def test_across_maps_equals_the_slow_oracle(columns, size, constant, scale):
    x = drawn(2, 12, 5, 4)
    expected = oracle.response_norm_across(x.numpy(), size, constant, scale, 0.75, columns)
    np.testing.assert_allclose(AcrossMaps(scale, size, constant, columns)(x).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("size, constant, scale", [(5, 1.0, STRONG), (3, 2.0, 0.7), (5, 1.0, 0.001 / 25)])
def test_within_map_equals_the_slow_oracle(size, constant, scale):
    x = drawn(2, 3, 7, 6)
    expected = oracle.response_norm_within(x.numpy(), size, constant, scale, 0.75)
    np.testing.assert_allclose(WithinMap(scale, size, constant)(x).numpy(), expected, rtol=1e-12)


def test_the_defaults_are_the_programs():
    x = 30 * drawn(1, 12, 7, 6)  # responses of 60: the sums of squares stand out against the constants
    expected = oracle.response_norm_across(x.numpy(), 5, 2.0, 2e-5, 0.75, 2)
    np.testing.assert_allclose(AcrossMaps(2e-5)(x).numpy(), expected, rtol=1e-12)
    expected = oracle.response_norm_within(x.numpy(), 5, 1.0, 0.001 / 25, 0.75)
    np.testing.assert_allclose(WithinMap()(x).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "norm", [AcrossMaps(STRONG), AcrossMaps(STRONG, columns=1), AcrossMaps(STRONG, 3, 1.0), WithinMap(STRONG)], ids=str
)
def test_gradients_are_exact(norm):
    assert torch.autograd.gradcheck(norm, drawn(1, 6, 4, 3).requires_grad_(), atol=1e-8)


@pytest.mark.parametrize(
    "scale, alpha", [(1e-4 / 5, 1e-4), (1e-4, 5e-4)], ids=["the program, alpha / n", "the text, alpha"]
)
def test_one_column_is_torchs_own_norm(scale, alpha):
    x = (40 * drawn(2, 16, 6, 5)).requires_grad_()
    y = x.detach().clone().requires_grad_()
    ours, torchs = AcrossMaps(scale, columns=1)(x), torch.nn.LocalResponseNorm(5, alpha=alpha, beta=0.75, k=2)(y)
    torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=0)
    weights = drawn(*x.shape, seed=1)
    ours.backward(weights)
    torchs.backward(weights)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-12)


def test_maps_47_and_48_are_no_neighbours():
    x = drawn(1, 96, 3, 3)
    louder = x.clone()
    louder[:, 48:] *= 10
    norm = AcrossMaps(STRONG)
    # Bit for bit: the first column's sums have the same inputs, shapes and threads; maps outside the band add zeros.
    assert torch.equal(norm(x)[:, :48], norm(louder)[:, :48])
    one_column = AcrossMaps(STRONG, columns=1)
    seen = (one_column(x) != one_column(louder))[0, :48].flatten(1).any(dim=1)
    assert seen.nonzero().flatten().tolist() == [46, 47]  # the band reaches two maps far, when it may

    x.requires_grad_()
    norm(x)[:, :48].sum().backward()
    assert x.grad[:, :48].ne(0).any() and x.grad[:, 48:].eq(0).all()


def test_beyond_the_maps_edge_are_zeros():
    """Responses of one: the sum of squares counts the places of the square that lie on the map."""
    places = WithinMap(STRONG)(torch.ones(1, 2, 6, 6, dtype=torch.float64)) ** (-1 / 0.75)
    across = torch.tensor([3.0, 4, 5, 5, 4, 3], dtype=torch.float64)
    expected = 1 + STRONG * across[:, None] * across[None, :]
    torch.testing.assert_close(places, expected.expand(1, 2, 6, 6), rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm, first, last, squares", [(AcrossMaps(2e-5), 8.0, 8.75, 5), (WithinMap(), 1.0, 1.9, 25)])
def test_bfloat16_forms_the_base_in_float32(norm, first, last, squares):
    """2 + 0.007 is 2 in bfloat16, and x 2^-0.75 would come out: no normalisation at all."""
    values = torch.linspace(first, last, 40).bfloat16()
    small = (norm.scale * squares * values.double() ** 2).bfloat16()
    assert (small > 0).all() and (small + norm.constant == norm.constant).all()
    x = values[:, None, None, None].expand(-1, 16, 5, 5).contiguous()
    got, exact = norm(x), norm(x.double())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(
        got.double(), exact, rtol=1.01 * 2**-8, atol=0
    )  # half a step: one rounding, of the result
    unnormalised = x.double() * norm.constant**-0.75
    inside = (slice(None), slice(2, 6), 2, 2)  # all squares on the map and in the column
    assert (got[inside] != unnormalised.bfloat16()[inside]).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_come_in_the_inputs_type(dtype):
    x = drawn(1, 8, 4, 3)
    narrow = x.to(dtype).requires_grad_()
    wide = narrow.detach().double().requires_grad_()
    for norm in (AcrossMaps(STRONG), WithinMap(STRONG)):
        narrow.grad = wide.grad = None
        norm(narrow).sum().backward()
        norm(wide).sum().backward()
        assert narrow.grad.dtype == dtype
        worst = (narrow.grad.double() - wide.grad).abs().max() / wide.grad.abs().max()
        assert worst < (1e-6 if dtype == torch.float32 else 0.03)


def test_memory_layout_does_not_matter():
    x = drawn(2, 8, 5, 4)
    for norm in (AcrossMaps(STRONG), WithinMap(STRONG)):
        packed = norm(x.to(memory_format=torch.channels_last))
        assert torch.equal(packed, norm(x)) or torch.allclose(packed, norm(x), rtol=1e-14)
