"""ImageNet of 2012 as distributed by Kaggle, unpacked.

    ROOT/LOC_val_solution.csv                              the labels of val: ImageId,PredictionString
    ROOT/LOC_synset_mapping.txt                            human-readable class names
    ROOT/ILSVRC/Data/CLS-LOC/train/n01440764/*.JPEG
    ROOT/ILSVRC/Data/CLS-LOC/val/*.JPEG                    or in class folders
    ROOT/ILSVRC/Data/CLS-LOC/test/*.JPEG                   without labels

In:  ROOT, a folder between it and CLS-LOC, or any folder with train/, val/ and LOC_val_solution.csv.  Out: Found.
`LOC_train_solution.csv` is not read: it lists only photos with bounding boxes, fewer than half.
"""

import csv
import io
from pathlib import Path

from ...errors import SourceError, UsageError
from ..class_folders import add_test, val_photos, walk_classes
from ..entries import Declined, Entries, Found, Request
from ..inventory import Folder, Inventory
from ..label_names import LISTS, read_words
from ..photo import stem_of
from .devkit import is_wnid, read_devkit, read_small

KIND = "ImageNet 2012, Kaggle"
SOLUTION = "LOC_val_solution.csv"
_PLACES = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if the path is CLS-LOC, a folder above it, or a folder with train or val and Kaggle's labels."""
    return None if _base(look.root) else Declined(f"Kaggle's ImageNet: {_PLACES[0]}, or train/, val/ and {SOLUTION}")


def find(look: Inventory, ask: Request) -> Found:
    """List the photos.

    Raises:
        UsageError: photos or labels of a requested split are missing.
        SourceError: photos and labels are inconsistent.
    """
    root, split = look.root, ask.split
    base = _base(root)
    if base is None:
        raise UsageError(f"{root}: contains no {_PLACES[0]}", "choose the folder that the archive was unpacked to")
    above = _upwards(root, base)
    found = Found(KIND, {})
    lists = (read_words(folder) for folder in above if any((folder / name).is_file() for name in LISTS))
    found.words = next(lists, {})
    if devkit := next(filter(None, (read_devkit(folder, 2012) for folder in above)), None):
        found.devkit_order = devkit.order
    train, val, test = (_folder(look, base, name) for name in ("train", "val", "test"))
    if train.classes():
        found.entries["train"] = walk_classes(look, train, found)
    if split in (None, "train") and not found.entries.get("train"):
        raise UsageError(
            f"{base / 'train'}: no photos in class folders", "unpack them, or build val alone with --split val"
        )
    if val.total:
        photos, loose = val_photos(look, val, found)
        if not loose:
            found.entries["val"] = photos
        elif split in (None, "val"):
            _label(root, base / "val", photos, above)
            found.entries["val"] = photos
    if split in (None, "val") and not found.entries.get("val"):
        raise UsageError(f"{base / 'val'}: no photos", "unpack them, or omit val with --split train")
    add_test(look, test, ask, found)
    if not found.entries.get("train"):
        found.classes = tuple(sorted(_mapped(above)))
    return found


def _folder(look: Inventory, base: Path, name: str) -> Folder:
    path = (base / name).relative_to(look.root).as_posix()
    return look.at(path)


def _label(root: Path, val: Path, photos: Entries, above: list[Path]) -> None:
    """Label val photos without class folders by the table; photos and lines must correspond one to one."""
    table = next((folder / SOLUTION for folder in above if (folder / SOLUTION).is_file()), None)
    if table is None:
        higher = next((str(folder) for folder in root.resolve().parents[:3] if (folder / SOLUTION).is_file()), "")
        raise UsageError(
            f"{val}: {len(photos):,} photos without labels: {SOLUTION} is missing",
            (f"it is in {higher}: choose that folder" if higher else f"put it into {root}")
            + ", or omit val with --split train",
        )
    labels = _read_solution(table, _mapped(above))
    stems = [stem_of(entry.path) for entry in photos]
    without_line = sorted(set(stems) - labels.keys())
    without_photo = sorted(labels.keys() - set(stems))
    if without_line or without_photo:
        parts = [f"{len(without_line):,} photos of {val} have no line, first {without_line[0]}"] if without_line else []
        if without_photo:
            parts.append(f"{len(without_photo):,} lines have no photo in {val}, first {without_photo[0]}")
        raise SourceError(
            f"{table}: {'; '.join(parts)}", "unpack the archive again: photos and labels must be complete"
        )
    photos.relabel(labels[stem] for stem in stems)


def _read_solution(path: Path, known: set[str]) -> dict[str, str]:
    """Return wnids by file name without suffix; of several objects in a photo the first counts.

    Raises:
        SourceError: a line is invalid.
    """
    text = read_small(path).decode("utf-8-sig", "surrogateescape")
    rows = csv.reader(io.StringIO(text, newline=""))
    labels: dict[str, str] = {}
    try:
        header = [name.strip() for name in next(rows, [])]
        if "ImageId" not in header or "PredictionString" not in header:
            raise SourceError(
                f"{path}: no columns ImageId and PredictionString; the header is {', '.join(header)[:80]!r}"
            )
        image, prediction = header.index("ImageId"), header.index("PredictionString")
        for row in rows:
            if not row:
                continue
            where = f"{path}, line {rows.line_num}"
            if len(row) <= max(image, prediction):
                raise SourceError(f"{where}: {len(row)} columns instead of {len(header)}")
            name, wnid = row[image].strip(), (row[prediction].split() or [""])[0]
            if not is_wnid(wnid) or (known and wnid not in known):
                raise SourceError(f"{where}: {wnid[:40]!r} is not a class" + (f" of {LISTS[0]}" if known else ""))
            if labels.setdefault(name, wnid) != wnid:
                raise SourceError(f"{where}: {name} is {wnid}, but {labels[name]} in an earlier line")
    except csv.Error as error:
        raise SourceError(f"{path}, line {rows.line_num}: {error}", "download the file again") from None
    return labels


def _mapped(above: list[Path]) -> set[str]:
    """Return the classes of LOC_synset_mapping.txt; empty if it is missing."""
    return next((set(read_words(folder)) for folder in above if (folder / LISTS[0]).is_file()), set())


def _base(root: Path) -> Path | None:
    """Return the folder of train/, val/ and test/."""
    for place in _PLACES:
        if (root / place).is_dir():
            return root / place
    splits = any((root / name).is_dir() for name in ("train", "val"))
    by_name = root.resolve().parts[-2:] == ("Data", "CLS-LOC")
    return root if splits and (by_name or (root / SOLUTION).is_file()) else None


def _upwards(root: Path, base: Path) -> list[Path]:
    """Return the folders from base up to root."""
    return [base, *(folder for folder in base.parents if folder == root or root in folder.parents)]
