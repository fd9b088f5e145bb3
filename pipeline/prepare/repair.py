"""Rebuild the damaged shards of a set from the photos, and nothing else.

In:  a Report of damage.  Out: the set, whole again: byte for byte as it was, where photos and libraries are.
The damaged shards are first put aside, in `.damaged/`, then `build()` builds what is missing, as after any stop.
Killed at any moment, the same command goes on. Neither DALI nor torch is imported.
"""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ShardError, UsageError
from ..files import locked, read_csv, sync_folder, with_final_name
from ..shards.manifest import ShardSet, read_manifest
from ..shards.records_csv import listing_of
from ..shards.verify import ASIDE, Report
from ..sources.find import PhotoSource, find_again
from .build import build_shards, clear
from .options import options_of


@dataclass(frozen=True)
class Repair:
    """What was done.

    Attributes:
        shard_set: as it is now.
        shards: the folders below the root that were rebuilt.
        changed: those of them whose bytes are not those from before.
        rejected: photos that could be read when the set was built and now cannot, with the reason.
        versions: libraries that are not those from before, as `name 1.2, before 1.1`.
        kept: where the damaged shards still are: only if photos were lost, which they may hold.
    """

    shard_set: ShardSet
    shards: tuple[str, ...]
    changed: tuple[str, ...]
    rejected: tuple[str, ...]
    versions: tuple[str, ...]
    kept: Path | None


def repair(
    report: Report,
    executor: Executor,
    photos: Path | None = None,
    advance: Callable[..., None] = lambda photos, fresh=True: None,
) -> Repair:
    """Rebuild the damaged shards that a report names.

    Args:
        report: of `verify`.
        photos: where the photos are now, if they moved.
        advance: see `build`.
    Raises:
        UsageError: the photos are gone, or are others.
        ShardError: another process is at work there, or the set is only a part of what was built.
        NotWrittenError: the system refused a file.
    """
    root = report.root
    before = read_manifest(root)
    source = find_again(before.manifest, photos)
    _check_source(source, before)
    rejected_before = _rejected(root)
    with with_final_name(root), locked(root):
        quarantine(root, report.damaged_shards)
    try:
        after, _ = build_shards(source, root, options_of(before.manifest), executor, advance)
    except Exception:
        _put_back(root)
        raise
    lost = {path: reason for path, reason in _rejected(root).items() if path not in rejected_before}
    there, now = _hashes(before), _hashes(after)
    changed = [path for path in there if there[path] != now.get(path)]
    versions = before.manifest.get("versions", {}), after.manifest.get("versions", {})
    done = Repair(
        after,
        # The build also takes in photos that were lost once and have come back, into shards that were not damaged.
        tuple(path for path in there if path in report.damaged_shards or path in changed),
        tuple(changed),
        tuple(f"{path}: {reason}" for path, reason in lost.items()),
        tuple(
            f"{name} {versions[1].get(name)}, before {versions[0].get(name)}"
            for name in sorted({*versions[0], *versions[1]})
            if versions[0].get(name) != versions[1].get(name)
        ),
        _keep(root) if lost else None,
    )
    clear_aside(root)
    return done


def quarantine(root: Path, shards: tuple[str, ...]) -> None:
    """Move shards and their CSVs to ASIDE, so that nothing is lost should they not come again."""
    for shard in shards:
        for path in (root / shard, listing_of(root / shard)):
            if not os.path.lexists(path):
                continue
            aside = root / ASIDE / path.relative_to(root)
            aside.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(aside):  # of a repair that was killed; what is here now it built, and can be again
                _remove(path)
            else:
                os.rename(path, aside)
                sync_folder(aside.parent)
        if (root / shard).parent.is_dir():
            sync_folder((root / shard).parent)


def clear_aside(root: Path) -> None:
    """Remove what repairs put aside, and what a build that was stopped left; for sets that are whole."""
    with suppress(ShardError, OSError), locked(root):  # who holds it has use for them; a disk may be read-only
        shutil.rmtree(root / ASIDE, ignore_errors=True)
        clear(root)


def _put_back(root: Path) -> None:
    """Give the damaged shards their names again where nothing was built in their place."""
    with with_final_name(root):
        for aside in sorted((root / ASIDE).glob("**/*.lmdb")) + sorted((root / ASIDE).glob("**/*.csv")):
            path = root / aside.relative_to(root / ASIDE)
            if not os.path.lexists(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                os.rename(aside, path)


def _keep(root: Path) -> Path:
    """Give ASIDE a name that later repairs leave alone."""
    number = 1
    while (root / f"damaged-{number}").exists():
        number += 1
    with with_final_name(root):
        (root / ASIDE).rename(root / f"damaged-{number}")
    return root / f"damaged-{number}"


def _check_source(source: PhotoSource, shard_set: ShardSet) -> None:
    if source.fingerprint() == shard_set.manifest["source"]["fingerprint"]:
        if set(source.splits) == set(shard_set.splits):
            return
        raise ShardError(
            f"{shard_set.root}: has the splits {', '.join(shard_set.splits)} only, of {', '.join(source.splits)}",
            "repair the set that it was copied from, and copy it again with alexnet-prep stage",
        )
    raise UsageError(
        f"{source.root}: not the photos that {shard_set.root} was made from: names, classes or sizes are others",
        "name the folder that has them with --source, or copy the damaged shards from elsewhere",
    )


def _hashes(shard_set: ShardSet) -> dict[str, str]:
    return {
        folder.relative_to(shard_set.root).as_posix(): file.sha256
        for split in shard_set.splits.values()
        for folder, file in split.shards
    }


def _rejected(root: Path) -> dict[str, str]:
    try:
        return {row[0]: row[1] for row in read_csv(root / "rejected.csv") if len(row) == 2}
    except OSError as error:
        raise ShardError(
            f"{root / 'rejected.csv'}: {error.strerror}",
            "copy it from a copy of the set, or remove the set and build it again: without it no shard can be rebuilt",
        ) from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
