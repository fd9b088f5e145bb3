"""The compiled form of response normalisation: against float64 and the torch form, its bits, layouts, what it leaves.

Every response is drawn so large, and the scale so strong, that each term of a sum and of a gradient counts.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from alexnet_dali.model.nets import alexnet, lrn
from alexnet_dali.model.nets.alexnet import AlexNet
from alexnet_dali.model.nets.lrn import COMPILED, TORCH, AcrossMaps, WithinMap, pick_form, set_form
from torch import nn

STRONG = 0.3
ACROSS = [  # maps, columns, batch, height, width
    *[(maps, 1, 2, 3, 5) for maps in (1, 2, 3, 4, 5, 47, 48, 128, 513, 2050)],
    *[(maps, 2, 3, 5, 1) for maps in (2, 6, 96, 256, 1030)],
    (96, 2, 3, 23, 17),  # more than one piece of 512 pixels
    (3, 3, 1, 1, 1),
]
WITHIN = [(maps, 0, 2, *side) for maps in (1, 63, 64, 65, 130) for side in ((1, 1), (3, 2), (27, 27), (2, 9))]
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
pytestmark = pytest.mark.skipif(lrn._kernel is None and shutil.which("cc") is None, reason="no C compiler")


def test_where_there_is_a_compiler_it_is_compiled():
    assert lrn._kernel is not None, "model/nets/_lrn.c was not compiled; see the output of pip install -v ."


def norm_of(columns, form=COMPILED, scale=STRONG):
    norm = AcrossMaps(scale, columns=columns) if columns else WithinMap(scale)
    norm.form = form
    return norm


def drawn(shape, dtype=torch.float32, seed=0):
    """Normal with deviation 2, channels last."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64) * 2
    return values.to(dtype).to(memory_format=torch.channels_last)


def both(norm, x, gradient):
    """The output, and the gradient of x for that of the output."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    return y.detach(), *torch.autograd.grad(y, x, gradient.to(y.dtype))


@pytest.mark.parametrize("maps, columns, n, height, width", ACROSS + WITHIN)
@pytest.mark.parametrize("dtype", lrn.DTYPES, ids=str)
def test_values_and_gradients_are_exact_to_rounding(dtype, maps, columns, n, height, width):
    """bfloat16 is rounded once, from float32: half a step, and never more than the torch form's error."""
    x, gradient = drawn((n, maps, height, width), dtype), drawn((n, maps, height, width), dtype, seed=1)
    got = both(norm_of(columns), x, gradient)
    exact = both(norm_of(columns), x.double(), gradient)
    torchs = both(norm_of(columns, TORCH), x, gradient)
    half_a_step = 0 if dtype == torch.float32 else 2**-8
    for ours, right, other in zip(got, exact, torchs, strict=True):
        assert ours.dtype == dtype and ours.is_contiguous(memory_format=torch.channels_last)
        error, scale = (ours.double() - right).abs(), right.abs().max()
        assert (error <= right.abs() * 1.01 * half_a_step + 2e-6 * scale).all()
        if dtype == torch.bfloat16:
            assert error.max() <= (other.double() - right).abs().max() + 2e-6 * scale
        else:
            assert (ours - other).abs().max() <= 2e-6 * scale


def test_a_column_ends_at_its_last_map():
    x, gradient = drawn((1, 96, 3, 3)), drawn((1, 96, 3, 3), seed=1)
    halves = [both(norm_of(1), x[:, part], gradient[:, part]) for part in (slice(48), slice(48, 96))]
    # Bit for bit: each column is computed by the same loop, whatever stands beside it.
    for whole, *parts in zip(both(norm_of(2), x, gradient), *halves, strict=True):
        assert torch.equal(whole, torch.cat(parts, dim=1))


@pytest.mark.parametrize("columns", [2, 0], ids=["across", "within"])
@pytest.mark.parametrize("dtype", lrn.DTYPES, ids=str)
def test_threads_do_not_change_a_bit(dtype, columns):
    """By construction: a thread takes whole pixels or pictures, and each is computed by one thread, in one order."""
    x, gradient = drawn((7, 96, 19, 13), dtype), drawn((7, 96, 19, 13), dtype, seed=1)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(both(norm_of(columns), x, gradient))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@needs_compiler
@pytest.mark.parametrize("flags", [["-O0"], ["-O3", "-mavx2", "-mfma"], ["-O3", "-march=native"]], ids=" ".join)
def test_instruction_sets_do_not_change_a_bit(flags, tmp_path, monkeypatch):
    """By construction: products are not fused, sums have one order, and +, - and * are exactly rounded everywhere."""
    if "-mavx2" in flags and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no AVX2")
    shape = (2, 70, 19, 15)
    cases = [(columns, drawn(shape, dtype), drawn(shape, dtype, 1)) for columns in (2, 0) for dtype in lrn.DTYPES]
    ours = [both(norm_of(columns), x, gradient) for columns, x, gradient in cases]
    source = Path(lrn.__file__).with_name("_lrn.c")
    library = tmp_path / "_lrn.so"
    exact = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-U__gnu_linux__"]  # without: no clones
    subprocess.run(["cc", *flags, *exact, "-shared", "-fPIC", source, "-o", library], check=True)
    monkeypatch.setattr(lrn, "_kernel", lrn._declared(ctypes.CDLL(str(library))))
    for (columns, x, gradient), expected in zip(cases, ours, strict=True):
        assert all(map(torch.equal, both(norm_of(columns), x, gradient), expected))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 3e38, 1e19], ids=str)
def test_what_is_not_finite_is_as_in_torch(value):
    """As torch.nn.LocalResponseNorm: NaN of infinity, 0 beside it; 0 of a number whose square overflows.

    The torch form multiplies maps outside of the band by 0, which makes them NaN too.
    """
    x = drawn((1, 16, 7, 7))
    x[0, 8, 3, 3] = value
    y, torchs = norm_of(1)(x), nn.LocalResponseNorm(5, alpha=5 * STRONG, k=2.0)(x)
    torch.testing.assert_close(y, torchs, equal_nan=True)
    (y, gradient), (torchs, torchs_gradient) = (both(norm_of(0, form), x, drawn(x.shape)) for form in (COMPILED, TORCH))
    torch.testing.assert_close(y, torchs, equal_nan=True)
    torch.testing.assert_close(gradient, torchs_gradient, equal_nan=True)
    narrow = norm_of(1)(x.bfloat16())
    assert torch.equal(narrow.isnan(), norm_of(1)(x.bfloat16().float()).isnan())


@pytest.mark.parametrize("columns", [2, 0], ids=["across", "within"])
def test_any_layout_of_input_and_gradient(columns):
    """Channels first stays channels first; bit for bit, since the same loop runs on a copy."""
    norm, x, gradient = norm_of(columns), drawn((3, 6, 5, 4)), drawn((3, 6, 5, 4), seed=1)
    y, dx = both(norm, x, gradient)
    first = both(norm, x.contiguous(), gradient)
    assert all(map(torch.equal, first, (y, dx))) and all(each.is_contiguous() for each in first)
    wide = torch.zeros(3, 12, 5, 8)
    wide[:, ::2, :, ::2] = x
    assert all(map(torch.equal, both(norm, wide[:, ::2, :, ::2], gradient.contiguous()), (y, dx)))
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    assert all(map(torch.equal, both(norm, turned, gradient), (y, dx)))
    one = both(norm, x, torch.ones(()).expand(x.shape))  # strides of 0, as sum() gives
    assert all(map(torch.equal, one, both(norm, x, torch.ones(x.shape))))
    for empty in ((0, 6, 5, 4), (2, 6, 0, 4)):
        assert [each.shape for each in both(norm, drawn(empty), drawn(empty))] == [empty, empty]


def test_backward_keeps_the_input_alone_and_is_not_differentiable_again():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        x = drawn((2, 6, 5, 4)).requires_grad_()
        y = norm_of(2)(x)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()] and y.requires_grad
    (dx,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_what_the_loops_do_not_know_goes_by_torch(monkeypatch):
    """Another dtype, size, constant, device or kind of tensor, a trace, a build without a compiler."""
    x, meta = drawn((2, 6, 5, 4)), torch.empty(2, 6, 5, 4, device="meta")

    def never(*arguments):
        raise AssertionError("compiled")

    with monkeypatch.context() as patch:
        patch.setattr(lrn, "_kernel", never)
        with pytest.raises(AssertionError, match="compiled"):
            norm_of(2)(x)
        norm_of(2)(x.double())
        norm_of(0)(x.double())
        AcrossMaps(STRONG, size=3)(x)
        WithinMap(STRONG, size=7)(x)
        AcrossMaps(STRONG, constant=0.0)(x)
        assert norm_of(2)(meta).shape == meta.shape
        norm_of(2)(x.as_subclass(type("Other", (torch.Tensor,), {})))
        norm_of(2, TORCH)(x)
        with pytest.raises(RuntimeError):  # the torch form's error, for maps that are no multiple of the columns
            norm_of(4)(x)
    monkeypatch.setattr(lrn, "_kernel", None)
    torch.testing.assert_close(norm_of(2)(x), norm_of(2, TORCH)(x), rtol=0, atol=0)
    assert pick_form(torch.device("cpu")) == TORCH


def test_a_form_is_picked_for_a_device_and_a_run_and_set_on_a_net():
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert [pick_form(cpu, begun) for begun in (None, COMPILED, TORCH, "triton")] == [
        COMPILED,
        COMPILED,
        TORCH,
        COMPILED,
    ]
    assert pick_form(cuda) == pick_form(cuda, COMPILED) == TORCH
    net = nn.Sequential(nn.Conv2d(3, 6, 3), AcrossMaps(STRONG), nn.Sequential(WithinMap(STRONG)))
    for form in (TORCH, COMPILED):
        assert set_form(net, form) == form and net[1].form == net[2][0].form == form
    assert set_form(nn.Linear(2, 2)) == ""


def test_torch_compile_takes_the_torch_form(monkeypatch):
    monkeypatch.setattr(alexnet, "HIDDEN", 16)
    net = AlexNet(4).eval()
    x = drawn((2, 3, 224, 224)) * 30
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    set_form(net, TORCH)
    expected = net(x)
    set_form(net, COMPILED)
    torch.testing.assert_close(compiled(x), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-6)
