"""Export a shard set for programs that read neither LMDB nor Datum: tar files for webdataset, or class folders.

In:  a shard set.  Out, in `target`:

    webdataset: train-000000.tar, one a shard, with 00000_00000000.jpg, .cls (the label) and .json of each record
    folder:     train/CLASS/00000_00000000.jpg, as torchvision's ImageFolder reads it, with equal labels
    both:       export.json, written last; until then .export/ with one receipt a shard

JPEG payloads are copied unchanged; raw pixels become PNG, lossless. Equal sets give equal bytes. One shard is one unit
of work, done by any executor; stopped at any moment, the same call resumes. Imports neither DALI nor torch.
"""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from pathlib import Path

from ..errors import ShardError, UsageError
from ..files import begin_or_resume, locked, sync_folder, with_final_name, write_json
from .export_shard import UNLABELLED_DIR, WORK, ExportJob, class_folders, export_shard
from .manifest import ShardSet

FORMATS = ("webdataset", "folder")
INDEX = "export.json"


def export_shards(
    shard_set: ShardSet,
    target: Path,
    format: str,
    executor: Executor,
    advance: Callable[..., None] = lambda records, fresh=True: None,
    splits: Sequence[str] = (),
) -> int:
    """Export a shard set, or resume an export; of a finished one only the index is checked.

    Args:
        shard_set: opened by `open_shard_set`.
        target: a folder that is new, empty, or holds the same export.
        format: `webdataset`, one tar a shard, or `folder`, class folders; see the module.
        executor: any `concurrent.futures` executor, e.g. `worker_pool()`.
        advance: called with the number of records done; with fresh=False for those of an earlier run.
        splits: to export; all by default.
    Returns:
        The number of records exported by this call.
    Raises:
        UsageError: unknown split or format, or `target` holds something else.
        ShardError: a shard is damaged, a worker died, or another process is at work in `target`.
        NotWrittenError: a file cannot be written.
    Example:
        with worker_pool() as pool:
            export_shards(open_shard_set(Path("out")), Path("tars"), "webdataset", pool)
    """
    unknown = [name for name in splits if name not in shard_set.splits]
    if unknown or format not in FORMATS:
        raise UsageError(
            f"unknown {'split' if unknown else 'format'} {(unknown or [format])[0]!r}",
            f"choose one of {', '.join(shard_set.splits if unknown else FORMATS)}",
        )
    index = _index(shard_set, format, [name for name in shard_set.splits if name in splits or not splits])
    with with_final_name(target), locked(target):
        jobs = _jobs(shard_set, target, format, index)
        if begin_or_resume(target, "an export", target / INDEX, target / WORK / "job.json", index):
            shutil.rmtree(target / WORK, ignore_errors=True)
            advance(sum(job.file.records for job in jobs), fresh=False)
            return 0
        waiting = [job for job in jobs if not job.receipt.exists()]
        if len(waiting) < len(jobs):
            advance(sum(job.file.records for job in jobs if job not in waiting), fresh=False)
        try:
            futures = {executor.submit(export_shard, job): job for job in waiting}
            for future in as_completed(futures):
                future.result()
                advance(futures[future].file.records)
        except BrokenExecutor as error:
            raise ShardError(
                f"{target}: a worker process died ({error})",
                "run the same command again to resume; with fewer --workers if memory was short",
            ) from None
        if format == "folder":
            for split in index["splits"]:
                _make_class_folders(target / split, jobs[0].folders)
        write_json(target / INDEX, index)
        shutil.rmtree(target / WORK, ignore_errors=True)
        return sum(job.file.records for job in waiting)


def _index(shard_set: ShardSet, format: str, splits: list[str]) -> dict:
    """The content of export.json."""

    def paths(split: str) -> list[str]:
        if format == "folder":
            return [split]
        return [f"{split}-{number:06d}.tar" for number in range(len(shard_set.splits[split].shards))]

    return {
        "format": format,
        "classes": shard_set.manifest["classes"],
        "splits": {
            name: {
                "records": shard_set.splits[name].records,
                "fingerprint": shard_set.splits[name].fingerprint(),
                "paths": paths(name),
            }
            for name in splits
        },
        "size": shard_set.size,
        "fit": shard_set.fit,
        "encoding": shard_set.encoding,
    }


def _jobs(shard_set: ShardSet, target: Path, format: str, index: dict) -> list[ExportJob]:
    words = tuple(str(entry.get("words", "")) for entry in shard_set.manifest["classes"])
    folders = class_folders(shard_set.classes)
    return [
        ExportJob(
            shard_set.root,
            target,
            format,
            name,
            number,
            folder.relative_to(shard_set.root).as_posix(),
            file,
            shard_set.classes,
            words,
            folders,
        )
        for name in index["splits"]
        for number, (folder, file) in enumerate(shard_set.splits[name].shards)
    ]


def _make_class_folders(folder: Path, names: tuple[str, ...]) -> None:
    """Create folders also for classes without pictures, or ImageFolder would number the others wrongly."""
    if (folder / UNLABELLED_DIR).exists() and UNLABELLED_DIR not in names:
        return
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    sync_folder(folder)
