"""The types of layers of a layer file of 2012, each a module over the outputs of the layers below it.

In:  a Layer, the numbers of units of its inputs.  Out: a module with `outputs`, its number of units.
Sources: computerhistory/AlexNet-Source-Code, `layer.py` (sizes) and `src/layer.cu`, `src/neuron.cu` (functions).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....pipeline.errors import UsageError
from ..lrn import BETA, AcrossMaps, WithinMap
from ..pool import STEP, max_pool
from .definition import Layer

NEURONS: dict[str, Callable[..., Tensor]] = {
    "logistic": torch.sigmoid,
    "abs": torch.abs,
    "relu": F.relu,
    "softrelu": F.softplus,
    "square": torch.square,
    "sqrt": torch.sqrt,
    "tanh": lambda x, a, b: a * torch.tanh(b * x),
    "abstanh": lambda x, a, b: a * torch.tanh(b * x).abs(),
    "linear": lambda x, a, b: a * x + b,
    "brelu": lambda x, a: x.clamp(0, a),
    "drelu": lambda x, a: x - a * torch.tanh(x / a),
}


class Plain(nn.Module):
    """A layer without weights: neuron, softmax, cost."""

    def __init__(self, layer: Layer, units: list[int]):
        super().__init__()
        self.layer, self.outputs = layer, units[0]

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return inputs[0]


class _Concat(Plain):
    def __init__(self, layer: Layer, units: list[int]):
        super().__init__(layer, units)
        self.outputs = sum(units)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return torch.cat([x.flatten(1) for x in inputs], dim=1)


class _Sum(Plain):
    def __init__(self, layer: Layer, units: list[int]):
        super().__init__(layer, units)
        if len(set(units)) > 1:
            raise UsageError(f"its inputs have different sizes: {', '.join(map(str, units))}")

    def forward(self, inputs: list[Tensor]) -> Tensor:
        terms = zip(self.layer.options["coeffs"], inputs, strict=True)
        return sum((factor * x.reshape(inputs[0].shape) for factor, x in terms), torch.zeros(()))


class Dropout(Plain):
    """Dropout; `enable` of the parameter file turns it off."""

    def __init__(self, layer: Layer, units: list[int]):
        super().__init__(layer, units)
        self.keep, self.enabled = layer.options["keep"], layer.options["enable"]

    def forward(self, inputs: list[Tensor], mask: Tensor | None = None) -> Tensor:
        (x,) = inputs
        if not (self.enabled and self.training):
            return x
        return F.dropout(x, 1 - self.keep) if mask is None else x * mask.view(x.shape) / self.keep


class _Pool(Plain):
    """Maxima or means of squares, the last of which may extend over the edge; means are of the pixels inside."""

    def __init__(self, layer: Layer, units: list[int]):
        super().__init__(layer, units)
        options = layer.options
        self.side, self.step = options["sizex"], options["stride"]
        self.channels, self.size = options["channels"], _side(units[0], options["channels"])
        if not 1 <= self.side <= self.size or not 1 <= self.step <= self.side:
            raise UsageError(f"sizeX={self.side} and stride={self.step} do not fit maps of {self.size}x{self.size}")
        self.outputs = self.channels * (math.ceil((self.size - self.side) / self.step) + 1) ** 2

    def forward(self, inputs: list[Tensor]) -> Tensor:
        x = _maps(inputs[0], self.channels, self.size)
        if self.layer.options["pool"] == "avg":
            return F.avg_pool2d(x, self.side, self.step, ceil_mode=True)
        return max_pool(x, self.side) if self.step == STEP else F.max_pool2d(x, self.side, self.step, ceil_mode=True)


class _Norm(Plain):
    """Response normalisation across maps (cmrnorm) or within each (rnorm); the program divides the scale by the sum's
    number of terms.
    """

    def __init__(self, layer: Layer, units: list[int]):
        super().__init__(layer, units)
        options = layer.options
        self.channels, self.size = options["channels"], _side(units[0], options["channels"])
        side, scale, power = options["size"], options["scale"], options["pow"]
        if power != BETA:
            raise UsageError(f"pow={power:g} is not supported", f"pow={BETA}")
        if layer.type == "cmrnorm":
            self.norm: nn.Module = AcrossMaps(scale / side, side, options["mindiv"], columns=1)
        else:
            self.norm = WithinMap(scale / side**2, side, 1.0)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return self.norm(_maps(inputs[0], self.channels, self.size))


class Weighted(Plain):
    """A layer whose output is a sum over its inputs, each with weights of its own, and biases."""

    bias: nn.Parameter

    def _make(self, shapes: list[tuple[int, ...]], biases: tuple[int, ...]) -> None:
        for i, shape in enumerate(shapes):
            self.register_parameter(f"weight{i}", nn.Parameter(torch.empty(shape)))
        self.bias = nn.Parameter(torch.empty(biases))

    def weights(self) -> list[nn.Parameter]:
        return [self.get_parameter(f"weight{i}") for i in range(len(self.layer.inputs))]


class _Dense(Weighted):
    def __init__(self, layer: Layer, units: list[int]):
        super().__init__(layer, units)
        self.outputs = layer.options["outputs"]
        self._make([(self.outputs, count) for count in units], (self.outputs,))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return sum((F.linear(x.flatten(1), w) for x, w in zip(inputs, self.weights(), strict=True)), self.bias)


class _Windows(Weighted):
    """conv and local: windows of the input, the last of which may extend over the right and lower edge."""

    def __init__(self, layer: Layer, units: list[int]):
        super().__init__(layer, units)
        names = ("channels", "filters", "filtersize", "padding", "stride", "groups")
        self.geometry = list(zip(*(layer.options[name] for name in names), strict=True))
        self.sizes = [_side(count, row[0]) for count, row in zip(units, self.geometry, strict=True)]
        found = set()
        for (channels, filters, side, padding, stride, groups), size in zip(self.geometry, self.sizes, strict=True):
            if min(channels, filters, side, stride, groups) < 1 or padding < 0 or channels % groups:
                raise UsageError("channels, filters, filterSize, stride, groups or padding are out of range")
            if side > size + 2 * padding:
                raise UsageError(f"filterSize={side} is larger than its input of {size}x{size} with padding={padding}")
            found.add((1 + math.ceil((2 * padding + size - side) / stride), filters * groups))
        if len(found) > 1:
            raise UsageError(f"its inputs lead to different outputs: {sorted(found)} (windows a row, filters)")
        ((self.row, self.filters),) = found
        self.outputs = self.filters * self.row**2
        partial = layer.options.get("partialsum", 0)
        if partial and self.row**2 % partial:
            raise UsageError(
                f"partialSum={partial} does not divide its {self.row}x{self.row} windows, as the program required",
                "the file is for pictures of another size: give it with --crop",
            )
        self._make_arrays()

    def _make_arrays(self) -> None:
        raise NotImplementedError

    def _one(self, x: Tensor, place: int) -> Tensor:
        """Compute the part of one input, (n, filters, rows, columns)."""
        raise NotImplementedError

    def _shapes(self) -> list[tuple[int, ...]]:
        return [(self.filters, row[0] // row[5], row[2], row[2]) for row in self.geometry]

    def _padded(self, x: Tensor, place: int) -> Tensor:
        channels, _, side, padding, stride, _ = self.geometry[place]
        beyond = max(0, (self.row - 1) * stride + side - self.sizes[place] - padding)
        return F.pad(_maps(x, channels, self.sizes[place]), (padding, beyond, padding, beyond))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        y = sum((self._one(self._padded(x, i), i) for i, x in enumerate(inputs)), torch.zeros(()))
        return y + (self.bias if self.bias.ndim == 3 else self.bias[:, None, None])


class _Convolution(_Windows):
    def _make_arrays(self) -> None:
        shared = self.layer.options["sharedbiases"]
        self._make(self._shapes(), (self.filters,) if shared else (self.filters, self.row, self.row))

    def _one(self, x: Tensor, place: int) -> Tensor:
        *_, stride, groups = self.geometry[place]
        return F.conv2d(x, self.weights()[place], stride=stride, groups=groups)[..., : self.row, : self.row]


class _Local(_Windows):
    """Like a convolution, with weights of its own at each position."""

    def _make_arrays(self) -> None:
        self._make([(self.row**2, *shape) for shape in self._shapes()], (self.filters, self.row, self.row))

    def _one(self, x: Tensor, place: int) -> Tensor:
        _, _, side, _, stride, groups = self.geometry[place]
        windows = F.unfold(x, side, stride=stride)  # (n, channels * side * side, positions)
        grouped = windows.view(len(x), groups, -1, self.row**2)
        weight = self.weights()[place].view(self.row**2, groups, self.filters // groups, -1)
        y = torch.einsum("ngkp,pgfk->ngfp", grouped, weight)
        return y.reshape(len(x), self.filters, self.row, self.row)


PARTS: dict[str, type[Plain]] = {
    **{"concat": _Concat, "eltsum": _Sum, "hs": Dropout, "pool": _Pool, "cmrnorm": _Norm, "rnorm": _Norm},
    **{"fc": _Dense, "conv": _Convolution, "local": _Local},
}


def _side(units: int, channels: int) -> int:
    """Return the side of the square maps that an input is."""
    side = math.isqrt(units // channels) if channels > 0 else 0
    if side < 1 or channels * side * side != units:
        raise UsageError(f"its input of {units:,} units is not square maps in {channels} channels")
    return side


def _maps(x: Tensor, channels: int, side: int) -> Tensor:
    return x if x.ndim == 4 else x.reshape(len(x), channels, side, side)
