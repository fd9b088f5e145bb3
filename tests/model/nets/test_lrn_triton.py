"""Response normalisation by Triton, without a GPU: interpreted by Triton, compiled for GPUs, picked and refused."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from alexnet_dali.model.nets import lrn
from alexnet_dali.model.nets.lrn import COMPILED, TORCH, TRITON, AcrossMaps, WithinMap, pick_form, set_form
from torch import nn

pytest.importorskip("triton")

STRONG = 0.3
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
ACROSS = [  # maps, columns, batch, height, width
    (96, 2, 2, 3, 7),
    (256, 2, 1, 3, 2),
    (128, 1, 2, 2, 2),
    (48, 1, 3, 5, 5),
    *[(maps, 1, 2, 2, 3) for maps in (1, 2, 5, 8, 13)],
    (10, 2, 3, 1, 5),
]
WITHIN = [(maps, 0, n, *side) for maps, n, side in ((33, 2, (3, 10)), (5, 1, (6, 27)), (1, 3, (1, 1)), (2, 2, (9, 2)))]


@pytest.fixture(scope="module")
def kernels():
    """The module with its kernels run by Triton's interpreter, which is chosen when a kernel is defined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        file = Path(lrn.__file__).with_name("lrn_triton.py")
        spec = importlib.util.spec_from_file_location(f"{lrn.__package__}.lrn_triton", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture
def on_gpu(kernels, monkeypatch):
    """The CPU counts as a GPU on which Triton works: the modules take the interpreted kernels."""
    monkeypatch.setattr(lrn, "GPU", "cpu")
    monkeypatch.setattr(lrn, "_kernel", None)
    monkeypatch.setattr(lrn, "triton_trouble", lambda device: "")
    monkeypatch.setitem(sys.modules, f"{lrn.__package__}.lrn_triton", kernels)
    monkeypatch.setattr(sys.modules[lrn.__package__], "lrn_triton", kernels, raising=False)
    return kernels


def drawn(shape, dtype=torch.float32, seed=0):
    """Normal with deviation 2, channels last."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    return values.to(dtype).to(memory_format=torch.channels_last)


def norm_of(columns, size=5, form=TRITON):
    norm = AcrossMaps(STRONG, size, columns=columns) if columns else WithinMap(STRONG, size)
    norm.form = form
    return norm


def both(norm, x, gradient):
    """The output, and the gradient of x for that of the output."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    return y.detach(), *torch.autograd.grad(y, x, gradient.to(y.dtype))


def written_out(norm):
    """The formula in float64, term by term; its gradient is autograd's."""

    def compute(x):
        half = norm.size // 2
        n, maps, height, width = x.shape
        around = range(norm.size)
        if isinstance(norm, AcrossMaps):
            own = maps // norm.columns
            wide = F.pad((x * x).reshape(n * norm.columns, own, height, width), (0, 0, 0, 0, half, half))
            total = sum(wide[:, i : i + own] for i in around).reshape(x.shape)
        else:
            wide = F.pad(x * x, (half,) * 4)
            total = sum(wide[:, :, i : i + height, j : j + width] for i in around for j in around)
        return x / (norm.constant + norm.scale * total) ** 0.75

    return compute


@pytest.mark.parametrize("maps, columns, n, height, width", ACROSS + WITHIN)
@pytest.mark.parametrize("size", [5, 3])
def test_values_and_gradients_are_exact_to_rounding(size, maps, columns, n, height, width, on_gpu):
    """Narrow types are rounded once, from float32: half a step; a whole one in bfloat16, which the interpreter cuts."""
    norm = norm_of(columns, size)
    for dtype in lrn.GPU_DTYPES:
        x, gradient = drawn((n, maps, height, width), dtype), drawn((n, maps, height, width), dtype, seed=1)
        got, exact = both(norm, x, gradient), both(written_out(norm), x.double(), gradient)
        step = {torch.float32: 0.0, torch.float16: 2**-11, torch.bfloat16: 2**-7}[dtype]
        for ours, right in zip(got, exact, strict=True):
            assert ours.dtype == dtype and ours.is_contiguous(memory_format=torch.channels_last)
            error = (ours.double() - right.double()).abs()
            assert (error <= right.abs() * 1.01 * step + 2e-6 * right.abs().max()).all()
            assert norm(x[:0]).shape == (0, *x.shape[1:])


def test_a_column_ends_at_its_last_map(on_gpu):
    """Bit for bit: each map has the same terms in the same order, and zeros beyond its column."""
    x, gradient = drawn((1, 96, 2, 3)), drawn((1, 96, 2, 3), seed=1)
    halves = [both(norm_of(1), x[:, part], gradient[:, part]) for part in (slice(48), slice(48, 96))]
    whole = both(norm_of(2), x, gradient)
    assert all(
        torch.equal(torch.cat(parts, 1), one) for parts, one in zip(zip(*halves, strict=True), whole, strict=True)
    )
    apart = [
        (ours != one).any(0).flatten(1).any(1) for ours, one in zip(both(norm_of(1), x, gradient), whole, strict=True)
    ]
    assert [seen.nonzero().flatten().tolist() for seen in apart] == [[46, 47, 48, 49], [44, 45, 46, 47, 48, 49, 50, 51]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 3e38, 1e19], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_not_finite_is_as_in_torch(value, dtype, on_gpu):
    """As torch.nn.LocalResponseNorm and the torch form: NaN of infinity, 0 beside it."""
    x, gradient = drawn((1, 16, 7, 7), dtype), drawn((1, 16, 7, 7), dtype, seed=1)
    x[0, 8, 3, 3] = value
    theirs = nn.LocalResponseNorm(5, alpha=5 * STRONG, k=2.0), norm_of(0, form=TORCH)
    for norm, torchs in zip((norm_of(1), norm_of(0)), theirs, strict=True):
        expected = both(torchs, x.float(), gradient.float())
        for ours, one in zip(both(norm, x, gradient), expected, strict=True):
            torch.testing.assert_close(ours, one.to(dtype), equal_nan=True)


@pytest.mark.parametrize("columns", [2, 0], ids=["across", "within"])
def test_any_layout_of_input_and_gradient(columns, on_gpu):
    """Channels first stays channels first; bit for bit, since the same kernel runs on a copy."""
    norm, x, gradient = norm_of(columns), drawn((3, 6, 5, 4)), drawn((3, 6, 5, 4), seed=1)
    y, dx = both(norm, x, gradient)
    first = both(norm, x.contiguous(), gradient)
    assert all(map(torch.equal, first, (y, dx))) and all(each.is_contiguous() for each in first)
    wide = torch.zeros(3, 12, 5, 8)
    wide[:, ::2, :, ::2] = x
    assert all(map(torch.equal, both(norm, wide[:, ::2, :, ::2], gradient.contiguous()), (y, dx)))
    one = both(norm, x, torch.ones(()).expand(x.shape))  # strides of 0, as sum() gives
    assert all(map(torch.equal, one, both(norm, x, torch.ones(x.shape))))


def test_backward_keeps_the_input_alone_and_is_not_differentiable_again(on_gpu):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        x = drawn((2, 6, 5, 4)).requires_grad_()
        y = norm_of(2)(x)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()] and y.requires_grad
    (dx,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_what_the_kernels_do_not_know_goes_by_torch(on_gpu, monkeypatch):
    def never(*arguments):
        raise AssertionError("triton")

    monkeypatch.setattr(on_gpu, "normalise", never)
    x = drawn((2, 6, 5, 4))
    for norm in (norm_of(2), norm_of(0)):
        with pytest.raises(AssertionError, match="triton"):
            norm(x)
        norm(x.double())
        norm(x.as_subclass(type("Other", (torch.Tensor,), {})))
        assert norm(torch.empty(2, 6, 5, 4, device="meta")).shape == x.shape
        with monkeypatch.context() as patch:
            patch.setattr(lrn, "is_traced", lambda: True)
            norm(x)
        norm.form = TORCH
        norm(x)
    norm_of(2, 7)(x)
    norm_of(0, 7)(x)
    with pytest.raises(RuntimeError):  # the torch form's error, for maps that are no multiple of the columns
        norm_of(4)(x)


def test_a_form_other_than_torchs_is_the_fastest_of_the_inputs_device(on_gpu, monkeypatch):
    """A net that was made on the CPU and moved to a GPU has that form at once, and the CPU's again on the CPU."""
    ran = []
    monkeypatch.setattr(on_gpu, "normalise", lambda *arguments: ran.append(arguments))
    norm_of(2, form=COMPILED)(drawn((2, 6, 5, 4)))
    AcrossMaps(STRONG)(drawn((2, 6, 5, 4)))  # as it is made, also without a C compiler
    assert len(ran) == 2
    monkeypatch.setattr(lrn, "GPU", "cuda")
    norm_of(2)(drawn((2, 6, 5, 4)))
    assert len(ran) == 2


class TestForms:
    """What is picked where there is a GPU: `tried` lists the trials, and `fails` is what they raise."""

    @pytest.fixture(autouse=True)
    def gpu(self, kernels, monkeypatch):
        self.tried, self.fails = [], None

        def try_out(device):
            self.tried.append(device)
            if self.fails is not None:
                raise self.fails

        lrn._tried.cache_clear()
        monkeypatch.setattr(kernels, "try_out", try_out)
        monkeypatch.setitem(sys.modules, f"{lrn.__package__}.lrn_triton", kernels)
        monkeypatch.setattr(sys.modules[lrn.__package__], "lrn_triton", kernels, raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        yield
        lrn._tried.cache_clear()

    def test_triton_unless_the_run_began_by_torch(self):
        assert pick_form(CUDA, TORCH) == TORCH and self.tried == []
        assert {pick_form(CUDA, begun) for begun in (None, TRITON, COMPILED)} == {TRITON} and self.tried == [CUDA]
        assert pick_form(torch.device("cuda")) == TRITON and self.tried[1:] == [torch.device("cuda", 1)]
        assert pick_form(CPU, TRITON) == (TORCH if lrn._kernel is None else COMPILED)

    @pytest.mark.parametrize(
        "error",
        [
            ModuleNotFoundError("No module named 'triton'"),
            RuntimeError("Failed to find C compiler. Please specify via CC environment variable"),
            subprocess.CalledProcessError(1, ["gcc"]),
            AssertionError("libcuda.so cannot found!"),
            ArithmeticError("Triton computes [0.0, 0.0] instead of [0.5, 0.4]"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_where_triton_does_not_work_it_is_torch_and_the_reason_is_known(self, error):
        self.fails = error
        assert pick_form(CUDA) == pick_form(CUDA) == TORCH and len(self.tried) == 1
        assert lrn.triton_trouble(CUDA).startswith(f"{type(error).__name__}: {str(error)[:30]}")

    @pytest.mark.parametrize(
        "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("Triton Error [CUDA]: out of memory")]
    )
    def test_a_full_memory_is_not_a_missing_triton(self, error):
        self.fails = error
        with pytest.raises(type(error), match="out of memory"):
            pick_form(CUDA)
        self.fails = None  # later there is room
        assert pick_form(CUDA) == TRITON

    def test_a_broken_gpu_is_not_a_missing_triton(self, monkeypatch):
        def broken(device):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        monkeypatch.setattr(torch.cuda, "synchronize", broken)
        self.fails = RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")
        with pytest.raises(RuntimeError, match="CUDA error: an illegal memory access"):
            pick_form(CUDA)

    def test_set_form(self, monkeypatch):
        net = nn.Sequential(nn.Conv2d(3, 6, 3), AcrossMaps(STRONG), nn.Sequential(WithinMap(STRONG)))
        monkeypatch.setattr(lrn, "GPU", "cpu")
        monkeypatch.setattr(lrn, "_kernel", None)
        monkeypatch.setattr(lrn, "triton_trouble", lambda device: "")
        for begun, form in ((None, TRITON), (TORCH, TORCH)):
            assert set_form(net, begun) == form and net[1].form == net[2][0].form == form


def test_the_trial_finds_a_kernel_that_computes_wrongly(kernels, monkeypatch):
    kernels.try_out(CPU)
    really = kernels.normalise

    def forward_alone(x, gradient, *others):
        really(x, None, *others)

    monkeypatch.setattr(kernels, "normalise", forward_alone)
    with pytest.raises(ArithmeticError, match="Triton computes"):
        kernels.try_out(CPU)


COMPILE = """
import json, re, subprocess, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from alexnet_dali.model.nets import lrn_triton

folder, architecture, type_ = sys.argv[1], int(sys.argv[2]), sys.argv[3]
found = {}
for kernel, constants in (
    (lrn_triton._across, {"maps": 48}), (lrn_triton._within, {"channels": 256, "width": 27, "strip": 9})
):
    for backward in (False, True):
        values = {**constants, "half": 2, "backward": backward, "block": lrn_triton.BLOCK}
        types = {name: "*" + type_ for name in ("x_from", "g_from", "to")}
        types |= {"threads": "i32", "height": "i32", "constant": "fp32", "scale": "fp32"}
        source = ASTSource(
            fn=kernel,
            signature={name: "constexpr" if name in values else types[name] for name in kernel.arg_names},
            constexprs={(kernel.arg_names.index(name),): value for name, value in values.items()},
            attrs={(place,): [["tt.divisibility", 16]] for place in range(3)},
        )
        made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_stages": 1})
        file = f"{folder}/kernel.cubin"
        open(file, "wb").write(made.asm["cubin"])
        tool = triton.__path__[0] + "/backends/nvidia/bin/cuobjdump"
        used = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True)
        words = dict(re.findall(r"(REG|STACK|LOCAL|SHARED):(\\d+)", used.stdout + used.stderr))
        memory = re.findall(r"(?:ld|st)\\.(?:global|local|shared)[\\w.:]*", made.asm["ptx"])
        found[f"{kernel.__name__} {backward}"] = {
            **{word: int(number) for word, number in words.items()},
            "memory": {each: memory.count(each) for each in memory},
            "rounds": "cvt.rn.bf16" in made.asm["ptx"],
        }
print(json.dumps(found))
"""


@pytest.mark.parametrize("architecture", [80, 90])
def test_the_kernels_compile_for_gpus_without_spills(architecture, tmp_path, monkeypatch):
    """In bfloat16, with AlexNet's shapes; by Triton's own assembler, which needs no GPU."""
    import triton

    tools = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin"
    if not all((tools / name).exists() for name in ("ptxas", "cuobjdump")):
        pytest.skip("Triton without its assembler")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    command = [sys.executable, "-c", COMPILE, tmp_path, str(architecture), "bf16"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)
    assert all(each["STACK"] == each["LOCAL"] == each["SHARED"] == 0 and each["rounds"] for each in found.values()), (
        found
    )
    # Each thread loads and stores 16 bytes: x, or x and g, and 16 before and after.
    for backward, loads in ((False, 3), (True, 6)):
        across = found[f"_across {backward}"]
        assert across["memory"] == {"ld.global.v4.b32": loads, "st.global.v4.b32": 1} and across["REG"] <= 64
    # A channel of a strip of 9, row by row: x as it comes (13 or 17), of the middle row (9, or 13 with g), and at last.
    assert found["_within False"]["memory"] == {"ld.global.b16": 13 + 9, "st.global.b16": 9}
    assert found["_within True"]["memory"] == {"ld.global.b16": 17 + 13 + 13 + 9, "st.global.b16": 9}
    assert found["_within True"]["REG"] <= 168  # three blocks of 128 threads at a time
