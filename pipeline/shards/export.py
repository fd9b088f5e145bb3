"""A shard set for programs that read neither LMDB nor Datum: tar files for webdataset, or folders of pictures.

In:  a shard set.  Out, in `target`:

    webdataset: train-000000.tar, one a shard, with 00000_00000000.jpg, .cls (the label) and .json of each record
    folder:     train/CLASS/00000_00000000.jpg, as torchvision's ImageFolder reads it, with equal labels
    both:       export.json, written last; while at work .export/ with a receipt a shard

JPEG payloads are copied as they are; raw pixels become PNG, without loss. Equal sets give equal bytes. One shard is
one unit of work, done by any executor; stopped at any moment, the same call goes on. Neither DALI nor torch is
imported.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from pathlib import Path

from ..errors import ShardError, UsageError
from ..files import locked, sync_folder, with_final_name, write_json
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
    """Export a shard set, or go on with it; of a finished export only the index is looked at.

    Args:
        format: one of FORMATS.
        advance: called with the number of records done; with fresh=False for those of an earlier run.
        splits: export these alone; all by default.
    Returns:
        How many records were exported this time.
    Raises:
        UsageError: `target` holds something else.
        ShardError: a shard is damaged, no such split, a worker died, or another process is at work there.
        NotWrittenError: the system refused a file.
    """
    unknown = [name for name in splits if name not in shard_set.splits]
    if unknown or format not in FORMATS:
        raise UsageError(
            f"no {'split' if unknown else 'format'} is called {(unknown or [format])[0]!r}",
            f"choose one of {', '.join(shard_set.splits if unknown else FORMATS)}",
        )
    index = _index(shard_set, format, [name for name in shard_set.splits if name in splits or not splits])
    with with_final_name(target), locked(target):
        jobs = _jobs(shard_set, target, format, index)
        if _is_finished(target, index):
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
                "run the same command again, it goes on where it stopped; with fewer --workers if memory was short",
            ) from None
        if format == "folder":
            for split in index["splits"]:
                _make_class_folders(target / split, jobs[0].folders)
        write_json(target / INDEX, index)
        shutil.rmtree(target / WORK, ignore_errors=True)
        return sum(job.file.records for job in waiting)


def _index(shard_set: ShardSet, format: str, splits: list[str]) -> dict:
    """What export.json says."""

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


def _is_finished(target: Path, index: dict) -> bool:
    """Whether this very export is there and complete; if not, begins it or goes on with it.

    Raises:
        UsageError: something else is there.
    """
    started = target / WORK / "job.json"
    for path in (target / INDEX, started):
        if not path.exists():
            continue
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            there = None
        if there != index:
            raise UsageError(f"{target}: holds another export", "choose another folder with --to, or remove that one")
        if path.name == INDEX:
            shutil.rmtree(target / WORK, ignore_errors=True)
        return path.name == INDEX
    if any(name != WORK for name in os.listdir(target)):
        raise UsageError(f"{target}: holds something that is not an export", "choose an empty folder with --to")
    started.parent.mkdir(exist_ok=True)
    write_json(started, index)
    return False


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
    """Make those of the classes without a picture too, or ImageFolder would count the others wrongly."""
    if (folder / UNLABELLED_DIR).exists() and UNLABELLED_DIR not in names:
        return
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    sync_folder(folder)
