"""How the processes of a run share its work: one process, data parallel, or one column in each of two processes.

In:  a Team, a net.  Out: one interface for the trainer: this process's net and batch, sums, and the state of the whole
net. In all three the loss is the sum over the global batch divided by its size.

    alone     one process
    data      each process has the whole net and its share of the batch; torch's DistributedDataParallel sums the
              gradients during the backward pass
    columns   the paper's (section 3.2): each of two processes has one column of every layer (nets/columns.py), and all
              pictures, half of which it decodes
"""

import math
from dataclasses import replace
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...pipeline.errors import UsageError
from ...pipeline.plan.philox import DROPOUT, dropout_bits, philox_words
from ...pipeline.plan.plan import BatchPlan, dropout_keeps
from ...pipeline.shards.stats import Stats
from ...pipeline.stream.stream import Batch
from ..nets.alexnet import AlexNet
from ..nets.columns import Column, WholeNet, gather
from ..nets.factory import Net, create_net
from ..nets.lrn import set_form
from ..nets.options import ALEXNET, COLUMNS
from ..recipes.config import PARALLEL, Config
from ..recipes.recipe import Recipe
from .distributed import Team
from .metrics import Sums

State = dict[str, Tensor]


class SingleProcess:
    """One process with the whole net; also the interface of the other two.

    Attributes:
        net: the net, or the part of it, that this process trains.
        module: what to call in training: the net, or its wrapper.
    """

    def __init__(self, net: Net):
        self.net = net
        self.module: nn.Module = net

    def batch(self, batch: Batch) -> Batch:
        """Return the pictures and labels that this process trains on, from those that it has decoded."""
        return batch

    def masks(self, seed: int, plan: BatchPlan, device: torch.device) -> tuple[Tensor, ...]:
        """Return the dropout masks of that batch, see the function `masks`."""
        return masks(self.net, seed, plan.epoch, plan.start, len(plan.records), device)

    def totals(self, sums: Sums) -> Sums:
        """Add up the processes' sums. Collective."""
        return sums

    def share(self, sums: Sums) -> Sums:
        """Return this process's part of `totals` from a checkpoint."""
        return sums

    def whole(self, tensors: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        """Return tensors of the whole net, by parameter name, from those of this process. Collective."""
        return tensors

    def part(self, tensors: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        """Return this process's part of tensors of the whole net, by parameter name."""
        return tensors

    def whole_shape(self, name: str, part: Tensor) -> torch.Size:
        """Return the shape of a parameter in the whole net."""
        return part.shape

    def whole_net(self) -> Net:
        """Return a whole net that runs without the other processes, for evaluation. Collective."""
        return self.net


class DataParallel(SingleProcess):
    """Each process has the whole net, and trains on its share of the batch."""

    def __init__(self, net: Net, team: Team, device: torch.device):
        super().__init__(net)
        self._team = team
        ddp = DistributedDataParallel(
            net, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
        )
        ddp.register_comm_hook(None, _add_up)
        self.module = ddp

    def totals(self, sums: Sums) -> Sums:
        loss, wrong = self._team.sum([float(sums.loss), float(sums.wrong)])
        return Sums(loss, wrong, sums.images, sums.steps)

    def whole_net(self) -> Net:
        for buffer in self.net.buffers():
            dist.broadcast(buffer, src=0)  # batch norm's statistics differ between processes
        return self.net

    def share(self, sums: Sums) -> Sums:
        return sums if self._team.first else Sums(0.0, 0.0, sums.images, sums.steps)


class ColumnParallel(SingleProcess):
    """Each of two processes has one column of every layer, and trains on all pictures."""

    def __init__(self, net: AlexNet):
        super().__init__(net)
        self._column = net
        self._place = net.place

    def batch(self, batch: Batch) -> Batch:
        plan = batch.plan
        assert plan is not None, "a training batch has a plan"
        most = -(-plan.batch_size // self._place.places)  # the first process decodes one more of an odd batch
        images, labels = (torch.cat(self._all_of(t, most))[: plan.batch_size] for t in (batch.images, batch.labels))
        return replace(batch, images=images, labels=labels)

    def masks(self, seed: int, plan: BatchPlan, device: torch.device) -> tuple[Tensor, ...]:
        return masks(self.net, seed, plan.epoch, plan.step * plan.batch_size, plan.batch_size, device)

    def whole(self, tensors: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        return {name: None if t is None else self._place.whole(name, t) for name, t in tensors.items()}

    def part(self, tensors: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        return {name: None if t is None else self._place.part(name, t) for name, t in tensors.items()}

    def whole_shape(self, name: str, part: Tensor) -> torch.Size:
        return self._place.whole_shape(name, part)

    def whole_net(self) -> Net:
        column = self._column
        device, classes = column.conv1.weight.device, column.fc8.out_features
        with torch.device("meta"):  # its initial weights are replaced
            net = AlexNet(classes, column.options)
        net.load_state_dict(self.whole(dict(column.state_dict())), assign=True)
        set_form(net, getattr(column.norm, "form", None))
        return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _all_of(self, own: Tensor, most: int) -> list[Tensor]:
        """Return all processes' shares, padded to one length, as collectives require."""
        # Only the last process can have one less, so the padding comes last and is cut off.
        return gather(torch.cat([own, own[:1]]) if len(own) < most else own)


def share_work(
    config: Config, recipe: Recipe, classes: int, stats: Stats, team: Team, device: torch.device
) -> SingleProcess:
    """Create the net of a configuration, or this process's part of it, on its device.

    Args:
        classes: number of classes.
    Raises:
        UsageError: the net cannot be created, or not split in this way.
    """
    if team.ranks > 1:
        columns = recipe.net.columns if config.model == ALEXNET else 1
        check_parallel(config.parallel, team.ranks, config.model if columns == 1 else recipe.name, columns)
    place = Column() if team.ranks > 1 and config.parallel == "columns" else WholeNet()
    net = create_net(config.model, classes, recipe.net, recipe.crop, stats, config.seed, place)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if team.ranks == 1:
        return SingleProcess(net)
    if isinstance(net, AlexNet) and config.parallel == "columns":
        return ColumnParallel(net)
    return DataParallel(net, team, device)


def default_parallel(ranks: int, model: str, recipe: Recipe) -> str:
    """Return how processes share a net without --parallel: by columns where possible, as in the paper."""
    if ranks == 1:
        return "alone"
    return "columns" if ranks == COLUMNS and model == ALEXNET and recipe.net.columns == COLUMNS else "data"


def check_parallel(parallel: str, ranks: int, net: str, columns: int) -> None:
    """Check that a net can be split in a way.

    Args:
        parallel: `columns` or `data`.
        ranks: number of processes.
        net: name for the message.
        columns: number of columns of the net.
    Raises:
        UsageError: unknown way, or the net or the number of processes does not allow it.
    """
    if parallel not in PARALLEL:
        raise UsageError(f"--parallel {parallel} is not one of {', '.join(PARALLEL)}")
    if parallel == "columns" and columns != COLUMNS:
        raise UsageError(f"--parallel columns: {net} does not have two columns", "choose --parallel data")
    if parallel == "columns" and ranks != COLUMNS:
        raise UsageError(
            f"--parallel columns requires 2 processes, not {ranks}", "choose --parallel data, or 2 processes"
        )


def masks(net: Net, seed: int, epoch: int, start: int, count: int, device: torch.device) -> tuple[Tensor, ...]:
    """Draw the dropout masks of one step from the plan: for `count` positions of an epoch, from `start` on.

    A net with a `dropout_shape` takes a mask of that shape per picture; it depends on seed, epoch and position only, so
    it is the same for any number of processes. For other nets torch's generators are seeded, on all devices, with the
    plan's draw for the first position: the same after a resume, but not with other devices or numbers of processes.

    Returns:
        A tuple of arguments for the net: one mask, bool (count, *dropout_shape), on the device; or none.
    """
    if not net.dropout_shape:
        torch.manual_seed(int(philox_words(seed, epoch, DROPOUT, start, 1)[0]))
        return ()
    units = math.prod(net.dropout_shape)
    if device.type == "cuda":
        # A copy from pageable memory would wait for the device. torch does not reuse the page-locked memory before the
        # copy is done, though no tensor holds it any more.
        bits = torch.from_numpy(dropout_bits(seed, epoch, start, count, units)).pin_memory()
        keep = unpacked(bits.to(device, non_blocking=True))
    else:
        keep = torch.from_numpy(dropout_keeps(seed, epoch, start, count, units))
    return (keep.view(-1, *net.dropout_shape),)


def unpacked(bits: Tensor) -> Tensor:
    """Return the bits of bytes, the lowest first: bool (n, 8 * m), of uint8 (n, m), on the same device."""
    return (bits[:, :, None] & _powers(bits.device)).ne(0).flatten(1)


@cache
def _powers(device: torch.device) -> Tensor:
    """Return 1, 2, 4 to 128, computed on the device: a copy from the host would wait for it."""
    return torch.bitwise_left_shift(1, torch.arange(8, dtype=torch.uint8, device=device))


def _add_up(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Sum the gradients, since each is a part of the global batch's. DDP's default hook takes the mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])
