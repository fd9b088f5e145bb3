"""ImageNet of 2010, whose test labels are public: archives, read in place.

    ILSVRC2010_images_train.tar              1,000 class tars
    ILSVRC2010_images_val.tar, ..._test.tar  photos without class folders
    ILSVRC2010_devkit-1.0.tar.gz             the labels of val
    ILSVRC2010_test_ground_truth.txt         the labels of test
    patch_images.tar                         replacements of blank photos, in one folder per split

In:  the folder with all or some of these.  Out: Found.  Reads the archives' headers only.
A replaced photo keeps its path, and so its place in the order.
"""

from pathlib import Path

from ...errors import SourceError, UsageError
from ..class_folders import class_names
from ..entries import Declined, Found, LeftOut, Request
from ..inventory import Inventory
from ..label_names import read_words
from ..photo import is_photo
from ..tars.tar_index import Member, members
from .class_tars import check_classes, class_tars, flat_photos, missing, training_photos
from .devkit import ARCHIVES, FOLDERS, Devkit, read_devkit, read_small, text_lines

KIND = "ImageNet 2010, archives"
TARS = {split: f"ILSVRC2010_images_{split}.tar" for split in ("train", "val", "test")}
PATCH = "patch_images.tar"
DEVKIT = ARCHIVES[2010]
TRUTHS = {"val": "ILSVRC2010_validation_ground_truth.txt", "test": "ILSVRC2010_test_ground_truth.txt"}
_PATCH_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if the folder has one of the archives with photos; a devkit alone may be of another layout."""
    fits = any((look.root / name).is_file() for name in TARS.values())
    return None if fits else Declined(f"ImageNet's archives of 2010: {TARS['train']} and others")


def find(look: Inventory, ask: Request) -> Found:
    """List the photos of the archives.

    Raises:
        UsageError: an archive that the split requires is missing.
        SourceError: an archive is damaged, photos and labels are inconsistent, or a patch matches no photo.
    """
    root, split = look.root, ask.split
    if not look.source.is_dir():
        raise UsageError(f"{look.source}: not a folder", "choose the folder of the archives")
    available = [name for name, archive in TARS.items() if (root / archive).is_file()]
    required = split or "train"
    if required not in available:
        hint = "add it" + (f", or build another split with --split: {', '.join(available)}" if available else "")
        raise missing(root, TARS[required], f"{required} photos", hint)
    devkit = read_devkit(root, 2010)
    found = Found(KIND, {}, words=read_words(root))
    names: set[str] = set()
    if "train" in available:
        names = _train(root, split, "train" if split or "val" in available else "", found)
    for which in ("val", "test"):
        if which in available and split in (None, which):
            _flat(root, which, split, devkit, found)
    _patch(root, found)
    if devkit:
        check_classes(root, names, devkit)
        found.words, found.devkit_order, names = devkit.words, devkit.order, set(devkit.order)
    found.classes = tuple(sorted(names))
    return found


def _train(root: Path, split: str | None, into: str, found: Found) -> set[str]:
    """Add the training photos, if requested; return the names of all their classes."""
    if split not in (None, "train"):
        return set(class_tars(root, TARS["train"])[0])
    found.entries[into], found.ignored = training_photos(root, TARS["train"], found.left_out)
    if into == "":
        found.kind += ", flat"
        found.notes.append(f"{root / TARS['val']} is missing: a share of the training photos is held out as val")
    return class_names([found.entries[into]])


def _flat(root: Path, which: str, split: str | None, devkit: Devkit | None, found: Found) -> None:
    """Add val or test, labelled by their ground truth; test without it only if requested."""
    archive, name = root / TARS[which], TRUTHS[which]
    truth = _truth(root, which, devkit)
    if which == "test" and truth is None and not split:
        why = f"without labels: {name} is missing (--split test builds them)"
        found.left_out.append(LeftOut(TARS[which], -1, why))
        return
    photos, ignored = flat_photos(root, TARS[which], found.left_out)
    found.ignored += ignored
    if devkit and truth:
        photos = devkit.label(photos, *truth)
    elif which == "val" or truth:
        raise UsageError(
            f"{archive}: {len(photos):,} photos without labels: {name if devkit else DEVKIT} is missing",
            f"put it into {root}, or build the training photos alone with --split train",
        )
    found.entries[which] = photos


def _truth(root: Path, which: str, devkit: Devkit | None) -> tuple[tuple[str, ...], str] | None:
    """Return the lines of a ground truth and its name; None if it is missing."""
    name = TRUTHS[which]
    if which == "val" and devkit and devkit.truth is not None:
        return devkit.truth, f"{devkit.path}: {name}"
    for place in (root, *(root / folder / "data" for folder in FOLDERS[2010])):
        if (place / name).is_file():
            return text_lines(read_small(place / name)), f"{place / name}"
    return None


def _patch(root: Path, found: Found) -> None:
    """Replace the location of patched photos by that of their patches.

    Raises:
        SourceError: a patch matches no photo, or more than one.
    """
    path = root / PATCH
    if not path.is_file():
        found.notes.append(f"{path} is missing: some photos are blank or damaged without it")
        return
    splits = {split or "train" for split in found.entries}
    patches: dict[tuple[str, str], Member] = {}
    for member in members(path):
        folder, name = ["", *member.name.split("/")][-2:]
        split = _PATCH_FOLDERS.get(folder, folder)
        if is_photo(name) and (split in splits or split not in TARS):
            patches[split, name] = member
    hits = dict.fromkeys(patches, 0)
    for split, entries in found.entries.items():
        for k, entry in enumerate(entries):
            place = (split or "train", entry.path.rsplit("/", 1)[-1])
            if patch := patches.get(place):
                entries.move(k, entry._replace(bytes=patch.bytes, archive=PATCH, offset=patch.offset))
                hits[place] += 1
    for place, count in hits.items():
        if count != 1:
            raise SourceError(
                f"{path}: {patches[place].name} matches {count} photos instead of 1",
                f"it replaces {place[1]} of {TARS.get(place[0], 'a split')}: check that this archive is complete",
            )
    found.notes.append(f"{len(patches):,} photos are replaced from {PATCH}")
