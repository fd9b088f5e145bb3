"""Lists and class folders of the same photos: which of them says more, and whether they agree.

In:  what both readings find.  Out: a decision.  Where they give other labels or splits, the user is asked.
"""

from collections.abc import Callable
from dataclasses import replace

from ...errors import AlexnetError, UsageError
from .. import class_folders
from ..entries import Declined, Entries, Found, Request
from ..inventory import Inventory
from ..splits import split_of

ByPath = dict[str, tuple[str, str]]


def take_folders(look: Inventory, ask: Request, names: str, read: Callable[[], Found], wanted: str) -> Declined | None:
    """Return why lists that are found automatically are not used: class folders say the same; None if they are.

    Raises:
        UsageError: both say of the same photos something else.
    """
    folders = _folders(look, ask)
    if folders is None:
        return None
    try:
        lists = read()
    except AlexnetError as error:
        return Declined(wanted, error.message, error.hint)
    by_list, by_folder = _by_path(lists), _by_path(folders)
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
    return None if more else Declined(wanted, f"{names}, which says no more than the class folders do")


def refuse_conflict(look: Inventory, ask: Request, lists: Found, names: str) -> None:
    """Raise UsageError if class folders give photos of lists other labels or splits."""
    if folders := _folders(look, ask):
        _refuse(look, names, _by_path(lists), _by_path(folders))


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


def _by_path(found: Found) -> ByPath:
    """Return split and class of every photo that has a label."""
    return {
        entry.path: (split, entry.class_name)
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
