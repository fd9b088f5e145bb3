"""Photos in class folders, with or without `train/` and `val/` above them; readable names of the classes.

    photos/train/n01440764/a.JPEG      photos/n01440764/a.JPEG
    photos/val/n01440764/b.JPEG        (flat: find.py holds out a seeded share)
    photos/test/...                    in class folders, or directly in test/, then without labels

In:  a folder.  Out: Found, or the photos of one folder for layouts that contain such folders.  Links to folders are
followed and loops detected.  Reads names and sizes only.
"""

import os
from pathlib import Path

from ..errors import UsageError
from .photo import Entry, Found, is_photo

KIND = "class folders"
SPLIT_LIKE = {"train", "training", "val", "valid", "validation", "test", "testing"}
LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")  # Kaggle's, Caffe's, ImageNet's own
_MOST_BYTES = 16 << 20  # of such a list; ImageNet's words.txt has 3 MB


def looks_like(root: Path) -> bool:
    """Return whether the path is a folder; any folder may have this layout, so it is detected last."""
    return root.is_dir()


def find(root: Path, split: str | None) -> Found:
    """List the photos below a folder.

    Args:
        root: the folder with the class folders, or with `train/`, `val/` and `test/`.
        split: the requested split; None for all.
    Returns:
        Entries with class names, by split.
    Raises:
        UsageError: photos lack labels that the split needs, or there are no photos.
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
                f"{root}: only val has photos in class folders; there are no training photos",
                f"sort the training photos into {train}/CLASS, or build val alone with --split val",
            )
        _flat_folder(root, val, "val", found)
    elif split == "test" and not has_folders(root) and loose_photos(root):
        found.entries["test"], found.ignored = walk(root, root, "")
    else:
        _flat_folder(root, root, "", found)
        # Folders named train and val are splits, not classes.
        names = sorted({entry.class_name for entry in found.entries[""]})
        if names and {name.lower() for name in names} <= SPLIT_LIKE:
            raise UsageError(
                f"{root}: {' and '.join(names)} would be used as classes",
                f"rename them to {root}/train and {root}/val, with class folders in them",
            )
    if not any(found.entries.values()):
        loose = loose_photos(root)
        raise UsageError(
            f"{root}: no photos in class folders ({found.ignored} other files"
            + (f", {loose} of them photos without a class folder)" if loose else ")"),
            f"arrange them as {root}/CLASS/photo.jpg, or as {root}/train/CLASS/photo.jpg "
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
            f"{root / 'val'}: {loose} photos without a class folder, and so without labels",
            f"sort them into class folders as in train; or put LOC_val_solution.csv (Kaggle's) or "
            f"ILSVRC2012_devkit_t12.tar.gz into {root}; or omit them with --split train",
        )
    add_test(root, root / "test", split, found)


def add_test(root: Path, test: Path, split: str | None, found: Found) -> None:
    """Add the photos of `test`: with labels from class folders; without labels only if split is `test`."""
    if _folders(test) == ["test"]:  # as in ImageNet's test archive
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


def val_photos(root: Path, val: Path) -> tuple[list[Entry], int, bool]:
    """List the photos of a folder that has class folders or, without labels, none.

    Returns:
        The photos, the number of other files, and whether the photos are without class folders.
    Raises:
        UsageError: some photos are in class folders and others are not.
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


def walk_classes(root: Path, top: Path) -> tuple[list[Entry], int]:
    """Return the photos in the class folders of `top`, with all folders below them, and the number of other files."""
    entries: list[Entry] = []
    ignored = loose_photos(top)
    for folder in _folders(top):
        inside, others = walk(root, top / folder, folder, frozenset({_identity(top)}))
        entries += inside
        ignored += others
    return entries, ignored


def walk(root: Path, top: Path, class_name: str, above: frozenset = frozenset()) -> tuple[list[Entry], int]:
    """Return all photos below a folder, as one class, and the number of other files.

    Args:
        root: the folder that paths are relative to.
        top: the folder to list.
        class_name: name of the class; empty for none.
        above: identities of the folders above `top`.
    Raises:
        UsageError: a symbolic link leads back to a folder above it.
    """
    entries: list[Entry] = []
    ignored = 0
    stack = [(top, above)]
    while stack:
        place, above = stack.pop()
        if _identity(place) in above:
            raise UsageError(f"{place}: symbolic link to a folder above it", "remove the link")
        below = os.path.relpath(place, root)  # once per folder: slower than stat of a photo
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


def read_words(folder: Path) -> dict[str, str]:
    """Read human-readable class names from the first of LISTS in the folder: lines of `name words`.

    Returns:
        Readable names by class name; empty if no list can be read, which is no error: they are for display only.
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


def loose_photos(top: Path) -> int:
    """Return the number of photos in the folder itself, without a class folder."""
    if not top.is_dir():
        return 0
    with os.scandir(top) as entries:
        return sum(is_photo(entry.name) and not _is_folder(entry) for entry in entries)


def has_folders(top: Path) -> bool:
    """Return whether the folder has folders, which could be classes."""
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
    """Return the size of a regular file; 0 for a broken link, which the build rejects; -1 for a pipe or device."""
    try:
        return entry.stat().st_size if entry.is_file() else -1 if os.path.exists(entry.path) else 0
    except OSError:
        return 0


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
