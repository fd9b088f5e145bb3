"""Import of other programs' weights, renamed, converted and checked: torchvision's AlexNet and Caffe's.

In:  arrays by name, from .safetensors or .npz, and the shard set whose classes they are for.  Out: a checkpoint.
Nothing is unpickled. An unexpected shape is an error and is not reshaped.

    torchvision  64, 192, 384, 256, 256 kernels, no groups, conv1 padded by 2, no normalisation: not the net of 2012.
                 Its weights fit only torchvision:alexnet.
    caffe        bvlc_alexnet: 96 kernels, groups of 2, the geometry of our `alexnet` in the order of the text. Three
                 differences: its colours are BGR (conv1 is reversed); its normalisation has k = 1, ours 2 (see
                 `_with_our_constant`) and runs across all maps, ours within a column, so that of 96 and of 256 maps
                 the 4 in the middle have other neighbours.

Both subtract their own mean, which the checkpoint contains in place of a shard set's.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import TrainingError, UsageError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ..nets.alexnet import AlexNet
from ..nets.lrn import BETA
from ..nets.options import NetOptions
from ..recipes.recipe import paper
from ..training.checkpoint import stats_to_save
from ..training.run_files import check_regular
from .safetensors_io import read_safetensors

LAYOUTS = ("torchvision", "caffe")
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
SPELLINGS = {  # of a layer's weight and bias, by programs that convert Caffe's files
    "weight": (".weight", "_weight", "_w", ".w", ".0", "/weight", "_0"),
    "bias": (".bias", "_bias", "_b", ".b", ".1", "/bias", "_1"),
}
# Mean and deviation of torchvision's transforms for ImageNet, 0..1, RGB.
TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (122.67891434, 116.66876762, 104.00698793)  # of ilsvrc_2012_mean.npy, here as RGB, 0..255
# alpha / n of Caffe, times k, so that k of ours can be 2: see `_with_our_constant`.
CAFFE_NET = NetOptions(pool_before_relu=False, lrn_scale=2 * 1e-4 / 5, within_map=False, deep_std=0.01)


def convert(file: Path, layout: str, shard_set: ShardSet) -> dict:
    """Read another program's weights as a checkpoint, to evaluate, export or start a run with.

    Args:
        file: .safetensors or .npz.
        layout: one of `LAYOUTS`.
        shard_set: its classes, in their order, are those of the weights.
    Raises:
        UsageError: the file does not exist, or would have to be unpickled.
        TrainingError: the file is damaged; or an array is missing, unknown, of another shape, or not finite.
    """
    arrays = read_arrays(file)
    classes = list(shard_set.classes)
    if layout == "torchvision":
        model, recipe, state = "torchvision:alexnet", paper(), from_torchvision(arrays, file, len(classes))
        mean, deviations = (255 * np.array(x) for x in (TORCHVISION_MEAN, TORCHVISION_STD))
    else:
        model, recipe = "alexnet", replace(paper(), net=CAFFE_NET)
        state = from_caffe(arrays, file, len(classes))
        mean, deviations = np.array(CAFFE_MEAN), np.ones(3)
    return {
        "config": {"shards": str(shard_set.root), "recipe": recipe.name, "model": model, "crop": recipe.crop},
        "recipe": recipe.described(),
        "model": state,
        "classes": classes,
        "stats": stats_to_save(_stats(layout, mean, deviations, shard_set.size)),
        "imported": f"Not trained here: imported from {file.name}, layout {layout}",
    }


def from_torchvision(arrays: Mapping[str, Tensor], file: Path, classes: int) -> dict[str, Tensor]:
    """Check the state dict of torchvision's `alexnet`, and return it as float32 with the same names.

    Raises:
        TrainingError: it is not that net's.
    """
    from torchvision import models

    with torch.device("meta"):
        wanted = {name: tuple(each.shape) for name, each in models.alexnet(num_classes=classes).state_dict().items()}
    if "features.0.weight" not in arrays and any(_caffe_name(name) for name in arrays):
        raise TrainingError(f"{file}: has Caffe's names, not torchvision's", "use --layout caffe")
    return _checked(dict(arrays), wanted, file, "torchvision's alexnet", "classifier.6", classes)


def from_caffe(arrays: Mapping[str, Tensor], file: Path, classes: int) -> dict[str, Tensor]:
    """Convert the weights of Caffe's bvlc_alexnet to those of our `alexnet`, float32.

    Raises:
        TrainingError: names or shapes are not those of that net.
    """
    if "features.0.weight" in arrays:
        raise TrainingError(
            f"{file}: is torchvision's alexnet, which has other kernels, no groups and no normalisation: "
            "it does not fit the net of 2012",
            "use --layout torchvision: it becomes a checkpoint of torchvision:alexnet",
        )
    named: dict[str, Tensor] = {}
    for name, array in arrays.items():
        ours = _caffe_name(name) or name
        if ours in named:
            raise TrainingError(f"{file}: has {ours} twice, the second time as {name}", "remove one of them")
        named[ours] = array
    with torch.device("meta"):
        wanted = {name: tuple(each.shape) for name, each in AlexNet(classes, CAFFE_NET).state_dict().items()}
    for name, array in named.items():  # the oldest files have four axes throughout: (1, 1, 4096, 9216)
        shape = wanted.get(name, ())
        surplus = array.dim() - len(shape)
        if shape and surplus > 0 and set(array.shape[:surplus]) == {1}:
            named[name] = array.reshape(array.shape[surplus:])
    state = _checked(named, wanted, file, "Caffe's bvlc_alexnet", "fc8", classes)
    state["conv1.weight"] = state["conv1.weight"].flip(1).contiguous()  # BGR to RGB
    return _with_our_constant(state)


def read_arrays(file: Path) -> dict[str, Tensor]:
    """Read all arrays of a .npz or .safetensors file.

    Raises:
        UsageError: another kind of file, or it does not exist.
        TrainingError: the file is damaged, or contains Python objects.
    """
    if file.suffix == ".safetensors":
        return read_safetensors(file)[0]
    if file.suffix != ".npz":
        raise UsageError(
            f"{file}: not .safetensors or .npz: other files would have to be unpickled, which could run code",
            "if you trust it, save its state dict with safetensors.torch.save_file(state, 'weights.safetensors')",
        )
    check_regular(file)
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: torch.from_numpy(np.array(archive[name])) for name in archive.files}
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file", "name a .safetensors or .npz file") from None
    except Exception as error:  # zipfile and NumPy raise many kinds for damaged files
        raise TrainingError(
            f"{file}: damaged, or not plain arrays ({' '.join(str(error).split())[:160]})",
            "write it with numpy.savez of float arrays",
        ) from None


def _caffe_name(name: str) -> str | None:
    """Return our name of one of Caffe's weights, such as `conv1.weight`; None if it is not one."""
    for kind, endings in SPELLINGS.items():
        for ending in endings:
            if name.endswith(ending) and name.removesuffix(ending) in LAYERS:
                return f"{name.removesuffix(ending)}.{kind}"
    return None


def _checked(
    arrays: dict[str, Tensor], wanted: dict[str, tuple[int, ...]], file: Path, net: str, head: str, classes: int
) -> dict[str, Tensor]:
    missing, surplus = [name for name in wanted if name not in arrays], [name for name in arrays if name not in wanted]
    if missing or surplus:
        raise TrainingError(
            f"{file}: not {net}: "
            + "; ".join(
                f"{what} {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
                for what, names in (("lacks", missing), ("also has", surplus))
                if names
            ),
            "provide all of its weights by its names, and nothing else",
        )
    for name, shape in wanted.items():
        array = arrays[name]
        if tuple(array.shape) != shape and name.startswith(head) and tuple(array.shape[1:]) == shape[1:]:
            raise TrainingError(
                f"{file}: {name} has {array.shape[0]} classes, the shard set has {classes}",
                "name a shard set with the classes of these weights, in their order",
            )
        if tuple(array.shape) != shape:
            raise TrainingError(
                f"{file}: {name} has shape {tuple(array.shape)}, but {net} has {shape}",
                "choose the --layout of these weights; see docs/weights.md",
            )
        if not array.is_floating_point() or not bool(array.isfinite().all()):
            raise TrainingError(f"{file}: {name} has values that are not finite", "use another file")
    return {name: arrays[name].float().contiguous() for name in wanted}


def _with_our_constant(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights for k = 1 to weights for k = 2.

    (2 + 2 s sum)^-0.75 = 2^-0.75 (1 + s sum)^-0.75: with twice the scale our normalisation gives 2^-0.75 times Caffe's.
    Pooling preserves a factor, so the next layer's weights are multiplied by 2^0.75.
    """
    return {name: each * 2**BETA if name in ("conv2.weight", "conv3.weight") else each for name, each in state.items()}


def _stats(layout: str, mean: np.ndarray, deviations: np.ndarray, size: int) -> Stats:
    """Return statistics for the other program's normalisation: a mean image of one colour, and its deviations."""
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
