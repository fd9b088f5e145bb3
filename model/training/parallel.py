"""How the processes of a run share its work: one does all, each has a share of every batch, or each has a column.

In:  a Team, a net.  Out: what the trainer asks for, the same of all three: the net here and what it looks at, sums and
whole states. The loss is the sum over the global batch divided by its size, in all three.

    alone     one process
    data      each process has the whole net and its share of the batch; torch's DistributedDataParallel adds up the
              gradients behind the backward pass
    columns   the paper's: each of two processes has a column of every layer (columns.py), and all pictures, of which
              it decodes half
"""

import math
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...pipeline.errors import UsageError
from ...pipeline.plan.philox import philox_words
from ...pipeline.plan.plan import DROPOUT, BatchPlan, dropout_keeps
from ...pipeline.shards.stats import Stats
from ...pipeline.stream.stream import Batch
from ..nets.alexnet import AlexNet
from ..nets.columns import Column, WholeNet, gather
from ..nets.factory import Net, create_net
from ..nets.options import ALEXNET, COLUMNS
from ..recipes.config import PARALLEL, Config
from ..recipes.recipe import Recipe
from .distributed import Team
from .metrics import Sums

State = dict[str, Tensor]


class SingleProcess:
    """One process does all.

    Attributes:
        net: what is trained here; `module`, what to call.
    """

    def __init__(self, net: Net):
        self.net = net
        self.module: nn.Module = net

    def batch(self, batch: Batch) -> Batch:
        """What the net here looks at of what was decoded here."""
        return batch

    def masks(self, seed: int, plan: BatchPlan, device: torch.device) -> tuple[Tensor, ...]:
        """What dropout keeps of it."""
        return masks(self.net, seed, plan.epoch, plan.start, len(plan.records), device)

    def totals(self, sums: Sums) -> Sums:
        """Sums over the global batch."""
        return sums

    def share(self, sums: Sums) -> Sums:
        """What this process goes on with, of sums over the global batch."""
        return sums

    def whole(self, tensors: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        """Parameters, or what belongs to them, of the whole net; every process must ask for them."""
        return tensors

    def part(self, tensors: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        """What is here of the whole net's."""
        return tensors

    def whole_shape(self, name: str, part: Tensor) -> torch.Size:
        """The shape of a parameter of the whole net."""
        return part.shape

    def whole_net(self) -> Net:
        """A net that looks at pictures without the others; every process must ask for it."""
        return self.net


class DataParallel(SingleProcess):
    """Each process has the whole net, and looks at its share of the batch."""

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
            dist.broadcast(buffer, src=0)  # batch norm's statistics are each process's own
        return self.net

    def share(self, sums: Sums) -> Sums:
        return sums if self._team.first else Sums(0.0, 0.0, sums.images, sums.steps)


class ColumnParallel(SingleProcess):
    """Each of two processes has a column of every layer, and looks at all pictures."""

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
        with torch.device("meta"):  # its own weights are never looked at
            net = AlexNet(classes, column.options)
        net.load_state_dict(self.whole(dict(column.state_dict())), assign=True)
        return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _all_of(self, own: Tensor, most: int) -> list[Tensor]:
        """Each process's share; shares may differ by one, which collectives do not allow."""
        # Only the last can be the short one, so what it has too much lies at the end.
        return gather(torch.cat([own, own[:1]]) if len(own) < most else own)


def share_work(
    config: Config, recipe: Recipe, classes: int, stats: Stats, team: Team, device: torch.device
) -> SingleProcess:
    """Make the net, or this process's part of it, as the configuration says.

    Raises:
        UsageError: it cannot be shared so.
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
    """How so many processes share a net where nobody said: the paper's way where it is possible."""
    if ranks == 1:
        return "alone"
    return "columns" if ranks == COLUMNS and model == ALEXNET and recipe.net.columns == COLUMNS else "data"


def check_parallel(parallel: str, ranks: int, net: str, columns: int) -> None:
    """Check that a net can be shared in a way.

    Args:
        net: its name, as people say it; columns: that it has.
    Raises:
        UsageError: it cannot.
    """
    if parallel not in PARALLEL:
        raise UsageError(f"--parallel {parallel} is not one of {', '.join(PARALLEL)}")
    if parallel == "columns" and columns != COLUMNS:
        raise UsageError(f"--parallel columns: {net} has no two columns", "choose --parallel data")
    if parallel == "columns" and ranks != COLUMNS:
        raise UsageError(
            f"--parallel columns is for 2 processes, not {ranks}", "choose --parallel data, or 2 processes"
        )


def _add_up(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's own hook takes the mean of the gradients; each is a part of the global batch's, so the sum is wanted."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])


# --- from model/training/dropout.py


def masks(net: Net, seed: int, epoch: int, start: int, count: int, device: torch.device) -> tuple[Tensor, ...]:
    """Draw for one step: for `count` places of an epoch, from `start` on.

    A net with a `dropout_shape` takes a mask of it for each place, and the plan draws it: the same on any number of
    processes. Of any other net torch's generators are seeded, on all devices, with the plan's word of the first place:
    the same on every resume, though not on another number of processes or another device.

    Returns:
        (bool (n, *dropout_shape),) on the device, or ().
    """
    if not net.dropout_shape:
        torch.manual_seed(int(philox_words(seed, epoch, DROPOUT, start, 1)[0]))
        return ()
    units = math.prod(net.dropout_shape)
    keep = torch.from_numpy(dropout_keeps(seed, epoch, start, count, units))
    if device.type == "cuda":
        keep = keep.pin_memory()  # from pageable memory the copy would wait for the device
    return (keep.view(-1, *net.dropout_shape).to(device, non_blocking=True),)
