"""The journal of a build: its photos, its options and the receipts of its finished shards, so that it can be resumed.

    out/.build/job.json          source, options, versions of the libraries, and the account of the source
    out/.build/photos.csv        split,path,label,bytes,archive,offset, in the order of the source
    out/.build/SPLIT-NUMBER.json the receipt of a finished shard (shard_job.py)

In:  a PhotoSource and the jobs of its shards.  Out: the photos as they were when the build began, and the receipts of
shards that need not be built. When the set is done, dataset.json and rejected.csv replace the journal.
"""

import heapq
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ..csv_files import csv_rows, read_csv, write_csv
from ..errors import AlexnetError, ShardError, UsageError
from ..files import LOCK, write_json
from ..shards.datum import NO_LABEL
from ..shards.lmdb_shard import ShardFile
from ..shards.manifest import MANIFEST, is_complete
from ..shards.records_csv import listing_of, read_listing
from ..sources.account import Account
from ..sources.entries import Entries, Entry, LeftOut, Photos, Request
from ..sources.find import PhotoSource
from ..sources.photo import LOST_ALONE
from .shard_job import ShardJob

PHOTOS = ".build/photos.csv"
REJECTED_HEADER = ("source_path", "reason")
_HEADER = ("split", "path", "label", "bytes", "archive", "offset")
_OLD_RULES = (
    "it was built by the rules of alexnet-dali 0.1 for folders, splits and labels "
    "(alexnet-prep verify --against compares them)"
)
_LOST = frozenset(os.strerror(number) for number in LOST_ALONE)
_NAMED = 3  # photos named in a message


def load_or_begin(
    out: Path, source: PhotoSource, job_key: dict, jobs: list[ShardJob], made_by: dict[str, str]
) -> dict[str, dict]:
    """Load the receipts of finished shards; begin the journal if there is none.

    A shard is finished if it and its CSV exist in full size and no photo that was rejected as unreadable can be read
    now.

    Args:
        out: the folder of the set.
        source: the photos, as `restore_photo_list` returns them.
        job_key: source and options, which must equal those of the journal.
        jobs: all shards of the set.
        made_by: versions of the libraries that determine the bytes; the rest of a set requires the same.
    Returns:
        Receipts by shard path.
    Raises:
        UsageError: the folder holds something else, or another build.
        ShardError: the journal or the set is damaged, or was begun with other libraries.
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
    """Return whether a shard, in full size, and its CSV exist."""
    return is_complete(folder, file_of(receipt)) and listing_of(folder).exists()


def file_of(receipt: dict) -> ShardFile:
    """Return the records, bytes and SHA-256 of a data.mdb from a receipt or a manifest."""
    return ShardFile(receipt["records"], receipt["bytes"], receipt["sha256"])


def extras_of(receipt: dict) -> dict:
    """Return the fields about the photos of a shard from a receipt or a manifest."""
    old = ("csv_sha256", "forms", "known", "unlike")
    return {name: receipt[name] for name in (*old, "empty", "empty_photos") if name in old or name in receipt}


def _of_a_finished_set(out: Path, source: PhotoSource, job_key: dict, jobs: list[ShardJob]) -> dict[str, dict]:
    """Reconstruct the receipts from dataset.json and rejected.csv, after comparing photos and options."""
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    existing = {"source": {name: manifest["source"][name] for name in job_key["source"]}}
    existing["options"] = {name: manifest[name] for name in job_key["options"]}
    old = _OLD_RULES if (manifest["source"].get("request") or {}).get("rules", 1) < rules_of(source) else ""
    _compare(out, existing, job_key, "choose another --out", lambda: _changes_since_a_set(out, manifest, source), old)
    if not (out / "rejected.csv").exists():
        if manifest["rejected"]:
            raise ShardError(f"{out}: rejected.csv is missing", "copy it again, or choose another folder with --out")
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
    """Read the receipts of an interrupted build; write the journal if there is none."""
    record = out / ".build" / "job.json"
    if record.exists():
        existing = json.loads(record.read_text())
        made_with = existing.pop("versions")
        existing.pop("account", None)
        _compare_rules(out, existing.pop("rules", 1), rules_of(source))
        _compare(out, existing, job_key, "choose another --out, or remove that folder", lambda: changes(out, source))
        _compare_versions(out, made_with, made_by)
    else:
        if any(entry.name not in (".build", LOCK) for entry in out.iterdir()):
            raise UsageError(f"{out}: holds something that is not a shard set", "choose an empty folder with --out")
        record.parent.mkdir(exist_ok=True)
        about = {"rules": rules_of(source), "account": account_as_json(source.account)}
        write_json(record, {**job_key, "versions": made_by, **about})
    if not (out / PHOTOS).exists():
        write_photos(out / PHOTOS, source)
    receipts = {job.path: json.loads(job.receipt.read_text()) for job in jobs if job.receipt.exists()}
    return {
        path: {**asdict(file_of(one)), "rejected": [tuple(pair) for pair in one["rejected"]], **extras_of(one)}
        for path, one in receipts.items()
    }


def _came_back(root: Path, rejected: list) -> bool:
    return any(reason in _LOST and os.access(root / path, os.R_OK) for path, reason in rejected)


def rules_of(source: PhotoSource) -> int:
    """Return the version of the rules by which a source was read."""
    return source.request.get("rules", Request.rules)


def account_as_json(account: Account) -> dict:
    """Return the account of a source as dataset.json has it."""
    others = {ending: {"files": count, "such_as": names} for ending, (count, names) in account.others.items()}
    left_out = [asdict(one) for one in account.left_out]
    return {"used": account.used, "left_out": left_out, "others": others, "members": account.members}


def _account_of(entry: dict) -> Account:
    return Account(
        entry["used"],
        tuple(LeftOut(**one) for one in entry["left_out"]),
        {ending: (one["files"], one["such_as"]) for ending, one in entry["others"].items()},
        entry["members"],
    )


def _changes_since_a_set(out: Path, manifest: dict, source: PhotoSource) -> str:
    def before() -> Iterator[str]:
        yield from (path for path, _ in csv_rows(out / "rejected.csv"))
        for split in manifest["splits"].values():
            for shard in split["shards"]:
                yield from (row.source_path for row in read_listing(out / shard["path"]))

    return difference(before, source)


def _compare(
    out: Path, existing: dict, requested: dict, hint: str, changes: Callable[[], str], known: str = ""
) -> None:
    before = existing["options"]
    differences = [
        f"{name} was {before.get(name)}, now {value}"
        for name, value in requested["options"].items()
        if before.get(name) != value
    ]
    if existing["source"]["fingerprint"] != requested["source"]["fingerprint"]:  # the kind is only its description
        try:
            paths = changes()
        except (OSError, AlexnetError, ValueError):  # the lists are missing, too
            paths = ""
        differences.append(f"the photos or their splits changed{f' ({paths})' if paths else ''}")
        differences += [known] * bool(known)
    if differences:
        raise UsageError(f"{out}: holds another build: {'; '.join(differences)}", hint)


def _compare_rules(out: Path, before: int, now: int) -> None:
    if before != now:
        raise ShardError(
            f"{out}: the build was begun by other rules for folders, splits and labels "
            f"(those of alexnet-dali {'0.1' if before < now else 'a later version'}), which may give other labels",
            "remove the folder and build again; or finish it with that version",
        )


def _compare_versions(out: Path, before: dict, now: dict) -> None:
    changed = [
        f"{name} was {before.get(name)}, now {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise ShardError(
            f"{out}: the build was begun with other libraries, which may produce other bytes: {'; '.join(changed)}",
            "install the earlier versions to finish it, or remove the folder and build again",
        )


def write_photos(path: Path, source: PhotoSource) -> None:
    """Write the photos of a source as CSV, atomically, one by one."""
    rows = (
        (split, photo.path, photo.label, photo.bytes, photo.archive, photo.offset)
        for split, photos in source.splits.items()
        for photo in photos
    )
    write_csv(path, _HEADER, rows)


def restore_photo_list(source: PhotoSource, out: Path) -> PhotoSource:
    """Restore the photos of the build in `out`, if the only change since is that some have vanished.

    The build then rejects the vanished photos by name.

    Returns:
        The source as it was when the build began; if more has changed or there is no build, the source as it is.
    """
    try:
        job = json.loads((out / ".build" / "job.json").read_text())
        fingerprint = job["source"]["fingerprint"]
        if source.fingerprint() == fingerprint:
            return source
        earlier = replace(source, splits=_listed(out / PHOTOS, source), account=_account_of(job["account"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):  # no build, or damaged, as load_or_begin reports
        return source
    if earlier.fingerprint() != fingerprint:  # the classes changed
        return source
    for split, photos in source.splits.items():
        before = iter(earlier.splits.get(split, ()))
        if not all(photo in before for photo in photos):  # both are in the same order; this one has more
            return source
    return earlier


def _listed(path: Path, source: PhotoSource) -> dict[str, Photos]:
    """Return the photos of the journal by split, in compact arrays."""
    entries = {split: Entries() for split in source.splits}
    for split, name, label, count, archive, offset in csv_rows(path):
        class_name = "" if int(label) == NO_LABEL else source.classes[int(label)]
        entries.setdefault(split, Entries()).append(Entry(class_name, name, int(count), archive, int(offset)))
    labels = {name: label for label, name in enumerate(source.classes)} | {"": NO_LABEL}
    return {split: Photos(some, np.arange(len(some)), labels) for split, some in entries.items()}


def changes(out: Path, source: PhotoSource) -> str:
    """Describe how a source differs from the photo list of the build in `out`; see `difference`."""
    return difference(lambda: (path for _, path, *_ in csv_rows(out / PHOTOS)), source)


def difference(before: Callable[[], Iterable[str]], source: PhotoSource) -> str:
    """Describe which photos vanished and appeared; compares hashes of paths, in 20 bytes a photo.

    Args:
        before: yields the earlier paths, as often as it is called.
        source: the photos now.
    Returns:
        Text such as `gone: a/1.jpg; new: a/2.jpg and 5 more`; empty if the paths are the same.
    """

    def now() -> Iterator[str]:
        return (photo.path for photos in source.splits.values() for photo in photos)

    parts = (("gone", _without(before, now)), ("new", _without(now, before)))
    return "; ".join(f"{word}: {paths}" for word, paths in parts if paths)


def _without(some: Callable[[], Iterable[str]], others: Callable[[], Iterable[str]]) -> str:
    """Name the first paths of one list that are not in another; empty if there are none."""
    hashes, known = (np.unique(np.fromiter(map(hash, paths()), np.int64)) for paths in (some, others))
    missing = set(np.setdiff1d(hashes, known, assume_unique=True).tolist())
    if not missing:
        return ""
    named = heapq.nsmallest(_NAMED, (path for path in some() if hash(path) in missing))
    more = len(missing) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more > 0 else "")
