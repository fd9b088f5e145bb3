"""Labelled sample photos from a seed, for tests, demo and benchmarks: `alexnet-prep sample-photos`.

In:  a seed, numbers of photos and classes.  Out: `OUT/train/CLASS/NAME.JPEG` and `OUT/val/CLASS/NAME.JPEG`.

Nothing has to be downloaded and nobody's rights are touched. A photo shows a badge with one of ten figures, lit
and out of a blurred background. The figure is the class; its colour only hints at it, so that a net has to look
at shapes and textures. As in ImageNet, sizes differ and a few files are not what their name promises:
greyscale, progressive, CMYK, or PNG.
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
from ..console import progress
from .sample_scene import FIGURES, scene

SPLITS = ("train", "val")
MANIFEST = "sample.json"  # written last; until then its contents stand in PLEDGE, so that a stopped run can go on
PLEDGE = "sample.json.part"
ODD_FORMATS = {"grey": 0.02, "progressive": 0.02, "cmyk": 0.015, "png": 0.015}  # the rest are baseline JPEGs


@dataclass(frozen=True)
class SampleSet:
    """What decides every byte of a set: numbers of photos, seed, and both sides' range in pixels."""

    train: int = 1000
    val: int = 200
    classes: int = 10
    seed: int = 0
    side: tuple[int, int] = (200, 500)

    def __post_init__(self) -> None:
        low, high = self.side
        if not 2 <= self.classes <= len(FIGURES):
            raise UsageError(f"{self.classes} classes cannot be drawn", f"choose --classes 2..{len(FIGURES)}")
        if self.train < self.classes:
            raise UsageError(
                f"{self.train} training photos cannot show {self.classes} classes",
                f"choose --train {self.classes} or more",
            )
        if self.val < 0 or self.seed < 0:
            raise UsageError(f"--val {self.val} and --seed {self.seed}: neither can be negative", "choose 0 or more")
        if not 16 <= low <= high:
            raise UsageError(f"sides of {low} to {high} pixels cannot be drawn", "choose 16 <= low <= high")


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
    """Write a set of labelled photos, or what is missing of it; a complete set is left as it is.

    Photo k of a split depends on (seed, split, k), the number of classes and the sides alone, so a longer set
    begins with the shorter one. The same arguments give the same bytes; other versions of NumPy, OpenCV or
    Pillow, or another kind of processor, may round differently.

    Args:
        out: a folder that is new, empty, or holds such a set of the same arguments.
        train, val: numbers of photos, spread evenly over the classes; train at least one for each class.
        classes: 2..10.
        seed: 0 or more.
        side: least and greatest length of both sides, in pixels.
        advance: told the number of photos done since its last call; they add up to train + val.
    Raises:
        UsageError: an argument out of its range, or a folder that holds something else. Nothing is touched.
    """
    wanted = SampleSet(train, val, classes, seed, side)
    missing = _missing(out, wanted)
    advance(train + val - len(missing))
    out.mkdir(parents=True, exist_ok=True)
    if not (out / MANIFEST).exists():
        _write(out / PLEDGE, json.dumps(asdict(wanted), indent=1).encode() + b"\n")
    for split, k in missing:
        path = out / _name(split, k, classes)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, photo(seed, split, k, k % classes, side))
        advance(1)
    if (out / PLEDGE).exists():
        os.replace(out / PLEDGE, out / MANIFEST)


def photo(seed: int, split: str, k: int, label: int, side: tuple[int, int] = SampleSet.side) -> bytes:
    """Draw and encode photo k of a split with the figure of class `label`, 0..9; sides in pixels."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), k))))
    kind = rng.choice(["baseline", *ODD_FORMATS], p=[1 - sum(ODD_FORMATS.values()), *ODD_FORMATS.values()])
    quality = int(rng.integers(80, 96))
    return _encode(scene(rng, label, side), kind, quality)


def _name(split: str, k: int, classes: int) -> str:
    return f"{split}/{sorted(FIGURES)[k % classes]}/{split}_{k:05d}.JPEG"


def _missing(out: Path, wanted: SampleSet) -> list[tuple[str, int]]:
    """List the photos to be made, as split and number; refuse a folder that is not ours to fill."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, not a folder", "name a new folder")
    for record in (out / MANIFEST, out / PLEDGE):
        if record.exists():
            _compare(record, wanted)
            break
    else:
        others = sorted(path.name for path in out.iterdir()) if out.exists() else []
        if others:
            raise UsageError(
                f"{out} holds something else: {', '.join(others[:3])}{', ...' * (len(others) > 3)}",
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
            f"{record} cannot be read as the record of a sample set", f"delete {record.parent}, or name a new folder"
        ) from None
    expected = json.loads(json.dumps(asdict(wanted)))
    others = [f"{key} {found.get(key)}, not {value}" for key, value in expected.items() if found.get(key) != value]
    if others:
        raise UsageError(
            f"{record.parent} holds another set of photos: {'; '.join(others)}",
            f"delete {record.parent}, or name a new folder",
        )


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + "~")
    part.write_bytes(data)
    os.replace(part, path)


def _encode(picture: np.ndarray, kind: str, quality: int) -> bytes:
    """Encode uint8 (height, width, 3) RGB as one of the forms that ImageNet's .JPEG files have."""
    image, stream = Image.fromarray(picture), io.BytesIO()
    if kind == "png":
        image.save(stream, "PNG", compress_level=3)
    else:
        mode = {"grey": "L", "cmyk": "CMYK"}.get(kind, "RGB")
        image.convert(mode).save(stream, "JPEG", quality=quality, progressive=kind == "progressive")
    return stream.getvalue()


@click.command("sample-photos")
@click.argument("out", default="sample", type=click.Path(path_type=Path))
@click.option("--train", default=SampleSet.train, show_default=True, help="Training photos.")
@click.option("--val", default=SampleSet.val, show_default=True, help="Validation photos.")
@click.option(
    "--classes",
    default=SampleSet.classes,
    show_default=True,
    type=click.IntRange(2, len(FIGURES)),
    help="Classes, taken in the order of their names.",
)
@click.option(
    "--seed", default=SampleSet.seed, show_default=True, type=click.IntRange(min=0), help="Another seed, other photos."
)
def sample_photos(out: Path, train: int, val: int, classes: int, seed: int) -> None:
    """Draw labelled sample photos into the folder OUT (default: sample).

    They stand in OUT/train/CLASS/ and OUT/val/CLASS/, as ImageNet's do. The same options give the same photos;
    a run that was stopped goes on when it is started again.

    \b
    Example:
      alexnet-prep sample-photos sample --train 1000 --val 200
      alexnet-prep build-lmdb sample
    """
    if (out / MANIFEST).exists() and not _missing(out, SampleSet(train, val, classes, seed)):
        click.echo(f"{out}: all {train + val:,} photos are there already", err=True)
        return
    with progress("photos", train + val) as advance:
        make_photos(out, train=train, val=val, classes=classes, seed=seed, advance=advance)
    click.echo(f"{out}: {train:,} training and {val:,} validation photos of {classes} classes", err=True)
