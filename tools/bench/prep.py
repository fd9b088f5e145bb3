"""`alexnet-bench prep`: the offline stage compared with the decoder's limit and with other implementations.

In:  photos, or a shard set built from photos.  Out: a table, and a JSON file.
"""

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from ...pipeline.errors import UsageError
from ...pipeline.files import write_json
from ...pipeline.prepare.build import build_shards
from ...pipeline.prepare.options import BuildOptions
from ...pipeline.shards import stats
from ...pipeline.shards.manifest import MANIFEST, ShardSet, open_shard_set
from ...pipeline.shards.verify import verify_shards
from ...pipeline.sources.find import PhotoSource, find_again, find_photos
from ...pipeline.sources.photo import is_sequential, read_photo
from ...pipeline.workers import available_cores, worker_pool
from .. import options
from ..output_guard import check_outputs
from . import prep_cases
from .timing import Row, as_json, machine, peak_of, ratio, rounds, row, table

CHUNK = 50  # photos per task: small enough that all workers finish at about the same time
OF_RECORDS = ("pca-stats", "verify", "limit-records")  # cases that read the finished shard set, not the photos
DISTINCT = 500  # photos that each process keeps in memory; they are repeated up to --photos


@click.command("prep", context_settings=options.SETTINGS)
@click.argument("source", type=options.PATH, required=False)
@click.option("--shards", type=options.PATH, default="out", help="Without SOURCE: this set's photos.")
@click.option("--photos", "total", type=click.IntRange(100), default=4000, show_default=True, help="Photos per round.")
@options.repeats
@options.workers()
@options.json_file()
@options.force
def bench_prep(source, shards, total, repeats, workers, json_file, force):
    """Measure build-lmdb, pca-stats and verify on the photos of SOURCE.

    build-lmdb is timed as a whole command, with start-up, hashing and LMDB; so is FFCV's writer, if it is installed.
    The limit (only libjpeg-turbo's decoding and encoding), Pillow and OpenCV are timed in running processes, without
    reading or writing files. Everything is written to the system's temporary folder.

    \b
    Example:
      alexnet-bench prep /data/imagenet --json prep.json
    """
    check_outputs([(json_file, ".json")], force)
    workers = workers or available_cores()
    found = find_photos(source) if source else find_again(_manifest(shards))
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder, worker_pool(workers) as pool:
        bench = _Bench(Path(folder), found, total, workers, pool)
        click.echo(f"{machine()}\n{bench.distinct:,} photos of {found.root}, {total:,} per round, {workers} workers")
        rates = rounds(bench.cases(), repeats)
        peaks = {"build-lmdb": bench.peak, "build-lmdb-tenth": bench.peak_of_a_tenth()}
    rows = [row(case, measured, peaks.get(case, 0)) for case, measured in rates.items()]
    rows.append(Row("build-lmdb-tenth", 0.0, 0.0, 0.0, peaks["build-lmdb-tenth"]))
    limits = {"build-lmdb": "limit", "pca-stats": "limit-records", "verify": "limit-records"}
    against = {case: ratio(rates[case], rates[limits.get(case, "limit")]) for case in rates if case != "limit-records"}
    ours = {case: ratio(rates["build-lmdb"], rates[case]) for case in rates if case not in OF_RECORDS}
    click.echo(table(rows[:-1], {"of its limit": against, "ours to it": ours}))
    click.echo(
        f"peak memory of a worker: {peaks['build-lmdb'] / 1e6:,.0f} MB with {total:,} photos, "
        f"{peaks['build-lmdb-tenth'] / 1e6:,.0f} MB with {total // 10:,}"
    )
    if "ffcv" not in rates:
        click.echo("not installed and not measured: ffcv")
    if json_file:
        write_json(json_file, as_json(rows))


def _manifest(shards: Path) -> dict:
    if not (shards / MANIFEST).exists():
        raise UsageError(
            f"no photos are given, and {shards} is not a shard set", "alexnet-bench prep PHOTOS, or --shards DIR"
        )
    open_shard_set(shards)
    return json.loads((shards / MANIFEST).read_text(encoding="utf-8"))


class _Bench:
    """The photos as files in a temporary folder, and the cases that read them."""

    def __init__(self, folder: Path, found: PhotoSource, total: int, workers: int, pool: Executor):
        self._folder, self._total, self._workers, self._pool = folder, total, workers, pool
        self._source = folder / "photos"
        self._kept = str(folder / "distinct")
        self.distinct = self._write_photos(found)
        self.peak = 0
        self._set: ShardSet | None = None

    def cases(self) -> dict[str, Callable[[], int]]:
        """Return the cases by name, in running order; `pca-stats` and `verify` read the output of `build-lmdb`."""
        cases = {
            "build-lmdb": self._build,
            "limit": lambda: self._run_in_pool(prep_cases.limit),
            "limit-decode": lambda: self._run_in_pool(prep_cases.limit_decode),
            "pillow-box": lambda: self._run_in_pool(prep_cases.pillow_box),
            "pillow": lambda: self._run_in_pool(prep_cases.pillow),
            "opencv": lambda: self._run_in_pool(prep_cases.opencv),
            "pca-stats": self._pca_stats,
            "verify": self._verify,
            "limit-records": self._limit_records,
        }
        if importlib.util.find_spec("ffcv"):
            target = self._folder / "ffcv.beton"
            cases["ffcv"] = lambda: prep_cases.ffcv(self._kept, self._total, self._workers, target)
        return cases

    def peak_of_a_tenth(self) -> int:
        """Return a worker's peak memory with a tenth of the photos, in bytes."""
        self._build(self._total // 10)
        return self.peak

    def _write_photos(self, found: PhotoSource) -> int:
        """Copy evenly chosen photos, and link to them repeatedly up to the total; returns the number of copies."""
        photos = [photo for split in found.splits.values() for photo in split if not is_sequential(photo.archive)]
        if not photos:
            raise UsageError(
                f"{found.root}: photos in parquet files and gzipped tars are not benchmarked",
                "name a folder or tar files",
            )
        indices = np.linspace(0, len(photos) - 1, min(DISTINCT, len(photos), self._total)).astype(int)
        chosen = [photos[k] for k in indices]
        kept = Path(self._kept)
        kept.mkdir()
        (self._source / "photos").mkdir(parents=True)
        for number, photo in enumerate(chosen):
            (kept / f"{number:05d}.jpg").write_bytes(read_photo(found.root, photo))
        for number in range(self._total):
            os.link(kept / f"{number % len(chosen):05d}.jpg", self._source / "photos" / f"{number:07d}.jpg")
        return len(chosen)

    def _build(self, total: int = 0) -> int:
        """Run the command's work, from starting the workers to the finished set; returns the number of photos."""
        out = self._folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        source = find_photos(self._source, split="train")
        if total:
            source = replace(source, splits={"train": source.splits["train"][:total]})
        with worker_pool(self._workers) as pool:
            self._set, done = build_shards(source, out, BuildOptions(), pool)
            self.peak = max(peak_of(worker.pid) for worker in pool.processes)
        return done

    def _pca_stats(self) -> int:
        with ThreadPoolExecutor(self._workers) as executor:
            return stats.measure_stats(self._finished(), executor).images

    def _verify(self) -> int:
        shard_set = self._finished()
        report = verify_shards(shard_set.root, self._pool)
        return report.records

    def _limit_records(self) -> int:
        shards = self._finished().split("train").shards
        return sum(self._pool.map(prep_cases.limit_records, *zip(*shards, strict=True)))

    def _finished(self) -> ShardSet:
        assert self._set is not None, "build-lmdb runs first"
        return self._set

    def _run_in_pool(self, work: Callable[[str, int, int], int]) -> int:
        starts = range(0, self._total, CHUNK)
        stops = [min(start + CHUNK, self._total) for start in starts]
        return sum(self._pool.map(work, [self._kept] * len(stops), starts, stops))
