"""The account of a source: which photos are used, which are left out and why, and what other files there are.

In:  what is below the source, and what a layout found.  Out: an Account, which `build-lmdb` prints and dataset.json
keeps.  A folder or archive of photos that fits no reading is an error, never silence.
"""

import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from ..errors import UsageError
from .entries import Found, LeftOut, Request, in_words
from .imagenet.devkit import ARCHIVES
from .inventory import NAMED, Inventory, ending_of, unused
from .photo import PARQUET, is_photo

_MOST_MEMBERS = 1_000_000  # that are counted in a tar that is not used
_ENDINGS = re.compile(r"(?i)(\.tar)?\.(tar|tgz|gz|bz2|xz|zst|zip|7z|rar)$")
_LINES = 12  # of what is left out that are printed
_FIRST = 64  # and in a compressed one


@dataclass(frozen=True)
class Account:
    """What lies below a source.

    Attributes:
        used: number of photos by split as found, and in it by class; under "" photos without split or label.
        left_out: folders and archives with photos that are in no split, and why.
        others: other files by ending: their number and the first few paths.
        members: number of members of the used archives that are no photos.
    """

    used: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    others: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    members: int = 0

    @property
    def other_files(self) -> int:
        """The number of files and members that are no photos."""
        return self.members + sum(count for count, _ in self.others.values())


def account_for(look: Inventory, found: Found, ask: Request) -> Account:
    """Account for everything below a source.

    Raises:
        UsageError: a folder or archive of photos is in no split, for no reason that the layout knows.
    """
    prefix = os.path.relpath(found.root, look.root) if found.root else ""
    left = unused(look, "" if prefix == "." else prefix, found.entries)
    told = {one.path: one for one in found.left_out}
    lines: dict[tuple[str, str], int] = {}
    for folder, count in left.items():
        above = [path for path in _upwards(folder) if path in told]
        why = told[above[0]].why if above else ""
        if not why and not folder:
            why = "directly in SOURCE"
        if not why and ask.split:
            why = f"not in the split {ask.split}"
        place = above[0] if above else _whole(look, left, folder)
        lines[place, why] = lines.get((place, why), 0) + count
    others = dict(look.others)
    left_out = [LeftOut(path, count, why) for (path, why), count in lines.items()]
    archives = {archive for entries in found.entries.values() for archive in entries.archives()}
    # Devkits are read in memory, whatever else they contain.
    used = {*ARCHIVES.values()} | {os.path.normpath(os.path.join(prefix, archive)) for archive in archives}
    left_out += [one for one in found.left_out if used.intersection(_upwards(one.path))]  # within archives
    for path in look.archives:
        if path in used:
            continue
        if path in told:
            left_out += [one for one in found.left_out if one.path == path]
        elif look.at(stem := _ENDINGS.sub("", path)).total:
            left_out.append(LeftOut(path, -1, f"taken for the packed form of {stem}/"))
        elif (count := _photos_in(look.root / path)) != 0:
            left_out.append(LeftOut(path, count, f"not in the split {ask.split}" if ask.split else ""))
        else:
            count, names = others.get(ending_of(path), (0, []))
            others[ending_of(path)] = count + 1, [*names, path][:NAMED]
    refuse(look, found, [one for one in left_out if not one.why])
    return Account(
        {name: entries.class_counts() for name, entries in found.entries.items()},
        tuple(sorted([*left_out, *look.skipped], key=lambda one: one.path)),
        others,
        found.ignored,
    )


def lines_of(account: Account) -> list[str]:
    """Return the account of what is not used, in lines for people."""
    lines = [
        f"left out: {one.path or 'in SOURCE'}: {in_words(one.photos)}, {one.why}" for one in account.left_out[:_LINES]
    ]
    if (more := len(account.left_out) - _LINES) > 0:
        photos = sum(max(0, one.photos) for one in account.left_out[_LINES:])
        lines.append(f"left out: {more:,} more places with {in_words(photos)} (all are in dataset.json)")
    for ending, (count, names) in sorted(account.others.items(), key=lambda one: -one[1][0]):
        shown = ", ".join(names) + (", ..." if count > len(names) else "")
        lines.append(f"other files: {count:,} {ending} ({shown})")
    if account.members:
        lines.append(f"other members of the archives: {account.members:,}")
    return lines


def refuse(look: Inventory, found: Found, unexplained: list[LeftOut]) -> None:
    """Raise UsageError if there are folders or archives of photos that fit no reading."""
    if not unexplained:
        return
    largest = sorted(unexplained, key=lambda one: -one.photos)
    shown = "; ".join(f"{look.root / one.path}: {in_words(one.photos)}" for one in largest[:3])
    more = f"; and {len(largest) - 3:,} more" if len(largest) > 3 else ""
    options = " ".join(f"--ignore '{one.path}'" for one in largest[:3])
    raise UsageError(
        f"photos that are no part of the layout ({found.kind}): {shown}{more}",
        f"move them to where they belong, or go on without them: {options}",
    )


def _whole(look: Inventory, left: dict[str, int], folder: str) -> str:
    """Return the highest folder above `folder`, or itself, of whose photos none is used."""
    whole = folder
    for above in _upwards(folder):
        top = look.at(above)
        if not above or sum(left.get(one.path, 0) for one in top.below()) < top.total:
            break
        whole = above
    return whole


def _upwards(path: str) -> Iterator[str]:
    """Yield a path and all paths above it, up to the empty one."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""


def _photos_in(path: Path) -> int:
    """Return the number of photos in an archive that no layout reads; -1 if it is not known, but not 0."""
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as packed:
                return sum(map(is_photo, packed.namelist()))
        if path.suffix.lower() == PARQUET:
            return -1
        with tarfile.open(path) as archive:
            most = _MOST_MEMBERS if path.suffix.lower() == ".tar" else _FIRST  # a compressed one is read from its start
            names = [one.name for one in islice(archive, most)]
            photos = sum(is_photo(name) or name.endswith(".tar") for name in names)
            return -1 if photos and len(names) == most else photos
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError):
        return -1 if path.suffix.lower() in (".7z", ".rar") else 0
