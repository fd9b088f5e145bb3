"""A shard set, as its `dataset.json` describes it; opening checks that all shards exist.

In:  the folder that build-lmdb wrote.  Out: a ShardSet with its splits and classes.
No shard is opened, no picture read: a set of 300 shards opens in milliseconds.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ShardError, UsageError
from .lmdb_shard import ShardFile

SPLITS = ("train", "val", "test")
UNLABELLED_SPLIT = "test"  # the split whose labels may be -1

FORMAT = "alexnet-dali shard set"
VERSION = 1
MANIFEST = "dataset.json"
FITS = ("crop", "short-side")
ENCODINGS = ("jpeg", "raw")


@dataclass(frozen=True)
class Split:
    """One split of a shard set.

    Attributes:
        name: `train`, `val` or `test`.
        shards: each shard's folder and its numbers of records and bytes.
    """

    name: str
    shards: tuple[tuple[Path, ShardFile], ...]

    @property
    def records(self) -> int:
        """Number of records in all shards."""
        return sum(file.records for _, file in self.shards)

    def fingerprint(self) -> str:
        """Return the SHA-256, hex, over the shards' hashes: equal for equal records in the same order."""
        return hashlib.sha256("\n".join(file.sha256 for _, file in self.shards).encode()).hexdigest()


@dataclass(frozen=True)
class ShardSet:
    """A shard set, as dataset.json describes it.

    Attributes:
        root: the set's folder.
        size: of the short side, pixels; of both sides with fit `crop`.
        fit: `crop` or `short-side`.
        encoding: `jpeg` or `raw`.
        classes: names in label order.
        splits: by name.
        manifest: the content of dataset.json.
    """

    root: Path
    size: int
    fit: str
    encoding: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    manifest: dict

    def split(self, name: str) -> Split:
        """Return a split by its name.

        Raises:
            ShardError: there is no such split, or it has no records.
        """
        split = self.splits.get(name)
        if split is None or not split.records:
            present = ", ".join(f"{other.name} ({other.records:,})" for other in self.splits.values())
            raise ShardError(
                f"{self.root}: no records in a split {name!r}; available: {present or 'none'}",
                "build the shards from a folder that has photos for it",
            )
        return split

    def has(self, name: str) -> bool:
        """Whether a split `name` exists and has records."""
        return name in self.splits and self.splits[name].records > 0


def classes_sha256(classes: list[dict], label_order: str) -> str:
    """Compute a digest of the classes as dataset.json lists them, which detects swapped classes."""
    return hashlib.sha256(json.dumps([classes, label_order]).encode()).hexdigest()


def open_shard_set(root: Path) -> ShardSet:
    """Open a shard set: read dataset.json and check that every shard exists in its full size.

    Args:
        root: the set's folder.
    Returns:
        splits, classes, sizes in pixels; no shard is opened yet.
    Raises:
        UsageError: no shard set in the folder.
        ShardError: unfinished, of another version, damaged, or shards are missing.
    Example:
        open_shard_set(Path("out")).split("train").records
    """
    path = root / MANIFEST
    if not path.exists():
        if (root / ".build").exists():
            raise ShardError(
                f"{root}: the build is not finished",
                "run the same alexnet-prep build-lmdb command again to resume it",
            )
        raise UsageError(
            f"{root}: no shard set there (no {MANIFEST})", f"build one: alexnet-prep build-lmdb PHOTOS --out {root}"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        shard_set = _read(root, manifest)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ShardError(
            f"{path}: not a valid manifest: {type(error).__name__} {error}",
            "copy dataset.json again, or build the set again",
        ) from None
    for split in shard_set.splits.values():
        for folder, file in split.shards:
            if not is_complete(folder, file):
                raise ShardError(
                    f"{folder}: missing, or its size is not {file.bytes:,} bytes as in {MANIFEST}",
                    "copy the set again, or run its alexnet-prep build-lmdb command again",
                )
    return shard_set


def read_manifest(root: Path) -> ShardSet:
    """Read a set's dataset.json, even if shards are missing or damaged.

    Raises:
        UsageError: no shard set in the folder.
        ShardError: unfinished, of another version, or dataset.json is damaged.
    """
    try:
        return open_shard_set(root)
    except ShardError as error:
        try:
            return _read(root, json.loads((root / MANIFEST).read_text(encoding="utf-8")))
        except Exception:
            raise error from None  # the first error describes what is wrong with dataset.json


def is_complete(folder: Path, file: ShardFile) -> bool:
    """Whether a shard's data.mdb exists in its full size."""
    try:
        return (folder / "data.mdb").stat().st_size == file.bytes
    except (OSError, ValueError):  # an invalid path
        return False


def _read(root: Path, manifest: dict) -> ShardSet:
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']!r}")
    if manifest["version"] != VERSION:
        raise ShardError(
            f"{root / MANIFEST}: version {manifest['version']}, this program reads version {VERSION}",
            "update alexnet-dali, or build the set again",
        )
    splits = {}
    for name, entry in manifest["splits"].items():
        if name not in SPLITS:
            raise ValueError(f"a split {name!r}")
        shards = tuple(
            (
                _shard_folder(root, name, shard["path"]),
                ShardFile(int(shard["records"]), int(shard["bytes"]), str(shard["sha256"])),
            )
            for shard in entry["shards"]
        )
        splits[name] = Split(name, shards)
        if splits[name].records != entry["records"]:
            raise ValueError(f"{name} has {splits[name].records} records in its shards, {entry['records']} in all")
        if any(file.records < 0 for _, file in shards):
            raise ValueError(f"{name} has a shard with a negative number of records")
    classes = tuple(str(entry["name"]) for entry in manifest["classes"])
    size, fit, encoding = int(manifest["size"]), manifest["fit"], manifest["encoding"]
    unlabelled = set(splits) == {UNLABELLED_SPLIT}  # such a set may have no classes
    if size < 1 or fit not in FITS or encoding not in ENCODINGS or not (classes or unlabelled):
        raise ValueError(f"size {size}, fit {fit!r}, encoding {encoding!r}, {len(classes)} classes")
    return ShardSet(root, size, fit, encoding, classes, splits, manifest)


def _shard_folder(root: Path, split: str, path: str) -> Path:
    if not re.fullmatch(rf"{split}/[0-9]+\.lmdb", path):  # any other path could lead out of the set
        raise ValueError(f"a shard at {path!r}, which is not {split}/NUMBER.lmdb")
    return root / path
