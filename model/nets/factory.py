"""Nets by name: AlexNet, or a classifier of torchvision or timm with the same inputs and outputs.

In:  a name as users write it.  Out: its full name; a net: float (n, 3, crop, crop), RGB pixels of 0..255 minus the
mean, to logits (n, classes). Parameters and buffers keep the names that the library gives them, so that it can load a
checkpoint's `model`.
"""

import difflib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...pipeline.errors import UsageError
from ...pipeline.shards.stats import Stats
from .alexnet import AlexNet
from .columns import WholeNet
from .options import ALEXNET, NetOptions

# Without auxiliary classifiers; torchvision warns unless `init_weights` is given.
AUXILIARY = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def resolve(name: str) -> str:
    """Return a net's full name, as configurations store it: `alexnet`, `resnet18`, `torchvision:alexnet`, `timm:NAME`.

    Args:
        name: of the net, with or without its library; a net of both libraries is torchvision's.
    Raises:
        UsageError: the net does not exist, or timm is not installed; the hint has the nearest names.
    """
    library, _, bare = name.rpartition(":")
    if name == ALEXNET:
        return name
    torchvisions = _torchvision_names() if library in ("", "torchvision") else []
    if bare in torchvisions:
        return f"torchvision:{bare}" if bare == ALEXNET else bare
    timms = _timm_names() if library in ("", "timm") else []
    if bare in timms:
        return f"timm:{bare}"
    raise UsageError(f"--model {name}: no such net", _hint(library, bare, torchvisions, timms))


def _hint(library: str, name: str, torchvisions: list[str], timms: list[str]) -> str:
    """What to write in place of an unknown name."""
    net, _, weights = name.rpartition("/")[2].partition(".")
    if "/" in name:  # hf_hub:timm/resnet18
        other = f"use timm:{net}" if net in _timm_names() else "choose a net of torchvision or timm"
        return f"nets are not loaded from a hub: {other}"
    if weights and net in (*torchvisions, *timms):
        return f"omit .{weights}: pretrained weights are not loaded"
    if library not in ("", "torchvision", "timm"):
        return f"use torchvision:{name} or timm:{name}"
    near = difflib.get_close_matches(name.lower(), sorted({ALEXNET, *torchvisions, *timms}), 3, 0.5)
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    if library != "torchvision" and not timms:
        hints.append("timm's nets need: pip install timm")
    return " ".join(hints) or "see torchvision.models.list_models()"


def create_net(
    model: str,
    classes: int,
    options: NetOptions,
    crop: int,
    stats: Stats,
    seed: int = 0,
    place: WholeNet = WholeNet(),
) -> "Net":
    """Create a net with initial weights drawn from a seed, the same on every device.

    Args:
        model: full name, see `resolve`.
        classes: number of classes.
        options: of AlexNet; other nets ignore them.
        crop: side of the input window, pixels; AlexNet's is always 224.
        stats: of the training photos; other nets than AlexNet divide by their standard deviations.
        seed: of the weights.
        place: the part of AlexNet in this process: all of it, or one column.
    Returns:
        A module from float (n, 3, crop, crop), RGB pixels of 0..255 minus the mean, to logits (n, classes).
    Raises:
        UsageError: the library cannot create the net, or the net does not accept this crop.
    """
    if model == ALEXNET:
        return AlexNet(classes, options, seed, place)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = NormalizedNet(_create(model, classes), torch.from_numpy(np.sqrt(np.diag(stats.covariance))))
    _check(model, net, classes, crop)
    return net


class NormalizedNet(nn.Module):
    """A net of another library that takes pixels minus the mean: divides each channel by its standard deviation first.

    Args:
        net: gives logits.
        deviations: float (3,), standard deviations of R, G and B, in pixel values of 0..255.
    """

    scale: Tensor
    dropout_shape: tuple[int, ...] = ()  # it takes no masks: torch draws its dropout

    def __init__(self, net: nn.Module, deviations: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("scale", (1.0 / deviations.clamp_min(1.0)).float().view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (n, classes) of float (n, 3, crop, crop), pixels of 0..255 minus the mean."""
        return self.net(x * self.scale)

    def named_parameters(self, *arguments: Any, **options: Any):
        """Iterate over the parameters by the library's names."""
        return self.net.named_parameters(*arguments, **options)

    def state_dict(self, *arguments: Any, **options: Any):
        """Return weights and buffers by the library's names."""
        return self.net.state_dict(*arguments, **options)

    def load_state_dict(self, *arguments: Any, **options: Any):
        """Load weights and buffers by the library's names."""
        return self.net.load_state_dict(*arguments, **options)


Net = AlexNet | NormalizedNet


def structure(model: str, classes: int) -> nn.Module:
    """Create a net of another library without memory for its weights, if possible: vgg19's take a second and 570 MB.

    Raises:
        UsageError: see `create_net`.
    """
    try:
        with torch.device("meta"):
            return _create(model, classes)
    except UsageError:  # some compute with weights in their constructors
        return _create(model, classes)


def _create(model: str, classes: int) -> nn.Module:
    library, _, name = model.rpartition(":")
    try:
        if library == "timm":
            import timm

            return timm.create_model(name, pretrained=False, num_classes=classes)
        from torchvision import models

        return models.get_model(name, weights=None, num_classes=classes, **AUXILIARY.get(name, {}))
    except ImportError:
        raise UsageError(f"--model {model}: timm is not installed", "pip install timm") from None
    except Exception as error:  # some models of timm require options of their own
        raise UsageError(
            f"--model {model}: cannot be created for {classes} classes: {_line(error)}", "choose another --model"
        ) from None


@torch.no_grad()
def _check(model: str, net: NormalizedNet, classes: int, crop: int) -> None:
    """Run a net on one picture of zeros.

    Raises:
        UsageError: the net does not accept it, or does not return logits.
    """
    net.eval()
    try:
        logits = net(torch.zeros(1, 3, crop, crop))
    except Exception as error:  # each model raises its own
        raise UsageError(
            f"--model {model} does not accept {crop}x{crop} input: {_line(error)}", "choose another --crop"
        ) from None
    finally:
        net.train()
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (1, classes):
        raise UsageError(
            f"--model {model} returns {shape}, not one logit for each of {classes} classes", "choose another --model"
        )


def _torchvision_names() -> list[str]:
    from torchvision import models

    return models.list_models(module=models)  # classifiers only: detection and segmentation are in other modules


def _timm_names() -> list[str]:
    try:
        import timm
    except ImportError:
        return []
    return timm.list_models()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
