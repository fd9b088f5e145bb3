"""`alexnet-prep build-lmdb`: photos to LMDB shards."""

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from ...pipeline.prepare.build import build_shards, notes_on
from ...pipeline.prepare.options import EXIF, BuildOptions
from ...pipeline.shards.manifest import ENCODINGS, FITS, SPLITS, ShardSet
from ...pipeline.sources.account import lines_of
from ...pipeline.sources.class_order import LABEL_ORDERS
from ...pipeline.sources.entries import CLASS_FOLDERS
from ...pipeline.sources.find import LAYOUTS, PhotoSource, find_photos
from ...pipeline.workers import available_cores, worker_pool
from .. import console, options


@click.command("build-lmdb", context_settings=options.SETTINGS)
@click.argument("source", type=options.PATH)
@options.path("--out", default="out", show_default=True, help="Folder for the shard set.")
@options.workers()
@click.option(
    "--layout",
    type=click.Choice(["auto", *LAYOUTS]),
    default="auto",
    show_default=True,
    help="Layout of SOURCE; auto detects it.",
)
@click.option(
    "--encoding",
    type=click.Choice(ENCODINGS),
    default="jpeg",
    show_default=True,
    help="JPEG, or raw pixels: six times as large and three times as fast to read.",
)
@click.option("--quality", type=int, default=BuildOptions.quality, show_default=True, help="JPEG quality, 1 to 100.")
@click.option(
    "--size", type=int, default=BuildOptions.size, show_default=True, help="Length of the short side, pixels."
)
@click.option(
    "--fit",
    type=click.Choice(FITS),
    default="crop",
    show_default=True,
    help="crop: the central square, as in the paper. short-side: the whole picture.",
)
@click.option(
    "--val-share",
    type=click.FloatRange(0, 0.9),
    help="Fraction of the photos held out as val if the source has no val.  [default: 0.1 without splits or with train "
    "alone, 0 with train and test]",
)
@click.option(
    "--split", type=click.Choice(SPLITS), help="Build only this split; a source without splits goes into it whole."
)
@click.option(
    "--label-order",
    type=click.Choice(list(LABEL_ORDERS)),
    help="Order of the classes: sorted by name, as in torchvision and timm; by number; as in the source; or as in "
    "ILSVRC's devkit.  [default: sorted, or number if all names are whole numbers]",
)
@click.option(
    "--class-folders",
    type=click.Choice(list(CLASS_FOLDERS)),
    default="auto",
    show_default=True,
    help="Which folders are classes: auto, if only one reading is possible; top, those directly in SOURCE or in its "
    "train/ and val/; leaf, those that contain photos.",
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="GLOB",
    help="Leave out files and folders whose name, or path below SOURCE, matches this pattern; repeatable.",
)
@options.path("--root", "paths_root", help="Folder that the paths in a list are relative to.")
@options.seed("Seed of the order and of the photos held out.")
@click.option(
    "--shard-records", type=click.IntRange(1), help="Photos per shard.  [default: 5000, fewer for small sets]"
)
@click.option(
    "--exif",
    type=click.Choice(EXIF),
    default="ignore",
    show_default=True,
    help="The EXIF orientation tag: ignore it, as the tools of 2012 did, or rotate the picture.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=BuildOptions.max_pixels,
    show_default=True,
    help="Reject photos with more pixels without decoding them.",
)
@click.option("--accept-truncated", is_flag=True, help="Accept truncated files, as far as they can be decoded.")
@click.option("--scheduler", metavar="ADDRESS", help="Build on a Dask cluster, tcp://host:8786 (docs/cluster.md).")
def build_lmdb(
    source,
    out,
    workers,
    layout,
    val_share,
    split,
    label_order,
    class_folders,
    ignore,
    paths_root,
    scheduler,
    shard_records,
    **options,
):
    """Resize the photos of SOURCE and pack them into LMDB shards of Caffe Datum records.

    SOURCE is a folder: class folders, or splits such as train/ and valid/ with class folders in them; ImageNet's
    archives of 2012, 2010 or 2011; Kaggle's ILSVRC folder; Hugging Face parquet; WebDataset or tars of class
    folders; well-known sets as they are unpacked (docs/layouts.md). Or it is a tar, or a list or table of photos with
    their labels. Archives are not unpacked.

    Everything below SOURCE is accounted for: what is not used is printed, and photos that fit no reading are an
    error. Each photo is resized to a short side of 256 pixels and cropped to its central 256x256. Photos that cannot
    be read are listed in rejected.csv. After an interruption, run the same command again to continue.

    \b
    Examples:
      alexnet-prep build-lmdb /data/imagenet
      alexnet-prep build-lmdb photos --out small --size 64 --encoding raw
      alexnet-prep build-lmdb /shared/imagenet --out /shared/out --scheduler tcp://head:8786
    """
    made = BuildOptions(shard_records=shard_records or 0, **options)
    found = find_photos(
        source,
        layout=layout,
        split=split,
        val_share=val_share,
        seed=made.seed,
        label_order=label_order,
        class_folders=class_folders,
        ignore=ignore,
        paths_root=paths_root,
    )
    total = sum(len(photos) for photos in found.splits.values())
    _print_found(found, total)
    started = time.monotonic()
    with _executor(scheduler, found, out, workers) as (pool, where), console.progress("building", total) as advance:
        if scheduler:
            found, out = replace(found, root=found.root.resolve()), out.resolve()
        built, fresh = build_shards(found, out, made, pool, advance)
    seconds = time.monotonic() - started
    _print_built(built, total)
    click.echo(
        f"{console.duration(seconds)}, {fresh / seconds:,.0f} images/s with {where}"
        if fresh
        else "already complete: nothing to do"
    )
    _print_warnings(found)


@contextmanager
def _executor(scheduler: str | None, found: PhotoSource, out: Path, workers: int | None):
    if scheduler:
        from ...pipeline.prepare.dask import cluster_pool

        with cluster_pool(scheduler, found.root, out) as pool:
            yield pool, f"the cluster at {scheduler}"
    else:
        count = workers or available_cores()
        with worker_pool(count) as pool:
            yield pool, f"{count} workers"


def _print_found(found: PhotoSource, total: int) -> None:
    parts = ", ".join(f"{name} {len(photos):,}" for name, photos in found.splits.items())
    click.echo(f"{total:,} photos in {_counted(len(found.classes))} ({found.kind}: {parts})")
    for split, photos in found.splits.items():
        click.echo(f"  {split}: {_classes_in_words(Counter(photos.class_counts()))}")
    for line in lines_of(found.account):
        click.echo(f"  {line}")
    for note in found.notes:
        click.echo(f"note: {note}", err=True)


def _classes_in_words(counts: Counter) -> str:
    """Return the number of classes and of photos a class, such as `3 classes of 12 to 50 photos`."""
    labelled = [count for label, count in counts.items() if label >= 0]
    if not labelled:
        return "no labels" if counts else "no photos"
    least, most = min(labelled), max(labelled)
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"{_counted(len(labelled))} of {each} photo{'s' * (most != 1)}"


def _counted(classes: int) -> str:
    return f"{classes:,} class{'es' * (classes != 1)}"


def _print_warnings(found: PhotoSource) -> None:
    """Print what is probably wrong, in red and last, where it is read."""
    warnings = list(found.warnings)
    untrained = found.classes_without_training() if "train" in found.splits else []
    if untrained and not warnings:
        warnings.append(
            f"{len(untrained)} of {len(found.classes)} classes have no training photo: "
            f"{', '.join(untrained[:3])}{', ...' if len(untrained) > 3 else ''}"
        )
    for warning in warnings:
        click.echo(click.style(f"warning: {warning}", fg="red"), err=True)


def _print_built(built: ShardSet, total: int) -> None:
    for line in notes_on(built.manifest):
        click.echo(f"note: {line}", err=True)
    out, rejected = built.root, built.manifest["rejected"]
    files = [file for split in built.splits.values() for _, file in split.shards]
    click.echo(
        f"{out}: {total:,} photos in = {sum(file.records for file in files):,} records + {rejected:,} rejected"
        + (f" (see {out / 'rejected.csv'})" if rejected else "")
        + f"; {len(files):,} shards, {console.size(sum(file.bytes for file in files))}"
    )
    entries = [shard for split in built.manifest["splits"].values() for shard in split["shards"]]
    forms = sum((Counter(entry["forms"]) for entry in entries), Counter())
    others = [f"{count:,} {form}" for form, count in forms.most_common() if form != "JPEG"]
    if others:
        click.echo(f"by content not plain JPEG: {', '.join(others)}")
    known, unlike = sum(entry["known"] for entry in entries), [path for entry in entries for path in entry["unlike"]]
    if known:
        click.echo(f"{known:,} of them are known anomalies of ImageNet, as expected")
    if unlike:
        click.echo(f"note: {len(unlike):,} known anomalies of ImageNet are not anomalous here: {unlike[0]}", err=True)
    if not built.has("val"):
        click.echo("note: no photos in val: training will not evaluate", err=True)
