"""The split of a file by its name: `train-00000-of-00294.parquet`, `imagenet-val-000012.tar`, `val/3.tar`.

In:  a folder, or one file.  Out: the files with a given suffix, by split.  Reads names only.
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
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),  # eval is test, as for Hugging Face
}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # `trainImages` and `ILSVRC2012_img_train` have the word train
_MOST_FOLDERS = 16  # that are listed; more are probably class folders, and listing them takes long


def split_of(name: str) -> str:
    """Return the split that a file, a folder, a member of an archive or a cell of a table is named after.

    The one place that knows such names: `Training`, `valid`, `seg_train`, `ILSVRC2012_img_val`, `partial-train`,
    `train2017`, `testImages`.

    Returns:
        `train`, `val` or `test`; empty if no word of the name is a split's, or words of two splits are, as in
        `train_val`.
    """
    named = {WORDS[word] for word in map(str.lower, _WORD.findall(name)) if word in WORDS}
    return named.pop() if len(named) == 1 else ""


def files_by_split(
    root: Path, suffix: str | tuple[str, ...], ignored: Callable[[str], bool] = lambda path: False
) -> dict[str, list[str]]:
    """List the large files of a layout in a folder, or `root` alone if it is a file.

    They are in the folder itself, in its `data/`, or in the only other folder that has any; there also in folders
    named like a split.

    Args:
        root: the folder or file.
        suffix: ending of the files' names, or several.
        ignored: whether to leave out a file, by its path relative to root.
    Returns:
        Sorted paths relative to root by split; under "" if no name has a split, or all are train; empty if there are
        no files.
    Raises:
        UsageError: only some of the names have a split, or several folders have such files.
    """
    if root.is_file():
        return flat_if_train_alone({split_of(root.stem): [root.name]} if has_suffix(root.name, suffix) else {})
    groups = _groups(root, suffix, ignored)
    if len(groups) > 1:
        one, two = list(groups)[:2]
        kind = suffix if isinstance(suffix, str) else suffix[0]
        raise UsageError(f"{root}: {one} and {two} both contain {kind} files", "choose one of these folders")
    found: dict[str, list[str]] = {}
    for path in next(iter(groups.values()), []):
        folder, name = os.path.split(path)
        split = split_of(os.path.basename(folder)) or split_of(name)
        found.setdefault(split, []).append(path)
    if "" in found and len(found) > 1:
        other = next(paths[0] for split, paths in found.items() if split)
        raise UsageError(
            f"{root}: the name {found[''][0]} has no split, but {other} has",
            "put the files into folders named train and val",
        )
    return flat_if_train_alone({split: sorted(found[split]) for split in ("", *SPLITS) if split in found})


def flat_if_train_alone(splits: dict) -> dict:
    """Rename a sole train split to "", so that a share of it is held out, as in class folders."""
    return {"": splits["train"]} if set(splits) == {"train"} else splits


def first_file(root: Path, suffix: str | tuple[str, ...], ignored: Callable[[str], bool] = lambda path: False) -> str:
    """Return one of the files of `files_by_split`, relative to root; empty if there are none."""
    if root.is_file():
        return root.name if has_suffix(root.name, suffix) else ""
    return next((path for group in _groups(root, suffix, ignored).values() for path in group), "")


def has_suffix(name: str, suffix: str | tuple[str, ...]) -> bool:
    """Return whether a file has the suffix, or one of them, in any case, and is not hidden, as macOS' `._a.tar`."""
    return name.lower().endswith(suffix) and not name.startswith(".")


def _groups(root: Path, suffix: str | tuple[str, ...], ignored: Callable[[str], bool]) -> dict[str, list[str]]:
    """Return the files by the folder that contains them or the splits' folders; with several it is ambiguous."""
    for folder in ("", "data"):
        if found := _files_at(root, folder, suffix, ignored):
            return {folder: found}
    folders = _names(root, _is_folder)
    if len(folders) > _MOST_FOLDERS:
        return {}
    return {folder: found for folder in folders if (found := _files_at(root, folder, suffix, ignored))}


def _files_at(root: Path, folder: str, suffix: str | tuple[str, ...], ignored: Callable[[str], bool]) -> list[str]:
    """Return the files in a folder and in its folders that are named like a split."""
    top = root / folder
    inside = ["", *(name for name in _names(top, _is_folder) if split_of(name))]
    paths = (
        os.path.join(folder, place, name)
        for place in inside
        for name in _names(top / place, _is_file)
        if has_suffix(name, suffix)
    )
    return [path for path in paths if not ignored(path)]


def _names(top: Path, wanted: Callable[[os.DirEntry], bool]) -> list[str]:
    """Return the sorted names of the wanted entries of a folder, without hidden ones."""
    if not top.is_dir():
        return []
    with os.scandir(top) as entries:
        return sorted(one.name for one in entries if not one.name.startswith(".") and wanted(one))


def _is_folder(one: os.DirEntry) -> bool:
    try:
        return one.is_dir()  # needs no stat, except for links
    except OSError:  # a link to itself
        return False


def _is_file(one: os.DirEntry) -> bool:
    """Return whether an entry is a file or a broken link, which is reported later; pipes, which block, are not."""
    try:
        return one.is_file() or (one.is_symlink() and not os.path.exists(one.path))
    except OSError:
        return True
