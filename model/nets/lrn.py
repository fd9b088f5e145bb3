"""Response normalisation: b = a / (constant + scale * sum a^2) ^ beta (paper, section 3.3).

In:  float (n, channels, height, width).  Out: the same shape and dtype.  Exact gradients, no DALI, no files.

`torch.nn.LocalResponseNorm` computes the sum with a 3-d average pool and the power with `pow`, which takes half of an
AlexNet step on a CPU. Here the sum over neighbouring maps is a 1x1 convolution with a band of ones, one group per
column, and the power is two square roots. The base of the power is float32: in bfloat16, 2 + small is 2.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BETA = 0.75


class AcrossMaps(nn.Module):
    """Normalise each response by the responses of neighbouring maps at the same position (paper, section 3.3).

    Args:
        scale: factor of the sum of squares: alpha in the text; alpha / size in the program of 2012 (and in torch).
        size: number of maps in the sum, with the response's own in the middle.
        constant: k.
        columns: groups of maps that are normalised separately: with two, maps 47 and 48 of 96 are not neighbours.
    """

    def __init__(self, scale: float, size: int = 5, constant: float = 2.0, columns: int = 2):
        super().__init__()
        self.scale, self.size, self.constant, self.columns = scale, size, constant, columns

    def forward(self, x: Tensor) -> Tensor:
        """Return x, float (n, channels, height, width), normalised; channels must be a multiple of columns."""
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
    """

    def __init__(self, scale: float = 0.001 / 25, size: int = 5, constant: float = 1.0):
        super().__init__()
        self.scale, self.size, self.constant = scale, size, constant

    def forward(self, x: Tensor) -> Tensor:
        """Return x, float (n, channels, height, width), normalised."""
        maps = x.shape[1]
        square = x.new_ones((maps, 1, self.size, self.size))

        def sum_of_square(y: Tensor) -> Tensor:
            return F.conv2d(y, square.to(y.dtype), padding=self.size // 2, groups=maps)

        return _Normalise.apply(x, sum_of_square, self.constant, self.scale)

    def extra_repr(self) -> str:
        """Return the arguments, for print(net)."""
        return f"scale={self.scale}, size={self.size}, constant={self.constant}"


class _Normalise(torch.autograd.Function):
    """x * (constant + scale * gather(x^2)) ^ -0.75, where `gather` is linear and equal to its own transpose.

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
