"""Photos in class folders, with `train/` and `val/` above them or without.

    photos/train/n01440764/a.JPEG      photos/n01440764/a.JPEG
    photos/val/n01440764/b.JPEG        (flat: a seeded share is held out by sources.py)
    photos/test/...                    in class folders, or loose: then without labels

In:  a folder.  Out: Found. Links to folders are followed, loops are noticed. Reads names and sizes only, no photo.
"""

import os
from pathlib import Path

from ..errors import UsageError
from .photo import Entry, Found, is_photo

KIND = "class folders"
SPLIT_LIKE = {"train", "training", "val", "valid", "validation", "test", "testing"}


def looks_like(root: Path) -> bool:
    """Any folder may be this layout: it is asked last."""
    return root.is_dir()


def find(root: Path, split: str | None) -> Found:
    """List the photos below a folder.

    Raises:
        UsageError: photos without labels where labels are needed, or no photos at all.
    """
    found = Found(KIND, {}, words=read_words(root))
    train, val = root / "train", root / "val"
    if has_folders(train) and val.is_dir():
        _split_folders(root, split, found)
    elif split == "test" and (root / "test").is_dir():
        add_test(root, root / "test", split, found)
        labelled = {entry.class_name for entry in found.entries.get("test", [])} - {""}
        found.classes = tuple(sorted(labelled | set(_folders(train)))) if labelled else ()
    elif has_folders(train):
        _flat_folder(root, train, "", found)
    elif has_folders(val):
        if split == "train" or (not split and train.is_dir() and loose_photos(train)):
            raise UsageError(
                f"{root}: only val has photos in class folders, so there are none to train on",
                f"sort the training photos into {train}/CLASS, or build val alone with --split val",
            )
        _flat_folder(root, val, "val", found)
    elif split == "test" and not has_folders(root) and loose_photos(root):
        found.entries["test"], found.ignored = walk(root, root, "")
    else:
        _flat_folder(root, root, "", found)
        # Two classes called train and val would be learnt well, and mean nothing.
        names = sorted({entry.class_name for entry in found.entries[""]})
        if names and {name.lower() for name in names} <= SPLIT_LIKE:
            raise UsageError(
                f"{root}: {' and '.join(names)} would be taken for classes",
                f"call them {root}/train and {root}/val, with class folders in them",
            )
    if not any(found.entries.values()):
        loose = loose_photos(root)
        raise UsageError(
            f"{root}: no photos in class folders below it ({found.ignored} other files"
            + (f", {loose} of them photos without a class folder)" if loose else ")"),
            f"lay them out as {root}/CLASS/photo.jpg, or as {root}/train/CLASS/photo.jpg "
            f"and {root}/val/CLASS/photo.jpg",
        )
    return found


def _split_folders(root: Path, split: str | None, found: Found) -> None:
    found.kind = f"{KIND}, train and val"
    for name in ("train", "val"):
        found.entries[name], others = walk_classes(root, root / name)
        found.ignored += others
    loose = loose_photos(root / "val")
    if loose and split in (None, "val"):
        raise UsageError(
            f"{root / 'val'}: {loose} photos without a class folder, so without labels",
            f"sort them into class folders as in train; or put LOC_val_solution.csv (Kaggle's) or "
            f"ILSVRC2012_devkit_t12.tar.gz into {root}; or leave them out with --split train",
        )
    add_test(root, root / "test", split, found)


def add_test(root: Path, test: Path, split: str | None, found: Found) -> None:
    """Add `test/`: labelled where it has class folders; else only where it was asked for by name."""
    if _folders(test) == ["test"]:  # ImageNet's test archive has a folder of that name in it
        test = test / "test"
    if has_folders(test):
        found.entries["test"], others = walk_classes(root, test)
        found.ignored += others
    elif test.is_dir() and (count := loose_photos(test)):
        if split == "test":
            found.entries["test"], others = walk(root, test, "")
            found.ignored += others
        else:
            found.notes.append(f"{test}: {count:,} photos without labels are skipped (--split test builds them)")


def _flat_folder(root: Path, top: Path, split: str, found: Found) -> None:
    found.kind = f"{KIND}, all {split}" if split else f"{KIND}, flat"
    found.entries[split], found.ignored = walk_classes(root, top)


def walk_classes(root: Path, top: Path) -> tuple[list[Entry], int]:
    """Photos in the class folders of `top` and the number of other files; folders below a class belong to it."""
    entries: list[Entry] = []
    ignored = loose_photos(top)
    for folder in _folders(top):
        inside, others = walk(root, top / folder, folder, frozenset({_identity(top)}))
        entries += inside
        ignored += others
    return entries, ignored


def walk(root: Path, top: Path, class_name: str, above: frozenset = frozenset()) -> tuple[list[Entry], int]:
    """All photos below a folder, as one class, and the number of other files.

    Raises:
        UsageError: a link leads back to a folder above it.
    """
    entries: list[Entry] = []
    ignored = 0
    stack = [(top, above)]
    while stack:
        place, above = stack.pop()
        if _identity(place) in above:
            raise UsageError(f"{place}: a link that leads back to a folder above it", "remove the link")
        below = os.path.relpath(place, root)  # once a folder: it costs more than looking at a photo
        prefix = "" if below == "." else f"{below}/"
        with os.scandir(place) as found:
            for one in found:
                if one.name.startswith("."):
                    continue
                if _is_folder(one):
                    stack.append((Path(one.path), above | {_identity(place)}))
                elif is_photo(one.name) and (size := _file_bytes(one)) >= 0:
                    entries.append(Entry(class_name, prefix + one.name, size))
                else:
                    ignored += 1
    return entries, ignored


def loose_photos(top: Path) -> int:
    """Photos in the folder itself, in no class."""
    if not top.is_dir():
        return 0
    with os.scandir(top) as entries:
        return sum(is_photo(entry.name) and not _is_folder(entry) for entry in entries)


def has_folders(top: Path) -> bool:
    """Whether there are folders in it that could be classes."""
    return bool(_folders(top))


def _folders(top: Path) -> list[str]:
    if not top.is_dir():
        return []
    with os.scandir(top) as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith("."))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _file_bytes(entry: os.DirEntry) -> int:
    """Size of a regular file; 0 for a link to nothing, which the build rejects by name; -1 for a pipe or a device."""
    try:
        return entry.stat().st_size if entry.is_file() else -1 if os.path.exists(entry.path) else 0
    except OSError:
        return 0


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


# --- from pipeline/sources/val_folder.py


def val_photos(root: Path, val: Path) -> tuple[list[Entry], int, bool]:
    """The photos of a folder, the number of other files, and whether they lie loose, so without class.

    Raises:
        UsageError: some lie loose and others in class folders.
    """
    loose = loose_photos(val)
    if not loose:
        return *walk_classes(root, val), False
    if has_folders(val):
        raise UsageError(
            f"{val}: {loose:,} photos without a class folder, beside class folders",
            "sort all of them into class folders, or none",
        )
    return *walk(root, val, ""), True


# --- from pipeline/sources/words.py

LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")  # Kaggle's, Caffe's, ImageNet's own
_MOST_BYTES = 16 << 20  # ImageNet's words.txt has 3 MB


def read_words(folder: Path) -> dict[str, str]:
    """Read the first of LISTS that lies in the folder; lines of `name words`, divided by a blank or a tab.

    A list that cannot be read is no reason to stop: the words are for people only.
    """
    for name in LISTS:
        try:
            with open(folder / name, encoding="utf-8-sig", errors="replace") as file:
                lines = file.read(_MOST_BYTES).splitlines()
        except OSError:
            continue
        pairs = (line.split(None, 1) for line in lines)
        return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    return {}
