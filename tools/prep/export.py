"""`alexnet-prep export`: a shard set as tar files or folders of pictures."""

import time

import click

from ...pipeline.shards.export import FORMATS, export_shards
from ...pipeline.shards.manifest import open_shard_set
from ...pipeline.workers import available_cores, worker_pool
from .. import console, options


@click.command("export", context_settings=options.SETTINGS)
@options.shards()
@options.path("--to", "target", required=True, help="Folder for the export.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    required=True,
    help="A tar file per shard, or a folder per class.",
)
@click.option("--split", "splits", multiple=True, help="Export only this split; can be repeated.")
@options.workers()
def export(shards, target, format_, splits, workers):
    """Export a shard set for programs that read neither LMDB nor Datum.

    webdataset: train-000000.tar and so on, with KEY.jpg, KEY.cls and KEY.json for each record. folder:
    train/CLASS/KEY.jpg, for torchvision's ImageFolder. JPEGs are copied unchanged, raw pixels become PNG. After an
    interruption, run the same command again to continue.

    \b
    Examples:
      alexnet-prep export --shards out --to tars --format webdataset
      alexnet-prep export --shards out --to pictures --format folder --split val
    """
    shard_set = open_shard_set(shards)
    total = sum(split.records for split in shard_set.splits.values() if split.name in splits or not splits)
    workers = workers or available_cores()
    started = time.monotonic()
    with worker_pool(workers) as pool, console.progress("exporting", total, "records") as advance:
        fresh = export_shards(shard_set, target, format_, pool, advance, splits)
    seconds = time.monotonic() - started
    click.echo(f"{target}: {total:,} records as {format_}")
    click.echo(
        f"{console.duration(seconds)}, {fresh / seconds:,.0f} records/s with {workers} workers"
        if fresh
        else "already complete: nothing to do"
    )
