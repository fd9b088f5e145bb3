"""The net in two columns, one in each of two processes, and their communication (paper, section 3.2).

In:  two connected processes.  Out: a place: the net's access to the part that is in the other process.

    meet    both columns' maps or units: before conv3, conv6 and the fully connected layers
    add     the logits, the sum of the products of each column with its half of the last hidden layer

Both are autograd functions. The gradient of `meet` is the sum over the columns, since both have used each part. The
gradient of `add` is passed on unchanged, since all processes compute the same loss (torch's own collectives would
count it once per process). Beyond this only the pictures are exchanged (training/parallel.py), and when saving the
parameters.

A column's layer has the first or the second half of each parameter's outputs; the last layer, of its inputs. So the
checkpoint is that of the net on one device, whatever split has trained it.
"""

import torch
import torch.distributed as dist
from torch import Tensor

# Axis along which a parameter is split, 0 for all others. The last layer is split by inputs, and its bias is whole.
AXES = {"fc8.weight": 1, "fc8.bias": None}


class WholeNet:
    """The place of a net that is not split: the methods return their argument. Also the interface of `Column`.

    Attributes:
        places: number of processes that hold the net together.
        column: index of this process's column, 0..places-1.
    """

    places, column = 1, 0

    def meet(self, x: Tensor) -> Tensor:
        """Return all columns' maps (n, maps, height, width) or units (n, units), in the order of the columns."""
        return x

    def add(self, x: Tensor) -> Tensor:
        """Return the sum of all columns' tensors."""
        return x

    def own(self, x: Tensor) -> Tensor:
        """Return this place's part of a whole tensor, along the second axis."""
        return x.chunk(self.places, dim=1)[self.column]

    def part(self, name: str, whole: Tensor) -> Tensor:
        """Return this place's part of a whole parameter."""
        axis = _axis(name, whole)
        return whole if axis is None else whole.chunk(self.places, dim=axis)[self.column]

    def whole_shape(self, name: str, part: Tensor) -> torch.Size:
        """Return the shape of the whole parameter."""
        axis, shape = _axis(name, part), list(part.shape)
        if axis is not None:
            shape[axis] *= self.places
        return torch.Size(shape)

    def whole(self, name: str, part: Tensor) -> Tensor:
        """Return the whole parameter. Collective: all processes call it, in the same order of parameters."""
        return part


class Column(WholeNet):
    """The place of one column of a net whose other columns are in other processes; the rank is the column."""

    def __init__(self):
        self.places, self.column = dist.get_world_size(), dist.get_rank()

    def meet(self, x: Tensor) -> Tensor:
        return _Meet.apply(x)

    def add(self, x: Tensor) -> Tensor:
        return _Add.apply(x)

    def whole(self, name: str, part: Tensor) -> Tensor:
        axis = _axis(name, part)
        return part if axis is None else torch.cat(gather(part), dim=axis)


class _Meet(torch.autograd.Function):
    """Forward: concatenate all processes' tensors along the second axis. Backward: sum the own part's gradients."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return torch.cat(gather(x), dim=1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        places, rank = dist.get_world_size(), dist.get_rank()
        parts = [_to_backend(_dense(part)) for part in gradient.chunk(places, dim=1)]
        # gloo has no reduce_scatter: each process sends the others their parts only.
        own = parts[rank].to(torch.promote_types(gradient.dtype, torch.float32), copy=True)
        for received in _exchange(parts):
            own += received
        return own.to(gradient)


class _Add(torch.autograd.Function):
    """Forward: sum over all processes, in float32. Backward: the gradient, unchanged."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.to(torch.promote_types(x.dtype, torch.float32), memory_format=torch.contiguous_format, copy=True)
        total = _to_backend(total)
        dist.all_reduce(total)
        return total.to(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


def gather(x: Tensor) -> list[Tensor]:
    """Return all processes' tensors, which have one shape and memory format, in the order of ranks; no gradient."""
    flat = _to_backend(_dense(x))
    out = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    last = _channels_last(flat)
    dist.all_gather([_as_sent(t, last) for t in out], _as_sent(flat, last))
    return [t.to(x.device) for t in out]


def _exchange(parts: list[Tensor]) -> list[Tensor]:
    """Send each other process its part; return the parts received from the others, in the order of ranks."""
    rank = dist.get_rank()
    others = [k for k in range(len(parts)) if k != rank]
    received = {k: torch.empty_like(parts[rank]) for k in others}
    last = _channels_last(parts[rank])
    calls = []
    for k in others:
        calls.append(dist.P2POp(dist.isend, _as_sent(parts[k], last), k))
        calls.append(dist.P2POp(dist.irecv, _as_sent(received[k], last), k))
    for work in dist.batch_isend_irecv(calls):
        work.wait()
    return [received[k] for k in others]


def _axis(name: str, x: Tensor) -> int | None:
    return AXES.get(name, 0) if x.dim() else None  # a scalar, such as batch norm's count, is whole


def _to_backend(x: Tensor) -> Tensor:
    """Return a tensor that the backend accepts: on the CPU if a GPU's tensors go through gloo."""
    return x.cpu() if x.is_cuda and "cuda:gloo" in str(dist.get_backend_config()) else x


def _dense(x: Tensor) -> Tensor:
    """Return a dense copy or the tensor itself: in channels-last format if its channels are innermost."""
    if x.dim() == 4 and x.stride(1) == 1 and x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


def _channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and not x.is_contiguous()


def _as_sent(x: Tensor, channels_last: bool) -> Tensor:
    """Return a contiguous view, as collectives require it."""
    return x.permute(0, 2, 3, 1) if channels_last else x
