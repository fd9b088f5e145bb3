"""A trained net, ready to use: from a run's checkpoint, or from what `alexnet-weights export` wrote.

In:  a `.pt` or `.safetensors` file.  Out: the net with its recipe, statistics and classes, checked.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import TrainingError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ..nets.factory import Net, create_net
from ..nets.options import ALEXNET, NetOptions
from ..recipes.recipe import Recipe, recipe
from ..recipes.setup import recipe_for
from ..training import checkpoint
from ..training.checkpoint import STATS, check_classes, fits_this_version
from ..training.run_files import check_classes_fit, check_finite
from . import safetensors_io


@dataclass(frozen=True)
class Trained:
    """A trained net with all that it needs to look at pictures."""

    file: Path
    net: Net
    recipe: Recipe
    stats: Stats
    classes: list[str]
    shards: Path

    def check_set(self, shard_set: ShardSet) -> None:
        """Check that the net can look at a shard set: its classes, pictures as large as its mean image.

        Raises:
            TrainingError: it cannot.
        """
        check_classes(self.classes, shard_set, self.file)
        size = len(self.stats.mean_image)
        if size != shard_set.size:
            raise TrainingError(
                f"{self.file}: trained on pictures of {size}x{size}, but {shard_set.root} has {shard_set.size}x"
                f"{shard_set.size}",
                f"use the shard set it was trained on, or one built with --size {size}",
            )

    def check_pictures(self, other: "Trained") -> None:
        """Check that two nets want the same pictures, so that they can look at one stream.

        Raises:
            TrainingError: they do not.
        """
        if (self.stats.fingerprint, self.recipe.mean, self.recipe.crop) != (
            other.stats.fingerprint,
            other.recipe.mean,
            other.recipe.crop,
        ):
            raise TrainingError(
                f"{self.file}: was trained on other photos, or with another mean, than {other.file}",
                "average runs that were trained on one shard set",
            )


def load(file: Path) -> dict:
    """Read a checkpoint, or an export without what only training needs: by its suffix.

    Raises:
        UsageError, TrainingError: as `checkpoint.load` and `safetensors_io.read`.
    """
    return safetensors_io.read(file) if file.suffix == ".safetensors" else checkpoint.load(file)


def load_trained(file: Path) -> Trained:
    """Read a checkpoint for use.

    Raises:
        UsageError, TrainingError: as `load` and `trained_of`.
    """
    return trained_of(load(file), file)


def trained_of(saved: dict, file: Path) -> Trained:
    """The net of a checkpoint.

    Args:
        file: where it was read.
    Raises:
        UsageError: it is of a library that is not installed.
        TrainingError: it is of another net, or its weights or statistics are not finite.
    """
    with fits_this_version(file):
        check_finite(saved, file)
        stats = Stats(
            saved["stats"]["images"], saved["stats"]["fingerprint"], *(saved["stats"][name].numpy() for name in STATS)
        )
        config = saved["config"]
        model = config.get("model", ALEXNET)  # checkpoints from before there were others
        chosen = recipe_for(model, config.get("crop", 0), recipe(config["recipe"]))
        options = NetOptions(**saved["recipe"]["net"])  # as it was trained
        check_classes_fit(saved["classes"], saved["model"])
        net = create_net(model, len(saved["classes"]), options, chosen.crop, stats)
        net.load_state_dict(saved["model"])
        return Trained(file, net, chosen, stats, saved["classes"], Path(config["shards"]))


def load_exported(path: Path | str) -> Trained:
    """A net from an exported folder, ready to look at pictures.

    Raises:
        UsageError, TrainingError: as `read` and `trained_of`.
    """
    file = Path(path)
    trained = trained_of(safetensors_io.read(file), file)
    trained.net.eval()
    return trained


def mean_window(trained: Trained) -> Tensor:
    """What is subtracted from a picture before the net sees it: float32 (3, crop, crop) or (3, 1, 1), RGB, 0..255."""
    stats, crop = trained.stats, trained.recipe.crop
    if trained.recipe.mean != "image":
        return torch.from_numpy(stats.mean_rgb).float().view(3, 1, 1)
    edge = (len(stats.mean_image) - crop) // 2
    window = stats.mean_image[edge : edge + crop, edge : edge + crop]
    return torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1))).float()
