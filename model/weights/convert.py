"""Import of other programs' weights, renamed, converted and checked: torchvision's and timm's nets, Caffe's AlexNet.

In:  arrays by name, from .safetensors or .npz, and the shard set that they are for.  Out: a checkpoint.
Nothing is unpickled. An unexpected shape is an error and is not reshaped.

    torchvision  any of its classifiers. Its alexnet is not the net of 2012: 64, 192, 384, 256, 256 kernels, no groups,
                 conv1 padded by 2, no normalisation. Its weights fit only torchvision:alexnet.
    timm         any of its nets.
    caffe        bvlc_alexnet: 96 kernels, groups of 2, the geometry of our `alexnet` in the order of the text. Three
                 differences: its colours are BGR (conv1 is reversed); its normalisation has k = 1, ours 2 (see
                 `_with_our_constant`) and runs across all maps, ours within a column, so that of 96 and of 256 maps
                 the 4 in the middle have other neighbours.

All subtract their own mean, which the checkpoint contains in place of a shard set's (foreign_input.py). The last layer
is kept only where its classes are the shard set's (imported_head.py).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import TrainingError, UsageError
from ...pipeline.shards.manifest import ShardSet
from ..nets.factory import resolve
from ..nets.heads import arrays_of, auxiliary_of, head_of, layers_of
from ..nets.lrn import BETA
from ..nets.options import ALEXNET, NetOptions
from ..recipes.recipe import paper
from ..recipes.setup import own_crop
from ..training.checkpoint import stats_to_save
from ..training.run_files import check_regular
from .array_names import plain_names
from .foreign_input import input_of, stats_of
from .imported_head import Fitted, fit_head
from .safetensors_io import read_safetensors

LAYOUTS = ("torchvision", "timm", "caffe")
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
SPELLINGS = {  # of a layer's weight and bias, by programs that convert Caffe's files
    "weight": (".weight", "_weight", "_w", ".w", ".0", "/weight", "_0"),
    "bias": (".bias", "_bias", "_b", ".b", ".1", "/bias", "_1"),
}
# alpha / n of Caffe, times k, so that k of ours can be 2: see `_with_our_constant`.
CAFFE_NET = NetOptions(pool_before_relu=False, lrn_scale=2 * 1e-4 / 5, within_map=False, deep_std=0.01)
# `norm.1` in the files that torchvision offers of densenets, `norm1` in the nets.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
COUNTER = "num_batches_tracked"  # of batch norm; older files lack it, and only an average without momentum needs it


def convert(
    file: Path, layout: str, shard_set: ShardSet, model: str = "", names: Sequence[str] | None = None
) -> tuple[dict, list[str]]:
    """Read another program's weights as a checkpoint, to start a run with, or to evaluate or export.

    Args:
        file: .safetensors or .npz.
        layout: one of `LAYOUTS`.
        shard_set: that the weights are for; the last layer is kept only if its classes are those of the set.
        model: the net, with or without its library; "": alexnet.
        names: of the file's classes, in the order of the last layer's rows; None: the file does not say.
    Returns:
        The checkpoint, and notes for the user: which prefix was removed, what was left out, which mean is subtracted.
        Without the last layer its `classes` are empty, and `left_out` has the names of the missing arrays.
    Raises:
        UsageError: the file does not exist or would have to be unpickled; an unknown net; not a name for each class.
        TrainingError: the file is damaged; or an array is missing, unknown, of another shape, or not finite.
    """
    arrays, model = read_arrays(file), _full_name(layout, model)
    if layout == "caffe":
        recipe = replace(paper(), net=CAFFE_NET)
        state, notes = from_caffe(arrays, file)
    else:
        recipe = paper()
        state, notes = from_library(arrays, layout, model, file)
    fitted = fit_head(state, head_of(model, recipe.net), names, shard_set, file)
    mean, deviations, note = input_of(layout, model)
    crop = recipe.crop if model == ALEXNET else min(own_crop(model), shard_set.size)
    saved = {
        "config": {"shards": str(shard_set.root), "recipe": recipe.name, "model": model, "crop": crop},
        "recipe": recipe.described(),
        "stats": stats_to_save(stats_of(layout, mean, deviations, shard_set.size)),
        "imported": f"Not trained here: imported from {file.name}, layout {layout}",
    }
    return saved | _parts(fitted), [*notes, fitted.note, *([note] if fitted.classes else [])]


def for_set(saved: dict, shard_set: ShardSet, file: Path) -> tuple[dict, list[str]]:
    """Return an exported checkpoint for a shard set: without its last layer if that is for other classes.

    Args:
        saved: the checkpoint, as `safetensors_io.read` returns it.
        file: that it was read from.
    Returns:
        As `convert`.
    """
    head = head_of(saved["config"].get("model", ALEXNET), NetOptions(**saved["recipe"]["net"]))
    fitted = fit_head(saved["model"], head, saved["classes"], shard_set, file)
    return saved | _parts(fitted), [fitted.note]


def _parts(fitted: Fitted) -> dict:
    left = {"left_out": list(fitted.left)} if fitted.left else {}
    return {"model": fitted.arrays, "classes": fitted.classes, **left}


def _full_name(layout: str, model: str) -> str:
    if layout == "caffe" and model not in ("", ALEXNET):
        raise UsageError(f"--model {model}: of Caffe's nets only bvlc_alexnet can be imported", "omit --model")
    if layout == "caffe":
        return ALEXNET
    if layout == "timm" and not model:
        raise UsageError("--layout timm: which net?", "name it: --model resnet18")
    full = resolve(model if ":" in model else f"{layout}:{model or 'alexnet'}")
    if full.startswith("timm:") != (layout == "timm"):
        raise UsageError(f"--model {model}: not a net of {layout}", "choose the --layout of its library")
    return full


def from_library(
    arrays: Mapping[str, Tensor], layout: str, model: str, file: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """Check a state dict of torchvision or timm, and return it by the net's own names, and notes for the user.

    Args:
        model: full name, see `resolve`.
    Raises:
        TrainingError: it is not that net's.
    """
    wanted, auxiliary = arrays_of(model), auxiliary_of(model)
    if model == "torchvision:alexnet" and any((_caffe_name(name) or "").startswith("fc") for name in arrays):
        raise TrainingError(f"{file}: has Caffe's names, not torchvision's", "use --layout caffe")
    if model.rpartition(":")[2].startswith("densenet"):
        arrays = {OLD_DENSENET.sub(r"\1\2", name): array for name, array in arrays.items()}
    known = {*wanted, *auxiliary}
    named, notes = plain_names(arrays, known.__contains__, file)
    left = tuple(name for name in auxiliary if named.pop(name, None) is not None)
    if left:
        notes.append(f"auxiliary classifiers are left out: {layers_of(left)}")
    counters = [name for name in wanted if name.endswith(COUNTER)]
    named = {name: torch.zeros((), dtype=torch.int64) for name in counters} | named
    net = f"{layout}'s {model.rpartition(':')[2]}"
    return _checked(named, wanted, head_of(model), file, net), notes


def from_caffe(arrays: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Convert the weights of Caffe's bvlc_alexnet to those of our `alexnet`, float32; and notes for the user.

    Raises:
        TrainingError: names or shapes are not those of that net.
    """
    arrays, notes = plain_names(arrays, lambda name: _caffe_name(name) is not None, file)
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
    wanted = arrays_of(ALEXNET, options=CAFFE_NET)
    for name, array in named.items():  # the oldest files have four axes throughout: (1, 1, 4096, 9216)
        axes = wanted[name].dim() if name in wanted else array.dim()
        surplus = array.dim() - axes
        if surplus > 0 and set(array.shape[:surplus]) == {1}:
            named[name] = array.reshape(array.shape[surplus:])
    state = _checked(named, wanted, head_of(ALEXNET, CAFFE_NET), file, "Caffe's bvlc_alexnet")
    state["conv1.weight"] = state["conv1.weight"].flip(1).contiguous()  # BGR to RGB
    return _with_our_constant(state), notes


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
    arrays: dict[str, Tensor], wanted: dict[str, Tensor], head: tuple[str, ...], file: Path, net: str
) -> dict[str, Tensor]:
    """Return the arrays in the order and dtypes of the net's; the head may have any number of rows, or be missing.

    Raises:
        TrainingError: they do not fit.
    """
    headless = not any(name in arrays for name in head)
    missing = [name for name in wanted if name not in arrays and not (headless and name in head)]
    surplus = [name for name in arrays if name not in wanted]
    if missing or surplus:
        raise TrainingError(
            f"{file}: not {net}: "
            + "; ".join(
                f"{what} {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
                for what, names in (("lacks", missing), ("also has", surplus))
                if names
            ),
            "provide all of its weights by its names, and nothing else; of another net, name it with --model",
        )
    state = {}
    for name, own in wanted.items():
        if name not in arrays:
            continue
        array, first = arrays[name], int(name in head)  # a head's rows are counted elsewhere
        if array.dim() != own.dim() or array.shape[first:] != own.shape[first:]:
            raise TrainingError(
                f"{file}: {name} has shape {tuple(array.shape)}, but {net} has {tuple(own.shape)}",
                "choose the --layout and the --model of these weights; see docs/weights.md",
            )
        if array.is_floating_point() != own.is_floating_point() or not bool(array.isfinite().all()):
            raise TrainingError(f"{file}: {name} has values that are not finite", "use another file")
        state[name] = array.to(own.dtype).contiguous()
    return state


def _with_our_constant(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights for k = 1 to weights for k = 2.

    (2 + 2 s sum)^-0.75 = 2^-0.75 (1 + s sum)^-0.75: with twice the scale our normalisation gives 2^-0.75 times Caffe's.
    Pooling preserves a factor, so the next layer's weights are multiplied by 2^0.75.
    """
    return {name: each * 2**BETA if name in ("conv2.weight", "conv3.weight") else each for name, each in state.items()}
