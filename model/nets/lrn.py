"""Response normalisation: b = a / (constant + scale * sum a^2) ^ beta (paper, section 3.3).

In:  float (n, channels, height, width).  Out: the same shape and dtype.  Exact gradients, no DALI, no files.

`torch.nn.LocalResponseNorm` computes the sum with a 3-d average pool and the power with `pow`, which takes half of an
AlexNet step on a CPU. Here are two forms of the same function, which differ by rounding:

    compiled  `_lrn.c`: one pass over memory forward and one backward, on the CPU, for float32 and bfloat16
    torch     everywhere: the sum over neighbouring maps is a 1x1 convolution with a band of ones, one group per
              column, and the power is two square roots

In both the base of the power is float32: in bfloat16, 2 + small is 2.
"""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...pipeline import compiled

BETA = 0.75
COMPILED, TORCH = "compiled", "torch"  # the forms
FIVE = 5  # the size that `_lrn.c` has
DTYPES = (torch.float32, torch.bfloat16)  # that `_lrn.c` takes


def pick_form(device: torch.device, begun: str | None = None) -> str:
    """Return the form to use on a device: that with which a run has begun, if it is there, or the fastest.

    Args:
        begun: a form, or None.
    """
    forms = (COMPILED, TORCH) if device.type == "cpu" and _kernel is not None else (TORCH,)
    return begun if begun is not None and begun in forms else forms[0]


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
        form: `compiled` or `torch`.
    """

    def __init__(self, scale: float, size: int = 5, constant: float = 2.0, columns: int = 2):
        super().__init__()
        self.scale, self.size, self.constant, self.columns = scale, size, constant, columns
        self.form = pick_form(torch.device("cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """Return x, float (n, channels, height, width), normalised; channels must be a multiple of columns."""
        if _is_compiled(self, x) and x.shape[1] % self.columns == 0:
            return _Compiled.apply(x, self.columns, self.constant, self.scale)
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
        form: `compiled` or `torch`.
    """

    def __init__(self, scale: float = 0.001 / 25, size: int = 5, constant: float = 1.0):
        super().__init__()
        self.scale, self.size, self.constant = scale, size, constant
        self.form = pick_form(torch.device("cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """Return x, float (n, channels, height, width), normalised."""
        if _is_compiled(self, x):
            return _Compiled.apply(x, 0, self.constant, self.scale)
        maps = x.shape[1]
        square = x.new_ones((maps, 1, self.size, self.size))

        def sum_of_square(y: Tensor) -> Tensor:
            return F.conv2d(y, square.to(y.dtype), padding=self.size // 2, groups=maps)

        return _Normalise.apply(x, sum_of_square, self.constant, self.scale)

    def extra_repr(self) -> str:
        """Return the arguments, for print(net)."""
        return f"scale={self.scale}, size={self.size}, constant={self.constant}"


def is_traced() -> bool:
    """Whether torch traces, exports or transforms the code that runs, instead of computing."""
    transformed = torch._C._are_functorch_transforms_active()
    return transformed or torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_plain(x: Tensor) -> bool:
    """Whether C can compute with x: a tensor of four dimensions on the CPU, of DTYPES, that is not traced."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and x.dtype in DTYPES
        and x.dim() == 4
        and not is_traced()
    )


def _is_compiled(norm: AcrossMaps | WithinMap, x: Tensor) -> bool:
    """Whether `_lrn.c` normalises x."""
    known = norm.form == COMPILED and norm.size == FIVE and min(norm.constant, norm.scale) > 0
    return known and _kernel is not None and is_plain(x)


class _Compiled(torch.autograd.Function):
    """The compiled form: keeps x alone, and computes the sums again in the backward pass. Columns 0: within the map."""

    @staticmethod
    def forward(ctx, x: Tensor, columns: int, constant: float, scale: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.arguments = columns, constant, scale
        return _call(x, None, *ctx.arguments)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        (x,) = ctx.saved_tensors
        return _call(x, gradient, *ctx.arguments), None, None, None


def _call(x: Tensor, gradient: Tensor | None, columns: int, constant: float, scale: float) -> Tensor:
    """Return x normalised, or the gradient of x for that of the output; in the memory layout of x."""
    packed = x.contiguous(memory_format=torch.channels_last)
    if gradient is not None:
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(packed, memory_format=torch.channels_last)
    n, channels, height, width = x.shape
    failed = _kernel(
        columns == 0,
        x.dtype == torch.bfloat16,
        packed.data_ptr(),
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
    return out if packed is x else out.contiguous()


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
