"""`alexnet-prep pca-stats`: mean image and eigenbasis of the training split."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from ...pipeline.shards import stats as statistics
from ...pipeline.shards.manifest import open_shard_set
from ...pipeline.workers import available_cores
from .. import console


@click.command("pca-stats")
@click.option("--shards", type=click.Path(path_type=Path), default="out", show_default=True, help="The shard set.")
@click.option("--workers", type=click.IntRange(1), help="Threads.  [default: one a core]")
def pca_stats(shards, workers):
    """Measure the training split: mean image, RGB covariance and its eigenbasis, exactly.

    Writes stats.npz for programs and stats.json for people into the shard set.

    \b
    Example:
      alexnet-prep pca-stats --shards out
    """
    shard_set = open_shard_set(shards)
    # Threads: decoding and summing run outside the interpreter's lock, and no process has to start or can be lost.
    with (
        ThreadPoolExecutor(workers or available_cores()) as pool,
        console.progress("measuring", shard_set.split("train").records) as advance,
    ):
        try:
            stats = statistics.measure_stats(shard_set, pool, advance=advance)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    statistics.save_stats(stats, shards)
    click.echo(statistics.summary(stats))
    click.echo(f"written: {shards / 'stats.npz'}, {shards / 'stats.json'}")
