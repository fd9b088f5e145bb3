"""The cases of `alexnet-bench train`: a net, a precision and a way of running it; the case's name contains all three.

In:  a case, one batch or a stream of batches.  Out: a function that trains some steps and returns the number of images.
The steps are the trainer's: masks, forward, loss, backward, the net's own update rule.

    paper-bf16            our net, on one batch that stays in memory
    paper-data-bf16       the same from a shard set, with new masks for each step
    paper-torch-lrn-bf16  torch.nn.LocalResponseNorm, one per column, instead of ours
    paper-bf16-compile, paper-bf16-graph
                          the same with torch.compile, and with one CUDA graph per step
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model.nets.alexnet import AlexNet
from ...model.nets.factory import ALEXNET, Net, create_net
from ...model.recipes.recipe import recipe
from ...model.recipes.schedules import Rates
from ...model.recipes.setup import make_optimizer, recipe_for
from ...model.training.parallel import masks
from ...model.training.precision import autocast, set_precision
from ...pipeline.shards.stats import Stats
from ...pipeline.stream.stream import Batch

TORCHVISION = "torchvision"
NETS = ("source2012", "paper", "no-lrn", "paper-no-lrn", "paper-torch-lrn", TORCHVISION)
WITH_DATA = "paper-data"
RATE = 1e-5  # so small that hundreds of steps on one batch stay finite
WARM = 3  # steps before a CUDA graph is captured


class TorchNorm(nn.Module):
    """torch's response normalisation, one per column, with the sum, constant and power of ours.

    torch divides alpha by the size: its 5e-4 is the paper's 1e-4.
    """

    def __init__(self, scale: float, size: int, constant: float, columns: int):
        super().__init__()
        self.columns = columns
        self.norm = nn.LocalResponseNorm(size, alpha=scale * size, beta=0.75, k=constant)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, channels, height, width)."""
        return torch.cat([self.norm(column) for column in x.chunk(self.columns, dim=1)], dim=1)


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        net: of NETS, or WITH_DATA.
        precision: fp32, tf32 or bf16.
        way: `eager`, `compile` or `graph`.
    """

    net: str
    precision: str
    way: str = "eager"

    @property
    def name(self) -> str:
        """The case's name; scripts rely on it."""
        return f"{self.net}-{self.precision}" + ("" if self.way == "eager" else f"-{self.way}")

    @property
    def has_data(self) -> bool:
        """Whether batches come from the shard set."""
        return self.net == WITH_DATA


def make(name: str, classes: int, stats: Stats, device: torch.device) -> tuple[Net, torch.optim.Optimizer]:
    """Make a net of NETS, channels last, with the update rule of its recipe."""
    model = "torchvision:alexnet" if name == TORCHVISION else ALEXNET
    own = name if name in ("source2012", "no-lrn") else "paper"
    chosen = recipe_for(model, 224, recipe(own))
    if name == "paper-no-lrn":
        chosen = replace(chosen, net=replace(chosen.net, norm="none"))
    net = create_net(model, classes, chosen.net, chosen.crop, stats)
    if name == "paper-torch-lrn":
        assert isinstance(net, AlexNet)
        ours = net.norm
        net.norm = TorchNorm(ours.scale, ours.size, ours.constant, ours.columns)  # type: ignore[arg-type]
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.train()
    optimizer, _ = make_optimizer(net, chosen, chosen.epochs)
    optimizer.set_rates(Rates(RATE))
    return net, optimizer


class Steps:
    """A case as a function that trains some steps.

    Args:
        batches: endless; the resident batch repeated, or a stream.
        steps: per call.
    """

    def __init__(
        self,
        case: Case,
        net: Net,
        optimizer: torch.optim.Optimizer,
        batches: Iterator[Batch],
        steps: int,
        device: torch.device,
    ):
        self.case, self.net, self.optimizer, self.batches, self.steps = case, net, optimizer, batches, steps
        self.device = device
        self.module: Callable[..., Tensor] = torch.compile(net) if case.way == "compile" else net
        self.kept: tuple[Tensor, ...] | None = None  # the masks of the resident batch
        self.replay: Callable[[], None] | None = None
        self.loss = torch.zeros(())

    def __call__(self) -> int:
        """Train `steps` steps and return the number of images."""
        set_precision(self.case.precision, self.device)
        images = 0
        for _ in range(self.steps):
            batch = next(self.batches)
            images += len(batch.labels)
            if self.case.way == "graph":
                self.replay = self.replay or self._graph(batch)
                self.replay()
            else:
                self._step(batch, self._masks(batch))
        self.optimizer.zero_grad()  # frees the gradients' memory for the next case
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return images

    def _masks(self, batch: Batch) -> tuple[Tensor, ...]:
        plan = batch.plan
        assert plan is not None, "a training batch has a plan"
        if self.kept is not None:
            return self.kept
        drawn = masks(self.net, 0, plan.epoch, plan.start, len(batch.labels), self.device)
        if not self.case.has_data:
            self.kept = drawn
        return drawn

    def _step(self, batch: Batch, kept: tuple[Tensor, ...]) -> None:
        with autocast(self.device, self.case.precision):
            logits = self.module(batch.images, *kept)
        loss = F.cross_entropy(logits.float(), batch.labels, reduction="sum") / len(batch.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.loss = loss.detach()

    def _graph(self, batch: Batch) -> Callable[[], None]:
        """Capture a whole step as one CUDA graph, without Python between its kernels."""
        kept = self._masks(batch)
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM):
                self._step(batch, kept)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # DALI's threads free memory meanwhile, which the default mode forbids to every thread.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._step(batch, kept)
        return graph.replay
