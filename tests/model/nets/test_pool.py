"""Max pooling by the compiled loops: torch's values and gradients bit for bit, ties, what is not finite, layouts."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from alexnet_dali.model.nets import pool
from alexnet_dali.model.nets.pool import max_pool

SIDES = [(3, 3), (4, 4), (5, 4), (3, 9), (13, 13), (12, 27)]


def test_where_there_is_a_compiler_it_is_compiled():
    assert pool._kernel is not None or shutil.which("cc") is None, (
        "model/nets/_pool.c was not compiled; see the output of pip install -v ."
    )


def drawn(shape, dtype=torch.float32, seed=0):
    """Of few values, so that squares have several largest."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3
    return values.round().to(dtype).to(memory_format=torch.channels_last)


def both(pooled, x, gradient):
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = pooled(x)
    return y.detach(), *torch.autograd.grad(y, x, gradient)


def torchs(x):
    return F.max_pool2d(x, 3, stride=2, ceil_mode=True)


def ours(x):
    return max_pool(x, 3)


def assert_torchs(x):
    """Equal bits hold by construction: maxima are exact, and the gradients of a place are added in the same order."""
    gradient = torch.randn(torchs(x).shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    gradient[gradient.abs() < 0.2] = -0.0
    for got, expected in zip(both(ours, x, gradient), both(torchs, x, gradient), strict=True):
        assert got.dtype == expected.dtype and got.stride() == expected.stride()
        assert torch.equal(got.isnan(), expected.isnan())
        assert torch.equal(got.nan_to_num(0.0), expected.nan_to_num(0.0))
        assert torch.equal(got.signbit() & ~got.isnan(), expected.signbit() & ~expected.isnan())


@pytest.mark.parametrize("maps", [1, 63, 64, 65, 96, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_is_torchs_bit_for_bit(dtype, maps):
    for side in SIDES:
        assert_torchs(drawn((2, maps, *side), dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ties_zeros_and_what_is_not_finite(dtype):
    choices = torch.tensor([0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), -float("inf")]).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for few in (choices, choices[:2], choices[-2:], choices[4:]):
        index = torch.randint(len(few), (3, 70, 9, 8), generator=generator)
        assert_torchs(few[index].contiguous(memory_format=torch.channels_last))
    assert_torchs(torch.full((1, 5, 5, 5), -float("inf"), dtype=dtype).contiguous(memory_format=torch.channels_last))


def test_any_layout_and_no_pictures():
    x = drawn((3, 6, 9, 8))
    assert_torchs(x.contiguous())
    assert torch.equal(ours(x.transpose(2, 3)), torchs(x.transpose(2, 3)))
    for got, expected in zip(*(both(f, x, torch.ones(()).expand(3, 6, 4, 4)) for f in (ours, torchs)), strict=True):
        assert torch.equal(got, expected)
    assert [each.shape for each in both(ours, drawn((0, 6, 9, 8)), drawn((0, 6, 4, 4)))] == [(0, 6, 4, 4), (0, 6, 9, 8)]


def test_threads_do_not_change_a_bit():
    """By construction: a picture is pooled by one thread."""
    x, threads = drawn((7, 96, 13, 13), torch.bfloat16), torch.get_num_threads()
    gradient = torch.randn(7, 96, 6, 6, generator=torch.Generator().manual_seed(1)).bfloat16()
    try:
        results = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(both(ours, x, gradient))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_what_the_loops_do_not_know_goes_by_torch(monkeypatch):
    def never(*arguments):
        raise AssertionError("compiled")

    x = drawn((2, 6, 9, 8))
    expected = torchs(x)
    with monkeypatch.context() as patch:
        patch.setattr(pool, "_kernel", never)
        if pool.compiled.load(pool.__package__, "_pool"):
            with pytest.raises(AssertionError, match="compiled"):
                ours(x)
        ours(x.double())
        max_pool(x, 2)
        ours(x[0])
        ours(torch.empty(2, 6, 9, 8, device="meta"))
        assert torch.equal(torch.func.vmap(lambda each: ours(each[None])[0])(x), expected)
        assert torch.equal(torch.compile(ours, backend="eager", fullgraph=True)(x), expected)
        with pytest.raises(RuntimeError):  # torch's own error
            ours(drawn((1, 6, 0, 4)))
    monkeypatch.setattr(pool, "_kernel", None)
    assert torch.equal(ours(x), expected)
