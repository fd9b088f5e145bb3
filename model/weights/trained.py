"""A trained net, ready to use: from a run's checkpoint, or from an export of `alexnet-weights`.

In:  a `.pt` or `.safetensors` file.  Out: the net with its recipe, statistics and classes, checked.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import TrainingError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats, mean_and_std
from ..nets.factory import Net, create_net
from ..nets.heads import layers_of
from ..nets.options import ALEXNET, NetOptions
from ..recipes.recipe import Recipe, recipe
from ..recipes.setup import recipe_for
from ..training import checkpoint
from ..training.checkpoint import STATS, check_classes, fits_this_version
from ..training.run_files import check_classes_fit, check_finite
from . import safetensors_io


@dataclass(frozen=True)
class Trained:
    """A trained net with everything that is needed to use it.

    Attributes:
        file: that it was read from.
        net: maps float (n, 3, crop, crop), RGB pixels of 0..255 minus the mean (`mean_window`), to logits (n, classes).
        recipe: as it applies to this net: `crop`, `mean` and so on.
        stats: of the photos that it was trained on.
        classes: names, by label.
        shards: the shard set's folder at the time of training.
    """

    file: Path
    net: Net
    recipe: Recipe
    stats: Stats
    classes: list[str]
    shards: Path

    def check_set(self, shard_set: ShardSet) -> None:
        """Check that a shard set fits the net: the same classes in the same order, and the same picture size.

        Args:
            shard_set: to be evaluated.
        Raises:
            TrainingError: it does not fit.
        """
        check_classes(self.classes, shard_set, self.file)
        self.check_size(shard_set)

    def check_size(self, shard_set: ShardSet) -> None:
        """Check that a shard set's pictures have the size of those that the net was trained on.

        Args:
            shard_set: of the net's classes or of others: for features, which have no classes, that makes no difference.
        Raises:
            TrainingError: they have another size.
        """
        size = len(self.stats.mean_image)
        if size != shard_set.size:
            raise TrainingError(
                f"{self.file}: trained on pictures of {size}x{size}, but {shard_set.root} has {shard_set.size}x"
                f"{shard_set.size}",
                f"use the shard set of the training, or one built with --size {size}",
            )

    def check_pictures(self, other: "Trained") -> None:
        """Check that two nets take the same input, so that their probabilities can be averaged over one stream.

        Args:
            other: the second net.
        Raises:
            TrainingError: they were trained on other photos, with another mean or another crop.
        """
        if (self.stats.fingerprint, self.recipe.mean, self.recipe.crop) != (
            other.stats.fingerprint,
            other.recipe.mean,
            other.recipe.crop,
        ):
            raise TrainingError(
                f"{self.file}: trained on other photos, with another mean or another crop than {other.file}",
                "average runs that were trained on one shard set with the same input",
            )


def load(file: Path) -> dict:
    """Read a checkpoint's values, from a .pt file or from an exported .safetensors file.

    An export lacks the entries that only resuming needs.

    Raises:
        UsageError, TrainingError: see `checkpoint.load` and `safetensors_io.read`.
    """
    return safetensors_io.read(file) if file.suffix == ".safetensors" else checkpoint.load(file)


def load_trained(path: Path | str) -> Trained:
    """Read a trained net.

    Args:
        path: a run's folder, of which `best.pt` is read, else `last.pt`; one of its .pt files; or an export.
    Returns:
        The net, on the CPU and in training mode, with its recipe, statistics and classes.
    Raises:
        UsageError: the file does not exist, or the net's library is not installed.
        TrainingError: the file is damaged or not a checkpoint, or does not fit its net.
    """
    file = checkpoint.run_checkpoint(Path(path))
    return trained_of(load(file), file)


def trained_of(saved: dict, file: Path) -> Trained:
    """Create the net of a checkpoint and load its weights.

    Args:
        saved: the checkpoint's values.
        file: that they were read from.
    Raises:
        UsageError: the net's library is not installed.
        TrainingError: the values do not fit the net, or are not finite.
    """
    with fits_this_version(file):
        check_finite(saved, file)
        _check_whole(saved, file)
        stats = Stats(
            saved["stats"]["images"], saved["stats"]["fingerprint"], *(saved["stats"][name].numpy() for name in STATS)
        )
        config = saved["config"]
        model = config.get("model", ALEXNET)  # the first checkpoints do not name it
        chosen = recipe_for(model, config.get("crop", 0), recipe(config["recipe"]))
        options = NetOptions(**saved["recipe"]["net"])  # as it was trained
        check_classes_fit(saved["classes"], saved["model"])
        net = create_net(model, len(saved["classes"]), options, chosen.crop, stats)
        net.load_state_dict(saved["model"])
        return Trained(file, net, chosen, stats, saved["classes"], Path(config["shards"]))


def _check_whole(saved: dict, file: Path) -> None:
    """Check that imported weights have their last layer, which `alexnet-weights import` leaves out for other classes.

    Raises:
        TrainingError: they do not.
    """
    if saved.get("left_out"):
        model = saved["config"].get("model", ALEXNET)
        raise TrainingError(
            f"{file}: has no last layer ({layers_of(tuple(saved['left_out']))}): it was not imported, since its "
            "classes are not known to be those of the shard set",
            "train a new one: alexnet-train"
            + (f" --model {model}" if model != ALEXNET else "")
            + f" --init-from {file}",
        )


def load_exported(path: Path | str) -> Trained:
    """Read the net of an export, on the CPU and in evaluation mode.

    Args:
        path: a folder that `alexnet-weights export` wrote, or its model.safetensors.
    Returns:
        The net with its recipe, statistics and classes.
    Raises:
        UsageError: the file does not exist, or safetensors or the net's library is not installed.
        TrainingError: a file is damaged, is not an export, or does not fit its net.
    """
    file = Path(path)
    trained = trained_of(safetensors_io.read(file), file)
    trained.net.eval()
    return trained


def mean_window(trained: Trained) -> Tensor:
    """Return what is subtracted from a picture before a net takes it, RGB, 0..255.

    Args:
        trained: the net.
    Returns:
        float32: (3, crop, crop), the centre of the mean image, or (3, 1, 1), the mean colour; depends on the recipe.
    """
    mean, _ = mean_and_std(trained.stats, trained.recipe.mean, trained.recipe.crop)
    window = mean if mean.ndim == 3 else mean.reshape(1, 1, 3)
    return torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1))).float()
