"""."""

from dataclasses import replace

from torch import nn

from ...pipeline.errors import UsageError
from ..nets.alexnet import AlexNet
from ..nets.factory import Net, _structure
from ..nets.options import ALEXNET
from .optim import Momentum2012, PlainSgd
from .recipe import Recipe
from .schedules import SCHEDULES, Schedule

DECAY = 1e-4
RATE_WITH_BATCH_NORM, RATE, BATCH_OF_RATE = 0.1, 0.01, 256
CROPS = {"inception_v3": 299}  # torchvision's that are made for other pictures than 224x224


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


def first_rate_for(model: str, classes: int, batch_size: int) -> float:
    """The rate that a net other than AlexNet begins with, for a batch."""
    norm = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in _structure(model, classes).modules())
    return (RATE_WITH_BATCH_NORM if norm else RATE) * batch_size / BATCH_OF_RATE


def make_optimizer(net: Net, chosen: Recipe, epochs: int) -> tuple[Momentum2012 | PlainSgd, Schedule]:
    """How a net's weights move: the update rule, and the schedule of its rates."""
    if isinstance(net, AlexNet):
        return Momentum2012(net, decay=chosen.decay, decay_biases=chosen.decay_biases), chosen.rates(epochs)
    return PlainSgd(net, decay=chosen.decay), chosen.rates(epochs)


def _own_crop(model: str) -> int:
    library, _, name = model.rpartition(":")
    if library == "timm":
        import timm

        made_for = timm.get_pretrained_cfg(name)
        return made_for.input_size[-1] if made_for and made_for.fixed_input_size else 224
    return CROPS.get(name, 224)
