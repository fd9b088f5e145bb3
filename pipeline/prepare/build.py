"""Build a shard set: one shard is one unit of work, done by any `concurrent.futures` executor.

In:  a Source.  Out: the folder that `shardset.py` opens.  Neither DALI nor torch is imported.
Each record's place is a seeded permutation's, fixed before a photo is read, so two builds of the same photos give
the same bytes whatever the workers, and a rejected photo shortens its shard and moves no other record.
A build that was stopped, at any moment, goes on from its receipts (`receipts.py`).
"""

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, wait
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import ShardError, SourceError
from ..files import locked, with_final_name, write_csv, write_json
from ..plan.philox import BUILD, permutation
from ..shards.manifest import FORMAT, MANIFEST, VERSION, ShardSet, classes_sha256, open_shard_set
from ..sources.find import PhotoSource
from ..sources.photo import PARQUET
from .journal import REJECTED_HEADER, extras_of, file_of, load_or_begin, restore_photo_list
from .options import BuildOptions
from .prepared_cache import SpoolJob, spool
from .shard_job import ShardJob, at_work, build_shard

SHARD_RECORDS = 5000  # 160 MB as JPEG: large enough to stream, small enough to copy, and to build in seconds
FEWEST_SHARDS = 16  # of a small set, so that all cores of most machines have work
UNDER_WAY = 512  # units of work handed to the executor at a time
SMALLEST_SHARD = 256  # records; below that a shard is not worth its file

Advance = Callable[..., None]


def build_shards(
    source: PhotoSource,
    out: Path,
    options: BuildOptions,
    executor: Executor,
    advance: Advance = lambda photos, fresh=True: None,
) -> tuple[ShardSet, int]:
    """Build what is missing of a shard set; where nothing is missing, do nothing.

    Args:
        advance: called with the number of photos done; with fresh=False for those of an earlier run.
    Returns:
        The finished set, and how many photos were read for it this time.
    Raises:
        UsageError: `out` holds something else, or another build.
        ShardError: another process is building there, or a worker died.
        NotWrittenError: the system refused a file.
        SourceError: not one photo could be read, or the source cannot be read any more.
    """
    with with_final_name(out), locked(out):
        source = restore_photo_list(source, out)
        jobs = _jobs(source, out, options)
        job_key = {"source": {"kind": source.kind, "fingerprint": source.fingerprint()}, "options": asdict(options)}
        receipts = load_or_begin(out, source, job_key, jobs, versions())
        waiting = [job for job in jobs if job.path not in receipts]
        if receipts:
            advance(sum(len(job.photos) for job in jobs if job.path in receipts), fresh=False)
        if not waiting and (out / MANIFEST).exists():
            clear(out)
            return open_shard_set(out), 0
        for left in (out / ".build").glob("*.at"):
            left.unlink()
        try:
            spooled = _spool(waiting, executor, advance)
            for job, receipt in _run(executor, build_shard, waiting):
                receipts[job.path] = receipt
                advance(sum(photo.archive not in spooled for photo in job.photos))
        except BrokenExecutor as error:
            raise _worker_died(out, executor, error) from None
        shard_set = _finish(source, out, options, job_key, {job.path: receipts[job.path] for job in jobs})
        return shard_set, sum(len(job.photos) for job in waiting)


def _jobs(source: PhotoSource, out: Path, options: BuildOptions) -> list[ShardJob]:
    jobs = []
    for split, photos in source.splits.items():
        each = options.shard_records or min(SHARD_RECORDS, max(SMALLEST_SHARD, -(-len(photos) // FEWEST_SHARDS)))
        order = permutation(len(photos), options.seed, purpose=BUILD)
        for number, start in enumerate(range(0, len(photos), each)):
            chosen = tuple(photos[k] for k in order[start : start + each])
            jobs.append(ShardJob(source.root, out, split, number, chosen, options))
    return jobs


def _spool(waiting: list[ShardJob], executor: Executor, advance: Advance) -> set[str]:
    """Spool the files that can only be read in order. Returns those that were spooled now and not by an earlier run."""
    rows: dict[str, list[int]] = {}
    for job in waiting:
        for photo in job.photos:
            if photo.archive.endswith(PARQUET):
                rows.setdefault(photo.archive, []).append(photo.offset)
    jobs = [
        SpoolJob(waiting[0].root, waiting[0].out, archive, tuple(sorted(some)), waiting[0].options)
        for archive, some in sorted(rows.items())
    ]
    jobs = [job for job in jobs if not job.is_done()]
    for _, photos in _run(executor, spool, jobs):
        advance(photos)
    return {job.archive for job in jobs}


def _run(executor: Executor, work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Do the jobs and yield (job, result) as they are done; of millions of photos not all are under way at once."""
    waiting = iter(jobs)
    running = {executor.submit(work, job): job for job in islice(waiting, UNDER_WAY)}
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()
        running.update({executor.submit(work, job): job for job in islice(waiting, UNDER_WAY - len(running))})


def _worker_died(out: Path, executor: Executor, error: BrokenExecutor) -> ShardError:
    """Say which photo a dead worker was on; the survivors, which the pool ends, leave such traces too."""
    found = at_work(out)
    dead: list[int] = getattr(executor, "killed", list)()
    photos = [found[process] for process in dead if process in found] or list(found.values())
    reason = " ".join(str(error).split()).rstrip(".")
    if not photos:
        return ShardError(f"{out}: a worker process died ({reason})", "run the same command again, it goes on")
    which = photos[0] if len(photos) == 1 else f"one of {', '.join(photos[:8])}"
    return ShardError(
        f"{out}: a worker process died on {which} ({reason})",
        "run the same command again, it goes on where it stopped; with fewer --workers if memory was short; "
        "if it dies there again, take that photo away and report it",
    )


def _finish(
    source: PhotoSource, out: Path, options: BuildOptions, job_key: dict, receipts: dict[str, dict]
) -> ShardSet:
    rejected = sorted(tuple(pair) for receipt in receipts.values() for pair in receipt["rejected"])
    splits = {}
    for split in source.splits:
        shards = [
            {"path": path, **asdict(file_of(receipt)), **extras_of(receipt)}
            for path, receipt in receipts.items()
            if path.startswith(f"{split}/")
        ]
        splits[split] = {"records": sum(shard["records"] for shard in shards), "shards": shards}
    if not any(split["records"] for split in splits.values()):
        for made in (out / ".build", *(out / split for split in splits)):
            shutil.rmtree(made, ignore_errors=True)
        examples = "; ".join([f"{path}: {reason}" for path, reason in rejected[:3]] + ["..."] * (len(rejected) > 3))
        raise SourceError(
            f"{source.root}: none of {len(rejected):,} photos could be read ({examples})",
            "look at these files: are they photos?",
        )
    classes = [
        {"name": name, "words": source.words[name]} if name in source.words else {"name": name}
        for name in source.classes
    ]
    write_csv(out / "rejected.csv", REJECTED_HEADER, rejected)
    write_json(
        out / MANIFEST,
        {
            "format": FORMAT,
            "version": VERSION,
            **asdict(options),
            "resampling": "area (shrinking), cubic (enlarging)",
            "classes": classes,
            "label_order": source.label_order,
            "classes_sha256": classes_sha256(classes, source.label_order),
            "splits": splits,
            "rejected": len(rejected),
            "source": {
                **job_key["source"],
                "path": str((source.asked or source.root).resolve()),
                "request": source.request,
            },
            "versions": versions(),
        },
    )
    clear(out)
    return open_shard_set(out)


def clear(out: Path) -> None:
    """Remove what builds of a finished set left beside it; for those who hold the folder."""
    names = (".build", f".{MANIFEST}.part", ".rejected.csv.part")  # not those of pca-stats, which may be at work
    for left in (*(out / name for name in names), *out.glob("*/.*.part")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()


def versions() -> dict[str, str]:
    """Of what makes the bytes; a package that came under another name is left out."""
    found = {}
    for name in ("alexnet-dali", "lmdb", "numpy", "opencv-python-headless", "pillow", "scipy", "simplejpeg"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
