"""`alexnet-bench loader`: our stream, its limit and other loaders, over the same crops.

In:  a shard set.  Out: a table, a JSON file and a bar chart.
"""

import signal
import sys
import tempfile
from pathlib import Path

import click

from ....pipeline.errors import StreamError, UsageError
from ....pipeline.files import write_json
from ....pipeline.workers import available_cores, worker_pool
from ... import options
from ...output_guard import check_outputs
from ..timing import as_json, machine, pick, row, table
from .cases import CASES, CROP
from .data import FORMS, SPLIT, lay_out, open_crops
from .rounds import Run, check_cold, ratios

RECORDS = 10_000  # all formats of as many records take 7 GB


@click.command("loader", context_settings=options.SETTINGS)
@options.shards()
@options.json_file()
@options.path("--plot", help="Also draw the results as a PNG.")
@click.option("--cases", help="Cases to measure, separated by commas.  [default: all that are installed]")
@options.batch_size
@click.option("--batches", type=click.IntRange(1), help="Least batches per round.  [default: 40, or 4 per worker]")
@click.option("--seconds", type=click.FloatRange(0), default=2.0, show_default=True, help="Least seconds per round.")
@options.repeats
@click.option("--records", type=click.IntRange(1), default=RECORDS, show_default=True, help="Most records to read.")
@options.workers("Threads or processes of each loader")
@click.option(
    "--decode",
    type=click.Choice(["auto", "threads", "dali"]),
    default="auto",
    show_default=True,
    help="Decoder of our cases.",
)
@click.option("--cold", is_flag=True, help="Measure ours also with a cold page cache.")
@options.force
def bench_loader(
    shards, json_file, plot, cases, batch_size, batches, seconds, repeats, records, workers, decode, cold, force
):
    """Compare loaders that produce the same batches from the same 256x256 crops.

    A batch is a torch tensor of random 224x224 windows, half of them flipped: float32 minus the mean colour (f32), or
    unchanged (u8). One value of each 4 KiB page is read, so that lazily filled memory counts. Each loader has its own
    process, which is stopped during the other loaders' rounds. Prefetched batches are consumed before the clock
    starts, and the clock is paused while an epoch restarts.

    The crops are written to the system's temporary folder (TMPDIR) in the format of each loader and deleted at the
    end: the same JPEG bytes, or the pixels that these decode to. limit-decode is only libjpeg-turbo, one process per
    worker.

    \b
    Examples:
      alexnet-bench loader --shards out --json loader.json --plot loader.png
      alexnet-bench loader --cases ours-jpeg-f32,native-caffe-f32,limit-decode --cold
    """
    chosen = [CASES[name] for name in pick("case", cases, list(CASES))]
    check_outputs([(json_file, ".json"), (plot, ".png")], force)
    missing = list(dict.fromkeys(case.package for case in chosen if not case.is_installed))
    chosen = [case for case in chosen if case.is_installed]
    workers = workers or available_cores()
    shard_set = open_crops(shards, CROP)
    count = min(records, shard_set.split(SPLIT).records)
    if count < workers * batch_size:
        raise UsageError(
            f"{count:,} records are fewer than a batch of {batch_size} for each of {workers} workers",
            "choose a smaller --batch-size, or fewer --workers",
        )
    if cold:
        check_cold(count, batch_size, workers)
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: the temporary folder is deleted
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as name:
        folder = Path(name)
        click.echo("writing the crops in all formats", err=True)
        with worker_pool(workers) as pool:
            forms = {form for case in chosen for form in (case.form, case.files)} & set(FORMS)
            crops = lay_out(shard_set, folder, records, forms, pool)
        run = Run(folder, crops, batch_size, batches or max(40, 4 * workers), workers, decode)
        about = f"{machine()}\n{run}"
        click.echo(about)
        rates = run.warm(chosen, repeats, seconds)
        warm = [row(case, measured) for case, measured in rates.items()]
        if cold:
            rates |= run.cold([case for case in chosen if case.is_ours and case.name in rates], repeats)
    rows = [row(case, measured) for case, measured in rates.items()]
    if rows:
        click.echo(table(rows, ratios(rates)))
    for remark in run.remarks:
        click.echo(remark)
    if missing:
        click.echo(f"not installed and not measured: {', '.join(missing)}")
    if json_file:
        write_json(json_file, as_json(rows))
    if plot and warm:
        from .bar_chart import draw

        draw(warm, about, plot)
    broken = ", ".join(case.name for case in run.failed if case.is_ours)
    if broken:
        raise StreamError(f"our own loader failed: {broken}", "run alexnet-prep doctor")
