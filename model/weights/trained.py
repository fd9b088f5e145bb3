"""."""

from dataclasses import dataclass, replace
from pathlib import Path

from ...pipeline.errors import TrainingError
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ..nets.alexnet import NetOptions
from ..nets.factory import ALEXNET, Net, create_net
from ..recipes.recipe import Recipe, recipe
from ..recipes.setup import recipe_for
from ..training.checkpoint import STATS, check_classes, fits_this_version, load
from ..training.run_files import check_classes_fit, check_finite


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
        as_trained = replace(chosen, net=NetOptions(**saved["recipe"]["net"]))
        check_classes_fit(saved["classes"], saved["model"])
        net = create_net(model, len(saved["classes"]), as_trained, stats)
        net.load_state_dict(saved["model"])
        return Trained(file, net, chosen, stats, saved["classes"], Path(config["shards"]))
