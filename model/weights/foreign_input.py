"""What the nets of other programs subtract from a picture and divide it by, as statistics of a checkpoint.

In:  a layout and a net.  Out: mean and deviations of R, G and B, 0..255; a `Stats` of them.
"""

import numpy as np

from ...pipeline.shards.stats import Stats
from ..nets.factory import AUXILIARY

# Mean and deviation of torchvision's and timm's transforms for ImageNet, 0..1, RGB.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
CAFFE_MEAN = (122.67891434, 116.66876762, 104.00698793)  # of ilsvrc_2012_mean.npy, here as RGB, 0..255

Three = tuple[float, ...]


def input_of(layout: str, model: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the mean and the deviations that a net's published weights expect.

    Args:
        layout: `torchvision`, `timm` or `caffe`.
        model: full name of the net, see `resolve`.
    Returns:
        mean and deviations, float64 (3,), R, G, B, in pixel values of 0..255; and a sentence for the user.
    """
    if layout == "caffe":
        return np.array(CAFFE_MEAN), np.ones(3), "input: Caffe's mean colour is subtracted"
    mean, std, whose = _timm(model) if layout == "timm" else _torchvision(model)
    note = f"input: minus {mean}, divided by {std}, of 0..1, as {whose}"
    return 255 * np.array(mean), 255 * np.array(std), note


def _torchvision(model: str) -> tuple[Three, Three, str]:
    from torchvision import models

    name = model.rpartition(":")[2]
    if name in AUXILIARY:  # their published weights come with `transform_input`, which makes ImageNet's input this one
        return HALF, HALF, f"torchvision's weights of {name}"
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    return tuple(transforms.mean), tuple(transforms.std), f"torchvision's weights of {name}"


def _timm(model: str) -> tuple[Three, Three, str]:
    import timm

    name = model.rpartition(":")[2]
    default = timm.get_pretrained_cfg(name)
    if default is None:
        return IMAGENET_MEAN, IMAGENET_STD, "ImageNet's: timm has no weights of this net"
    tags = (timm.get_pretrained_cfg(each) for each in timm.list_models(f"{name}.*", pretrained=True))
    several = len({(tuple(tag.mean), tuple(tag.std)) for tag in tags if tag is not None}) > 1
    whose = f"timm's {name}.{default.tag}" if default.tag else f"timm's {name}"
    warning = "; other weights of this net have other values, and would be evaluated wrongly" if several else ""
    return tuple(default.mean), tuple(default.std), whose + warning


def stats_of(layout: str, mean: np.ndarray, deviations: np.ndarray, size: int) -> Stats:
    """Return statistics for another program's normalisation: a mean image of one colour, and its deviations.

    Args:
        layout: for the fingerprint.
        mean, deviations: float64 (3,), R, G, B, in pixel values of 0..255.
        size: side of the set's pictures, pixels.
    """
    order = np.argsort(-deviations, kind="stable")
    return Stats(
        images=0,
        fingerprint=layout,
        mean_image=np.broadcast_to(mean, (size, size, 3)).copy(),
        mean_rgb=mean,
        covariance=np.diag(deviations**2),
        eigenvalues=deviations[order] ** 2,
        eigenvectors=np.eye(3)[order],
    )
