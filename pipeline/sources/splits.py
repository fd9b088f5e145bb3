"""Which split a file belongs to, by its name: `train-00000-of-00294.parquet`, `imagenet-val-000012.tar`, `val/3.tar`.

In:  a folder, or one file.  Out: the files with a given ending, by split. Reads names only.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import UsageError
from ..shards.manifest import SPLITS

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_MOST_FOLDERS = 16  # that are looked into; a thousand are class folders, and a look into each takes long


def split_of(name: str) -> str:
    """The split that a name's words say; empty, if none does or two do."""
    named = {WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in WORDS}
    return named.pop() if len(named) == 1 else ""


def files_by_split(root: Path, suffix: str) -> dict[str, list[str]]:
    """List the files of a layout that are few and large, below `root` (or beside it, where it is a file itself).

    They lie in the folder itself, in its `data/`, or in the one other folder that has any; there also in folders
    called like a split.

    Returns:
        Their paths below root by split, sorted; under "" where no name says a split, or all say train; empty, there
        are none.
    Raises:
        UsageError: some say their split and others do not, or several folders have such files.
    """
    if root.is_file():
        return flat_if_train_alone({split_of(root.stem): [root.name]} if has_suffix(root.name, suffix) else {})
    groups = _groups(root, suffix)
    if len(groups) > 1:
        one, two = list(groups)[:2]
        raise UsageError(f"{root}: {one} and {two} both hold {suffix} files", "name one of these folders instead")
    found: dict[str, list[str]] = {}
    for path in next(iter(groups.values()), []):
        folder, name = os.path.split(path)
        split = WORDS.get(os.path.basename(folder).lower()) or split_of(name.removesuffix(suffix))
        found.setdefault(split, []).append(path)
    if "" in found and len(found) > 1:
        other = next(paths[0] for split, paths in found.items() if split)
        raise UsageError(
            f"{root}: {found[''][0]} does not say its split, while {other} does",
            "put the files into folders called train and val",
        )
    return flat_if_train_alone({split: sorted(found[split]) for split in ("", *SPLITS) if split in found})


def flat_if_train_alone(splits: dict) -> dict:
    """Training photos alone are one flat set, of which a share is held out, as in class folders."""
    return {"": splits["train"]} if set(splits) == {"train"} else splits


def first_file(root: Path, suffix: str) -> str:
    """One of the files that `files_by_split` looks for, below root, to see what it is; empty, there is none."""
    if root.is_file():
        return root.name if has_suffix(root.name, suffix) else ""
    return next((path for group in _groups(root, suffix).values() for path in group), "")


def has_suffix(name: str, suffix: str) -> bool:
    """Whether a file has the ending, in any case, and is not hidden: `._a.tar` is what macOS leaves behind."""
    return name.lower().endswith(suffix) and not name.startswith(".")


def _groups(root: Path, suffix: str) -> dict[str, list[str]]:
    """The files by the folder that holds them, or holds the splits' folders; more than one, it is not clear which."""
    for folder in ("", "data"):
        if found := _files_at(root, folder, suffix):
            return {folder: found}
    folders = _names(root, _is_folder)
    if len(folders) > _MOST_FOLDERS:
        return {}
    return {folder: found for folder in folders if (found := _files_at(root, folder, suffix))}


def _files_at(root: Path, folder: str, suffix: str) -> list[str]:
    """The files in a folder and in the folders in it that are called like a split."""
    top = root / folder
    inside = ["", *(name for name in _names(top, _is_folder) if name.lower() in WORDS)]
    return [
        os.path.join(folder, place, name)
        for place in inside
        for name in _names(top / place, _is_file)
        if has_suffix(name, suffix)
    ]


def _names(top: Path, wanted: Callable[[os.DirEntry], bool]) -> list[str]:
    """What is wanted in a folder; hidden things never are."""
    if not top.is_dir():
        return []
    with os.scandir(top) as entries:
        return sorted(one.name for one in entries if not one.name.startswith(".") and wanted(one))


def _is_folder(one: os.DirEntry) -> bool:
    try:
        return one.is_dir()  # known without a look at it, unless it is a link
    except OSError:  # a link to itself
        return False


def _is_file(one: os.DirEntry) -> bool:
    """Also of a link to nothing, which is then refused by name; not of a pipe, which would be waited for."""
    try:
        return one.is_file() or (one.is_symlink() and not os.path.exists(one.path))
    except OSError:
        return True
