"""What a recipe means for a net: its crop, the recipe as it applies, the first learning rate, optimizer and schedule.

In:  a net's name and a Recipe.  Out: numbers, a Recipe, an optimizer.  No data stream, no files.
A recipe applies to AlexNet as it stands. For another net it says which pictures to use; the rest is what such nets
usually have: plain SGD with momentum 0.9, weight decay 1e-4 without norms and biases, and a learning rate of 0.1 per
256 pictures of a batch if the net has batch normalisation, 0.01 otherwise. The diaries of 2012 are AlexNet's only.
"""

from dataclasses import replace

from torch import nn

from ...pipeline.errors import UsageError
from ..nets.alexnet import AlexNet
from ..nets.factory import Net, structure
from ..nets.options import ALEXNET
from .optim import Momentum2012, PlainSgd
from .recipe import Recipe
from .schedules import SCHEDULES, Schedule

DECAY = 1e-4
RATE_WITH_BATCH_NORM, RATE, BATCH_OF_RATE = 0.1, 0.01, 256
CROPS = {"inception_v3": 299}  # torchvision's nets for other pictures than 224x224


def crop_for(model: str, requested: int, size: int, chosen: Recipe) -> int:
    """Return the side of a net's input window, pixels: the requested one, or the net's own.

    Args:
        model: full name, see `resolve`.
        requested: --crop; 0 if not given.
        size: side of the shard set's pictures, pixels.
        chosen: the recipe.
    Raises:
        UsageError: AlexNet has another crop, or the shard set's pictures are smaller.
    """
    own = chosen.crop if model == ALEXNET else own_crop(model)
    if model == ALEXNET and requested not in (0, own):
        raise UsageError(
            f"--crop {requested}: alexnet requires {own}x{own} input", "omit --crop, or choose another --model"
        )
    crop = requested or own
    if crop > size:
        raise UsageError(
            f"--model {model} requires {crop}x{crop} input, but the shard set's pictures are {size}x{size}",
            f"build a set with --size {crop + 32}, or choose a smaller --crop",
        )
    return crop


def recipe_for(model: str, crop: int, chosen: Recipe, schedule: str = "") -> Recipe:
    """Return a recipe as it applies to a net.

    Args:
        model: full name, see `resolve`.
        crop: side of the net's input window, pixels; AlexNet's is the recipe's.
        chosen: the recipe.
        schedule: replaces the recipe's; "": the recipe's own.
    Raises:
        UsageError: unknown schedule, or a diary for another net than AlexNet.
    """
    if schedule not in ("", *SCHEDULES):
        raise UsageError(f"--schedule {schedule}: unknown schedule", f"choose one of {', '.join(SCHEDULES)}")
    if model == ALEXNET:
        return replace(chosen, schedule=schedule or chosen.schedule)
    if schedule == "diary":
        raise UsageError(
            f"--schedule diary: the diaries are for alexnet, not for {model}",
            f"choose one of {', '.join(name for name in SCHEDULES if name != 'diary')}",
        )
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
    """Return the initial learning rate of a net other than AlexNet, for a global batch of this size."""
    norm = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in structure(model, classes).modules())
    return (RATE_WITH_BATCH_NORM if norm else RATE) * batch_size / BATCH_OF_RATE


def make_optimizer(net: Net, chosen: Recipe, epochs: int) -> tuple[Momentum2012 | PlainSgd, Schedule]:
    """Return the optimizer of a net, and the schedule of its learning rates in a run of so many epochs."""
    if isinstance(net, AlexNet):
        return Momentum2012(net, decay=chosen.decay, decay_biases=chosen.decay_biases), chosen.rates(epochs)
    return PlainSgd(net, decay=chosen.decay), chosen.rates(epochs)


def own_crop(model: str) -> int:
    """Return the side of the pictures that a net of another library is made for, pixels."""
    library, _, name = model.rpartition(":")
    if library == "timm":
        import timm

        pretrained = timm.get_pretrained_cfg(name)
        return pretrained.input_size[-1] if pretrained and pretrained.fixed_input_size else 224
    return CROPS.get(name, 224)
