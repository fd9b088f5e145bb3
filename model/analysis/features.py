"""What a net sees in a photo: the activities of its last hidden layer, by which photos are compared (section 6.1).

In:  a trained net, and a split or a few pictures.  Out: float32 vectors, 4,096 numbers a photo in AlexNet.
The centre view is looked at, as in evaluation, in float32. Of another library's net the vectors are the inputs of its
last linear layer, the one that gives the logits.
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
from ...pipeline.stream.streams import IMAGENET_MEAN, IMAGENET_STD, views_stream
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
    """Look at the photos of a split in the order of its records, batch after batch; no crops are drawn.

    Args:
        device: where the net is.
        first: only so many photos; 0, all of them. The build has put them in a random order.
        decode: see `views_stream`.
    Raises:
        ShardError: no such split, or a record is damaged.
        TrainingError: the net's activities are not numbers.
        UsageError: the net has no linear layer behind a hidden one.
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
    """Look at pictures as the shards store them: uint8 (height, width, 3), the short side the set's size.

    Returns:
        float32 (n, dimensions); those of a set's photo agree with `of_split`'s to rounding.
    Raises:
        TrainingError, UsageError: as `of_split`.
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
    """Yield what computes the last hidden layer's activities, the net in evaluation mode until the end.

    Raises:
        UsageError: when called: the net's logits come from no linear layer.
    """
    training = net.training
    net.eval()
    inputs: list[tuple[nn.Linear, Tensor]] = []
    hooks = []
    if not isinstance(net, AlexNet):
        # The last one that runs, whatever the order in which a library names its layers.
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
                f"{name} has no linear layer that gives its {classes} logits, so no vectors of a last hidden layer",
                "use a run of another net: alexnet, or resnet18 say",
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
    """The centre view, less the mean: float32 (3, crop, crop), as stream/dali_graph.py makes it."""
    stats, recipe = trained.stats, trained.recipe
    size, crop = len(stats.mean_image), recipe.crop
    edge = (size - crop) // 2
    window = (slice(edge, edge + crop), slice(edge, edge + crop))
    mean = {"image": stats.mean_image[window], "rgb": stats.mean_rgb, "imagenet": IMAGENET_MEAN}[recipe.mean]
    pixels = central_square(picture, size)[window] - mean  # float64
    if recipe.mean == "imagenet":
        pixels = pixels / IMAGENET_STD
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)


def _checked(vectors: Tensor, trained: Trained) -> np.ndarray:
    array = vectors.float().cpu().numpy()
    if not np.isfinite(array).all():
        raise TrainingError(f"{trained.file}: the net's activities are not numbers", "use an earlier checkpoint")
    return array
