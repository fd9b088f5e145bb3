"""Known failures of AlexNet are said, not suffered: a loss that is not finite, a loss stuck at ln(classes).

In:  the losses of a run.  Out: an error, or a sentence to print once.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...pipeline.errors import TrainingError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.stream.record_reader import RecordReader
from ...pipeline.stream.stream import Batch
from ..nets.alexnet import AlexNet
from ..nets.factory import Net
from .distributed import Team

NEAR = 0.02  # of ln(classes), in nats
BEGIN_AGAIN = "begin again with a smaller --rate; the last checkpoint is from before and is kept"
NAMED = ", and --resume --log-every 1 goes on from there and names the step"
NAMED_PHOTOS = 3
PATIENCE = 100  # steps; a net of 1,000 classes may take 2,000 before it begins to learn


class DivergenceMonitor:
    """Looks at the mean loss of each window of steps."""

    def __init__(self, classes: int):
        self.chance = math.log(classes)
        self.patience = max(PATIENCE, 2 * classes)
        self._since: int | None = None
        self._said = False

    def check(self, loss: float, first: int, last: int, photos: Callable[[], str] = lambda: "") -> None:
        """Check a window's mean loss.

        Args:
            photos: what is to be said of the photos of step `last`; asked where it alone can be to blame.
        Raises:
            TrainingError: it is not finite.
        """
        if not math.isfinite(loss):
            if first == last:
                raise TrainingError(f"the loss is {loss} at step {last}{photos()}", BEGIN_AGAIN)
            raise TrainingError(f"the loss is {loss} between steps {first} and {last}", BEGIN_AGAIN + NAMED)

    def check_weights(self, net: nn.Module, step: int, team: Team) -> None:
        """Check that all weights are finite: a step can break them although its loss, computed before, is finite.

        Collective: every process checks its own part of the net, and all of them raise.

        Raises:
            TrainingError: a weight of any process is not finite.
        """
        broken = next((name for name, each in net.named_parameters() if not bool(each.isfinite().all())), None)
        if team.sum([float(broken is not None)])[0]:
            if broken is None:
                raise TrainingError("weights of another rank are not finite", "see the message of that rank")
            raise TrainingError(f"{broken} is not finite after step {step}", BEGIN_AGAIN)

    def stuck(self, loss: float, step: int) -> bool:
        """Whether the loss has now stayed at ln(classes) for `patience` steps; true once."""
        if abs(loss - self.chance) > NEAR:
            self._since = None
            return False
        self._since = step if self._since is None else self._since
        if self._said or step - self._since < self.patience:
            return False
        self._said = True
        return True

    def stuck_message(self, net: Net, images: Tensor, rate: float, steps: int) -> str:
        """Say what a stuck loss means for this net; of others than AlexNet it is not known how they fail."""
        said = (
            f"the loss has stayed at ln(classes) = {self.chance:.3f} for {self.patience} steps, until step {steps}: "
            f"the net says nothing about any photo. "
        )
        if not isinstance(net, AlexNet):
            return said + f"If it does not move soon, begin again with a smaller --rate than {rate:g}."
        dead = dead_share(net, images)
        return (
            f"{said}{100 * dead:.0f}% of the last hidden layer's units are dead on this batch (never above zero). "
            + (
                "They do not come back: begin again with a smaller --rate than "
                f"{rate:g} (the rate belongs to the number of classes, see docs/paper.md)."
                if dead > 0.5
                else "It may still begin to learn."
            )
        )


def photos_of(batch: Batch, shard_set: ShardSet) -> str:
    """Which photos of a step are not finite numbers as the net saw them, or that all are, by shard and record."""
    images, plan, count = batch.images, batch.plan, len(batch.records)
    if plan is not None and len(images) != count:  # of columns each holds the pictures of both, and its own records
        images = images[plan.start - plan.step * plan.batch_size :][:count]
    sound = images.isfinite().flatten(start_dim=1).all(dim=1).cpu().numpy()
    feed, some = RecordReader(shard_set, "train"), batch.records[sound if sound.all() else ~sound]
    named = "; ".join(feed.name(record) for record in some[:NAMED_PHOTOS].tolist())
    more = f"; and {len(some) - NAMED_PHOTOS:,} more" if len(some) > NAMED_PHOTOS else ""
    # Of a step that several processes share each speaks of its own photos: the one to blame may be another's.
    whose = "the photos of this process" if plan is not None and count < plan.batch_size else "its photos"
    return f"; {whose} are {'all' if sound.all() else 'not'} finite numbers: {named}{more}"


@torch.no_grad()
def dead_share(net: AlexNet, images: Tensor) -> float:
    """The share of the last hidden layer's units that are zero for every picture of a batch, 0..1."""
    training = net.training
    net.eval()
    try:
        activities = net.place.meet(net.hidden(images))  # both halves, of columns
        return float((activities <= 0).all(dim=0).float().mean())
    finally:
        net.train(training)
