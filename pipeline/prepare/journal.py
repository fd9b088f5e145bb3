"""The list of photos that a build was begun with, so that it can be finished although the source has changed since.

    out/.build/photos.csv   split,path,label,bytes,archive,offset: in the order of the source; gone when the set is done

In:  a Source.  Out: its photos as they were. A photo that vanished in between is then missed by name.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from ..errors import AlexnetError, ShardError, UsageError
from ..files import LOCK, read_csv, write_csv, write_json
from ..shards.lmdb_shard import ShardFile
from ..shards.manifest import MANIFEST, is_complete
from ..shards.records_csv import listing_of, read_listing
from ..sources.find import PhotoSource
from ..sources.photo import LOST_ALONE, Photo
from .shard_job import ShardJob

PHOTOS = ".build/photos.csv"
_HEADER = ("split", "path", "label", "bytes", "archive", "offset")
_NAMED = 3  # photos that a message names


def write_photos(path: Path, source: PhotoSource) -> None:
    """Write down the photos of a source, atomically."""
    rows = [
        (split, photo.path, photo.label, photo.bytes, photo.archive, photo.offset)
        for split, photos in source.splits.items()
        for photo in photos
    ]
    write_csv(path, _HEADER, rows)


def restore_photo_list(source: PhotoSource, out: Path) -> PhotoSource:
    """The source as the build in `out` was begun with it, if all that has happened since is that photos vanished.

    Returns:
        The source as it was; or, where more has changed or no build was begun, as it is now.
    """
    try:
        fingerprint = json.loads((out / ".build" / "job.json").read_text())["source"]["fingerprint"]
        if source.fingerprint() == fingerprint:
            return source
        splits: dict[str, list[Photo]] = {split: [] for split in source.splits}
        for split, name, label, count, archive, offset in read_csv(out / PHOTOS):
            splits.setdefault(split, []).append(Photo(name, int(label), int(count), archive, int(offset)))
    except (OSError, ValueError, KeyError, TypeError):  # nothing there, or damaged: receipts.py says so
        return source
    begun = replace(source, splits=splits)
    if begun.fingerprint() != fingerprint:  # the classes are others
        return source
    there = {split: set(photos) for split, photos in splits.items()}
    more = [photo for split, photos in source.splits.items() for photo in photos if photo not in there.get(split, ())]
    return source if more else begun


def changes(out: Path, source: PhotoSource) -> str:
    """How a source differs from the one that the build in `out` was begun with; see `difference`."""
    return difference({path for _, path, *_ in read_csv(out / PHOTOS)}, source)


def difference(there: set[str], source: PhotoSource) -> str:
    """Say which photos a source has and had: `gone: a/1.jpg; new: a/2.jpg and 5 more`; empty, the names are the same.

    Args:
        there: all paths, as they were.
    """
    here = {photo.path for photos in source.splits.values() for photo in photos}
    parts = (("gone", sorted(there - here)), ("new", sorted(here - there)))
    return "; ".join(f"{word}: {_some(paths)}" for word, paths in parts if paths)


def _some(paths: list[str]) -> str:
    more = len(paths) - _NAMED
    return ", ".join(paths[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


# --- from pipeline/prepare/receipts.py

REJECTED_HEADER = ("source_path", "reason")
_LOST = frozenset(os.strerror(number) for number in LOST_ALONE)


def load_or_begin(
    out: Path, source: PhotoSource, job_key: dict, jobs: list[ShardJob], made_by: dict[str, str]
) -> dict[str, dict]:
    """The receipts of the shards that are built, by path; starts the build where there is none.

    A shard counts as built when it and its CSV are there in full size, and when no photo that it had to leave out
    because it could not be read has come back since.

    Args:
        job_key: source and options, which must be the same.
        made_by: versions of the libraries that make the bytes; half a set must not be made by others.
    Raises:
        UsageError: the folder holds something else, or another build.
        ShardError: what it holds is damaged.
    """
    record = out / (MANIFEST if (out / MANIFEST).exists() else ".build")
    try:
        if record.name == MANIFEST:
            receipts = _of_a_finished_set(out, source, job_key, jobs)
        else:
            receipts = _of_a_build(out, source, job_key, jobs, made_by)
        roots = {job.path: job.root for job in jobs}
        return {
            path: receipt
            for path, receipt in receipts.items()
            if is_built(out / path, receipt) and not _came_back(roots[path], receipt["rejected"])
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(
            f"{record}: damaged: {type(error).__name__} {error}", "remove the folder, or choose another --out"
        ) from None


def is_built(folder: Path, receipt: dict) -> bool:
    """Whether a shard and its CSV are there, the shard in its full size."""
    return is_complete(folder, file_of(receipt)) and listing_of(folder).exists()


def file_of(receipt: dict) -> ShardFile:
    """A receipt's, or a manifest's, numbers of one data.mdb."""
    return ShardFile(receipt["records"], receipt["bytes"], receipt["sha256"])


def extras_of(receipt: dict) -> dict:
    """What a receipt, or a manifest, says about the photos of a shard."""
    return {name: receipt[name] for name in ("csv_sha256", "forms", "known", "unlike")}


def _of_a_finished_set(out: Path, source: PhotoSource, job_key: dict, jobs: list[ShardJob]) -> dict[str, dict]:
    """The receipts as dataset.json and rejected.csv have them; the photos and options are known to be the same."""
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    there = {"source": {name: manifest["source"][name] for name in job_key["source"]}}
    there["options"] = {name: manifest[name] for name in job_key["options"]}
    _compare(out, there, job_key, "choose another --out", lambda: _changes_since_a_set(out, manifest, source))
    if not (out / "rejected.csv").exists():
        if manifest["rejected"]:
            raise ShardError(f"{out}: rejected.csv is gone", "copy it again, or build into another folder with --out")
        write_csv(out / "rejected.csv", REJECTED_HEADER, [])
    reasons = dict(read_csv(out / "rejected.csv"))
    shards = {shard["path"]: shard for split in manifest["splits"].values() for shard in split["shards"]}
    (out / ".build").mkdir(exist_ok=True)
    return {
        job.path: {
            **asdict(file_of(shards[job.path])),
            "rejected": [(p.path, reasons[p.path]) for p in job.photos if p.path in reasons],
            **extras_of(shards[job.path]),
        }
        for job in jobs
    }


def _of_a_build(out: Path, source: PhotoSource, job_key: dict, jobs: list[ShardJob], made_by: dict) -> dict[str, dict]:
    """The receipts that a stopped build left; writes down what is being built where nothing is there yet."""
    started = out / ".build" / "job.json"
    if started.exists():
        there = json.loads(started.read_text())
        made_with = there.pop("versions")
        _compare(out, there, job_key, "choose another --out, or remove that folder", lambda: changes(out, source))
        _compare_versions(out, made_with, made_by)
    else:
        if any(entry.name not in (".build", LOCK) for entry in out.iterdir()):
            raise UsageError(f"{out}: holds something that is not a shard set", "choose an empty folder with --out")
        started.parent.mkdir(exist_ok=True)
        write_json(started, {**job_key, "versions": made_by})
    if not (out / PHOTOS).exists():
        write_photos(out / PHOTOS, source)
    receipts = {job.path: json.loads(job.receipt.read_text()) for job in jobs if job.receipt.exists()}
    return {
        path: {**asdict(file_of(one)), "rejected": [tuple(pair) for pair in one["rejected"]], **extras_of(one)}
        for path, one in receipts.items()
    }


def _came_back(root: Path, rejected: list) -> bool:
    return any(reason in _LOST and os.access(root / path, os.R_OK) for path, reason in rejected)


def _changes_since_a_set(out: Path, manifest: dict, source: PhotoSource) -> str:
    there = {path for path, _ in read_csv(out / "rejected.csv")}
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            there.update(row.source_path for row in read_listing(out / shard["path"]))
    return difference(there, source)


def _compare(out: Path, there: dict, wanted: dict, hint: str, changes: Callable[[], str]) -> None:
    if there == wanted:
        return
    differences = [
        f"{name} {there['options'].get(name)} there, {value} now"
        for name, value in wanted["options"].items()
        if there["options"].get(name) != value
    ]
    if there["source"] != wanted["source"]:
        try:
            named = changes()
        except (OSError, AlexnetError, ValueError):  # the lists are gone, too
            named = ""
        differences.append(f"the photos, or their split, are others{f' ({named})' if named else ''}")
    raise UsageError(f"{out}: holds another build: {'; '.join(differences)}", hint)


def _compare_versions(out: Path, there: dict, here: dict) -> None:
    others = [
        f"{name} {there.get(name)} then, {here.get(name)} now"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if others:
        raise ShardError(
            f"{out}: this build was begun with other libraries, which may make other bytes: {'; '.join(others)}",
            "install those of then to finish it, or remove the folder and begin again",
        )
