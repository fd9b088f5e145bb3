"""`alexnet-prep pca-stats`: mean image and RGB eigenbasis of the training split."""

from concurrent.futures import ThreadPoolExecutor

import click

from ...pipeline.shards import stats as statistics
from ...pipeline.shards.manifest import open_shard_set
from ...pipeline.workers import available_cores
from .. import console, options


@click.command("pca-stats", context_settings=options.SETTINGS)
@options.shards()
@options.workers("Threads")
def pca_stats(shards, workers):
    """Compute exact statistics of the training split: mean image, RGB covariance and its eigenbasis.

    Writes stats.npz, and stats.json as a readable summary, into the shard set.

    \b
    Example:
      alexnet-prep pca-stats --shards out
    """
    shard_set = open_shard_set(shards)
    # Threads are enough: decoding and summing release the interpreter lock.
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
