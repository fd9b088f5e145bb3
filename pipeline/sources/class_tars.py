"""Photos in ImageNet's own archives: a tar of class tars for training, a flat tar for the rest.

    ILSVRC2012_img_train.tar  ->  n01440764.tar  ->  n01440764_10026.JPEG     1,000 tars, 1,281,167 photos
    ILSVRC2012_img_val.tar    ->  ILSVRC2012_val_00000293.JPEG                in no order

In:  an archive.  Out: Entries that say at which byte of it a photo begins.  Reads headers only, no photo.
An Entry's path goes through both tars: `ILSVRC2012_img_train.tar/n01440764.tar/n01440764_10026.JPEG`.
"""

import re
from pathlib import Path

from ..errors import SourceError, UsageError
from .devkit import Devkit
from .photo import Entry, is_photo
from .tar_index import Member, members, original_hint

_CLASS_TAR = re.compile(r"(?:.*/)?(n\d{8})\.tar", re.DOTALL)


def class_tars(root: Path, archive: str) -> tuple[dict[str, Member], int]:
    """The class tars within an archive by wnid, and the number of other files. Reads a header for each class only.

    Raises:
        SourceError: damaged, or there are none.
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
            f"{root / archive}: no class tars in it, such as n01440764.tar, but {len(others):,} other members",
            original_hint(root / archive),
        )
    return tars, len(others)


def training_photos(root: Path, archive: str) -> tuple[list[Entry], int]:
    """The photos of a tar of class tars, labelled with their tar's name, and the number of other files.

    Raises:
        SourceError: one of the tars is damaged, or a class has no photos.
    """
    tars, ignored = class_tars(root, archive)
    entries: list[Entry] = []
    for wnid, tar in tars.items():
        photos, others = _photos(root, archive, wnid, tar)
        if not photos:
            raise SourceError(
                f"{root / archive}: no photos in {tar.name}, but {others:,} other members",
                original_hint(root / archive),
            )
        entries += photos
        ignored += others
    return entries, ignored


def flat_photos(root: Path, archive: str) -> tuple[list[Entry], int]:
    """The photos of a flat tar, without labels, and the number of other files.

    Raises:
        SourceError: it is damaged.
    """
    return _photos(root, archive, "", None)


def check_classes(where: Path, names: set[str], devkit: Devkit) -> None:
    """See that all classes are the devkit's.

    Raises:
        SourceError: they are not, as with the photos of one year and the devkit of another.
    """
    unknown = sorted(names - set(devkit.order))
    if unknown:
        raise SourceError(
            f"{where}: {len(unknown):,} of {len(names):,} classes are none of the {len(devkit.order):,} "
            f"in {devkit.path}, {unknown[0]} among them",
            "photos and devkit must be of the same year",
        )


def missing(root: Path, archive: str, what: str, hint: str) -> UsageError:
    """The error that an archive is not there."""
    return UsageError(f"{root}: no {what}: {archive} is not there", hint)


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
