"""The arrays of a net that depend on the classes: its last layer, found by the net's own shapes, not by names.

In:  a net's name.  Out: its arrays, and the names of those that have a row for each class.
A net is created twice, for 2 and for 3 classes and, where possible, without memory; the arrays whose shapes differ are
the head: `fc` of a resnet, `classifier.6` of a vgg, `heads.head` of a vit, both heads of a distilled net.
"""

from functools import cache

import torch
from torch import Tensor

from .alexnet import AlexNet
from .factory import AUXILIARY, structure
from .options import ALEXNET, NetOptions

FEWEST = 2  # classes


def arrays_of(model: str, classes: int = FEWEST, options: NetOptions = NetOptions()) -> dict[str, Tensor]:
    """Return a net's parameters and buffers by name, for their shapes and dtypes; their values mean nothing.

    Args:
        model: full name, see `resolve`.
        classes: number of classes.
        options: of AlexNet; other nets ignore them.
    Raises:
        UsageError: the library cannot create the net.
    """
    if model != ALEXNET:
        return structure(model, classes).state_dict()
    with torch.device("meta"):
        return AlexNet(classes, options).state_dict()


@cache
def head_of(model: str, options: NetOptions = NetOptions()) -> tuple[str, ...]:
    """Return the names of the arrays that have a row for each class; of AlexNet fc8's weight and bias.

    Args:
        model: full name, see `resolve`.
        options: of AlexNet; other nets ignore them.
    Raises:
        UsageError: the library cannot create the net.
    """
    fewer, more = (  # shapes alone: some nets cannot be created without memory, and two of them need not be there
        {name: array.shape for name, array in arrays_of(model, classes, options).items()}
        for classes in (FEWEST, FEWEST + 1)
    )
    return tuple(name for name, shape in fewer.items() if more[name] != shape)


def auxiliary_of(model: str) -> tuple[str, ...]:
    """Return the names of the arrays of the second classifiers that the library's net has and ours is created without.

    Args:
        model: full name, see `resolve`.
    """
    if model not in AUXILIARY:
        return ()
    from torchvision import models

    with torch.device("meta"):
        whole = models.get_model(model, weights=None, num_classes=FEWEST, aux_logits=True, init_weights=False)
    own = arrays_of(model)
    return tuple(name for name in whole.state_dict() if name not in own)


def layers_of(names: tuple[str, ...]) -> str:
    """Return the layers of arrays, for people: `fc` of `fc.weight` and `fc.bias`; of many, the first five."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    return ", ".join(layers[:5]) + (f", ... ({len(layers)} layers)" if len(layers) > 5 else "")
