"""Feature vectors: the activations of a net's last hidden layer, by which photos are compared (paper, section 6.1).

In:  a trained net, and a split or a few pictures.  Out: float32 vectors, 4,096 numbers per photo for AlexNet.
They are computed from the centre view, as in evaluation, in float32. For another library's net they are the inputs of
its last linear layer, the one that gives the logits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...pipeline.errors import TrainingError, UsageError
from ...pipeline.shards.datum import central_square
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import normalize
from ...pipeline.stream.streams import views_stream
from ..nets.alexnet import AlexNet
from ..training.evaluate import PICTURES_AT_ONCE
from ..weights.trained import Trained

See = Callable[[Tensor], Tensor]  # pictures (n, 3, crop, crop) to vectors (n, dimensions)


class Vectors(NamedTuple):
    """A batch: records int64 (n,) of the split, labels int64 (n,), -1 for none, vectors float32 (n, dimensions)."""

    records: np.ndarray
    labels: np.ndarray
    vectors: np.ndarray


def of_split(
    trained: Trained,
    shard_set: ShardSet,
    split: str = "train",
    *,
    device: torch.device | str = "cpu",
    first: int = 0,
    decode: str = "auto",
) -> Iterator[Vectors]:
    """Compute the vectors of a split's photos, in batches and in the order of its records.

    Args:
        device: of the net.
        first: number of photos; 0: all. The build has shuffled them, so the first ones are a random sample.
        decode: see `views_stream`.
    Raises:
        ShardError: there is no such split, or a record is damaged.
        TrainingError: an activation is not finite.
        UsageError: the logits do not come from a linear layer.
    """
    recipe, done = trained.recipe, 0
    with (
        last_hidden(trained.net) as look,
        views_stream(
            shard_set,
            trained.stats,
            split,
            crop=recipe.crop,
            mean=recipe.mean,
            device=device,
            decode=decode,
            batch_size=min(PICTURES_AT_ONCE, first or PICTURES_AT_ONCE),
        ) as stream,
    ):
        for batch in stream:
            vectors = _checked(look(batch.images[:, 0]), trained)
            count = min(len(vectors), first - done) if first else len(vectors)
            done += count
            yield Vectors(batch.records[:count], batch.labels[:count].cpu().numpy(), vectors[:count])
            if done == first:
                return


def of_pictures(trained: Trained, pictures: list[np.ndarray], *, device: torch.device | str = "cpu") -> np.ndarray:
    """Compute the vectors of single pictures.

    Args:
        pictures: uint8 (height, width, 3) RGB, as the shards store them: the short side is the set's size.
        device: of the net.
    Returns:
        float32 (n, dimensions); for a set's photo equal to `of_split`'s up to rounding.
    Raises:
        TrainingError, UsageError: see `of_split`.
    """
    ready = [torch.from_numpy(_centre(picture, trained)) for picture in pictures]
    with last_hidden(trained.net) as look:
        parts = [
            _checked(look(torch.stack(ready[k : k + PICTURES_AT_ONCE]).to(device)), trained)
            for k in range(0, len(ready), PICTURES_AT_ONCE)
        ]
    return np.concatenate(parts)


@contextmanager
def last_hidden(net: nn.Module) -> Iterator[See]:
    """Yield a function that computes the last hidden layer's activations; the net is in evaluation mode meanwhile.

    Raises:
        UsageError: from that function: the logits do not come from a linear layer.
    """
    training = net.training
    net.eval()
    inputs: list[tuple[nn.Linear, Tensor]] = []
    hooks = []
    if not isinstance(net, AlexNet):
        # Record all inputs, since the order of a library's modules is not that of their execution.
        hooks = [
            layer.register_forward_pre_hook(lambda layer, given: inputs.append((layer, given[0])))
            for layer in net.modules()
            if isinstance(layer, nn.Linear)
        ]

    @torch.no_grad()
    def look(pictures: Tensor) -> Tensor:
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        if isinstance(net, AlexNet):
            return net.hidden(pictures)
        inputs.clear()
        classes = net(pictures).shape[-1]
        if not inputs or inputs[-1][0].out_features != classes or inputs[-1][1].dim() != 2:
            name = type(getattr(net, "net", net)).__name__
            raise UsageError(
                f"{name} has no linear layer that gives its {classes} logits, so it has no last hidden layer",
                "use a run of another net, such as alexnet or resnet18",
            )
        return inputs[-1][1]

    try:
        yield look
    finally:
        for hook in hooks:
            hook.remove()
        inputs.clear()
        net.train(training)


def _centre(picture: np.ndarray, trained: Trained) -> np.ndarray:
    """Return the centre view minus the mean: float32 (3, crop, crop), as stream/dali_graph.py makes it."""
    stats, recipe = trained.stats, trained.recipe
    window = central_square(central_square(picture, len(stats.mean_image)), recipe.crop)
    return np.ascontiguousarray(normalize(window, stats, recipe.mean).transpose(2, 0, 1))


def _checked(vectors: Tensor, trained: Trained) -> np.ndarray:
    array = vectors.float().cpu().numpy()
    if not np.isfinite(array).all():
        raise TrainingError(f"{trained.file}: the net's activations are not finite", "use an earlier checkpoint")
    return array
