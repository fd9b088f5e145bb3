"""Copy a shard set to a local disk: read once, hashed on the way, finished or not there.

In:  a shard set, as a rule on a network.  Out: the same set in another folder, or some of its splits.
A shard is copied under a temporary name, synced, compared with the SHA-256 in dataset.json and renamed; its CSV is
there before it, and dataset.json is written last, so a folder that has it holds a complete copy. Stopped at any
moment, the same command goes on: a shard that is there is known by its size and its hash, not by its name.
Neither DALI nor torch is imported.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ShardError, UsageError
from ..files import locked, reading, sync_folder, with_final_name, write_atomically, write_json, writing_to
from .lmdb_shard import ShardFile, sha256_of
from .manifest import MANIFEST, ShardSet, is_complete, open_shard_set
from .records_csv import listing_of, read_listing

JOB = ".stage"  # says what is being copied; gone when dataset.json is there
_BESIDE = {"rejected.csv": "", "stats.npz": "train", "stats.json": "train"}  # other files, and the split they need
_BLOCK_BYTES = 4 << 20
_HINT = "alexnet-prep verify --shards, of the source, says what is damaged, and with --repair rebuilds it"


@dataclass(frozen=True)
class Staged:
    """The copy, opened; bytes of shards that were copied now, and that were there already."""

    shard_set: ShardSet
    copied: int
    there: int


def stage_shards(
    shard_set: ShardSet,
    target: Path,
    splits: Sequence[str] = (),
    advance: Callable[..., None] = lambda count, fresh=True: None,
) -> Staged:
    """Copy a shard set, or go on with it; where a complete copy is, look at sizes only.

    Args:
        splits: copy these alone; all by default.
        advance: called with the number of bytes done; with fresh=False for those that were there.
    Raises:
        UsageError: `target` holds something else, or is the set itself.
        ShardError: a shard of the source is damaged, no such split, no room, or another process is at work there.
        NotWrittenError: the system refused a file.
        AlexnetError: a file of the source cannot be read.
    """
    manifest = _manifest(shard_set, splits)
    if target.exists() and target.resolve() == shard_set.root.resolve():
        raise UsageError(f"{target}: that is the set itself", "choose another folder with --to")
    chosen = {name: shard_set.splits[name] for name in manifest["splits"]}
    shards = [(folder.relative_to(shard_set.root), file) for split in chosen.values() for folder, file in split.shards]
    with with_final_name(target), locked(target):
        if _is_finished(target, manifest):
            there = sum(file.bytes for _, file in shards)
            advance(there, fresh=False)
            return Staged(open_shard_set(target), 0, there)
        _start_or_go_on(target, manifest)
        waiting = [(path, file) for path, file in shards if not is_complete(target / path, file)]
        _check_room(target, sum(file.bytes for _, file in waiting))
        copied = 0
        for path, file in shards:
            _copy_listing(shard_set.root / path, target / path, file)
            if is_complete(target / path, file) and sha256_of(target / path / "data.mdb") == file.sha256:
                advance(file.bytes, fresh=False)
                continue
            _copy_shard(shard_set.root / path, target / path, file, advance)
            copied += file.bytes
        for name, needs in _BESIDE.items():
            if (shard_set.root / name).exists() and (not needs or needs in chosen):
                _copy_file(shard_set.root / name, target / name)
        write_json(target / MANIFEST, manifest)
        (target / JOB).unlink(missing_ok=True)
        return Staged(open_shard_set(target), copied, sum(file.bytes for _, file in shards) - copied)


def _manifest(shard_set: ShardSet, splits: Sequence[str]) -> dict:
    """dataset.json of the copy."""
    unknown = [name for name in splits if name not in shard_set.splits]
    if unknown:
        raise ShardError(
            f"{shard_set.root}: no split is called {unknown[0]!r}", f"there is {', '.join(shard_set.splits) or 'none'}"
        )
    kept = {name: entry for name, entry in shard_set.manifest["splits"].items() if name in splits or not splits}
    return {**shard_set.manifest, "splits": kept}


def _is_finished(target: Path, manifest: dict) -> bool:
    """Whether the target holds this very set.

    Raises:
        UsageError: it holds another one.
    """
    if not (target / MANIFEST).exists():
        return False
    try:
        there = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
    except ValueError:
        there = None
    if there != manifest:
        raise UsageError(f"{target}: holds another shard set", "choose another folder with --to, or remove that one")
    (target / JOB).unlink(missing_ok=True)
    for entry in manifest["splits"].values():
        for shard in entry["shards"]:
            file = ShardFile(shard["records"], shard["bytes"], shard["sha256"])
            if not is_complete(target / shard["path"], file) or not listing_of(target / shard["path"]).exists():
                # Copied once and damaged since: without dataset.json it is a copy under way.
                _write_job(target, manifest)
                (target / MANIFEST).unlink()
                return False
    return True


def _start_or_go_on(target: Path, manifest: dict) -> None:
    try:
        there = (target / JOB).read_text()
    except FileNotFoundError:
        if any(name != f".{JOB}.part" for name in os.listdir(target)):
            raise UsageError(
                f"{target}: holds something that is not a shard set", "choose an empty folder with --to"
            ) from None
        _write_job(target, manifest)
        return
    if there != _identity(manifest):
        raise UsageError(
            f"{target}: holds a part of another shard set", "choose another folder with --to, or remove that one"
        )


def _write_job(target: Path, manifest: dict) -> None:
    write_atomically(target / JOB, _identity(manifest).encode())


def _identity(manifest: dict) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest() + "\n"


def _check_room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target).free
    if needed > free:
        raise ShardError(
            f"{target}: {needed:,} bytes are to be copied, but only {free:,} are free there",
            "make room, or copy a part with --split",
        )


def _copy_shard(source: Path, target: Path, file: ShardFile, advance: Callable[..., None]) -> None:
    beside = target.with_name(f".{target.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        digest, count = hashlib.sha256(), 0
        with writing_to(target / "data.mdb"), open(beside / "data.mdb", "wb") as writing:
            for block in _blocks(source / "data.mdb"):
                writing.write(block)
                digest.update(block)
                count += len(block)
                advance(len(block))
            writing.flush()
            os.fsync(writing.fileno())
        if digest.hexdigest() != file.sha256:
            raise ShardError(
                f"{source / 'data.mdb'}: its {count:,} bytes are not those that {MANIFEST} names: SHA-256 "
                f"{digest.hexdigest()[:12]}... instead of {file.sha256[:12]}...",
                _HINT,
            )
        sync_folder(beside)
        if target.exists():
            shutil.rmtree(target)
        os.rename(beside, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _blocks(path: Path) -> Iterator[bytes]:
    with reading(path), open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _copy_listing(source: Path, target: Path, file: ShardFile) -> None:
    """Copy a shard's CSV, whose hash nobody knows: it must be readable and have a row for each record."""
    rows = len(read_listing(source))
    if rows != file.records:
        raise ShardError(
            f"{listing_of(source)}: {rows:,} rows for {file.records:,} records",
            _HINT,
        )
    _copy_file(listing_of(source), listing_of(target))


def _copy_file(source: Path, target: Path) -> None:
    content = source.read_bytes()
    if not target.exists() or target.read_bytes() != content:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
