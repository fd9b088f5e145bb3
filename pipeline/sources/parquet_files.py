"""Which parquet files are a set, and of which split each is, by the names of folders and files.

    train-00000-of-00294.parquet       in the folder itself, in data/, or in a folder named like a configuration
    train/0000.parquet                 in folders named like a split
    partial-train/0000.parquet         a part: Hugging Face converts the first 5 GB of larger sets

In:  an Inventory.  Out: the files by split.  Reads names only.
"""

import os
import re

from ..errors import UsageError
from ..shards.manifest import SPLITS
from .inventory import Inventory
from .photo import PARQUET
from .splits import has_suffix, split_of

_PART = re.compile(r"(?i)(^|[-_])partial([-_]|$)")


def parquet_sets(look: Inventory) -> dict[str, list[str]]:
    """Return the parquet files by the folder of their set: the one with the files, or with folders of splits.

    Files among photos, in a folder that has photos or far below, are no set: they may be about the photos.
    """
    if not look.source.is_dir():
        return {"": [look.source.name]} if has_suffix(look.source.name, PARQUET) else {}
    sets: dict[str, list[str]] = {}
    for path in sorted(look.archives):
        folder, name = os.path.split(path)
        if not has_suffix(name, PARQUET) or not _is_file(look.root / path):
            continue
        if split_of(os.path.basename(folder)):
            folder = os.path.dirname(folder)
        if look.top.total and folder and ("/" in folder or look.at(folder).total):
            continue
        sets.setdefault(folder, []).append(path)
    return dict(sorted(sets.items()))


def files_by_split(look: Inventory) -> dict[str, list[str]]:
    """Return the sorted files of the one set below a source by split, those without one under "".

    Raises:
        UsageError: there are none, or several sets; or names contradict each other.
    """
    sets = parquet_sets(look)
    if not sets:
        raise UsageError(
            f"{look.source}: no parquet files", "put them into the folder itself, its data/, or train/ and val/"
        )
    if len(sets) > 1:
        raise _several(look, sets)
    found: dict[str, list[str]] = {}
    places: dict[str, str] = {}
    for path in next(iter(sets.values())):
        folder, name = os.path.split(path)
        by_folder = split_of(os.path.basename(folder)) if look.source.is_dir() else ""
        by_name = split_of(name[: -len(PARQUET)])
        if by_folder and by_name and by_folder != by_name:
            raise UsageError(
                f"{look.root / path}: the folder says {by_folder}, the file's name {by_name}",
                f"rename one of them, or go on without the file: --ignore '{path}'",
            )
        split = by_folder or by_name
        if places.setdefault(split, folder) != folder:
            raise UsageError(
                f"{look.root}: {places[split] or 'the folder itself'} and {folder} both hold files of "
                f"{split or 'no split'}",
                f"put all files of a split into one folder, or go on without one: --ignore '{folder}'",
            )
        found.setdefault(split, []).append(path)
    if "" in found and len(found) > 1:
        other = next(paths[0] for split, paths in found.items() if split)
        raise UsageError(
            f"{look.root}: the name {found[''][0]} has no split, but {other} has",
            f"put the files into folders named train and val, or go on without one: --ignore '{found[''][0]}'",
        )
    return {split: found[split] for split in ("", *SPLITS) if split in found}


def notes_on(look: Inventory, files: dict[str, list[str]]) -> list[str]:
    """Return notes on parts of sets: incomplete downloads, by names such as `train-00003-of-00294`; partial-train/.

    Raises:
        UsageError: a split has files of two versions of a set, such as 2 and 4 in all.
    """
    notes = []
    for split, paths in files.items():
        folder = os.path.dirname(paths[0])
        if _PART.search(os.path.basename(folder)):
            notes.append(f"{folder}: by its name only a part of {split}, not the whole of the published set")
        for total, some in _by_total(look, paths).items():
            if len(some) < total:
                notes.append(f"only {len(some):,} of {total:,} files such as {some[0]} exist")
    return notes


def _by_total(look: Inventory, paths: list[str]) -> dict[int, list[str]]:
    """Return the files whose names say how many there are, by this number."""
    found: dict[int, list[str]] = {}
    first: dict[str, tuple[int, str]] = {}
    for path in paths:
        if numbered := re.fullmatch(r"(.*?)-?\d+-of-0*(\d+)", path[: -len(PARQUET)]):
            total = int(numbered[2])
            if first.setdefault(numbered[1], (total, path))[0] != total:
                raise UsageError(
                    f"{look.root}: {first[numbered[1]][1]} and {path} are of two versions of the set",
                    "remove the files of one of them",
                )
            found.setdefault(total, []).append(path)
    return found


def _several(look: Inventory, sets: dict[str, list[str]]) -> UsageError:
    one, two, *more = (folder or "the folder itself" for folder in sets)
    named = [folder for folder in sets if folder]
    others = [f"--ignore '{folder}'" for folder in (named if "" in sets else named[1:])[:3]]
    return UsageError(
        f"{look.source}: {one} and {two} both contain {PARQUET} files"
        + (f", and so do {len(more):,} more folders" if more else ""),
        f"choose one of these folders: {look.root / named[0]}; or go on without the others: {' '.join(others)}",
    )


def _is_file(path: os.PathLike) -> bool:
    """Return whether it is a file or a broken link, which is reported later; pipes, which block, are not."""
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))
