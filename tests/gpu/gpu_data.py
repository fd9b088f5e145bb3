"""The photos and shard sets that the checks read: made once, before the clock starts.

correct/{jpeg,raw,whole}   60 photos to train on and 20 to validate with, sides of 100 to 300 pixels; `whole` holds
                           whole pictures, the others their central squares of 256 pixels
speed/{jpeg,raw}           photos of mixed sharpness: each sample photo several times, with more and more grain
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.tools.prep.sample_photos import make_photos
from PIL import Image

GRAINS = (0, 4, 8, 12, 16, 20, 24, 28)  # standard deviations, grey levels
SMALL = {"jpeg": {}, "raw": {"encoding": "raw"}, "whole": {"fit": "short-side"}}


def make(folder: Path, speed: int, correct_sets: Iterable[str] = SMALL) -> dict[str, float]:
    """Make what is missing.

    Args:
        correct_sets: of the sets for correctness.
        speed: number of photos of the sets for speed, a multiple of 8; 0: none.
    Returns:
        bytes of a record of each set for speed.
    """
    correct = folder / "correct"
    make_photos(correct / "photos", train=60, val=20, classes=4, seed=1, side=(100, 300))
    for name in correct_sets:
        build(correct / "photos", correct / name, shard_records=16, **SMALL[name])
    if not speed:
        return {}
    grainy = folder / "speed" / "photos"
    make_photos(folder / "speed" / "sharp", train=speed // len(GRAINS), val=0, classes=10, seed=2, side=(260, 460))
    with ThreadPoolExecutor() as executor:
        list(executor.map(lambda job: add_grain(*job), jobs(folder / "speed" / "sharp", grainy)))
    for name in ("jpeg", "raw"):
        build(grainy, folder / "speed" / name, encoding=name)
    return {name: bytes_of(folder / "speed" / name) / speed for name in ("jpeg", "raw")}


def build(photos: Path, out: Path, **options) -> None:
    """Build a shard set with its statistics, unless it is there."""
    if (out / "stats.npz").exists():
        return
    with ThreadPoolExecutor() as executor:
        shard_set, _ = build_shards(find_photos(photos, val_share=0.0), out, BuildOptions(**options), executor)
        stats.save_stats(stats.measure_stats(shard_set, executor), out)


def jobs(sharp: Path, grainy: Path) -> Iterator[tuple[Path, Path, int]]:
    """List the grainy photos that are missing: the sharp photo, the new file, the grain."""
    for path in sorted(sharp.glob("train/*/*.JPEG")):
        for grain in GRAINS:
            out = grainy / "train" / path.parent.name / f"{path.stem}_{grain:02d}.JPEG"
            if not out.exists():
                yield path, out, grain


def add_grain(path: Path, out: Path, grain: int) -> None:
    """Write a photo once more, with Gaussian noise."""
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32)
    noise = np.random.default_rng(grain).normal(0, grain, pixels.shape)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=92)


def bytes_of(folder: Path) -> int:
    """Return the bytes of a set's shards."""
    return sum(path.stat().st_size for path in folder.rglob("data.mdb"))
