"""`alexnet-prep build-lmdb`: photos to LMDB shards."""

import time
from pathlib import Path

import click

from ..pipeline.build import BuildOptions, build
from ..pipeline.shardset import ENCODINGS, FITS
from ..pipeline.sources import SPLITS, find_photos
from ..pipeline.workers import available_cores, worker_pool
from . import console

FOLDER = click.Path(path_type=Path)


@click.command("build-lmdb")
@click.argument("source", type=FOLDER)
@click.option("--out", type=FOLDER, default="out", show_default=True, help="Where the shard set goes.")
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one a core]")
@click.option(
    "--encoding",
    type=click.Choice(ENCODINGS),
    default="jpeg",
    show_default=True,
    help="JPEG, or raw pixels: six times as large, three times as fast to read.",
)
@click.option("--quality", type=int, default=BuildOptions.quality, show_default=True, help="Of the JPEGs, 1 to 100.")
@click.option("--size", type=int, default=BuildOptions.size, show_default=True, help="Pixels of the short side.")
@click.option(
    "--fit",
    type=click.Choice(FITS),
    default="crop",
    show_default=True,
    help="Cut the central square, as the paper does, or keep the whole picture.",
)
@click.option(
    "--val-share",
    type=click.FloatRange(0, 0.9),
    default=0.1,
    show_default=True,
    help="Share of all photos held out as val, where the source has no train and val folders.",
)
@click.option("--split", type=click.Choice(SPLITS), help="Build this split alone; a flat folder is all of it.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of order and hold-out.")
@click.option("--shard-records", type=click.IntRange(1), help="Photos a shard.  [default: 5000, fewer of small sets]")
def build_lmdb(source, out, workers, encoding, quality, size, fit, val_share, split, seed, shard_records):
    """Resize the photos below SOURCE and pack them into LMDB shards of Caffe Datum records.

    SOURCE holds class folders, or train/ and val/ with class folders in them. Each photo's short side becomes 256
    pixels and its central 256x256 are kept. Photos that cannot be read are listed in rejected.csv and left out.
    A build that was stopped goes on when the same command is run again.

    \b
    Examples:
      alexnet-prep build-lmdb /data/imagenet
      alexnet-prep build-lmdb photos --out small --size 64 --encoding raw
    """
    options = BuildOptions(
        size=size, fit=fit, encoding=encoding, quality=quality, seed=seed, shard_records=shard_records or 0
    )
    found = find_photos(source, val_share=val_share, seed=seed, split=split)
    total = sum(len(photos) for photos in found.splits.values())
    parts = ", ".join(f"{name} {len(photos):,}" for name, photos in found.splits.items())
    click.echo(f"{total:,} photos in {len(found.classes):,} classes ({found.kind}: {parts})")
    if found.ignored:
        click.echo(f"note: {found.ignored:,} other files left alone", err=True)
    untaught = found.classes_without_training() if "train" in found.splits else []
    if untaught:
        click.echo(
            f"warning: {len(untaught)} of {len(found.classes)} classes have no training photo: "
            f"{', '.join(untaught[:3])}{', ...' if len(untaught) > 3 else ''}",
            err=True,
        )
    workers = workers or available_cores()
    began = time.monotonic()
    with worker_pool(workers) as pool, console.progress("building", total) as advance:
        built, fresh = build(found, out, options, pool, advance)
    seconds = time.monotonic() - began
    shards = [file for split in built.splits.values() for _, file in split.shards]
    rejected = built.manifest["rejected"]
    click.echo(
        f"{out}: {sum(s.records for s in shards):,} records in {len(shards):,} shards, "
        f"{console.size(sum(s.bytes for s in shards))}; {rejected:,} rejected"
        + (f" (see {out / 'rejected.csv'})" if rejected else "")
    )
    click.echo(
        f"{console.duration(seconds)}, {fresh / seconds:,.0f} images/s with {workers} workers"
        if fresh
        else "all of it was there already: nothing to do"
    )
    if not built.has("val"):
        click.echo("note: no photos in val: training will not evaluate", err=True)
