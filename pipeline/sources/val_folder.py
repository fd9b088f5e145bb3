"""The photos of a `val/` folder: in class folders, or loose, as ImageNet's come, and then without labels.

In:  a folder.  Out: Entries.  A table labels the loose ones: the devkit's (`devkit.py`) or Kaggle's (`kaggle.py`).
"""

from pathlib import Path

from ..errors import UsageError
from .class_folders import has_folders, loose_photos, walk, walk_classes
from .photo import Entry


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
