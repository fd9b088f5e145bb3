"""Nets by name: ours of 2012, any classifier of torchvision, any model of timm where timm is installed.

    alexnet                         ours, as the recipe has it
    resnet18                        torchvision's; where torchvision has none of that name, timm's
    torchvision:alexnet, timm:NAME  theirs beyond doubt

In:  a name.  Out: a net, and how it is trained. Both libraries are imported only where one of their nets is asked for.
What the trainer asks of a net: logits of `net(images, *masks)`, and `dropout_shape`, of those masks (see dropout.py).

The rule and the diary of 2012 are AlexNet's own. Other nets are moved by plain SGD, momentum 0.9, weight decay 1e-4 but
not of norms and biases; the rate begins at 0.1 with batch norm and 0.01 without, for a batch of 256. Where the recipe
has a diary, it is divided by 10 when the validation error stops improving instead. The recipe still says how pictures
are varied, but for the program's sharing of one crop by 32 pictures.
"""

import difflib
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ...pipeline.errors import UsageError
from ...pipeline.shards.stats import Stats
from ..recipes.optim import Momentum2012, PlainSgd
from ..recipes.rates import Schedule
from ..recipes.recipe import Recipe
from ..recipes.schedules import SCHEDULES
from .alexnet import AlexNet
from .columns import OnePlace
from .factory import Other

Net = AlexNet | Other

ALEXNET = "alexnet"
DECAY = 1e-4
RATE_WITH_BATCH_NORM, RATE, BATCH_OF_RATE = 0.1, 0.01, 256
# Their second and third classifier are left off; torchvision warns unless told how to initialise.
AUXILIARY = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}
CROPS = {"inception_v3": 299}  # torchvision's that are made for other pictures than 224x224


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


def crop_for(model: str, asked: int, size: int, chosen: Recipe) -> int:
    """The side of the window that a net looks at: as asked, else its own.

    Args:
        model: as `resolve` gives it.
        asked: by --crop; 0, nothing.
        size: of the set's pictures.
    Raises:
        UsageError: AlexNet looks at no other; or the set's pictures are smaller.
    """
    own = chosen.crop if model == ALEXNET else _own_crop(model)
    if model == ALEXNET and asked not in (0, own):
        raise UsageError(f"--crop {asked}: alexnet looks at {own}x{own}", "leave --crop out, or choose another --model")
    crop = asked or own
    if crop > size:
        raise UsageError(
            f"--model {model} looks at {crop}x{crop} pictures, the shard set's are {size}x{size}",
            f"build one with --size {crop + 32}, or choose a smaller --crop",
        )
    return crop


def recipe_for(model: str, crop: int, chosen: Recipe, schedule: str = "") -> Recipe:
    """What a recipe means for a net: pictures as it says; for other nets than AlexNet the rest as in the module.

    Args:
        schedule: in place of the recipe's; "", its own.
    Raises:
        UsageError: there is no such schedule, or it is not for this net.
    """
    if schedule not in ("", *SCHEDULES):
        raise UsageError(f"--schedule {schedule}: there is none", f"choose one of {', '.join(SCHEDULES)}")
    if model == ALEXNET:
        return replace(chosen, schedule=schedule or chosen.schedule)
    if schedule == "diary":
        raise UsageError(f"--schedule diary: was written by hand for alexnet, not for {model}", "choose another")
    return replace(
        chosen,
        summary=f"{model} by plain SGD, on the pictures of {chosen.name}",
        crop=crop,
        shared=1,
        decay=DECAY,
        decay_biases=False,
        schedule=schedule or ("plateau" if chosen.schedule == "diary" else chosen.schedule),
    )


def make_net(
    model: str, classes: int, chosen: Recipe, stats: Stats, seed: int = 0, place: OnePlace = OnePlace()
) -> Net:
    """Make a net with initial weights from the seed, the same on every device.

    Raises:
        UsageError: it cannot be made, or does not look at pictures of the recipe's crop.
    """
    if model == ALEXNET:
        return AlexNet(classes, chosen.net, seed, place)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = Other(_make(model, classes), torch.from_numpy(np.sqrt(np.diag(stats.covariance))))
    _check(model, net, classes, chosen.crop)
    return net


def first_rate_for(model: str, classes: int, batch_size: int) -> float:
    """The rate that a net other than AlexNet begins with, for a batch."""
    norm = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in _structure(model, classes).modules())
    return (RATE_WITH_BATCH_NORM if norm else RATE) * batch_size / BATCH_OF_RATE


def movement(net: Net, chosen: Recipe, epochs: int) -> tuple[Momentum2012 | PlainSgd, Schedule]:
    """How a net's weights move: the update rule, and the schedule of its rates."""
    if isinstance(net, AlexNet):
        return Momentum2012(net, decay=chosen.decay, decay_biases=chosen.decay_biases), chosen.rates(epochs)
    return PlainSgd(net, decay=chosen.decay), chosen.rates(epochs)


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
def _check(model: str, net: Other, classes: int, crop: int) -> None:
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


def _own_crop(model: str) -> int:
    library, _, name = model.rpartition(":")
    if library == "timm":
        import timm

        made_for = timm.get_pretrained_cfg(name)
        return made_for.input_size[-1] if made_for and made_for.fixed_input_size else 224
    return CROPS.get(name, 224)


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
