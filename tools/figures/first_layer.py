"""The kernels of a net's first layer, from a checkpoint or from the epochs that a run has kept.

In:  a run's folder, a checkpoint, or the files of model/training/kernel_snapshots.py.
Out: kernels and their titles. No shard set is opened.

With a large initialisation, such as Kaiming's, a short training changes the weights by a tenth and the kernels look
like noise. `learned` gives the change: the weights minus the initial ones, which the run's seed determines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ...model.nets.factory import ALEXNET, create_net
from ...model.training import checkpoint, kernel_snapshots
from ...model.weights.trained import load, load_trained
from ...pipeline.errors import UsageError

KEPT = kernel_snapshots.FOLDER  # inside a run's folder


@dataclass(frozen=True)
class Kernels:
    """The kernels of a first layer.

    Attributes:
        weights: float32 (n, 3, k, k), RGB.
        columns: of the net, 1 or 2; the first half of the kernels belongs to column 1.
        title: the run and its number of epochs.
    """

    weights: np.ndarray
    columns: int = 1
    title: str = ""


def of_checkpoint(run: Path) -> Kernels:
    """Return the first layer of a run's best checkpoint, or of a .pt file.

    Raises:
        UsageError: the checkpoint does not exist, or the first layer is not a convolution over RGB.
        TrainingError: the checkpoint is damaged.
    """
    file = checkpoint.run_checkpoint(run)
    saved = load(file)
    with checkpoint.fits_this_version(file):
        model = saved["config"].get("model", ALEXNET)
        columns = saved["recipe"]["net"]["columns"] if model == ALEXNET else 1
        weights = _first(saved["model"])
    if weights is None:
        raise UsageError(f"{file}: the first layer of {model} is not a convolution over RGB", "name another run")
    return Kernels(weights, columns, _after(saved.get("epoch")) or file.stem)


def learned(run: Path, layers: Sequence[Kernels]) -> list[Kernels]:
    """Return the change of a run's kernels since their initialisation.

    Raises:
        UsageError: the run was initialised from another run's weights.
    """
    file = checkpoint.run_checkpoint(run)
    saved, trained = load(file), load_trained(file)
    config = saved["config"]
    if config.get("init_from"):
        raise UsageError(f"{file}: was initialised from {config['init_from']}", "leave out --learned")
    chosen = replace(trained.recipe, net=getattr(trained.net, "options", trained.recipe.net))
    net = create_net(
        config.get("model", ALEXNET), len(trained.classes), chosen.net, chosen.crop, trained.stats, config["seed"]
    )
    start = _first(net.state_dict())
    assert start is not None, "the trained net has kernels"
    return [replace(one, weights=one.weights - start) for one in layers]


def smoothness(weights: np.ndarray) -> float:
    """Return the correlation of neighbouring weights: about 0 for noise, 0.5 or more for edges.

    Args:
        weights: float (n, 3, k, k).
    """
    pairs = [(weights[..., 1:], weights[..., :-1]), (weights[..., 1:, :], weights[..., :-1, :])]
    alike = sum(float((one * other).mean()) for one, other in pairs) / 2
    return alike / max(float((weights**2).mean()), 1e-30)


def of_epochs(run: Path, epochs: Sequence[int] = (), count: int = 5) -> list[Kernels]:
    """Return the first layers that a run has kept.

    Args:
        epochs: which ones; empty, `count` of them from first to last, at equal ratios, since early epochs change most.
    Raises:
        UsageError: the run has kept none, or not these epochs.
        TrainingError: its checkpoint is damaged.
    """
    kept = kernel_snapshots.read(run)
    if not kept:
        raise UsageError(
            f"{run}: no kernels of its epochs found ({KEPT}/*.npy)",
            "name several checkpoints instead: alexnet-figures kernels A/best.pt B/best.pt",
        )
    missing = [str(epoch) for epoch in epochs if epoch not in kept]
    if missing:
        raise UsageError(
            f"{run}: no kernels of epoch {', '.join(missing)}",
            f"choose from epochs {min(kept)} to {max(kept)}, of which {len(kept)} are kept",
        )
    columns = of_checkpoint(run).columns
    return [Kernels(kept[epoch], columns, _after(epoch)) for epoch in epochs or _spread(sorted(kept), count)]


def _first(parameters: Mapping[str, Tensor]) -> np.ndarray | None:
    weights = next(iter(kernel_snapshots.first_kernels(parameters).values()), None)
    return None if weights is None else weights.float().numpy()


def _spread(epochs: list[int], count: int) -> list[int]:
    if len(epochs) <= count:
        return epochs
    indices = np.rint(np.geomspace(1, len(epochs), count)).astype(int) - 1
    return [epochs[index] for index in dict.fromkeys(indices.tolist())]


def _after(epochs: int | None) -> str:
    return "" if epochs is None else f"after {epochs} epoch{'s' * (epochs != 1)}"
