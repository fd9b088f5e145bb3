"""Statistics of the training split: mean image, RGB covariance, eigenbasis (paper, sections 2 and 4.1).

In:  the shards of a split.  Out: `stats.json` for people, `stats.npz` for programs; the mean to subtract.
Sums are integers and therefore exact: any number of partial sums, merged in any order, give the same result to
the last bit. Sets of `--fit short-side` are measured on their central square. Imports neither DALI nor torch.
"""

import errno
from collections.abc import Callable
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import AlexnetError, PlanError, ShardError, StatsError
from ..files import write_atomically, write_json
from .datum import central_square, record_pixels
from .lmdb_shard import Shard, ShardFile, repair_hint
from .manifest import ShardSet
from .npz import read_arrays

MEANS = ("image", "rgb", "imagenet")  # what can be subtracted, see `mean_and_std`
IMAGENET_MEAN = 255 * np.array([0.485, 0.456, 0.406])  # of torchvision's and timm's pretrained weights
IMAGENET_STD = 255 * np.array([0.229, 0.224, 0.225])

_DAMAGE_ERRNOS = (None, errno.EINVAL, errno.EISDIR)  # system errors that a damaged file causes
_SMALL_BYTES = 4096  # of all that stats.npz holds beside the mean image
_EXACT_SUM = 257  # pictures whose sum fits 16 bits: 257 * 255 = 2^16 - 1
_EXACT_ROW = 256  # pixels whose products sum exactly in float32: 256 * 255^2 < 2^24


@dataclass(frozen=True)
class Moments:
    """Partial sums over pictures of one size; add them in any order.

    Attributes:
        images: pictures summed.
        pixels: int64 (size, size, 3), the sum of each pixel, 0..255 each.
        cross: int64 (3, 3), the sum over all pixels of their outer products.
    """

    images: int
    pixels: np.ndarray
    cross: np.ndarray

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.images + other.images, self.pixels + other.pixels, self.cross + other.cross)


@dataclass(frozen=True)
class Stats:
    """Statistics of a training split; pixels in 0..255, channels in RGB order.

    Attributes:
        images: number of pictures measured.
        fingerprint: of the split they belong to.
        mean_image: float64 (size, size, 3).
        mean_rgb: float64 (3,).
        covariance: float64 (3, 3), over all pixels of all pictures.
        eigenvalues: float64 (3,), variances, largest first.
        eigenvectors: float64 (3, 3), rows, in the same order; the component of greatest magnitude is positive.
    """

    images: int
    fingerprint: str
    mean_image: np.ndarray
    mean_rgb: np.ndarray
    covariance: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray


def mean_and_std(stats: Stats | None, mean: str, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """Select what is subtracted from a window and what the difference is divided by; grey levels 0..255, RGB.

    Args:
        stats: of the training split; may be None for `imagenet`.
        mean: `image`, the mean image's central window, as the program of 2012 subtracted it from every window; `rgb`,
            one value a channel; `imagenet`, mean and standard deviation of torchvision's and timm's pretrained weights.
        crop: side of the window, pixels, up to the size of the mean image.
    Returns:
        mean: float64 (crop, crop, 3) for `image`, else (3,); std: float64 (3,), ones except for `imagenet`.
    Raises:
        PlanError: unknown mean.
        StatsError: it needs statistics, and stats is None.
    """
    if mean not in MEANS:
        raise PlanError(f"unknown mean {mean!r}", f"choose one of {', '.join(MEANS)}")
    if mean == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD
    if stats is None:
        raise StatsError(
            f"the mean {mean!r} needs the statistics of the set", 'give load_stats(shard_set), or mean="imagenet"'
        )
    if mean == "rgb":
        return stats.mean_rgb, np.ones(3)
    edge = (len(stats.mean_image) - crop) // 2
    return stats.mean_image[edge : edge + crop, edge : edge + crop], np.ones(3)


def normalize(windows: np.ndarray, stats: Stats | None, mean: str) -> np.ndarray:
    """Compute (windows - mean) / std, as the streams do on the CPU or GPU, here in float64.

    Args:
        windows: uint8 (..., crop, crop, 3), RGB.
        stats, mean: as for `mean_and_std`.
    Returns:
        float32 (..., crop, crop, 3).
    Raises:
        PlanError, StatsError: as `mean_and_std`.
    """
    subtrahend, std = mean_and_std(stats, mean, windows.shape[-2])
    return ((windows - subtrahend) / std).astype(np.float32)


def measure_stats(
    shard_set: ShardSet, executor: Executor, split: str = "train", advance: Callable[[int], None] = lambda images: None
) -> Stats:
    """Measure a split; one shard is one unit of work.

    Args:
        shard_set: opened by `open_shard_set`.
        executor: any `concurrent.futures` executor, e.g. `worker_pool()`.
        split: `train`, unless another is to be measured.
        advance: called with the number of images of each finished shard.
    Returns:
        the statistics, over the central size x size square of each picture; pixels 0..255, RGB.
    Raises:
        ShardError: the split has no records, or one is damaged.
    Example:
        with worker_pool() as pool:
            save_stats(measure_stats(shard_set, pool), shard_set.root)
    """
    chosen = shard_set.split(split)
    total = Moments(0, np.zeros((shard_set.size, shard_set.size, 3), np.int64), np.zeros((3, 3), np.int64))
    # The futures are not kept in a list: each holds a sum image, and ImageNet has 257 shards.
    for future in as_completed([executor.submit(shard_moments, *shard, shard_set.size) for shard in chosen.shards]):
        part = future.result()
        total = total + part
        advance(part.images)
    return from_moments(total, chosen.fingerprint())


def shard_moments(folder: Path, file: ShardFile, size: int) -> Moments:
    """Sum one shard; runs in any process.

    Args:
        size: side of the central square that is measured, pixels.
    Raises:
        ShardError: a record is damaged; the message names it.
    """
    shard = Shard(folder, file)
    total = np.zeros((size, size, 3), dtype=np.int64)
    some = np.zeros((size, size, 3), dtype=np.uint16)  # sum of up to 257 pictures: a third of the memory traffic
    cross = np.zeros((3, 3), dtype=np.int64)
    for index in range(shard.records):
        try:
            pixels = central_square(record_pixels(shard.value(index)), size)
        except (ShardError, ValueError) as error:
            raise ShardError(f"{folder}, record {index}: {error}", repair_hint(folder)) from None
        np.add(some, pixels, out=some)
        if index % _EXACT_SUM == _EXACT_SUM - 1:
            total += some
            some[:] = 0
        cross += cross_products(pixels)
    return Moments(shard.records, total + some, cross)


def cross_products(pixels: np.ndarray) -> np.ndarray:
    """Sum the outer products of all pixels exactly: uint8 (height, width, 3) to int64 (3, 3).

    Six dot products over rows of 256 pixels, each exact in float32 because all partial sums stay below 2^24: seven
    times as fast as one product in float64 or int64.
    """
    count = pixels.shape[0] * pixels.shape[1]
    rows = -(-count // _EXACT_ROW)
    planes = np.empty((3, rows * _EXACT_ROW), dtype=np.float32)
    planes[:, count:] = 0
    for plane, channel in zip(planes, cv2.split(pixels), strict=True):  # twice as fast as NumPy's transposed copy
        plane[:count] = channel.reshape(-1)
    planes = planes.reshape(3, rows, _EXACT_ROW)
    cross = np.empty((3, 3), dtype=np.int64)
    for i in range(3):
        for j in range(i, 3):
            dots = np.einsum("rk,rk->r", planes[i], planes[j])
            cross[i, j] = cross[j, i] = int(dots.sum(dtype=np.float64))
    return cross


def from_moments(moments: Moments, fingerprint: str) -> Stats:
    """Compute statistics from sums. The covariance divides by the number of pixels.

    Args:
        fingerprint: of the split that was summed.
    Raises:
        StatsError: the sums are over no pictures.
    """
    if moments.images == 0:
        raise StatsError("no pictures to compute statistics of")
    size = len(moments.pixels)
    count = moments.images * size * size
    sums = [int(value) for value in moments.pixels.sum(axis=(0, 1))]
    # Python integers: float64 would lose digits where the two terms nearly cancel.
    covariance = np.array(
        [[(int(moments.cross[i, j]) * count - sums[i] * sums[j]) / count**2 for j in range(3)] for i in range(3)]
    )
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1]
    vectors = vectors[:, order].T
    signs = np.sign(vectors[np.arange(3), np.abs(vectors).argmax(axis=1)])
    return Stats(
        moments.images,
        fingerprint,
        moments.pixels / moments.images,
        np.array(sums) / count,
        covariance,
        np.maximum(values[order], 0.0),
        vectors * signs[:, None],
    )


def save_stats(stats: Stats, root: Path) -> None:
    """Write stats.npz and stats.json into a shard set, each atomically.

    Args:
        stats: from `measure_stats`; pixels 0..255, RGB.
        root: the shard set's folder.
    Raises:
        NotWrittenError: a file cannot be written.
    """
    numbers = {
        "images": stats.images,
        "fingerprint": stats.fingerprint,
        "mean_rgb": stats.mean_rgb.tolist(),
        "covariance": stats.covariance.tolist(),
        "eigenvalues": stats.eigenvalues.tolist(),
        "eigenvectors": stats.eigenvectors.tolist(),
    }
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in numbers.items()}
    arrays["mean_image"] = stats.mean_image
    write_atomically(root / "stats.npz", lambda file: np.savez(file, **arrays))
    write_json(root / "stats.json", {**numbers, "pixels": "0..255, RGB order; eigenvectors are rows"})


def load_stats(shard_set: ShardSet, split: str = "train") -> Stats:
    """Read the statistics of a shard set from its stats.npz.

    Args:
        shard_set: opened by `open_shard_set`.
        split: the split that they must have been measured on, compared by its fingerprint.
    Returns:
        the statistics; pixels 0..255, RGB, float64.
    Raises:
        StatsError: missing, unreadable, damaged, or of another shard set.
        ShardError: the split has no records.
    """
    path, size = shard_set.root / "stats.npz", shard_set.size
    again = f"alexnet-prep pca-stats --shards {shard_set.root}"
    shapes = {"mean_image": (size, size, 3), "mean_rgb": (3,), "covariance": (3, 3), "eigenvalues": (3,)}
    shapes["eigenvectors"] = (3, 3)
    most_bytes = 8 * size * size * 3 + _SMALL_BYTES
    try:
        about = read_arrays(path, {"images": ((), "iu"), "fingerprint": ((), "U")}, most_bytes)
        images, fingerprint = int(about["images"]), str(about["fingerprint"])
        if fingerprint != shard_set.split(split).fingerprint():
            raise StatsError(f"{path}: these statistics are of another shard set", again)
        arrays = read_arrays(path, {name: (shape, "f") for name, shape in shapes.items()}, most_bytes)
    except FileNotFoundError:
        raise StatsError(f"{shard_set.root}: no statistics yet (stats.npz)", again) from None
    except AlexnetError:
        raise
    except Exception as error:  # NumPy and zipfile raise errors of many kinds for a damaged file
        if isinstance(error, OSError) and error.errno not in _DAMAGE_ERRNOS:
            raise StatsError(
                f"{path}: cannot be read: {error.strerror}", "check that you have read permission"
            ) from None
        raise StatsError(f"{path}: damaged: {error}", again) from None
    stats = Stats(images, fingerprint, **{name: array.astype(np.float64) for name, array in arrays.items()})
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise StatsError(f"{path}: damaged: it holds values that are not finite", again)
    return stats


def summary(stats: Stats) -> str:
    """Format the statistics in a few lines of text."""
    lines = [f"images        {stats.images:,}", "mean RGB      " + _row(stats.mean_rgb)]
    for value, vector in zip(stats.eigenvalues, stats.eigenvectors, strict=True):
        lines.append(f"component     {_row(vector, 5)}   standard deviation {np.sqrt(value):7.3f}")
    return "\n".join(lines)


def _row(values: np.ndarray, digits: int = 3) -> str:
    return "  ".join(f"{value:9.{digits}f}" for value in values)
