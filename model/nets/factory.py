"""A classifier of another library, as the trainer and the evaluation see a net.

In:  float (n, 3, crop, crop), pixels of 0..255 less the mean.  Out: logits (n, classes).
Parameters and buffers keep the names that the library gave them, so that a checkpoint's `model` loads there.
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


class NormalizedNet(nn.Module):
    """Divides each channel by its deviation, as other nets' rates and weights expect, and passes on.

    Args:
        net: gives logits.
        deviations: float (3,), of pixels of 0..255.
    """

    scale: Tensor
    dropout_shape: tuple[int, ...] = ()  # it takes no masks: torch draws what its dropout drops

    def __init__(self, net: nn.Module, deviations: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("scale", (1.0 / deviations.clamp_min(1.0)).float().view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits."""
        return self.net(x * self.scale)

    def named_parameters(self, *arguments: Any, **options: Any):
        """Parameters under the library's names."""
        return self.net.named_parameters(*arguments, **options)

    def state_dict(self, *arguments: Any, **options: Any):
        """Weights and buffers under the library's names."""
        return self.net.state_dict(*arguments, **options)

    def load_state_dict(self, *arguments: Any, **options: Any):
        """Take weights and buffers under the library's names."""
        return self.net.load_state_dict(*arguments, **options)


# --- from model/nets/registry.py

Net = AlexNet | NormalizedNet

# Their second and third classifier are left off; torchvision warns unless told how to initialise.
AUXILIARY = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def resolve(name: str) -> str:
    """A net's name as configurations keep it: `alexnet`, `resnet18`, `torchvision:alexnet`, `timm:NAME`.

    Raises:
        UsageError: nobody has it; the nearest names are told.
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
    near = difflib.get_close_matches(bare.lower(), sorted({ALEXNET, *torchvisions, *timms}), 3, 0.5)
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    net, _, weights = bare.rpartition("/")[2].partition(".")
    if "/" in bare:  # hf_hub:timm/resnet18
        there = f"say timm:{net}" if net in _timm_names() else "choose a net of torchvision or timm"
        hints = [f"nothing is loaded from a hub: {there}"]
    elif weights and net in (*torchvisions, *timms):
        hints = [f"leave out .{weights}: nothing pretrained is loaded here"]
    elif library not in ("", "torchvision", "timm"):
        hints = [f"say torchvision:{bare} or timm:{bare}"]
    elif library != "torchvision" and not timms:
        hints.append("timm's nets need: pip install timm")
    raise UsageError(f"--model {name}: no such net", " ".join(hints) or "see torchvision.models.list_models()")


def create_net(
    model: str,
    classes: int,
    options: NetOptions,
    crop: int,
    stats: Stats,
    seed: int = 0,
    place: WholeNet = WholeNet(),
) -> Net:
    """Make a net with initial weights from the seed, the same on every device.

    Raises:
        UsageError: it cannot be made, or does not look at pictures of the recipe's crop.
    """
    if model == ALEXNET:
        return AlexNet(classes, options, seed, place)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = NormalizedNet(_make(model, classes), torch.from_numpy(np.sqrt(np.diag(stats.covariance))))
    _check(model, net, classes, crop)
    return net


def _make(model: str, classes: int) -> nn.Module:
    library, _, name = model.rpartition(":")
    try:
        if library == "timm":
            import timm

            return timm.create_model(name, pretrained=False, num_classes=classes)
        from torchvision import models

        return models.get_model(name, weights=None, num_classes=classes, **AUXILIARY.get(name, {}))
    except ImportError:
        raise UsageError(f"--model {model}: timm is not installed", "pip install timm") from None
    except Exception as error:  # some models of timm want options of their own
        raise UsageError(
            f"--model {model}: cannot be made for {classes} classes: {_line(error)}", "choose another --model"
        ) from None


def _structure(model: str, classes: int) -> nn.Module:
    """The net without its weights, where it can be made so: those of vgg19 take a second and 570 MB."""
    try:
        with torch.device("meta"):
            return _make(model, classes)
    except UsageError:  # some compute with weights while they are made
        return _make(model, classes)


@torch.no_grad()
def _check(model: str, net: NormalizedNet, classes: int, crop: int) -> None:
    """Look at one grey picture.

    Raises:
        UsageError: the net does not take it, or gives no logits.
    """
    net.eval()
    try:
        logits = net(torch.zeros(1, 3, crop, crop))
    except Exception as error:  # each model has its own words
        raise UsageError(
            f"--model {model} does not look at {crop}x{crop} pictures: {_line(error)}", "choose another --crop"
        ) from None
    finally:
        net.train()
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (1, classes):
        raise UsageError(f"--model {model} gives {shape}, not a logit for each of {classes} classes", "choose another")


def _torchvision_names() -> list[str]:
    from torchvision import models

    return models.list_models(module=models)  # classifiers only: detection and segmentation have modules of their own


def _timm_names() -> list[str]:
    try:
        import timm
    except ImportError:
        return []
    return timm.list_models()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
