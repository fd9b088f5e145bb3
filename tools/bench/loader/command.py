"""`alexnet-bench loader`: our stream, its limit and other people's loaders, over the same crops, in one run."""

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
from ..timing import as_json, machine, row, table
from .cases import CASES, CROP, Case
from .data import FORMS, SPLIT, lay_out, open_crops
from .rounds import Run, check_cold, ratios

RECORDS = 10_000  # of a large set: all forms of so many take 7 GB


@click.command("loader")
@options.shards()
@options.json_file("Write the rows to a file.")
@options.path("--plot", help="Draw the rows as a PNG; needs matplotlib.")
@click.option("--cases", help="Measure these alone, separated by commas.  [default: all that are installed]")
@options.batch_size
@click.option("--batches", type=click.IntRange(1), help="Batches a round, at least.  [default: 40, or four a core]")
@click.option("--seconds", type=click.FloatRange(0), default=2.0, show_default=True, help="Of a round, at least.")
@options.repeats
@click.option("--records", type=click.IntRange(1), default=RECORDS, show_default=True, help="Of a larger set, so many.")
@options.workers("Threads or processes of each loader")
@click.option(
    "--decode", type=click.Choice(["auto", "threads", "dali"]), default="auto", show_default=True, help="In ours."
)
@click.option("--cold", is_flag=True, help="Then ours again, the set dropped from the page cache before each round.")
def bench_loader(shards, json_file, plot, cases, batch_size, batches, seconds, repeats, records, workers, decode, cold):
    """Compare loaders that give the same batches of the same 256x256 crops.

    A batch is a torch tensor of random 224x224 windows, half of them flipped: float32 less the mean colour (f32), or
    as they are (u8). One number in each 4 KiB page is read, so that memory which is filled late counts. Each loader
    has a process of its own, which stands still when it is not its turn. What a loader has prefetched by then is used
    up before the clock runs, and the clock stands still where an epoch ends.

    Every form of the crops is made below the system's temporary folder (TMPDIR) and removed at the end: all hold the
    same JPEG bytes, the raw ones the pixels that those decode to. limit-decode is libjpeg-turbo alone, a process a
    core.

    \b
    Examples:
      alexnet-bench loader --shards out --json loader.json --plot loader.png
      alexnet-bench loader --cases ours-jpeg-f32,native-caffe-f32,limit-decode --cold
    """
    chosen = _chosen(cases)
    if plot:
        _check_plot(plot)
    check_outputs([(json_file, ".json"), (plot, ".png")])
    missing = list(dict.fromkeys(case.package for case in chosen if not case.is_installed))
    chosen = [case for case in chosen if case.is_installed]
    workers = workers or available_cores()
    shard_set = open_crops(shards, CROP)
    count = min(records, shard_set.split(SPLIT).records)
    if count < workers * batch_size:
        raise UsageError(
            f"{count:,} records are no batch of {batch_size} for each of {workers} workers",
            "choose a smaller --batch-size, or fewer --workers",
        )
    if cold:
        check_cold(count, batch_size, workers)
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: the forms are removed
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as name:
        folder = Path(name)
        click.echo("making the forms of the crops", err=True)
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
        click.echo(f"not installed, so not measured: {', '.join(missing)}")
    if json_file:
        write_json(json_file, as_json(rows))
    if plot and warm:
        from .bar_chart import draw

        draw(warm, about, plot)
    broken = ", ".join(case.name for case in run.failed if case.is_ours)
    if broken:
        raise StreamError(f"our own failed: {broken}", "alexnet-prep doctor")


def _chosen(names: str | None) -> list[Case]:
    if names is None:
        return list(CASES.values())
    asked = [name.strip() for name in names.split(",")]
    for name in asked:
        if name not in CASES:
            raise UsageError(f"no case is called {name!r}", f"choose from {', '.join(CASES)}")
    return [case for name, case in CASES.items() if name in asked]


def _check_plot(plot: Path) -> None:
    """Say before the first round what would otherwise be said after the last."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--plot needs matplotlib", "pip install 'alexnet-dali[bench]'") from None
