"""What dropout drops in a step: a function of (seed, epoch, place), so that a resumed run drops the same.

In:  a net, places of an epoch.  Out: the masks that the net takes, or torch's generators seeded where it takes none.
"""

import math

import torch
from torch import Tensor

from ...pipeline.plan.plan import DROPOUT, dropout_keeps, words
from ..nets.registry import Net


def masks(net: Net, seed: int, epoch: int, start: int, count: int, device: torch.device) -> tuple[Tensor, ...]:
    """Draw for one step: for `count` places of an epoch, from `start` on.

    A net with a `dropout_shape` takes a mask of it for each place, and the plan draws it: the same on any number of
    processes. Of any other net torch's generators are seeded, on all devices, with the plan's word of the first place:
    the same on every resume, though not on another number of processes or another device.

    Returns:
        (bool (n, *dropout_shape),) on the device, or ().
    """
    if not net.dropout_shape:
        torch.manual_seed(int(words(seed, epoch, DROPOUT, start, 1)[0]))
        return ()
    units = math.prod(net.dropout_shape)
    keep = torch.from_numpy(dropout_keeps(seed, epoch, start, count, units))
    if device.type == "cuda":
        keep = keep.pin_memory()  # from pageable memory the copy would wait for the device
    return (keep.view(-1, *net.dropout_shape).to(device, non_blocking=True),)
