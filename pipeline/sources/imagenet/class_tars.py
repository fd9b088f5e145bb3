"""Photos in ImageNet's archives: a tar of class tars for training, flat tars for the other splits.

    ILSVRC2012_img_train.tar  ->  n01440764.tar  ->  n01440764_10026.JPEG     1,000 tars, 1,281,167 photos
    ILSVRC2012_img_val.tar    ->  ILSVRC2012_val_00000293.JPEG                unordered

In:  an archive.  Out: Entries with the photos' offsets in it.  Reads headers only.
An Entry's path contains both tars: `ILSVRC2012_img_train.tar/n01440764.tar/n01440764_10026.JPEG`.
"""

import re
from pathlib import Path

from ...errors import SourceError, UsageError
from ..entries import Entries, Entry
from ..photo import is_photo
from ..tars.tar_index import Member, members, original_hint
from .devkit import Devkit

_CLASS_TAR = re.compile(r"(?:.*/)?(n\d{8})\.tar", re.DOTALL)


def class_tars(root: Path, archive: str) -> tuple[dict[str, Member], int]:
    """Return the class tars of an archive by wnid, and the number of other files; reads one header per class.

    Raises:
        SourceError: the archive is damaged or has no class tars.
    """
    tars: dict[str, Member] = {}
    others: list[str] = []
    for member in members(root / archive, skipped=others):
        if match := _CLASS_TAR.fullmatch(member.name):
            if match[1] in tars:
                raise SourceError(
                    f"{root / archive}: two tars of the class {match[1]}: {tars[match[1]].name} and {member.name}",
                    original_hint(root / archive),
                )
            tars[match[1]] = member
        else:
            others.append(member.name)
    if not tars:
        raise SourceError(
            f"{root / archive}: contains no class tars, such as n01440764.tar, but {len(others):,} other members",
            original_hint(root / archive),
        )
    return tars, len(others)


def training_photos(root: Path, archive: str) -> tuple[Entries, int]:
    """Return the photos of a tar of class tars, with wnids as class names, and the number of other files.

    Raises:
        SourceError: a tar is damaged, or a class has no photos.
    """
    tars, ignored = class_tars(root, archive)
    entries = Entries()
    for wnid, tar in tars.items():
        photos, others = _photos(root, archive, wnid, tar)
        if not photos:
            raise SourceError(
                f"{root / archive}: no photos in {tar.name}, but {others:,} other members",
                original_hint(root / archive),
            )
        entries.extend(photos)
        ignored += others
    return entries, ignored


def flat_photos(root: Path, archive: str) -> tuple[Entries, int]:
    """Return the photos of a flat tar, without labels, and the number of other files.

    Raises:
        SourceError: the tar is damaged.
    """
    photos, others = _photos(root, archive, "", None)
    return Entries(photos), others


def check_classes(where: Path, names: set[str], devkit: Devkit) -> None:
    """Check that the devkit has all classes.

    Raises:
        SourceError: it lacks some; photos and devkit are probably of different years.
    """
    unknown = sorted(names - set(devkit.order))
    if unknown:
        raise SourceError(
            f"{where}: {len(unknown):,} of {len(names):,} classes are not among the {len(devkit.order):,} "
            f"of {devkit.path}, first {unknown[0]}",
            "use photos and devkit of the same year",
        )


def missing(root: Path, archive: str, what: str, hint: str) -> UsageError:
    """Return the error for a missing archive."""
    return UsageError(f"{root}: no {what}: {archive} is missing", hint)


def _photos(root: Path, archive: str, wnid: str, tar: Member | None) -> tuple[list[Entry], int]:
    others: list[str] = []
    prefix = f"{archive}/{tar.name}/" if tar else f"{archive}/"
    if tar:
        found = members(root / archive, offset=tar.offset, size=tar.bytes, inner=tar.name, skipped=others)
    else:
        found = members(root / archive, skipped=others)
    entries = [
        Entry(wnid, prefix + member.name, member.bytes, archive, member.offset)
        for member in found
        if is_photo(member.name)
    ]
    return entries, len(others) + len(found) - len(entries)
