"""Find the photos: which files, of which class, in which split.

In:  a folder of class folders, with `train/` and `val/` above them or without.  Out: a Source, sorted, so that
the same photos give the same list whatever the order on disk.  Reads names and sizes only, no photo.

    photos/train/n01440764/a.JPEG      photos/n01440764/a.JPEG
    photos/val/n01440764/b.JPEG        (flat: a seeded share is held out)

Links to folders are followed, loops are noticed. Class order is the sorted folder names, which for wnids is what
torchvision, Caffe, timm and Hugging Face use; the devkit's own order is another.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError
from .plan import share_of

SUFFIXES = frozenset([".jpeg", ".jpg", ".jpe", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"])
SPLITS = ("train", "val")
SPLIT_LIKE = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class Photo:
    """One photo: its path below the source's root, its class index and its size in bytes."""

    path: str
    label: int
    bytes: int


@dataclass(frozen=True)
class Source:
    """All photos of a source.

    Attributes:
        root: the folder all paths are relative to.
        kind: how the folder is laid out, in words.
        classes: folder names, in label order.
        splits: photos by split name, each list sorted by path.
        ignored: files that are no photo by their name.
    """

    root: Path
    kind: str
    classes: tuple[str, ...]
    splits: dict[str, list[Photo]]
    ignored: int

    def fingerprint(self) -> str:
        """SHA-256 over split, path, class and size of every photo: the same for a copy elsewhere."""
        digest = hashlib.sha256()
        for split, photos in sorted(self.splits.items()):
            for photo in photos:
                line = f"{split}\0{photo.path}\0{self.classes[photo.label]}\0{photo.bytes}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def classes_without_training(self) -> list[str]:
        """The classes that no training photo shows: they can only be got wrong."""
        shown = {photo.label for photo in self.splits.get("train", [])}
        return [name for label, name in enumerate(self.classes) if label not in shown]


def find_photos(root: Path, *, val_share: float = 0.1, seed: int = 0, split: str | None = None) -> Source:
    """List the photos below a folder.

    Args:
        root: see the module.
        val_share: of a flat folder, the share of all photos held out as `val`, 0..0.9.
        seed: of the hold-out.
        split: build this split alone; all photos of a flat folder go there.
    Raises:
        UsageError: no such folder, no photos in it, or no such split.
    """
    if not root.exists():
        raise UsageError(f"{root}: no such folder", "name the folder that holds the photos in class folders")
    if not root.is_dir():
        raise UsageError(f"{root}: not a folder", "name the folder that holds the photos in class folders")
    if split not in (None, *SPLITS):
        raise UsageError(f"no split is called {split!r}", f"choose one of {', '.join(SPLITS)}")
    train, val = root / "train", root / "val"
    if _folders(train) and val.is_dir():
        source = _split_folders(root, split)
    elif _folders(train):
        source = _flat_folder(root, train, val_share, seed, split)
    elif _folders(val):
        if split == "train" or (not split and train.is_dir() and _loose(train)):
            raise UsageError(
                f"{root}: only val has photos in class folders, so there are none to train on",
                f"sort the training photos into {train}/CLASS, or build val alone with --split val",
            )
        source = _flat_folder(root, val, val_share, seed, "val")
    else:
        source = _flat_folder(root, root, val_share, seed, split)
        # Two classes called train and val would be learnt well, and mean nothing.
        if source.classes and {name.lower() for name in source.classes} <= SPLIT_LIKE:
            raise UsageError(
                f"{root}: {' and '.join(source.classes)} would be taken for classes",
                f"call them {root}/train and {root}/val, with class folders in them",
            )
    if not any(source.splits.values()):
        loose = _loose(root)
        raise UsageError(
            f"{root}: no photos in class folders below it ({source.ignored} other files"
            + (f", {loose} of them photos without a class folder)" if loose else ")"),
            f"lay them out as {root}/CLASS/photo.jpg, or as {root}/train/CLASS/photo.jpg "
            f"and {root}/val/CLASS/photo.jpg",
        )
    return source


def _split_folders(root: Path, split: str | None) -> Source:
    found = {name: _walk_classes(root, root / name) for name in SPLITS}
    loose = _loose(root / "val")
    if loose and split != "train":
        raise UsageError(
            f"{root / 'val'}: {loose} photos without a class folder, so without labels",
            "sort them into class folders as in train, or leave them out with --split train",
        )
    classes = tuple(sorted({folder for photos, _ in found.values() for folder, _, _ in photos}))
    splits = {name: _photos(photos, classes) for name, (photos, _) in found.items() if split in (None, name)}
    return Source(root, "class folders, train and val", classes, splits, sum(n for _, n in found.values()))


def _flat_folder(root: Path, top: Path, val_share: float, seed: int, split: str | None) -> Source:
    found, ignored = _walk_classes(root, top)
    classes = tuple(sorted({folder for folder, _, _ in found}))
    photos = _photos(found, classes)
    if split:
        return Source(root, f"class folders, all {split}", classes, {split: photos}, ignored)
    held_out = set(share_of(len(photos), val_share, seed).tolist())
    splits = {
        "train": [photo for k, photo in enumerate(photos) if k not in held_out],
        "val": [photo for k, photo in enumerate(photos) if k in held_out],
    }
    return Source(root, "class folders, flat", classes, splits, ignored)


def _photos(found: list[tuple[str, str, int]], classes: tuple[str, ...]) -> list[Photo]:
    labels = {name: label for label, name in enumerate(classes)}
    return sorted((Photo(path, labels[folder], count) for folder, path, count in found), key=lambda photo: photo.path)


def _walk_classes(root: Path, top: Path) -> tuple[list[tuple[str, str, int]], int]:
    """Photos as (class, path below root, bytes) and the number of other files; folders below a class belong to it."""
    found: list[tuple[str, str, int]] = []
    ignored = _loose(top)
    for folder in _folders(top):
        stack = [(top / folder, frozenset({_identity(top)}))]
        while stack:
            place, above = stack.pop()
            if _identity(place) in above:
                raise UsageError(f"{place}: a link that leads back to a folder above it", "remove the link")
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        stack.append((Path(entry.path), above | {_identity(place)}))
                    elif _is_photo(entry.name) and (size := _file_bytes(entry)) >= 0:
                        found.append((folder, os.path.relpath(entry.path, root), size))
                    else:
                        ignored += 1
    return found, ignored


def _loose(top: Path) -> int:
    """Photos in the folder itself, in no class."""
    with os.scandir(top) as entries:
        return sum(_is_photo(entry.name) and not _is_folder(entry) for entry in entries)


def _folders(top: Path) -> list[str]:
    if not top.is_dir():
        return []
    with os.scandir(top) as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith("."))


def _is_photo(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


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
