"""Photos in class folders, with or without folders of splits above them; readable names of the classes.

    photos/train/n01440764/a.JPEG      photos/n01440764/a.JPEG
    photos/val/n01440764/b.JPEG        (flat: find.py holds out a seeded share)
    photos/test/...                    in class folders, or directly in test/, then without labels

A class is a folder of photos, with all folders below it. Folders that only wrap others are passed: `a/train/train/`.
In:  an Inventory.  Out: Found, or the photos of one folder for layouts that contain such folders.
"""

from collections.abc import Iterable, Iterator

from ..errors import UsageError
from .class_tree import leaves_are_classes, leaves_without_masks, unwrapped, without_doubling, without_masks
from .entries import Declined, Entries, Entry, Found, LeftOut, Request, in_words
from .inventory import Folder, Inventory
from .label_names import read_words
from .splits import split_of

KIND = "class folders"


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if there are photos in folders, or loose ones and a test split is asked for."""
    wanted = "class folders of photos: CLASS/photo.jpg, or train/CLASS/photo.jpg"
    if not look.source.is_dir():
        return Declined(wanted)
    if look.top.classes() or (ask.split == "test" and look.top.photos):
        return None
    others = sum(count for count, _ in look.others.values())
    loose = f"{in_words(look.top.photos)}, but none in a class folder" if look.top.photos else ""
    return Declined(
        wanted,
        loose or (f"no photos, {others:,} other files" if others else ""),
        f"arrange them as {look.root}/CLASS/photo.jpg, or as {look.root}/train/CLASS/photo.jpg and "
        f"{look.root}/val/CLASS/photo.jpg" + ("; or write a list of lines `path label`" if loose else ""),
    )


def find(look: Inventory, ask: Request) -> Found:
    """List the photos below a folder.

    Args:
        look: what is below it.
        ask: the requested split, and how classes are read.
    Returns:
        Entries with class names, by split.
    Raises:
        UsageError: photos lack labels that the split needs, there are no photos, or there are several readings.
    """
    found = Found(KIND, {}, words=read_words(look.root))
    top = unwrapped(look.top, found)
    splits = _splits(look, top, ask)
    if not splits:
        _flat(look, top, ask, found)
    else:
        _by_split(look, splits, ask, found)
    if not any(map(len, found.entries.values())):
        declined = declines(look, ask)
        raise UsageError(
            f"{look.root}: " + (declined.found if declined and declined.found else "no photos in class folders"),
            declined.hint if declined else f"arrange them as {look.root}/CLASS/photo.jpg",
        )
    return found


def _splits(look: Inventory, top: Folder, ask: Request) -> dict[str, Folder]:
    """Return the folders of the splits; none if the folders of `top` are classes.

    Raises:
        UsageError: only some of the folders are named after a split, or two after the same.
    """
    inside = top.classes()
    named = [folder for folder in inside if split_of(folder.name)]
    are_classes = ask.class_folders == "top" and not any(folder.classes() for folder in named)
    splits: dict[str, Folder] = {}
    for folder in () if are_classes else named:
        if (other := splits.setdefault(name := split_of(folder.name), folder)) is not folder:
            flat = not (folder.classes() or other.classes())
            raise UsageError(
                f"{look.root / folder.path}: the name says {name}, and so does {other.name}",
                ("if they are classes: --class-folders top; if not, " if flat else "")
                + f"go on without one of them: --ignore '{folder.path}'",
            )
    classes = [folder for folder in inside if folder not in named]
    if not splits or not classes or any(folder.classes() for folder in named):
        return splits
    if list(splits) == ["train"] and all(folder.photos for folder in classes):
        return {}  # a class of locomotives, since a train split without class folders would have no labels
    first = next(iter(splits.values()))
    raise UsageError(
        f"{look.root / first.path}: a class, or the split {split_of(first.name)} without class folders? "
        f"Beside it is {classes[0].name}" + (f" and {len(classes) - 1} more" if len(classes) > 1 else ""),
        f"if it is a class: --class-folders top; if not, go on without it: --ignore '{first.path}'",
    )


def _by_split(look: Inventory, splits: dict[str, Folder], ask: Request, found: Found) -> None:
    tops = {name: without_doubling(folder) for name, folder in splits.items()}
    train = {folder.name for folder in tops["train"].classes()} if "train" in tops else set()
    loose = {name for name, top in tops.items() if _is_loose(top, train if name != "train" else set())}
    labelled = {name: top for name, top in tops.items() if name not in loose}
    deep = leaves_are_classes(look, list(labelled.values()), ask, found)
    for name, top in labelled.items():
        if top.photos:
            if name == "val" and ask.split in (None, "val"):
                raise _no_labels(look, top, top.photos, name)
            found.left_out.append(LeftOut(top.path, -1, "in no class folder"))
        found.entries[name] = walk_classes(look, top, found, deep=deep)
    for name in sorted(loose):
        if name == "test":
            add_test(look, tops[name], ask, found)
        elif ask.split in (None, name):
            if name == "train" and "val" in labelled:
                raise UsageError(
                    f"{look.root}: only val has photos in class folders; there are no training photos",
                    f"sort the training photos into {look.root / tops[name].path}/CLASS, or build val alone with "
                    "--split val",
                )
            raise _no_labels(look, tops[name], tops[name].total, name, are_classes=not labelled and len(tops) > 1)
        else:
            found.left_out.append(LeftOut(tops[name].path, -1, "without labels"))
    for name in ("train", "val"):
        empty = next((folder for folder in look.at("").folders.values() if folder.name == name), None)
        if name not in tops and empty is not None and "train" in labelled:
            found.entries[name] = Entries()
    _name_kind(ask, found)


def _name_kind(ask: Request, found: Found) -> None:
    """Set the description; a sole train split has no splits, so that a share of it is held out."""
    names = [name for name in ("train", "val", "test") if name in found.entries]
    if names == ["train"]:
        found.entries = {"": found.entries["train"]}
        found.kind = f"{KIND}, flat"
    elif len(names) == 1:
        found.kind = f"{KIND}, all {names[0]}"
    else:
        found.kind = f"{KIND}, {' and '.join(name for name in names if name != 'test' or len(names) == 2)}"
    found.entries = {name: found.entries[name] for name in ("", *names) if name in found.entries}


def _flat(look: Inventory, top: Folder, ask: Request, found: Found) -> None:
    if ask.split == "test" and not top.classes() and top.photos:
        found.entries["test"] = Entries(look.photos_in(top, ""))
        return
    deep = leaves_are_classes(look, [top], ask, found)
    found.kind = f"{KIND}, flat"
    if top.photos:
        found.left_out.append(LeftOut(top.path, -1, "in no class folder"))
    found.entries[""] = walk_classes(look, top, found, deep=deep)


def _is_loose(top: Folder, train: set[str]) -> bool:
    """Return whether a split's photos are in no class folders: directly, or all in one folder that is no class."""
    inside = top.classes()
    if not inside:
        return True
    return not top.photos and len(inside) == 1 and len(train) > 1 and inside[0].name not in train


def _no_labels(look: Inventory, top: Folder, count: int, split: str, are_classes: bool = False) -> UsageError:
    if split == "train":
        hint = f"sort them into {look.root / top.path}/CLASS, or write a list of lines `path label`"
    else:
        tiny = "val_annotations.txt (Tiny ImageNet's), " if (look.root / "wnids.txt").exists() else ""
        hint = (
            f"sort them into class folders as in train; or put {tiny}LOC_val_solution.csv (Kaggle's) or "
            f"ILSVRC2012_devkit_t12.tar.gz into {look.root}; or omit them with --split train"
        )
    return UsageError(
        f"{look.root / top.path}: {in_words(count)} without a class folder, and so without labels",
        hint + ("; or, if the folders are classes, --class-folders top" if are_classes else ""),
    )


def add_test(look: Inventory, test: Folder, ask: Request, found: Found) -> None:
    """Add the photos of `test`: with labels from class folders; without labels only if split is `test`."""
    test = without_doubling(test)
    if not _is_loose(test, {"", "."}):
        found.entries["test"] = walk_classes(look, test, found)
        if ask.split == "test":
            names = {folder.name for folder in look.at("train").classes()}
            found.classes = tuple(sorted(names | set(found.entries["test"].class_counts())))
    elif ask.split == "test":
        found.entries["test"] = Entries(walk(look, test, ""))
    elif test.total:
        found.left_out.append(LeftOut(test.path, -1, "without labels (--split test builds them)"))


def val_photos(look: Inventory, val: Folder, found: Found) -> tuple[Entries, bool]:
    """List the photos of a folder that has class folders or, without labels, none.

    Returns:
        The photos, and whether they are without class folders.
    Raises:
        UsageError: some photos are in class folders and others are not.
    """
    if not val.photos:
        return walk_classes(look, val, found), False
    if val.classes():
        raise UsageError(
            f"{look.root / val.path}: {in_words(val.photos)} without a class folder, beside class folders",
            "sort all of them into class folders, or none",
        )
    return Entries(walk(look, val, "")), True


def walk_classes(look: Inventory, top: Folder, found: Found, *, deep: bool = False) -> Entries:
    """Return the photos in the class folders of `top`.

    Args:
        look: what is below the source.
        top: the folder of the class folders.
        found: receives the masks that are left out.
        deep: the classes are the folders with photos of their own, named by their paths, instead of those in `top`.
    """
    entries = Entries()
    empty = [folder.name for folder in top.folders.values() if not folder.total]
    if empty and top.classes():
        more = f" and {len(empty) - 3:,} more" if len(empty) > 3 else ""
        found.notes.append(f"{look.root / top.path}: no photos in {', '.join(empty[:3])}{more}, beside class folders")
    for folder in _kept(top.classes(), found):
        if not deep:
            entries.extend(walk(look, folder, folder.name, found))
            continue
        for leaf in leaves_without_masks(folder):
            entries.extend(look.photos_in(leaf, leaf.path[len(top.path) :].lstrip("/")))
    return entries


def _kept(folders: list[Folder], found: Found | None) -> list[Folder]:
    masks: list[Folder] = []
    kept = without_masks(folders, masks)
    if found is not None:
        found.left_out += [LeftOut(folder.path, -1, "masks beside photos") for folder in masks]
    return kept


def walk(look: Inventory, top: Folder, class_name: str, found: Found | None = None) -> Iterator[Entry]:
    """Yield all photos below a folder, as one class; empty for no class."""
    yield from look.photos_in(top, class_name)
    for folder in _kept(top.classes(), found):
        yield from walk(look, folder, class_name, found)


def class_names(entries: Iterable[Entries]) -> set[str]:
    """Return the class names of splits."""
    return {name for some in entries for name in some.class_counts()} - {""}
