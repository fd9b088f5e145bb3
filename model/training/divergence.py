"""Detection of AlexNet's known failures: a loss or weight that is not finite, and a loss stuck at ln(classes).

In:  the losses of a run.  Out: an error, or a warning to print once.
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

NEAR = 0.02  # distance from ln(classes) that counts as stuck, in nats
START_AGAIN = "start again with a smaller --rate; the last checkpoint is from before this and is kept"
FIND_STEP = ", and --resume --log-every 1 continues from there and names the step"
NAMED_PHOTOS = 3
PATIENCE = 100  # steps; a net of 1,000 classes may take 2,000 before it begins to learn


class DivergenceMonitor:
    """Checks the mean loss of each window of steps.

    Args:
        classes: number of classes.
    Attributes:
        chance: ln(classes), the loss of a net that gives all classes the same probability, in nats.
        patience: steps after which a loss that stays there is reported.
    """

    def __init__(self, classes: int):
        self.chance = math.log(classes)
        self.patience = max(PATIENCE, 2 * classes)
        self._since: int | None = None
        self._reported = False

    def check(self, loss: float, first: int, last: int, photos: Callable[[], str] = lambda: "") -> None:
        """Check a window's mean loss.

        Args:
            loss: mean over steps `first` to `last`.
            photos: returns text about the pictures of step `last`; called if that step alone can be the cause.
        Raises:
            TrainingError: the loss is not finite.
        """
        if not math.isfinite(loss):
            if first == last:
                raise TrainingError(f"the loss is {loss} at step {last}{photos()}", START_AGAIN)
            raise TrainingError(f"the loss is {loss} between steps {first} and {last}", START_AGAIN + FIND_STEP)

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
            raise TrainingError(f"{broken} is not finite after step {step}", START_AGAIN)

    def stuck(self, loss: float, step: int) -> bool:
        """Return whether the loss has now stayed at ln(classes) for `patience` steps; true once per run."""
        if abs(loss - self.chance) > NEAR:
            self._since = None
            return False
        self._since = step if self._since is None else self._since
        if self._reported or step - self._since < self.patience:
            return False
        self._reported = True
        return True

    def stuck_message(self, net: Net, images: Tensor, rate: float, steps: int) -> str:
        """Return a warning about a stuck loss, with the share of dead units if the net is an AlexNet.

        Args:
            images: of the last step, as the net takes them.
            rate: the run's initial learning rate.
            steps: steps done.
        """
        stuck = (
            f"the loss has stayed at ln(classes) = {self.chance:.3f} for {self.patience} steps, until step {steps}: "
            "every image gets the same prediction. "
        )
        if not isinstance(net, AlexNet):
            return f"{stuck}If this continues, start again with a smaller --rate than {rate:g}."
        dead = dead_share(net, images)
        advice = "It may still start to learn."
        if dead > 0.5:
            advice = (
                f"They do not recover: start again with a smaller --rate than {rate:g} (the rate depends on the number "
                "of classes, see docs/paper.md)."
            )
        return f"{stuck}{dead:.0%} of the last hidden layer's units are dead on this batch (never above zero). {advice}"


def photos_of(batch: Batch, shard_set: ShardSet) -> str:
    """Return text that names the pictures of a step that are not finite, by shard and record, or says that all are."""
    images, plan, count = batch.images, batch.plan, len(batch.records)
    if plan is not None and len(images) != count:  # with columns: all pictures, but this process's records
        images = images[plan.start - plan.step * plan.batch_size :][:count]
    finite = images.isfinite().flatten(start_dim=1).all(dim=1).cpu().numpy()
    reader, some = RecordReader(shard_set, "train"), batch.records[finite if finite.all() else ~finite]
    named = "; ".join(reader.name(record) for record in some[:NAMED_PHOTOS].tolist())
    more = f"; and {len(some) - NAMED_PHOTOS:,} more" if len(some) > NAMED_PHOTOS else ""
    # With several processes each names its own photos only; the cause may be in another's.
    whose = "the photos of this process" if plan is not None and count < plan.batch_size else "its photos"
    return f"; {whose} are {'all' if finite.all() else 'not'} finite numbers: {named}{more}"


@torch.no_grad()
def dead_share(net: AlexNet, images: Tensor) -> float:
    """Return the fraction of the last hidden layer's units that are zero for every picture of a batch, 0..1."""
    training = net.training
    net.eval()
    try:
        activations = net.place.meet(net.hidden(images))  # of both columns
        return float((activations <= 0).all(dim=0).float().mean())
    finally:
        net.train(training)
