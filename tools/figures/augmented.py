"""One record read from the training stream once per epoch, as the plan augments it.

In:  a shard set, its statistics, a recipe, a record number.  Out: pictures as NumPy arrays.
A plan's draws do not depend on the batch size, so the stream is started at the record's position in the epoch with
a batch of one.
"""

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...model.recipes.recipe import Recipe
from ...pipeline.errors import UsageError
from ...pipeline.plan.lighting import Lighting, lighting_offsets
from ...pipeline.plan.philox import permutation
from ...pipeline.plan.plan import BatchPlan, Plan
from ...pipeline.plan.resized_crop import resized_windows
from ...pipeline.prepare.build import build_shards
from ...pipeline.prepare.options import BuildOptions
from ...pipeline.shards.datum import central_square
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.shards.stats import Stats
from ...pipeline.sources.find import find_photos
from ...pipeline.stream.dataset import ShardDataset
from ...pipeline.stream.stream import Batch
from ...pipeline.stream.streams import train_stream

SCALES = ("none", "stddev", "eigenvalue")
GAUSSIANS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # along the first component; 95% of the draws lie within


@dataclass(frozen=True)
class Varied:
    """A photo and its augmented versions; pictures are (height, width, 3), RGB.

    Attributes:
        stored: uint8 0..255, as stored in the shard.
        windows: left, top, width and height in `stored`, in pixels, one for each epoch.
        crops, flips: uint8 pictures cut from these windows, and whether they are reflected.
        lit: uint8 pictures with lighting, by scale, one for each of GAUSSIANS.
        offsets: float (5, 3), by scale: the values added to red, green and blue.
        mean, mean_words: uint8, the mean that is subtracted, and its name.
        less_mean: float32, the first epoch's crop minus the mean.
        seen: float32, the same with the recipe's lighting and scaling: the input of the net.
    """

    stored: np.ndarray
    windows: list[tuple[int, int, int, int]]
    crops: list[np.ndarray]
    flips: list[bool]
    lit: dict[str, list[np.ndarray]]
    offsets: dict[str, np.ndarray]
    mean: np.ndarray
    mean_words: str
    less_mean: np.ndarray
    seen: np.ndarray


def vary(shard_set: ShardSet, stats: Stats, recipe: Recipe, record: int, seed: int = 0, epochs: int = 8) -> Varied:
    """Read a training record as it is augmented in the first epochs.

    Args:
        seed: of the plan.
        epochs: number of epochs.
    Raises:
        UsageError: the record does not exist.
        ShardError: the record is damaged.
    """
    count = shard_set.split("train").records
    if record >= count:
        raise UsageError(
            f"--record {record:,}: {shard_set.root} has {count:,} training records", f"choose 0 to {count - 1}"
        )
    plan = Plan(count, 1, seed, shard_set.size, recipe.augmentation)
    stored = np.asarray(ShardDataset(shard_set)[record][0])
    windows, crops, flips = [], [], []
    for epoch in range(epochs):
        batch = _one(shard_set, None, plan, record, epoch, mean="imagenet", dtype="uint8", light=Lighting("none"))
        assert batch.plan is not None, "a training batch has a plan"
        windows.append(_window(batch.plan, stored, shard_set.size, recipe))
        crops.append(batch.images[0].permute(1, 2, 0).numpy().copy())
        flips.append(bool(batch.plan.flip[0]))
    square = central_square(stored, shard_set.size)
    gaussians = np.array([[one, 0, 0] for one in GAUSSIANS])
    offsets = {scale: lighting_offsets(gaussians, stats, scale) for scale in SCALES}
    lit = {
        scale: [np.rint(np.clip(square + offset, 0, 255)).astype(np.uint8) for offset in offsets[scale]]
        for scale in SCALES
    }
    less_mean, seen = (
        _one(shard_set, stats, plan, record, 0, mean=recipe.mean, light=light).images[0].permute(1, 2, 0).numpy().copy()
        for light in (Lighting("none"), Lighting(recipe.lighting, recipe.divide))
    )
    whole = recipe.mean == "image"
    mean = stats.mean_image if whole else np.broadcast_to(stats.mean_rgb, (shard_set.size, shard_set.size, 3))
    return Varied(
        stored,
        windows,
        crops,
        flips,
        lit,
        offsets,
        np.rint(mean).astype(np.uint8),
        f"mean {'image' if whole else 'colour'} of {stats.images:,}",
        less_mean,
        seen,
    )


@contextmanager
def set_of_one(photo: Path | None, shard_set: ShardSet) -> Iterator[ShardSet]:
    """Yield a temporary set with this photo as its only record, built with the other set's options.

    Args:
        photo: the photo's file; None yields `shard_set` itself.
    Raises:
        UsageError, SourceError: the file does not exist, or is not a photo.
    """
    if photo is None:
        yield shard_set
        return
    if not photo.is_file():
        raise UsageError(f"{photo}: no such photo", "name a picture file")
    made = {name: shard_set.manifest[name] for name in ("quality", "exif", "max_pixels", "accept_truncated")}
    options = BuildOptions(size=shard_set.size, fit=shard_set.fit, encoding=shard_set.encoding, **made)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
        class_folder = Path(folder) / "photos" / "train" / "photo"
        class_folder.mkdir(parents=True)
        shutil.copyfile(photo, class_folder / "photo.jpg")  # builds recognise photos by their suffix
        yield build_shards(
            find_photos(class_folder.parent.parent, val_share=0.0), Path(folder) / "set", options, executor
        )[0]


def _one(
    shard_set: ShardSet, stats: Stats | None, plan: Plan, record: int, epoch: int, *, light: Lighting, **options
) -> Batch:
    """Return a batch of this record only, as an epoch augments it."""
    order = permutation(plan.records, plan.seed, epoch)
    position = int(np.flatnonzero(order == record)[0])
    with train_stream(
        shard_set, stats, plan, epoch=epoch, step=position, light=light, threads=1, decode="threads", **options
    ) as stream:
        batch = next(iter(stream))
    assert batch.records.tolist() == [record], "the plan determines its position"
    return batch


def _window(plan: BatchPlan, stored: np.ndarray, size: int, recipe: Recipe) -> tuple[int, int, int, int]:
    """Return a crop's left, top, width and height in the stored picture, in pixels."""
    height, width = stored.shape[:2]
    if plan.resized is not None:
        resized = recipe.augmentation.resized
        assert resized is not None, "the plan has draws only if the recipe has an option"
        found = resized_windows(plan.resized, np.array([height]), np.array([width]), resized)
        left, top, wide, tall = (int(one[0]) for one in found)
        return left, top, wide, tall
    left, top = (width - size) // 2 + int(plan.left[0]), (height - size) // 2 + int(plan.top[0])
    return left, top, recipe.crop, recipe.crop
