"""The kernels of a net's first layer, of a checkpoint or of each epoch that a run has kept.

In:  a run's folder, a checkpoint, or what model/training/kernel_snapshots.py has kept.
Out: kernels and what they are of. No shard set is opened.

Where a net begins with large weights, as Kaiming's are, a short training changes them by a tenth, and the eye sees
noise. `learned` is what training has added: the weights less those that the run's seed draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ...model.nets.factory import ALEXNET, create_net
from ...model.training import checkpoint as checkpoints
from ...model.training import kernel_snapshots
from ...model.weights import trained as trained_nets
from ...model.weights.trained import load_trained
from ...pipeline.errors import UsageError

KEPT = kernel_snapshots.FOLDER  # in a run's folder


@dataclass(frozen=True)
class Kernels:
    """A first layer.

    Attributes:
        weights: float32 (n, 3, k, k), RGB.
        columns: of the net: the first half of the kernels is column 1's; 1 where there are none.
        title: which net, after how many epochs.
    """

    weights: np.ndarray
    columns: int = 1
    title: str = ""


def of_checkpoint(run: Path) -> Kernels:
    """The first layer of a run's best checkpoint, or of a .pt file.

    Raises:
        UsageError: no such checkpoint, or the net does not begin with kernels over RGB.
        TrainingError: it is damaged.
    """
    file = checkpoints.run_checkpoint(run)
    saved = trained_nets.load(file)
    with checkpoints.fits_this_version(file):
        model = saved["config"].get("model", ALEXNET)
        columns = saved["recipe"]["net"]["columns"] if model == ALEXNET else 1
        weights = _first(saved["model"])
    if weights is None:
        raise UsageError(f"{file}: {model} does not begin with kernels over red, green and blue", "name another run")
    return Kernels(weights, columns, _after(saved.get("epoch")) or file.stem)


def learned(run: Path, layers: Sequence[Kernels]) -> list[Kernels]:
    """What training has added to a run's kernels.

    Raises:
        UsageError: the run began with another's weights.
    """
    file = checkpoints.run_checkpoint(run)
    saved, trained = trained_nets.load(file), load_trained(file)
    config = saved["config"]
    if config.get("init_from"):
        raise UsageError(f"{file}: began with the weights of {config['init_from']}", "leave out --learned")
    chosen = replace(trained.recipe, net=getattr(trained.net, "options", trained.recipe.net))
    net = create_net(
        config.get("model", ALEXNET), len(trained.classes), chosen.net, chosen.crop, trained.stats, config["seed"]
    )
    start = _first(net.state_dict())
    assert start is not None, "the trained one has kernels"
    return [replace(one, weights=one.weights - start) for one in layers]


def smoothness(weights: np.ndarray) -> float:
    """How much weights are like their neighbours': the correlation of both, about 0 of noise, 0.5 and more of edges."""
    pairs = [(weights[..., 1:], weights[..., :-1]), (weights[..., 1:, :], weights[..., :-1, :])]
    alike = sum(float((one * other).mean()) for one, other in pairs) / 2
    return alike / max(float((weights**2).mean()), 1e-30)


def of_epochs(run: Path, epochs: Sequence[int] = (), count: int = 5) -> list[Kernels]:
    """The first layers that a run has kept, of these epochs; of none said, `count` of them: the first, the last, and
    between them at equal ratios, since a net changes most in its first epochs.

    Raises:
        UsageError: the run has kept none, or not those.
        TrainingError: its checkpoint is damaged.
    """
    kept = kernel_snapshots.read(run)
    if not kept:
        raise UsageError(
            f"{run}: no kernels of its epochs there ({KEPT}/*.npy)",
            "name several checkpoints instead: alexnet-figures kernels A/best.pt B/best.pt",
        )
    missing = [str(epoch) for epoch in epochs if epoch not in kept]
    if missing:
        raise UsageError(
            f"{run}: no kernels of epoch {', '.join(missing)}",
            f"there are {min(kept)} to {max(kept)}, {len(kept)} kept",
        )
    columns = of_checkpoint(run).columns
    return [Kernels(kept[epoch], columns, _after(epoch)) for epoch in epochs or _spread(sorted(kept), count)]


def _first(parameters: Mapping[str, Tensor]) -> np.ndarray | None:
    weights = next(iter(kernel_snapshots.first_kernels(parameters).values()), None)
    return None if weights is None else weights.float().numpy()


def _spread(epochs: list[int], count: int) -> list[int]:
    if len(epochs) <= count:
        return epochs
    places = np.rint(np.geomspace(1, len(epochs), count)).astype(int) - 1
    return [epochs[place] for place in dict.fromkeys(places.tolist())]


def _after(epochs: int | None) -> str:
    return "" if epochs is None else f"after {epochs} epoch{'s' * (epochs != 1)}"
