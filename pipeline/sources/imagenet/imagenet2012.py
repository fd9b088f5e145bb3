"""ImageNet of 2012 as published: archives, read in place.

    ILSVRC2012_img_train.tar         1,000 class tars           or unpacked, train/n01440764/*.JPEG
    ILSVRC2012_img_val.tar           a flat tar                 or unpacked, val/*.JPEG
    ILSVRC2012_devkit_t12.tar.gz     the labels of val
    ILSVRC2012_img_test*.tar         a flat tar; the labels were never published

In:  the folder with all or some of these.  Out: Found.  Reads the archives' headers only; of the training archive of
148 GB, only those that the split requires.
"""

from dataclasses import replace
from pathlib import Path

from ...errors import SourceError, UsageError
from .. import class_folders
from ..class_folders import val_photos
from ..class_tree import without_doubling
from ..entries import Declined, Entries, Found, LeftOut, Request
from ..inventory import Folder, Inventory
from ..label_names import read_words
from ..splits import split_of
from .class_tars import check_classes, class_tars, flat_photos, missing, training_photos
from .devkit import ARCHIVES, FOLDERS, Devkit, has_devkit, is_wnid, read_devkit

KIND = "ImageNet 2012"
TRAIN, VAL, TEST = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_img_test*.tar"
DEVKIT = ARCHIVES[2012]


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if the folder has one of the archives, or the devkit with class folders or alone."""
    root = look.root
    declined = Declined(f"ImageNet's archives of 2012: {TRAIN}, {VAL}, or folders beside {DEVKIT}")
    if not look.source.is_dir():
        return declined
    if (root / TRAIN).is_file() or (root / VAL).is_file() or _test_tar(root):
        return None
    if not has_devkit(root, 2012):
        return declined
    names = {entry.name for entry in root.iterdir() if not entry.name.startswith(".")}
    fits = _folder(look, "train").classes() or _folder(look, "val").total or any(map(is_wnid, names))
    return None if fits or names <= {DEVKIT, *FOLDERS[2012]} else replace(declined, found=f"{DEVKIT} alone")


def find(look: Inventory, ask: Request) -> Found:
    """List the photos of the archives, or of folders unpacked from them.

    Raises:
        UsageError: an archive that the split requires is missing.
        SourceError: an archive is damaged, or photos and labels are inconsistent.
    """
    root, split = look.root, ask.split
    if not look.source.is_dir():
        raise UsageError(f"{look.source}: not a folder", "choose the folder of the archives")
    devkit = read_devkit(root, 2012)
    packed = (root / TRAIN).is_file() or (root / VAL).is_file()
    found = Found(f"{KIND}, {'archives' if packed else 'unpacked'}", {}, words=read_words(root))
    if devkit:
        found.words, found.devkit_order = devkit.words, devkit.order
    has_train = (root / TRAIN).is_file() or bool(_folder(look, "train").classes())
    has_val = (root / VAL).is_file() or _folder(look, "val").total > 0
    if not (has_train or has_val or _test_tar(root)):
        return _class_folders(look, ask, found)
    if split in (None, "train") and not has_train:
        raise missing(root, TRAIN, "training photos", "add it, or build val alone with --split val")
    if split == "val" and not has_val:
        raise missing(root, VAL, "val photos", "add it, or omit --split to hold out training photos")
    names = _train(look, split, "train" if has_val or split else "", found) if has_train else set()
    by_devkit = has_val and _val(look, split, devkit, found)
    _test(look, ask, found)
    if split == "test" and not found.entries.get("test"):
        raise missing(root, TEST, "test photos", "add it, or choose another --split")
    names |= class_folders.class_names(found.entries.values())
    if devkit and ((root / TRAIN).is_file() or by_devkit or not names):
        check_classes(root, names, devkit)
        names = set(devkit.order)
    found.classes = tuple(sorted(names))
    return found


def _train(look: Inventory, split: str | None, into: str, found: Found) -> set[str]:
    """Add the training photos, if requested; return the names of all their classes."""
    root = look.root
    if not (root / TRAIN).is_file():
        found.entries[into], ignored = class_folders.walk_classes(look, _folder(look, "train"), found), 0
    elif split in (None, "train"):
        found.entries[into], ignored = training_photos(root, TRAIN, found.left_out)
        _note_twice(look, "train", TRAIN, found)
    else:
        return set(class_tars(root, TRAIN)[0])
    found.ignored += ignored
    if into == "":
        found.kind += ", flat"
        found.notes.append(f"{root / VAL} is missing: a share of the training photos is held out as val")
    return class_folders.class_names([found.entries[into]])


def _val(look: Inventory, split: str | None, devkit: Devkit | None, found: Found) -> bool:
    """Add the val photos, if requested; return whether their labels come from the devkit."""
    root, ignored = look.root, 0
    if (root / VAL).is_file():
        name, loose = VAL, True
        photos, ignored = flat_photos(root, VAL, found.left_out) if split in (None, "val") else (Entries(), 0)
        _note_twice(look, "val", VAL, found)
    else:
        folder = _folder(look, "val")
        name = folder.path
        photos, loose = val_photos(look, folder, found)
    found.ignored += ignored
    if not loose:
        if devkit and devkit.name_ids(photos):
            found.notes.append(f"the class folders of {name} are ILSVRC IDs: {devkit.path} names their classes")
        found.entries["val"] = photos
    elif split in (None, "val"):
        if devkit is None:
            raise UsageError(
                f"{root / name}: {len(photos):,} photos without labels: {DEVKIT} is missing",
                f"put it into {root}, or omit val with --split train",
            )
        if devkit.truth is None:
            raise SourceError(f"{devkit.path}: no ILSVRC2012_validation_ground_truth.txt", f"download {DEVKIT} again")
        table = f"{devkit.path}: ILSVRC2012_validation_ground_truth.txt"
        found.entries["val"] = devkit.label(photos, devkit.truth, table)
    return loose


def _test(look: Inventory, ask: Request, found: Found) -> None:
    """Add the test photos, which have no labels, if requested."""
    root = look.root
    if not (archive := _test_tar(root)):
        class_folders.add_test(look, _folder(look, "test"), ask, found)
    elif ask.split == "test":
        found.entries["test"], ignored = flat_photos(root, archive, found.left_out)
        found.ignored += ignored
    else:
        found.left_out.append(LeftOut(archive, -1, "without labels (--split test builds them)"))
    found.left_out += [
        LeftOut(path.name, -1, f"{archive} corrects it")
        for path in root.glob(TEST)
        if path.is_file() and path.name != archive
    ]


def _class_folders(look: Inventory, ask: Request, found: Found) -> Found:
    """List class folders without splits beside a devkit; raise UsageError if there are none."""
    if ask.split == "test" or not {folder.name for folder in look.top.classes()} - {*FOLDERS[2012]}:
        what = "photos" + (", only the devkit" if found.devkit_order else "")
        raise missing(look.root, TEST if ask.split == "test" else TRAIN, what, "add the archives, or train/ and val/")
    flat = class_folders.find(look, ask)
    flat.devkit_order, flat.words = found.devkit_order, found.words or flat.words
    return flat


def _folder(look: Inventory, split: str) -> Folder:
    """Return the folder of a split: `train`, or one named so, such as `ILSVRC2012_img_train`; without doubling."""
    folder = look.at(split)
    named = (one for one in look.top.classes() if split_of(one.name) == split)
    return without_doubling(folder if folder.total else next(named, folder))


def _test_tar(root: Path) -> str:
    """Return the name of the test archive; of two the later one, ILSVRC2012_img_test_v10102019.tar, a correction."""
    return max((path.name for path in root.glob(TEST) if path.is_file()), default="")


def _note_twice(look: Inventory, folder: str, archive: str, found: Found) -> None:
    if (look.root / folder).is_dir():
        found.left_out.append(LeftOut(folder, -1, f"{archive} contains the same photos"))
