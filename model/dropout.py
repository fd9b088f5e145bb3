"""What dropout drops in a step: a function of (seed, epoch, place), so that a resumed run drops the same.

In:  a net, the plan of a batch.  Out: the masks that the net takes, or torch's generators seeded where it takes none.
"""

import math

import torch
from torch import Tensor

from ..pipeline.plan import DROPOUT, BatchPlan, dropout_keeps, words
from .registry import Net


def masks(net: Net, seed: int, plan: BatchPlan, device: torch.device) -> tuple[Tensor, ...]:
    """Draw for one step.

    A net with a `dropout_shape` takes a mask of it for each place, and the plan draws it: the same on any number of
    processes. Of any other net torch's generators are seeded, on all devices, with the plan's word of the first place:
    the same on every resume, though not on another number of processes or another device.

    Returns:
        (bool (n, *dropout_shape),) on the device, or ().
    """
    if not net.dropout_shape:
        torch.manual_seed(int(words(seed, plan.epoch, DROPOUT, plan.start, 1)[0]))
        return ()
    units = math.prod(net.dropout_shape)
    keep = torch.from_numpy(dropout_keeps(seed, plan.epoch, plan.start, len(plan.records), units))
    if device.type == "cuda":
        keep = keep.pin_memory()  # from pageable memory the copy would wait for the device
    return (keep.view(-1, *net.dropout_shape).to(device, non_blocking=True),)
