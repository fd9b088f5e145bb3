"""Lists and class folders of the same photos: which of them says more, and whether they agree.

In:  what both readings find.  Out: a decision.  Where they give other labels or splits, or lists name only some of the
photos in class folders, the user is asked.
"""

import os
from collections.abc import Callable
from dataclasses import replace

from ...errors import AlexnetError, UsageError
from .. import class_folders
from ..entries import Declined, Entries, Found, Request
from ..inventory import Inventory
from ..splits import split_of
from .list_files import Lists

ByPath = dict[str, tuple[str, str]]


def take_folders(
    look: Inventory, ask: Request, lists: Lists, read: Callable[[], Found], wanted: str
) -> Declined | None:
    """Return why lists that are found automatically are not used: class folders say the same; None if they are.

    Raises:
        UsageError: both say of the same photos something else, or the lists name only some of those in class folders.
    """
    folders = _folders(look, ask)
    if folders is None:
        return None
    names, by_folder = lists.names(), _by_path(folders, look)
    try:
        by_list = _by_path(read(), look)
    except AlexnetError as error:
        named = lists.named(look.root)
        if lists.is_about(named) and by_folder.keys() & named.keys() and not _repeats(named, by_folder):
            raise _partial(look, lists, named, by_folder) from None
        return Declined(wanted, error.message, error.hint)
    _refuse(look, names, by_list, by_folder)
    more = any(path not in by_folder or (split and not by_folder[path][0]) for path, (split, _) in by_list.items())
    less = any(by_folder[path][0] and not split for path, (split, _) in by_list.items() if path in by_folder)
    if more and less:
        path = next(path for path in by_list if path not in by_folder)
        raise UsageError(
            f"{look.source}: {names} has photos that are in no class folder, first {path}, but does not say the "
            "splits that the folders say",
            "choose one reading: --layout list, or --layout folders",
        )
    if by_folder.keys() - by_list.keys():
        named = lists.named(look.root)
        left = by_folder.keys() - by_list.keys() - named.keys()
        if (more and left) or (not more and by_folder.keys() & named.keys() and not _repeats(named, by_folder)):
            raise _partial(look, lists, named, by_folder)
    return None if more else Declined(wanted, f"{names}, which says no more than the class folders do")


def refuse_conflict(look: Inventory, ask: Request, found: Found, lists: Lists) -> None:
    """Raise UsageError if class folders give photos of lists other labels or splits, or have photos in no list."""
    if folders := _folders(look, ask):
        by_list, by_folder = _by_path(found, look), _by_path(folders, look)
        _refuse(look, lists.names(), by_list, by_folder)
        if by_folder.keys() - by_list.keys():
            named = lists.named(look.root)
            if by_folder.keys() - by_list.keys() - named.keys():
                raise _partial(look, lists, named, by_folder)


def folders_fit(look: Inventory, ask: Request) -> bool:
    """Return whether there are at least two class folders."""
    return _folders(look, ask) is not None


def add_train_folders(look: Inventory, ask: Request, found: Found) -> None:
    """Add the class folders of train to lists of val or test alone, as of `val_labels.csv` beside `train/`."""
    if not any(split_of(folder.name) == "train" for folder in look.top.classes()):
        return
    train = class_folders.find(look, replace(ask, layout="folders", split="train"))
    entries = train.entries.get("train", train.entries.get("", Entries()))
    found.kind = f"class folders of train and lists of {' and '.join(found.entries)}"
    found.entries = {"train": entries, **found.entries}
    found.words = train.words | found.words
    found.classes = ()
    found.notes += train.notes
    kept = {"val", "test"} - found.entries.keys()
    found.left_out += [one for one in train.left_out if split_of(one.path.split("/")[0]) in {"", "train"} | kept]


def _folders(look: Inventory, ask: Request) -> Found | None:
    """Return what class folders say; None unless they say at least two classes."""
    for split in (None, "train"):
        try:
            found = class_folders.find(look, replace(ask, layout="folders", split=split))
        except UsageError:
            continue
        names = {name for entries in found.entries.values() for name in entries.class_counts()} - {""}
        return found if len(names) > 1 else None
    return None


def _repeats(named: dict[str, str], by_folder: ByPath) -> bool:
    """Return whether lists name all photos of each of the folders' splits that they name any of, as of that split."""
    listed = {(split, by_folder[path][0]) for path, split in named.items() if path in by_folder}
    complete = {split for _, split in listed}
    same = all(split in ("", other) or (split, other) == ("train", "") for split, other in listed)
    return same and all(path in named for path, (split, _) in by_folder.items() if split in complete)


def _partial(look: Inventory, lists: Lists, named: dict[str, str], by_folder: ByPath) -> UsageError:
    """Return the question which reading is meant, of lists that name some photos of class folders or their splits."""
    files = [os.path.relpath(table.path, look.root) for table in lists.tables.values()]
    both = [split for path, split in named.items() if path in by_folder]
    counts = {split: both.count(split) for split in dict.fromkeys(both) if split}
    splits = f" ({', '.join(f'{split} {count:,}' for split, count in counts.items())})" if counts else ""
    more = f", and {len(named) - len(both):,} others" if len(named) > len(both) else ""
    unlabelled = not any(line.label for table in lists.tables.values() for line in table.lines)
    alone = "--layout list"
    if unlabelled and counts.keys() == {"test"}:
        alone += " --split test"
    ignore = " ".join(f"--ignore '{file}'" for file in files)
    return UsageError(
        f"{look.source}: {' and '.join(files)}: lists {len(both):,} of the {len(by_folder):,} photos in class folders"
        f"{splits}{more}; the set may be what is listed, or what is in the folders",
        f"choose one reading: {alone}, which takes the listed photos alone; or --layout folders, or {ignore}, "
        f"which takes all {len(by_folder):,} photos in class folders, without what the list says",
    )


def _by_path(found: Found, look: Inventory) -> ByPath:
    """Return split and class of every photo that has a label, by its path relative to the source."""
    prefix = os.path.relpath(found.root, look.root) if found.root else "."
    return {
        entry.path if prefix == "." else os.path.normpath(os.path.join(prefix, entry.path)): (split, entry.class_name)
        for split, entries in found.entries.items()
        for entry in entries
        if entry.class_name
    }


def _refuse(look: Inventory, names: str, by_list: ByPath, by_folder: ByPath) -> None:
    """Raise UsageError if two splits differ, or the classes do not map one to one."""
    there: dict[str, str] = {}
    back: dict[str, str] = {}
    for path, (split, name) in by_list.items():
        if path not in by_folder:
            continue
        other_split, other = by_folder[path]
        what = ""
        if split and other_split and split != other_split:
            what = f"{path} is in {split} by {names}, but in {other_split} by its folder"
        elif there.setdefault(name, other) != other:
            what = f"{path} has the label {name} by {names}, but is in the folder {other}; others of {name} are in "
            what += there[name]
        elif back.setdefault(other, name) != name:
            what = f"{path} is in the folder {other}, and has the label {name} by {names}; others in it have "
            what += back[other]
        if what:
            raise UsageError(
                f"{look.source}: the list and the class folders differ: {what}",
                "choose one reading: --layout list, or --layout folders",
            )
