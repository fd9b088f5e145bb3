"""Copy a shard set to a local disk: each shard is read once, hashed on the way, and complete or absent.

In:  a shard set, usually on a network.  Out: the same set in another folder, or some of its splits.
A shard is copied under a temporary name, synced, compared with the SHA-256 in dataset.json and renamed; its CSV is
written before it, and dataset.json last, so a folder that has one holds a complete copy. Stopped at any moment, the
same command resumes: a shard counts as copied by its size and hash, not by its name. Imports neither DALI nor torch.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ShardError, UsageError
from ..files import (
    begin_or_resume,
    locked,
    reading,
    sync_folder,
    with_final_name,
    write_atomically,
    write_json,
    writing_to,
)
from .lmdb_shard import ShardFile, repair_hint, sha256_of
from .manifest import MANIFEST, ShardSet, is_complete, open_shard_set
from .records_csv import listing_of, read_listing

JOB = ".stage"  # digest of the dataset.json that is being copied; removed when the copy is complete
_BESIDE = {"rejected.csv": "", "stats.npz": "train", "stats.json": "train"}  # other files, and the split they need
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Staged:
    """The copy, opened; bytes of shards copied by this call, and bytes that existed already."""

    shard_set: ShardSet
    copied: int
    existing: int


def stage_shards(
    shard_set: ShardSet,
    target: Path,
    splits: Sequence[str] = (),
    advance: Callable[..., None] = lambda count, fresh=True: None,
) -> Staged:
    """Copy a shard set, or resume a copy; of a complete copy only the sizes are checked.

    Args:
        shard_set: the source, opened by `open_shard_set`.
        target: a folder that is new, empty, or holds the same copy.
        splits: to copy; all by default.
        advance: called with the number of bytes done; with fresh=False for those that existed.
    Returns:
        The copy, opened, and how many bytes were copied.
    Raises:
        UsageError: `target` holds something else, or is the set itself.
        ShardError: a shard of the source is damaged, unknown split, too little space, or another process is at work
            in `target`.
        NotWrittenError: a file cannot be written.
        AlexnetError: a file of the source cannot be read.
    Example:
        shard_set = stage_shards(open_shard_set(Path("/net/out")), Path("/local/out")).shard_set
    """
    manifest = _manifest(shard_set, splits)
    if target.exists() and target.resolve() == shard_set.root.resolve():
        raise UsageError(f"{target}: source and target are the same set", "choose another folder with --to")
    chosen = {name: shard_set.splits[name] for name in manifest["splits"]}
    shards = [(folder.relative_to(shard_set.root), file) for split in chosen.values() for folder, file in split.shards]
    with with_final_name(target), locked(target):
        if begin_or_resume(target, "a shard set", target / MANIFEST, target / JOB, manifest, _digest(manifest)):
            if all(is_complete(target / path, file) and listing_of(target / path).exists() for path, file in shards):
                (target / JOB).unlink(missing_ok=True)
                existing = sum(file.bytes for _, file in shards)
                advance(existing, fresh=False)
                return Staged(open_shard_set(target), 0, existing)
            # Damaged since it was copied: without dataset.json it is an unfinished copy.
            write_atomically(target / JOB, _digest(manifest).encode())
            (target / MANIFEST).unlink()
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
    """The content of the copy's dataset.json."""
    unknown = [name for name in splits if name not in shard_set.splits]
    if unknown:
        raise ShardError(
            f"{shard_set.root}: unknown split {unknown[0]!r}", f"choose one of {', '.join(shard_set.splits)}"
        )
    kept = {name: entry for name, entry in shard_set.manifest["splits"].items() if name in splits or not splits}
    return {**shard_set.manifest, "splits": kept}


def _digest(manifest: dict) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest() + "\n"


def _check_room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target).free
    if needed > free:
        raise ShardError(
            f"{target}: {needed:,} bytes to copy, but only {free:,} are free",
            "make room, or copy fewer splits with --split",
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
                f"{source / 'data.mdb'}: {count:,} bytes with another SHA-256 than in {MANIFEST}: "
                f"{digest.hexdigest()[:12]}... instead of {file.sha256[:12]}...",
                repair_hint(source),
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
    """Copy a shard's CSV, whose hash is not compared: it must be readable and have one row for each record."""
    rows = len(read_listing(source))
    if rows != file.records:
        raise ShardError(f"{listing_of(source)}: {rows:,} rows for {file.records:,} records", repair_hint(source))
    _copy_file(listing_of(source), listing_of(target))


def _copy_file(source: Path, target: Path) -> None:
    content = source.read_bytes()
    if not target.exists() or target.read_bytes() != content:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
