"""Rebuild the damaged shards of a set, and only these, from the photos.

In:  a Report of damage.  Out: the repaired set, with the same bytes as before if photos and libraries are the same.
Damaged shards are first moved to `.damaged/`; then `build_shards` builds the missing ones, as after an interruption.
After a kill the same command resumes. Does not import DALI or torch.
"""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..csv_files import read_csv
from ..errors import ShardError, UsageError
from ..files import locked, sync_folder, with_final_name
from ..shards.manifest import ShardSet, read_manifest
from ..shards.records_csv import listing_of
from ..shards.verify import ASIDE, Report
from ..sources.find import PhotoSource, find_again
from .against_source import RULES, check_command, rules_of
from .build import build_shards, clear
from .options import options_of


@dataclass(frozen=True)
class Repair:
    """The result of a repair.

    Attributes:
        shard_set: the repaired set.
        shards: rebuilt shards, as paths below the root.
        changed: rebuilt shards with bytes other than before.
        rejected: photos that are rejected now but were not before, with the reason.
        versions: libraries with other versions than before, as `name 1.2, before 1.1`.
        kept: folder of the damaged shards, kept only if photos were lost, which they may contain.
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
        report: the result of `verify_shards`.
        executor: runs the jobs.
        photos: the current path of the photos, if they moved.
        advance: as in `build_shards`.
    Returns:
        What was rebuilt, and how it differs from before.
    Raises:
        UsageError: the photos are missing, or are not those of the set.
        ShardError: another process is working on the set, or splits of it are missing.
        NotWrittenError: a file cannot be written.
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
    hashes, now = _hashes(before), _hashes(after)
    changed = [path for path in hashes if hashes[path] != now.get(path)]
    versions = before.manifest.get("versions", {}), after.manifest.get("versions", {})
    done = Repair(
        after,
        # The build also rebuilds undamaged shards whose lost photos can be read again.
        tuple(path for path in hashes if path in report.damaged_shards or path in changed),
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
    """Move shards and their CSVs to ASIDE, where they remain if the rebuild fails."""
    for shard in shards:
        for path in (root / shard, listing_of(root / shard)):
            if not os.path.lexists(path):
                continue
            aside = root / ASIDE / path.relative_to(root)
            aside.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(aside):  # from a killed repair; the shard here was rebuilt and can be again
                _remove(path)
            else:
                os.rename(path, aside)
                sync_folder(aside.parent)
        if (root / shard).parent.is_dir():
            sync_folder((root / shard).parent)


def clear_aside(root: Path) -> None:
    """Remove the leftovers of repairs and interrupted builds from an undamaged set."""
    with suppress(ShardError, OSError), locked(root):  # another process may need them; the disk may be read-only
        shutil.rmtree(root / ASIDE, ignore_errors=True)
        clear(root)


def _put_back(root: Path) -> None:
    """Move the damaged shards back where no new ones were built."""
    with with_final_name(root):
        for aside in sorted((root / ASIDE).glob("**/*.lmdb")) + sorted((root / ASIDE).glob("**/*.csv")):
            path = root / aside.relative_to(root / ASIDE)
            if not os.path.lexists(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                os.rename(aside, path)


def _keep(root: Path) -> Path:
    """Rename ASIDE, so that later repairs keep it."""
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
            f"{shard_set.root}: has only the splits {', '.join(shard_set.splits)} of {', '.join(source.splits)}",
            "repair the original set, then copy it again with alexnet-prep stage",
        )
    hint = "choose the folder of the photos with --source, or copy the damaged shards from another copy"
    if rules_of(shard_set.manifest) != RULES:
        command = check_command(shard_set.manifest, shard_set.root, source.requested)
        hint += f"; the set was built by the rules of alexnet-dali 0.1: when it is undamaged, {command} compares them"
    raise UsageError(f"{source.root}: not the photos of {shard_set.root}: names, classes or sizes differ", hint)


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
            "copy it from another copy of the set, or remove the set and build it again: rebuilding shards requires it",
        ) from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
