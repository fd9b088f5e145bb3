"""Photos in ImageNet's archives: a tar of class tars for training, flat tars for the other splits.

    ILSVRC2012_img_train.tar  ->  n01440764.tar  ->  n01440764_10026.JPEG     1,000 tars, 1,281,167 photos
    ILSVRC2012_img_val.tar    ->  ILSVRC2012_val_00000293.JPEG                unordered

In:  an archive.  Out: Entries with the photos' offsets in it.  Reads headers only.
An Entry's path contains both tars: `ILSVRC2012_img_train.tar/n01440764.tar/n01440764_10026.JPEG`.
"""

import re
from pathlib import Path

from ...errors import SourceError, UsageError
from ..entries import Entries, Entry, LeftOut
from ..photo import is_photo
from ..tars.passed_over import PassedOver
from ..tars.tar_index import Member, members, original_hint
from .devkit import Devkit

_CLASS_TAR = re.compile(r"(?:.*/)?(n\d{8})\.tar", re.DOTALL)


def class_tars(root: Path, archive: str) -> tuple[dict[str, Member], int]:
    """Return the class tars of an archive by wnid, and the number of other files; reads one header per class.

    Raises:
        SourceError: the archive is damaged or has no class tars, or links to them.
    """
    tars: dict[str, Member] = {}
    passed = PassedOver()
    others = passed.others
    for member in members(root / archive, skipped=passed):
        if match := _CLASS_TAR.fullmatch(member.name):
            if match[1] in tars:
                raise SourceError(
                    f"{root / archive}: two tars of the class {match[1]}: {tars[match[1]].name} and {member.name}",
                    original_hint(root / archive),
                )
            tars[match[1]] = member
        else:
            others.append(member.name)
    if passed.links:
        raise SourceError(
            f"{root / archive}: {passed.links[0]} is a link, which is not followed", original_hint(root / archive)
        )
    if not tars:
        raise SourceError(
            f"{root / archive}: contains no class tars, such as n01440764.tar, but {len(others):,} other members",
            original_hint(root / archive),
        )
    return tars, len(others)


def training_photos(root: Path, archive: str, left_out: list[LeftOut]) -> tuple[Entries, int]:
    """Return the photos of a tar of class tars, with wnids as class names, and the number of other files.

    Photos that are links, or that others of the same name replace, are added to `left_out`.

    Raises:
        SourceError: a tar is damaged, or a class has no photos.
    """
    tars, ignored = class_tars(root, archive)
    entries = Entries()
    passed = PassedOver()
    for wnid, tar in tars.items():
        photos, others = _photos(root, archive, wnid, tar, passed)
        if not photos:
            raise SourceError(
                f"{root / archive}: no photos in {tar.name}, but {others:,} other members",
                original_hint(root / archive),
            )
        entries.extend(photos)
        ignored += others
    left_out += passed.left_out(archive)
    return entries, ignored


def flat_photos(root: Path, archive: str, left_out: list[LeftOut]) -> tuple[Entries, int]:
    """Return the photos of a flat tar, without labels, and the number of other files.

    `left_out` receives what `training_photos` adds to it.

    Raises:
        SourceError: the tar is damaged.
    """
    passed = PassedOver()
    photos, others = _photos(root, archive, "", None, passed)
    left_out += passed.left_out(archive)
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


def _photos(root: Path, archive: str, wnid: str, tar: Member | None, passed: PassedOver) -> tuple[list[Entry], int]:
    before = len(passed.others)
    prefix = f"{archive}/{tar.name}/" if tar else f"{archive}/"
    if tar:
        found = members(root / archive, offset=tar.offset, size=tar.bytes, inner=tar.name, skipped=passed)
    else:
        found = members(root / archive, skipped=passed)
    entries = [
        Entry(wnid, prefix + member.name, member.bytes, archive, member.offset)
        for member in found
        if is_photo(member.name)
    ]
    return entries, len(passed.others) - before + len(found) - len(entries)
