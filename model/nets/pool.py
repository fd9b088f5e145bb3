"""Max pooling: the largest of each square of responses, two apart (paper, section 3.4).

In:  float (n, channels, height, width).  Out: float (n, channels, rows, columns), squares hanging over the edges.

On the CPU 3x3 squares of float32 and bfloat16 are pooled by `_pool.c`, which remembers each place in a byte; torch
takes eight, and three times as long. Everything else goes by torch. The results are the same, bit for bit;
gradients of gradients, and batched ones (vmap), are refused by torch, as for `lrn.py`.
"""

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...pipeline import compiled
from .lrn import is_plain

SIDE, STEP = 3, 2  # that `_pool.c` has


def max_pool(x: Tensor, side: int) -> Tensor:
    """Return the largest response of each square of `side`, STEP apart.

    Args:
        x: float (n, channels, height, width).
    Returns:
        float (n, channels, rows, columns); rows = 1 + ceil((height - side) / STEP), columns likewise.
    """
    if side == SIDE and _kernel is not None and is_plain(x) and min(x.shape[2:]) >= SIDE:
        return _Compiled.apply(x)
    return F.max_pool2d(x, side, stride=STEP, ceil_mode=True)


class _Compiled(torch.autograd.Function):
    """Pooling by `_pool.c`; keeps a byte for each square."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        n, channels, height, width = ctx.shape = x.shape
        rows, columns = (1 - (SIDE - side) // STEP for side in (height, width))
        packed = x.contiguous(memory_format=torch.channels_last)
        out = _channels_last((n, channels, rows, columns), x.dtype)
        places = _channels_last(out.shape, torch.uint8)
        _call(False, packed, out, places, packed.shape, out.shape)
        ctx.save_for_backward(places)
        ctx.packed = packed is x
        return out if ctx.packed else out.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        (places,) = ctx.saved_tensors
        out = _channels_last(ctx.shape, gradient.dtype)
        packed = gradient.contiguous(memory_format=torch.channels_last)
        _call(True, packed, out, places, out.shape, packed.shape)
        return out if ctx.packed else out.contiguous()


def _channels_last(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)


def _call(back: bool, x: Tensor, out: Tensor, places: Tensor, responses: torch.Size, maxima: torch.Size) -> None:
    n, channels, height, width = responses
    addresses = x.data_ptr(), out.data_ptr(), places.data_ptr()
    sizes = n, height, width, channels, *maxima[2:]
    _kernel(back, x.dtype == torch.bfloat16, *addresses, *sizes, torch.get_num_threads())


def _declared(library: ctypes.CDLL | None) -> Any:
    """Return the function of `_pool.c`; None where it was not compiled."""
    if library is None:
        return None
    flag, address, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64
    library.max_pool.argtypes = [*[flag] * 2, *[address] * 3, *[size] * 6, flag]
    library.max_pool.restype = None
    return library.max_pool


_kernel = _declared(compiled.load(__package__, "_pool"))
