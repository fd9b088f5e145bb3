"""`alexnet-prep stage`: copy a shard set to a local disk and verify its hashes."""

import time

import click

from ...pipeline.shards.manifest import open_shard_set
from ...pipeline.shards.stage import stage_shards
from .. import console, options


@click.command("stage", context_settings=options.SETTINGS)
@options.shards()
@options.path("--to", "target", required=True, help="Folder for the copy, on a local disk.")
@click.option("--split", "splits", multiple=True, help="Copy only this split; can be repeated.")
def stage(shards, target, splits):
    """Copy a shard set to a local disk and verify every hash on the way.

    The copy has a dataset.json only when it is complete. After an interruption, run the same command again to
    continue; for a complete copy it compares file sizes only, so every job can start with this command.

    \b
    Examples:
      alexnet-prep stage --shards /net/imagenet-lmdb --to /scratch/imagenet
      alexnet-prep stage --shards /net/imagenet-lmdb --to /scratch/val --split val
    """
    shard_set = open_shard_set(shards)
    total = sum(
        file.bytes
        for split in shard_set.splits.values()
        for _, file in split.shards
        if split.name in splits or not splits
    )
    started = time.monotonic()
    with console.progress("copying", total, "bytes") as advance:
        staged = stage_shards(shard_set, target, splits, advance)
    seconds = time.monotonic() - started
    copies = staged.shard_set.splits.values()
    records, count = sum(split.records for split in copies), sum(len(split.shards) for split in copies)
    click.echo(f"{target}: {records:,} records in {count:,} shards, {console.size(total)}")
    if not staged.copied:
        click.echo("already complete: nothing to do")
        return
    rate = console.size(int(staged.copied / seconds))
    click.echo(f"{console.size(staged.copied)} copied in {console.duration(seconds)}, {rate}/s, all hashes correct")
