"""The net in two columns, one in each of two processes, and what they say to each other (paper, section 3.2).

In:  two processes that are connected.  Out: a place that the net asks for what it does not hold.

    meet    both columns' maps or units: before conv3, conv6 and the fully connected layers
    add     the logits, the sum of what each column makes of its half of the last hidden layer

Both are autograd functions of our own: the gradient of `meet` is the sum over the columns, since both have used what
each gave; that of `add` is passed on as it is, since every process has the same loss (torch's own collectives would
count it once for each process). Nothing else is said but the pictures (batch.py) and, when saving, the parameters.

A column's layer holds the first or the second half of each parameter's outputs; of the last layer, of its inputs.
So the whole state is the one of the net on one device, whatever split has trained it.
"""

import torch
import torch.distributed as dist
from torch import Tensor

# Where a parameter is cut; all others along the first axis. The last layer is cut by its inputs, its bias is whole.
AXES = {"fc8.weight": 1, "fc8.bias": None}


class WholeNet:
    """All of the net is here: nothing to say, nothing to cut."""

    places, column = 1, 0

    def meet(self, x: Tensor) -> Tensor:
        """What all columns have: it is here."""
        return x

    def add(self, x: Tensor) -> Tensor:
        """The sum over the columns: it is made."""
        return x

    def own(self, x: Tensor) -> Tensor:
        """What belongs to this place of something whole, along the second axis."""
        return x.chunk(self.places, dim=1)[self.column]

    def part(self, name: str, whole: Tensor) -> Tensor:
        """What this place holds of a parameter."""
        axis = _axis(name, whole)
        return whole if axis is None else whole.chunk(self.places, dim=axis)[self.column]

    def whole_shape(self, name: str, part: Tensor) -> torch.Size:
        """The shape of the whole parameter."""
        axis, shape = _axis(name, part), list(part.shape)
        if axis is not None:
            shape[axis] *= self.places
        return torch.Size(shape)

    def whole(self, name: str, part: Tensor) -> Tensor:
        """The whole parameter, of all places; all must ask for it in the same order."""
        return part


class Column(WholeNet):
    """One column is here, the other in another process: the column is the rank."""

    def __init__(self):
        self.places, self.column = dist.get_world_size(), dist.get_rank()

    def meet(self, x: Tensor) -> Tensor:
        """Both columns' maps (n, maps, height, width) or units (n, units), column after column."""
        return _Meet.apply(x)

    def add(self, x: Tensor) -> Tensor:
        """The sum of both columns' tensors."""
        return _Add.apply(x)

    def whole(self, name: str, part: Tensor) -> Tensor:
        """The parameter of both columns."""
        axis = _axis(name, part)
        return part if axis is None else torch.cat(gather(part), dim=axis)


class _Meet(torch.autograd.Function):
    """All processes' tensors, one after the other along the second axis."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return torch.cat(gather(x), dim=1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        """The sum over the processes of what each says about this one's part."""
        places, rank = dist.get_world_size(), dist.get_rank()
        parts = [_said(_dense(part)) for part in gradient.chunk(places, dim=1)]
        # gloo has no reduce_scatter of its own: what is meant for the other is all that is sent.
        own = parts[rank].to(torch.promote_types(gradient.dtype, torch.float32), copy=True)
        for said in _exchange(parts):
            own += said
        return own.to(gradient)


class _Add(torch.autograd.Function):
    """The sum over all processes, in float32; each gets the whole gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.to(torch.promote_types(x.dtype, torch.float32), memory_format=torch.contiguous_format, copy=True)
        total = _said(total)
        dist.all_reduce(total)
        return total.to(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


def gather(x: Tensor) -> list[Tensor]:
    """Each process's tensor of one shape, in the order of ranks, in its memory's order; no gradient."""
    flat = _said(_dense(x))
    out = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    last = _channels_last(flat)
    dist.all_gather([_as_sent(t, last) for t in out], _as_sent(flat, last))
    return [t.to(x.device) for t in out]


def _exchange(parts: list[Tensor]) -> list[Tensor]:
    """Send each process its part; what came from each of the others, in the order of ranks."""
    rank = dist.get_rank()
    others = [k for k in range(len(parts)) if k != rank]
    came = {k: torch.empty_like(parts[rank]) for k in others}
    last = _channels_last(parts[rank])
    calls = []
    for k in others:
        calls.append(dist.P2POp(dist.isend, _as_sent(parts[k], last), k))
        calls.append(dist.P2POp(dist.irecv, _as_sent(came[k], last), k))
    for work in dist.batch_isend_irecv(calls):
        work.wait()
    return [came[k] for k in others]


def _axis(name: str, x: Tensor) -> int | None:
    return AXES.get(name, 0) if x.dim() else None  # a single number, batch norm's count say, is whole


def _said(x: Tensor) -> Tensor:
    """What is handed to the other processes: gloo takes nothing from a GPU, so that goes by the CPU."""
    return x.cpu() if x.is_cuda and "cuda:gloo" in str(dist.get_backend_config()) else x


def _dense(x: Tensor) -> Tensor:
    """The same without holes: channels last where it nearly is."""
    if x.dim() == 4 and x.stride(1) == 1 and x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


def _channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and not x.is_contiguous()


def _as_sent(x: Tensor, channels_last: bool) -> Tensor:
    """A view that is contiguous, as collectives want it."""
    return x.permute(0, 2, 3, 1) if channels_last else x
