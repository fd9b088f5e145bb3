"""`alexnet-bench loader`: our stream, its limit and other loaders, over the same crops or the same photos.

In:  a shard set; for the photos cases, photos in their original sizes.  Out: a table, a JSON file and a bar chart.
"""

import shlex
import signal
import sys
import tempfile
from pathlib import Path

import click

from ....pipeline.errors import StreamError, UsageError
from ....pipeline.files import write_json
from ....pipeline.stream.autotune import DECODERS
from ....pipeline.versions import installed_versions
from ....pipeline.workers import available_cores, worker_pool
from ... import options
from ...output_guard import check_outputs
from ..timing import PACKAGES, as_json, machine, pick, row, table
from .cases import CASES, CROP, Case
from .data import FORMS, SPLIT, lay_out, open_crops
from .photos import FORM as PHOTOS
from .photos import choose_photos
from .rounds import Rates, Run, check_cold, ratios

RECORDS = 4_000  # all formats of as many records take 3 GB


@click.command("loader", context_settings=options.SETTINGS)
@options.shards()
@options.path("--photos", help="Folder of photos in their original sizes, for the photos cases.")
@options.json_file()
@options.path("--plot", help="Also draw the results as a PNG.")
@click.option("--cases", help="Cases to measure, separated by commas.  [default: all that are installed]")
@options.batch_size
@click.option("--batches", type=click.IntRange(1), help="Least batches per round.  [default: 4, or 2 per worker]")
@click.option("--seconds", type=click.FloatRange(0), default=0.75, show_default=True, help="Least seconds per round.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Rounds.")
@click.option(
    "--records", type=click.IntRange(1), help="Most records to read.  [default: 4,000, or 2 batches per worker]"
)
@options.workers("Threads or processes of each loader")
@click.option(
    "--decode",
    type=click.Choice(["auto", *DECODERS]),
    default="auto",
    show_default=True,
    help="Decoder of our cases.",
)
@click.option("--cold", is_flag=True, help="Measure ours also with a cold page cache.")
@click.option("--sweep", is_flag=True, help="Measure with 1 worker, one per core and two per core, in new processes.")
@options.force
def bench_loader(shards, photos, json_file, plot, cases, workers, cold, sweep, force, **settings):
    """Compare loaders that produce the same batches from the same 256x256 crops.

    A batch is a torch tensor of random 224x224 windows, half of them flipped: float32 minus the mean colour (f32), or
    unchanged (u8). One value of each 4 KiB page is read, so that lazily filled memory counts. Each loader has its own
    process, which is stopped during the other loaders' rounds. A round begins with uncounted batches, which consume
    what was prefetched, and the clock is paused while an epoch restarts.

    The crops are written to the system's temporary folder (TMPDIR) in the format of each loader and deleted at the
    end: the same JPEG bytes, or the pixels that these decode to. limit-decode is only libjpeg-turbo, one process per
    worker. ours-*-light subtract the mean image and add the lighting noise, which the other loaders lack.

    The photos cases show what preparing photos once brings: the others decode and shrink photos in their original
    sizes, ours reads shards that were prepared from them. Without --photos they are left out.

    --sweep starts a new process for each round of each case, so that no round inherits another's state. It is slow.

    \b
    Examples:
      alexnet-bench loader --shards out --json loader.json --plot loader.png
      alexnet-bench loader --shards out --photos /data/imagenet/train
      alexnet-bench loader --cases ours-jpeg-f32,native-caffe-f32,limit-decode --cold
    """
    if sweep and (workers or cold or plot):
        raise UsageError("--sweep cannot be combined with --workers, --cold or --plot", "measure these without --sweep")
    chosen = _choose(cases, photos)
    check_outputs([(json_file, ".json"), (plot, ".png")], force)
    missing = list(dict.fromkeys(case.package for case in chosen if not case.is_installed))
    chosen = [case for case in chosen if case.is_installed]
    cores = available_cores()
    counts = sorted({1, cores, 2 * cores}) if sweep else [workers or cores]
    batch_size, repeats, seconds = settings["batch_size"], settings["repeats"], settings["seconds"]
    shard_set = open_crops(shards, CROP)
    records = settings["records"] or max(RECORDS, 2 * batch_size * counts[-1])
    records = min(records, shard_set.split(SPLIT).records)
    _check_records(records, batch_size, counts[-1], cold)
    originals = choose_photos(photos, records) if any(case.form == PHOTOS for case in chosen) else None
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: the temporary folder is deleted
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    results, runs, remarks = [], [], []
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as name:
        folder = Path(name)
        click.echo("writing the crops in all formats", err=True)
        with worker_pool(workers or cores) as pool:
            forms = {form for case in chosen for form in (case.form, case.files)} & set(FORMS)
            crops = lay_out(shard_set, folder, records, forms, pool)
            if originals is not None:
                remarks.append(originals.lay_out(folder, records, pool))
        click.echo(machine())
        for count in counts:
            run = Run(folder, crops, batch_size, settings["batches"] or max(4, 2 * count), count, settings["decode"])
            runs.append(run)
            click.echo(str(run))
            measure = run.fresh if sweep else run.warm
            rates: Rates = {}
            for originals_only in (False, True):  # fewer processes at a time; no ratio is between the two
                rates |= measure([case for case in chosen if (case.form == PHOTOS) is originals_only], repeats, seconds)
            warm = [row(case, measured) for case, measured in rates.items()]
            if cold:
                rates |= run.cold([case for case in chosen if case.is_ours and case.name in rates], repeats)
            rows, columns = [row(case, measured) for case, measured in rates.items()], ratios(rates)
            for one in as_json(rows):
                of_case = {name: column[one["case"]] for name, column in columns.items() if one["case"] in column}
                results.append({**one, "workers": count, "rounds": rates[one["case"]], "ratios": of_case})
            if rows:
                click.echo(table(rows, columns))
            remarks += run.remarks
    if missing:
        remarks.append(f"not installed and not measured: {', '.join(missing)}")
    if photos is None and cases is None:
        remarks.append("not measured without --photos: original photos, resized and cropped online")
    for remark in dict.fromkeys(remarks):
        click.echo(remark)
    if json_file:
        found = {
            "command": shlex.join(["alexnet-bench", *sys.argv[1:]]),
            "machine": machine().splitlines()[0],
            "versions": installed_versions(PACKAGES),
            "conditions": [str(run) for run in runs],
            "remarks": list(dict.fromkeys(remarks)),
            "cases": results,
        }
        write_json(json_file, found)
    if plot and warm:
        from .bar_chart import draw

        draw(warm, f"{machine()}\n{runs[-1]}", plot)
    broken = ", ".join(dict.fromkeys(case.name for run in runs for case in run.failed if case.is_ours))
    if broken:
        raise StreamError(f"our own loader failed: {broken}", "run alexnet-prep doctor")


def _choose(cases: str | None, photos: Path | None) -> list[Case]:
    """Return the cases to measure; without photos, none of those that need them.

    Raises:
        UsageError: a name is unknown, or named cases need photos.
    """
    chosen = [CASES[name] for name in pick("case", cases, list(CASES))]
    needy = ", ".join(case.name for case in chosen if case.form == PHOTOS)
    if cases and needy and photos is None:
        raise UsageError(f"{needy}: need photos in their original sizes", "add --photos FOLDER")
    return [case for case in chosen if case.form != PHOTOS or photos is not None]


def _check_records(records: int, batch_size: int, workers: int, cold: bool) -> None:
    """Check that each worker gets a batch, and that cold records are read once.

    Raises:
        UsageError: there are too few records.
    """
    if records < workers * batch_size:
        raise UsageError(
            f"{records:,} records are fewer than a batch of {batch_size} for each of {workers} workers",
            "choose a smaller --batch-size, or fewer --workers",
        )
    if cold:
        check_cold(records, batch_size, workers)
