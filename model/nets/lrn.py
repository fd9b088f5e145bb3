"""Response normalisation: b = a / (constant + scale * sum a^2) ^ beta (paper, section 3.3).

In:  float (n, channels, height, width).  Out: the same shape and dtype.  Exact gradients, no DALI, no files.

`torch.nn.LocalResponseNorm` computes the sum with a 3-d average pool and the power with `pow`, which takes half of an
AlexNet step on a CPU. Here are three forms of the same function, which differ by rounding:

    compiled  `_lrn.c`: one pass over memory forward and one backward, on the CPU, for float32 and bfloat16
    triton    `lrn_triton.py`: the same on a GPU, one kernel each, for float32, bfloat16 and float16
    torch     everywhere: the sum over neighbouring maps is a 1x1 convolution with a band of ones, one group per
              column, and the power is two square roots

In all the base of the power is float32: in bfloat16, 2 + small is 2. A response that is not finite spreads to the sums
that it is in; in the torch form across maps, to its whole column.
"""

import ctypes
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...pipeline import compiled

BETA = 0.75
COMPILED, TRITON, TORCH = "compiled", "triton", "torch"  # the forms
GPU = "cuda"  # the type of device for which Triton compiles
FIVE = 5  # the size that `_lrn.c` has
DTYPES = (torch.float32, torch.bfloat16)  # that `_lrn.c` takes
GPU_DTYPES = (*DTYPES, torch.float16)  # that `lrn_triton.py` takes


def pick_form(device: torch.device, begun: str | None = None) -> str:
    """Return the form to use on a device: that with which a run has begun, if it is there, or the fastest.

    Args:
        begun: a form, or None.
    """
    if begun == TORCH:
        return TORCH
    if device.type == "cpu" and _kernel is not None:
        return COMPILED
    return TRITON if device.type == GPU and not triton_trouble(device) else TORCH


def triton_trouble(device: torch.device) -> str:
    """Return why Triton cannot be used on a GPU, in one line; empty if it can. Tried once, with small kernels.

    Raises:
        torch.OutOfMemoryError, torch.AcceleratorError: the GPU's memory is full, or an earlier kernel has failed.
    """
    if not torch.cuda.is_available():
        return "no GPU"
    return _tried(torch.cuda.current_device() if device.index is None else device.index)


@cache
def _tried(index: int) -> str:
    try:
        from . import lrn_triton

        lrn_triton.try_out(torch.device(GPU, index))
    except Exception as error:  # no Triton, no C compiler, a driver that it does not know: anything may be raised
        if "out of memory" in str(error):
            raise
        torch.cuda.synchronize(index)  # raises again what no kernel can run after, such as an illegal address
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return ""


def set_form(net: nn.Module, begun: str | None = None) -> str:
    """Let all response normalisations of a net compute in the form that `pick_form` returns for its device.

    Returns:
        The form; empty for a net without response normalisation.
    """
    norms = [module for module in net.modules() if isinstance(module, AcrossMaps | WithinMap)]
    form = pick_form(next(net.parameters()).device, begun) if norms else ""
    for norm in norms:
        norm.form = form
    return form


class AcrossMaps(nn.Module):
    """Normalise each response by the responses of neighbouring maps at the same position (paper, section 3.3).

    Args:
        scale: factor of the sum of squares: alpha in the text; alpha / size in the program of 2012 (and in torch).
        size: number of maps in the sum, with the response's own in the middle.
        constant: k.
        columns: groups of maps that are normalised separately: with two, maps 47 and 48 of 96 are not neighbours.
    Attributes:
        form: `torch`; or anything else, for the fastest of the input's device.
    """

    def __init__(self, scale: float, size: int = 5, constant: float = 2.0, columns: int = 2):
        super().__init__()
        self.scale, self.size, self.constant, self.columns = scale, size, constant, columns
        self.form = ""

    def forward(self, x: Tensor) -> Tensor:
        """Return x, float (n, channels, height, width), normalised; channels must be a multiple of columns."""
        if x.shape[1] % self.columns == 0 and (run := _fused(self, x)):
            return _Fused.apply(x, run, self.columns, self.size, self.constant, self.scale)
        band = _band(x.shape[1] // self.columns, self.size, self.columns, x.dtype, x.device)

        def sum_of_neighbours(y: Tensor) -> Tensor:
            return F.conv2d(y, band, groups=self.columns)

        return _Normalise.apply(x, sum_of_neighbours, self.constant, self.scale)

    def extra_repr(self) -> str:
        """Return the arguments, for print(net)."""
        return f"scale={self.scale}, size={self.size}, constant={self.constant}, columns={self.columns}"


class WithinMap(nn.Module):
    """Normalise each response by those around it in its own map (the program's second normalisation, in layer 2).

    Args:
        scale: factor of the sum of squares; the program's is 0.001 / 25.
        size: side of the square, odd; zeros beyond the map's edge.
        constant: added to the sum.
    Attributes:
        form: `torch`; or anything else, for the fastest of the input's device.
    """

    def __init__(self, scale: float = 0.001 / 25, size: int = 5, constant: float = 1.0):
        super().__init__()
        self.scale, self.size, self.constant = scale, size, constant
        self.form = ""

    def forward(self, x: Tensor) -> Tensor:
        """Return x, float (n, channels, height, width), normalised."""
        if run := _fused(self, x):
            return _Fused.apply(x, run, 0, self.size, self.constant, self.scale)
        maps = x.shape[1]
        square = x.new_ones((maps, 1, self.size, self.size))

        def sum_of_square(y: Tensor) -> Tensor:
            return F.conv2d(y, square.to(y.dtype), padding=self.size // 2, groups=maps)

        return _Normalise.apply(x, sum_of_square, self.constant, self.scale)

    def extra_repr(self) -> str:
        """Return the arguments, for print(net)."""
        return f"scale={self.scale}, size={self.size}, constant={self.constant}"


def is_traced() -> bool:
    """Whether torch traces, counts or transforms the code that runs: C and our kernels are invisible to it."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # first: the compiler does not understand the others
        return True
    return torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack() > 0


def is_plain(x: Tensor, device: str = "cpu", dtypes: tuple[torch.dtype, ...] = DTYPES) -> bool:
    """Whether C, or a kernel, can compute with x: a tensor of four dimensions on such a device, that is not traced."""
    known = type(x) in (Tensor, nn.Parameter) and x.device.type == device and x.dtype in dtypes and x.dim() == 4
    return known and not is_traced()


Run = Callable[[Tensor, Tensor | None, Tensor, int, int, float, float], None]


def _fused(norm: AcrossMaps | WithinMap, x: Tensor) -> Run | None:
    """Return what normalises x in one pass: see `lrn_triton.normalise`; None for the torch form."""
    if norm.form == TORCH or min(norm.constant, norm.scale) <= 0:
        return None
    if _kernel is not None and norm.size == FIVE and is_plain(x):
        return _call
    if is_plain(x, GPU, GPU_DTYPES) and norm.size in (3, FIVE) and pick_form(x.device) == TRITON:
        from . import lrn_triton

        return lrn_triton.normalise
    return None


class _Fused(torch.autograd.Function):
    """The compiled and the triton form: keep x alone, and compute the sums again in the backward pass.

    Columns 0: within the map. The output is in the memory layout of x.
    """

    @staticmethod
    def forward(ctx, x: Tensor, run: Run, columns: int, size: int, constant: float, scale: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.run, ctx.arguments = run, (columns, size, constant, scale)
        packed = x.contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(packed, memory_format=torch.channels_last)
        run(packed, None, out, *ctx.arguments)
        return out if packed is x else out.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        (x,) = ctx.saved_tensors
        packed = x.contiguous(memory_format=torch.channels_last)
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(packed, memory_format=torch.channels_last)
        ctx.run(packed, gradient, out, *ctx.arguments)
        return (out if packed is x else out.contiguous()), None, None, None, None, None


def _call(
    x: Tensor, gradient: Tensor | None, out: Tensor, columns: int, size: int, constant: float, scale: float
) -> None:
    """Normalise by `_lrn.c`; the arguments are those of `lrn_triton.normalise`, with a size of FIVE."""
    n, channels, height, width = x.shape
    failed = _kernel(
        columns == 0,
        x.dtype == torch.bfloat16,
        x.data_ptr(),
        None if gradient is None else gradient.data_ptr(),
        out.data_ptr(),
        n,
        height,
        width,
        channels,
        max(columns, 1),
        constant,
        scale,
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError("out of memory in response normalisation")


def _declared(library: ctypes.CDLL | None) -> Any:
    """Return the function of `_lrn.c`; None where it was not compiled."""
    if library is None:
        return None
    flag, address, size, real = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    library.normalise.argtypes = [*[flag] * 2, *[address] * 3, *[size] * 5, *[real] * 2, flag]
    return library.normalise


_kernel = _declared(compiled.load(__package__, "_lrn"))


class _Normalise(torch.autograd.Function):
    """The torch form: x * (constant + scale * gather(x^2)) ^ -0.75, `gather` being linear and its own transpose.

    Backward: with base d and power p = d^-0.75, dx = g p - 2 * 0.75 * scale * x * gather(g x p / d).
    """

    @staticmethod
    def forward(ctx, x: Tensor, gather: Callable[[Tensor], Tensor], constant: float, scale: float) -> Tensor:
        base = _at_least_float32(gather(x * x)).mul_(scale).add_(constant)
        ctx.save_for_backward(x, base)
        ctx.gather, ctx.scale = gather, scale
        return (x * _power(base)).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, base = ctx.saved_tensors
        power = _power(base)
        direct = gradient * power
        around = _at_least_float32(ctx.gather((direct * x).div_(base).to(x.dtype)))
        direct.sub_(around.mul_(x).mul_(2 * BETA * ctx.scale))
        return direct.to(x.dtype), None, None, None


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _power(base: Tensor) -> Tensor:
    root = base.rsqrt()  # base^-0.5
    return root.mul_(root.sqrt())  # base^-0.75


@lru_cache(maxsize=16)
def _band(maps: int, size: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return (columns * maps, maps, 1, 1): 1 where two maps of a column are at most size // 2 apart, 0 elsewhere."""
    index = torch.arange(maps, device=device)
    near = (index[:, None] - index[None, :]).abs() <= size // 2
    return near.to(dtype).repeat(columns, 1)[:, :, None, None]
