"""`alexnet-prep sample-photos`: synthetic labelled photos from a seed, for tests, demo and benchmarks.

In:  a seed, numbers of photos and classes.  Out: `OUT/train/CLASS/NAME.JPEG` and `OUT/val/CLASS/NAME.JPEG`.

Nothing is downloaded and no licence applies. A photo shows a badge with one of ten figures before a blurred
background. The figure is the class; its colour is only correlated with it, so that a net has to learn shapes and
textures. As in ImageNet, sizes differ and a few files are not baseline RGB JPEGs: greyscale, progressive, CMYK, PNG.
"""

import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image

from ...pipeline.errors import UsageError
from .. import options
from ..console import progress
from .sample_scene import FIGURES, scene

SPLITS = ("train", "val")
MANIFEST = "sample.json"  # the complete set's settings
UNFINISHED = "sample.json.part"  # the same while photos are missing, so that a stopped command can continue
ODD_FORMATS = {"grey": 0.02, "progressive": 0.02, "cmyk": 0.015, "png": 0.015}  # the rest are baseline JPEGs


@dataclass(frozen=True)
class SampleSet:
    """The settings that determine every byte of a set: numbers of photos, seed, range of both sides in pixels."""

    train: int = 1000
    val: int = 200
    classes: int = 10
    seed: int = 0
    side: tuple[int, int] = (200, 500)

    def __post_init__(self) -> None:
        low, high = self.side
        if not 2 <= self.classes <= len(FIGURES):
            raise UsageError(f"--classes {self.classes}: out of range", f"choose --classes 2..{len(FIGURES)}")
        if self.train < self.classes:
            raise UsageError(
                f"--train {self.train}: fewer photos than the {self.classes} classes",
                f"choose --train {self.classes} or more",
            )
        if self.val < 0 or self.seed < 0:
            raise UsageError(f"--val {self.val}, --seed {self.seed}: must not be negative", "choose 0 or more")
        if not 16 <= low <= high:
            raise UsageError(f"sides of {low} to {high} pixels: out of range", "choose 16 <= low <= high")


def make_photos(
    out: Path,
    *,
    train: int = SampleSet.train,
    val: int = SampleSet.val,
    classes: int = SampleSet.classes,
    seed: int = SampleSet.seed,
    side: tuple[int, int] = SampleSet.side,
    advance: Callable[[int], object] = lambda count: None,
) -> None:
    """Write a set of labelled photos, or the missing ones; a complete set is not changed.

    Photo k of a split depends only on (seed, split, k), the number of classes and the sides, so a longer set
    starts with the shorter one. The same arguments give the same bytes with the same versions of NumPy, OpenCV and
    Pillow on the same kind of processor; others may round differently.

    Args:
        out: a folder that is new, empty, or has a set of the same arguments.
        train, val: numbers of photos, distributed evenly over the classes; train at least one for each class.
        classes: 2..10.
        seed: 0 or more.
        side: smallest and largest length of both sides, in pixels.
        advance: called with the number of photos done since its last call; the sum is train + val.
    Raises:
        UsageError: an argument out of its range, or a folder that has other contents. Nothing is written then.
    """
    wanted = SampleSet(train, val, classes, seed, side)
    missing = _missing(out, wanted)
    advance(train + val - len(missing))
    out.mkdir(parents=True, exist_ok=True)
    if not (out / MANIFEST).exists():
        _write(out / UNFINISHED, json.dumps(asdict(wanted), indent=1).encode() + b"\n")
    for split, k in missing:
        path = out / _name(split, k, classes)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, photo(seed, split, k, k % classes, side))
        advance(1)
    if (out / UNFINISHED).exists():
        os.replace(out / UNFINISHED, out / MANIFEST)


def photo(seed: int, split: str, k: int, label: int, side: tuple[int, int] = SampleSet.side) -> bytes:
    """Draw photo k of a split with the figure of class `label`, 0..9; returns the encoded file. Sides in pixels."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), k))))
    kind = rng.choice(["baseline", *ODD_FORMATS], p=[1 - sum(ODD_FORMATS.values()), *ODD_FORMATS.values()])
    quality = int(rng.integers(80, 96))
    return _encode(scene(rng, label, side), kind, quality)


def _name(split: str, k: int, classes: int) -> str:
    return f"{split}/{sorted(FIGURES)[k % classes]}/{split}_{k:05d}.JPEG"


def _missing(out: Path, wanted: SampleSet) -> list[tuple[str, int]]:
    """List the missing photos as split and number.

    Raises:
        UsageError: the folder has other contents.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: a file, not a folder", "name a new folder")
    for record in (out / MANIFEST, out / UNFINISHED):
        if record.exists():
            _compare(record, wanted)
            break
    else:
        others = sorted(path.name for path in out.iterdir()) if out.exists() else []
        if others:
            raise UsageError(
                f"{out}: has other contents: {', '.join(others[:3])}{', ...' * (len(others) > 3)}",
                "name a new or an empty folder",
            )
    return [
        (split, k)
        for split, count in (("train", wanted.train), ("val", wanted.val))
        for k in range(count)
        if not (out / _name(split, k, wanted.classes)).exists()
    ]


def _compare(record: Path, wanted: SampleSet) -> None:
    try:
        found = dict(json.loads(record.read_text()))
    except (ValueError, TypeError):
        raise UsageError(
            f"{record}: damaged, not the settings of a sample set", f"delete {record.parent}, or name a new folder"
        ) from None
    expected = json.loads(json.dumps(asdict(wanted)))
    others = [f"{key} {found.get(key)}, not {value}" for key, value in expected.items() if found.get(key) != value]
    if others:
        raise UsageError(
            f"{record.parent}: has a set of other photos: {'; '.join(others)}",
            f"delete {record.parent}, or name a new folder",
        )


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + "~")
    part.write_bytes(data)
    os.replace(part, path)


def _encode(picture: np.ndarray, kind: str, quality: int) -> bytes:
    """Encode uint8 (height, width, 3) RGB in one of the formats of ImageNet's .JPEG files."""
    image, stream = Image.fromarray(picture), io.BytesIO()
    if kind == "png":
        image.save(stream, "PNG", compress_level=3)
    else:
        mode = {"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB")
        image.convert(mode).save(stream, "JPEG", quality=quality, progressive=kind == "progressive")
    return stream.getvalue()


@click.command("sample-photos", context_settings=options.SETTINGS)
@click.argument("out", default="sample", type=options.PATH)
@click.option("--train", default=SampleSet.train, show_default=True, help="Training photos.")
@click.option("--val", default=SampleSet.val, show_default=True, help="Validation photos.")
@click.option(
    "--classes",
    default=SampleSet.classes,
    show_default=True,
    type=click.IntRange(2, len(FIGURES)),
    help="Number of classes.",
)
@options.seed("Seed of the photos.")
def sample_photos(out: Path, train: int, val: int, classes: int, seed: int) -> None:
    """Draw synthetic labelled photos into the folder OUT (default: sample).

    The photos are in OUT/train/CLASS/ and OUT/val/CLASS/, as in ImageNet. The same options give the same photos.
    After an interruption, run the same command again to continue.

    \b
    Example:
      alexnet-prep sample-photos sample --train 1000 --val 200
      alexnet-prep build-lmdb sample
    """
    if (out / MANIFEST).exists() and not _missing(out, SampleSet(train, val, classes, seed)):
        click.echo(f"{out}: all {train + val:,} photos exist already", err=True)
        return
    with progress("photos", train + val) as advance:
        make_photos(out, train=train, val=val, classes=classes, seed=seed, advance=advance)
    click.echo(f"{out}: {train:,} training and {val:,} validation photos of {classes} classes", err=True)
