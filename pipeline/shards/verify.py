"""Check a shard set completely: every hash, page, record, picture and CSV.

In:  a shard set's folder.  Out: a Report that names all damage, not only the first.
One shard is one unit of work, done by any `concurrent.futures` executor. Nothing is written.
Imports neither DALI nor torch.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import BrokenExecutor, Executor, as_completed
from dataclasses import dataclass
from pathlib import Path

from ..csv_files import read_csv
from ..errors import AlexnetError, ShardError
from ..files import LOCK
from .lmdb_shard import sha256_of
from .manifest import MANIFEST, UNLABELLED_SPLIT, ShardSet, classes_sha256, read_manifest
from .records_csv import listing_of
from .shard_check import Damage, Rules, check_shard
from .stats import load_stats

ASIDE = ".damaged"  # folder for what a repair replaces, until the set is intact
_BY_READERS = {"lock.mdb"}  # created in a shard by Caffe and other readers; harmless


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        root: the set's folder.
        records, shards: their numbers in dataset.json.
        damages: all damage, in the order of dataset.json; the files of the whole set last.
        damaged_shards: folders, relative to root, that have to be rebuilt or copied again.
        notes: files in the folder that are not part of the set; harmless.
    """

    root: Path
    records: int
    shards: int
    damages: tuple[Damage, ...]
    damaged_shards: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether there is no damage."""
        return not self.damages


def verify_shards(
    shard_set: ShardSet | Path,
    executor: Executor,
    advance: Callable[[int], None] = lambda records: None,
    only: Collection[str] | None = None,
) -> Report:
    """Check a shard set: decode every picture, compare every hash, size and label.

    Args:
        shard_set: opened, or its folder, in which shards may be missing or damaged.
        executor: any `concurrent.futures` executor, e.g. `worker_pool()`.
        advance: called with the number of records done since the last call.
        only: the shards to check, by their folders relative to the root; all by default.
    Returns:
        a report; `report.whole` is True where there is no damage.
    Raises:
        UsageError: no shard set in the folder.
        ShardError: dataset.json cannot be read, the build is not finished, or a worker died.
    Example:
        with worker_pool() as pool:
            for damage in verify_shards(Path("out"), pool).damages:
                print(damage.shard, damage.record, damage.reason)
    """
    if isinstance(shard_set, Path):
        shard_set = read_manifest(shard_set)
    root = shard_set.root
    found: dict[str, list[Damage]] = {}
    futures = {}
    try:
        for split in shard_set.splits.values():
            rules = Rules(
                shard_set.size,
                shard_set.fit,
                shard_set.encoding == "jpeg",
                len(shard_set.classes),
                split.name == UNLABELLED_SPLIT,
            )
            for folder, file in split.shards:
                path = folder.relative_to(root).as_posix()
                found[path] = []
                if only is None or path in only:
                    futures[executor.submit(check_shard, root, path, file, rules)] = path, file.records
        for future in as_completed(futures):
            path, records = futures[future]
            found[path] += future.result() or _check_listing(shard_set, path)
            advance(records)
    except BrokenExecutor as error:
        raise ShardError(
            f"{root}: a worker process died ({error})", "run it again, with fewer --workers if memory was short"
        ) from None
    return Report(
        root,
        sum(split.records for split in shard_set.splits.values()),
        len(found),
        tuple(damage for each in found.values() for damage in each) + tuple(_check_common_files(shard_set)),
        tuple(path for path, each in found.items() if each),
        tuple(_other_files(shard_set)),
    )


def _check_listing(shard_set: ShardSet, path: str) -> list[Damage]:
    """Compare the hash of a readable CSV."""
    split = path.partition("/")[0]
    wanted = {shard["path"]: shard.get("csv_sha256") for shard in shard_set.manifest["splits"][split]["shards"]}[path]
    listing = listing_of(Path(path))
    same = wanted in (None, sha256_of(shard_set.root / listing))
    return [] if same else [Damage(path, None, "", f"{listing.name}: its SHA-256 is not the one in {MANIFEST}")]


def _check_common_files(shard_set: ShardSet) -> Iterator[Damage]:
    """Check dataset.json, rejected.csv and stats.npz."""
    manifest = shard_set.manifest
    wanted_classes = manifest.get("classes_sha256")
    if wanted_classes not in (None, classes_sha256(manifest["classes"], manifest.get("label_order", ""))):
        yield Damage(MANIFEST, None, "", "classes or label_order are not those that were written: labels may be wrong")
    folders = [folder for split in shard_set.splits.values() for folder, _ in split.shards]
    for path, count in Counter(folder.relative_to(shard_set.root).as_posix() for folder in folders).items():
        if count > 1:
            yield Damage(MANIFEST, None, "", f"lists {path} {count} times")
    wanted = shard_set.manifest.get("rejected")
    try:
        rows = read_csv(shard_set.root / "rejected.csv")
        if len(rows) != wanted or any(len(row) != 2 for row in rows):
            yield Damage("rejected.csv", None, "", f"{len(rows):,} lines, but {MANIFEST} says {wanted}")
    except OSError as error:
        yield Damage("rejected.csv", None, "", str(error.strerror))
    except Exception as error:  # csv.Error
        yield Damage("rejected.csv", None, "", str(error))
    if os.path.lexists(shard_set.root / "stats.npz"):
        try:
            load_stats(shard_set)
        except AlexnetError as error:
            yield Damage("stats.npz", None, "", error.message.rpartition("stats.npz: ")[2])


def _other_files(shard_set: ShardSet) -> list[str]:
    """Describe the files in the set's folders that are not part of it."""
    root = shard_set.root
    files = {MANIFEST, LOCK, "rejected.csv", "stats.npz", "stats.json"}
    folders = {""}
    for split in shard_set.splits.values():
        for folder, _ in split.shards:
            shard = folder.relative_to(root)
            files |= {listing_of(shard).as_posix(), (shard / "data.mdb").as_posix()}
            folders |= {part.as_posix() for part in (shard, *shard.parents)}
    folders.discard(".")
    notes = []
    for folder_path in sorted(folders):
        try:
            names = sorted(os.listdir(root / folder_path))
        except OSError:
            continue  # missing, which is reported as damage
        for name in names:
            path = f"{folder_path}/{name}" if folder_path else name
            if path in files or path in folders or (name in _BY_READERS and path.count("/")):
                continue
            if path in (".build", ASIDE) or name.endswith(".part"):
                notes.append(f"{path}: left by an interrupted command; it can be removed")
            else:
                notes.append(f"{path}: not part of this set")
    return notes
