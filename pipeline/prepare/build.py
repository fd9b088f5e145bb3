"""Build a shard set, one shard per job, on any `concurrent.futures` executor.

In:  a PhotoSource.  Out: the folder that `shards/manifest.py` opens.  Does not import DALI or torch.
The order of records is a seeded permutation, fixed before a photo is read: builds of the same photos give the same
bytes with any number of workers, and a rejected photo shortens its shard without moving other records.
An interrupted build resumes from its receipts (`journal.py`).
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, wait
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..csv_files import write_csv
from ..errors import ShardError, SourceError
from ..files import locked, with_final_name, write_json
from ..plan.philox import BUILD, permutation
from ..shards.manifest import FORMAT, MANIFEST, VERSION, ShardSet, classes_sha256, open_shard_set
from ..sources.entries import Photos
from ..sources.find import PhotoSource
from ..versions import installed_versions
from .duplicates import HashedShard, duplicate_lines, find_duplicates
from .journal import REJECTED_HEADER, account_as_json, extras_of, file_of, load_or_begin, restore_photo_list
from .options import BuildOptions
from .prepared_cache import part_of, spool, spool_jobs
from .shard_job import MOST_EMPTY, ShardJob, at_work, build_shard

SHARD_RECORDS = 5000  # 160 MB as JPEG: large enough to stream, small enough to copy, and to build in seconds
FEWEST_SHARDS = 16  # of a small set, to keep all cores of most machines busy
UNDER_WAY = 512  # jobs submitted to the executor at a time
SMALLEST_SHARD = 256  # records of a shard, except of the last

Advance = Callable[..., None]


def build_shards(
    source: PhotoSource,
    out: Path,
    options: BuildOptions,
    executor: Executor,
    advance: Advance = lambda photos, fresh=True: None,
) -> tuple[ShardSet, int]:
    """Build the missing shards of a shard set.

    Args:
        source: the photos.
        out: the folder of the set; created if needed.
        options: how photos are stored.
        executor: runs the jobs.
        advance: called with the number of finished photos; with fresh=False for those of an earlier run.
    Returns:
        The finished set, and the number of photos read in this run; 0 if the set was complete.
    Raises:
        UsageError: `out` holds something else, or another build.
        ShardError: another process is building there, or a worker died.
        NotWrittenError: a file cannot be written.
        SourceError: no photo can be read, or the source has become unreadable.
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
                advance(sum(part_of(photo) not in spooled for photo in job.photos) if spooled else len(job.photos))
        except BrokenExecutor as error:
            raise _worker_died(out, executor, error) from None
        fresh = sum(len(job.photos) for job in waiting)
        hashed = {job.path: HashedShard(out / job.path, job.hashes, job.split, 0) for job in jobs}
        receipts = {job.path: receipts[job.path] for job in jobs}
        del jobs, waiting
        return _finish(source, out, options, job_key, receipts, hashed), fresh


def _jobs(source: PhotoSource, out: Path, options: BuildOptions) -> list[ShardJob]:
    jobs = []
    for split, photos in source.splits.items():
        each = options.shard_records or min(SHARD_RECORDS, max(SMALLEST_SHARD, -(-len(photos) // FEWEST_SHARDS)))
        order = permutation(len(photos), options.seed, purpose=BUILD)
        for number, start in enumerate(range(0, len(photos), each)):
            chosen = order[start : start + each]
            some = photos.take(chosen) if isinstance(photos, Photos) else tuple(photos[k] for k in chosen)
            jobs.append(ShardJob(source.root, out, split, number, some, options))
    return jobs


def _spool(waiting: list[ShardJob], executor: Executor, advance: Advance) -> set[tuple[str, int]]:
    """Prepare the photos of files that are read in order. Returns the parts that an earlier run had not prepared."""
    if not waiting:  # stopped when all shards were written
        return set()
    photos = (photo for job in waiting for photo in job.photos)
    jobs = [job for job in spool_jobs(waiting[0].root, waiting[0].out, photos, waiting[0].options) if not job.is_done()]
    for _, count in _run(executor, spool, jobs):
        advance(count)
    return {(job.archive, job.part) for job in jobs}


def _run(executor: Executor, work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Run the jobs, at most UNDER_WAY at a time, and yield (job, result) in the order of completion."""
    waiting = iter(jobs)
    running = {executor.submit(work, job): job for job in islice(waiting, UNDER_WAY)}
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()
        running.update({executor.submit(work, job): job for job in islice(waiting, UNDER_WAY - len(running))})


def _worker_died(out: Path, executor: Executor, error: BrokenExecutor) -> ShardError:
    """Return the error that names the photo a dead worker was on; workers that the pool ended leave such files, too."""
    found = at_work(out)
    dead: list[int] = getattr(executor, "killed", list)()
    photos = [found[process] for process in dead if process in found] or list(found.values())
    reason = " ".join(str(error).split()).rstrip(".")
    if not photos:
        return ShardError(f"{out}: a worker process died ({reason})", "run the same command again to resume")
    which = photos[0] if len(photos) == 1 else f"one of {', '.join(photos[:8])}"
    return ShardError(
        f"{out}: a worker process died on {which} ({reason})",
        "run the same command again to resume, with fewer --workers if memory was short; "
        "if a worker dies there again, remove that photo and report it",
    )


def _finish(
    source: PhotoSource,
    out: Path,
    options: BuildOptions,
    job_key: dict,
    receipts: dict[str, dict],
    hashed: dict[str, HashedShard],
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
            "check that these files are photos",
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
            "duplicates": _duplicates(out, receipts, hashed, source.classes),
            "empty": _empty(receipts),
            "source": {
                **job_key["source"],
                "path": str((source.requested or source.root).resolve()),
                "request": source.request,
                "account": account_as_json(source.account),
            },
            "versions": versions(),
        },
    )
    clear(out)
    return open_shard_set(out)


def _duplicates(out: Path, receipts: dict[str, dict], hashed: dict[str, HashedShard], classes: tuple[str, ...]) -> dict:
    """Return what is known of duplicates: as the set said before, if it has the same records and CSVs again."""
    if (out / MANIFEST).exists():
        before = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        shards = {shard["path"]: shard for split in before["splits"].values() for shard in split["shards"]}
        same = all(
            path in shards and shards[path][name] == receipt[name]
            for path, receipt in receipts.items()
            for name in ("sha256", "csv_sha256")
        )
        if same and len(shards) == len(receipts) and "duplicates" in before:
            return before["duplicates"]
    known = [replace(hashed[path], records=receipt["records"]) for path, receipt in receipts.items()]
    return find_duplicates(known, classes).as_json()


def _empty(receipts: dict[str, dict]) -> dict:
    """Return the number of pictures that show nothing, None if it is not known, and the first of them with reasons."""
    known = all("empty" in receipt for receipt in receipts.values())
    named = [pair for receipt in receipts.values() for pair in receipt.get("empty_photos", ())]
    count = sum(receipt["empty"] for receipt in receipts.values()) if known else None
    return {"count": count, "photos": named[:MOST_EMPTY]}


def notes_on(manifest: dict) -> list[str]:
    """Return what to print about the photos of a finished set, from its dataset.json: duplicates, empty pictures."""
    empty = manifest.get("empty") or {}
    lines = duplicate_lines(manifest)
    if empty.get("count"):
        named = ", ".join(f"{path} ({reason})" for path, reason in empty["photos"][:3])
        lines.append(f"{empty['count']:,} pictures are perhaps empty, such as {named}: look at their photos")
    return lines


def clear(out: Path) -> None:
    """Remove the leftovers of builds from the folder of a finished set, which the caller has locked."""
    names = (".build", f".{MANIFEST}.part", ".rejected.csv.part")  # not those of pca-stats, which may be running
    for left in (*(out / name for name in names), *out.glob("*/.*.part")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()


def versions() -> dict[str, str]:
    """Return the versions of the packages that determine a shard's bytes."""
    return installed_versions(("alexnet-dali", "lmdb", "numpy", "opencv-python-headless", "pillow", "simplejpeg"))
