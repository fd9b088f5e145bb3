"""Photos in tars that are read by class, in place: class folders in a tar, class tars, tars of class tars.

    photos.tar                       photos/cat/1.jpg, train/cat/1.jpg: as if it were unpacked
    n01440764.tar, n01443537.tar     photos of the class that the tar is called after; also in train/ and val/
    fall11_whole.tar                 a tar of class tars, of any name; winter21_whole.tar.gz, gzipped
    train_images_0.tar.gz            n01440764_10026_n01440764.JPEG: the class in the name, as Hugging Face has them

In:  an Inventory.  Out: Found.  Tars are folders here, and the rules are those of `class_folders.py`.
Gzipped tars are read once when photos are listed, and once more when the set is built (`sequential.py`).
"""

import re
from collections.abc import Iterable

from ...errors import SourceError, UsageError
from .. import class_folders
from ..entries import Declined, Entries, Found, LeftOut, Request, in_words
from ..inventory import ARCHIVES, Inventory
from ..photo import PARQUET
from ..splits import split_of
from .tar_tree import TarFolder, TarTree, begins, is_wnid, read_tars, tars_of, without_ending

KIND = "tars by class"
_SHOWN = 3


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if there are tars with photos, and no folders of photos beside them."""
    wanted = "tars of photos by class: class folders in a tar, CLASS.tar, a tar of these, NAME_WNID.JPEG in a tar"
    paths = tars_of(look)
    if not paths:
        return _other_archives(look, wanted)
    if look.top.classes():
        found = f"{_some(paths)}, but there are folders of photos beside them"
        return Declined(wanted, found, "read the tars alone: --layout tars; or go on without: --ignore '*.tar'")
    beginnings = []
    for path in paths:
        try:
            names = begins(look, path)
        except SourceError:
            return None  # find reports the damage
        if not names:
            return None
        beginnings.append(f"{path}, without photos: {', '.join(names)}")
    return Declined(wanted, _some(beginnings, "; "))


def find(look: Inventory, ask: Request) -> Found:
    """List the photos in the tars.

    Raises:
        UsageError: there are none, or no or several readings of their classes and splits.
        SourceError: a tar is damaged.
    """
    paths = tars_of(look)
    if not paths:
        raise UsageError(f"{look.source}: no tars", "choose a tar or a folder of tars; others must be unpacked first")
    tree = read_tars(look, paths)
    if not tree.top.total:
        raise UsageError(f"{look.source}: no photos in {_some(paths)}", "choose tars of photos")
    notes = _merge_parts(tree, tree.top, ask)
    _check(tree, ask)
    _unwrap(tree, ask)
    found = class_folders.find(tree, ask)
    found.kind = found.kind.replace(class_folders.KIND, KIND)
    found.notes = [*notes, *found.notes]
    chosen = {
        entry.path.rstrip("/"): (split, without_ending(entry.class_name))
        for split, entries in found.entries.items()
        for entry in entries
    }
    found.left_out = _left_out(tree, found, chosen, paths, ask)
    found.entries = _by_split(tree, chosen, found.entries)
    found.ignored, found.root = tree.members, look.root
    return found


def _other_archives(look: Inventory, wanted: str) -> Declined:
    others = [path for path in look.archives if not path.lower().endswith(PARQUET)]
    if look.source.is_file() and look.source.name.lower().endswith(ARCHIVES[1:]):
        others = [look.source.name]
    if not others:
        return Declined(wanted)
    return Declined(wanted, _some(others), "unpack it first: of archives only tars, also gzipped, are read")


def _some(names: list[str], between: str = ", ") -> str:
    more = f"{between}and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return between.join(names[:_SHOWN]) + more


def _merge_parts(tree: TarTree, folder: TarFolder, ask: Request) -> list[str]:
    """Make one folder of tars that are parts of one: of one split, or with class folders and numbered names."""
    notes: list[str] = []
    groups: dict[tuple[str, str], list[TarFolder]] = {}
    for one in folder.all():
        notes += _merge_parts(tree, one, ask)
        if not one.is_tar or not one.total:
            continue
        if split := split_of(one.name):
            groups.setdefault((split, f"*{split}*"), []).append(one)
        elif not one.photos and not is_wnid(one.name) and ask.class_folders != "top":
            groups.setdefault(("", _numbered(one.name)), []).append(one)
    for (split, pattern), some in groups.items():
        if len(some) == 1:
            continue
        patterns = {_numbered(one.name) for one in some}
        name = f"{patterns.pop() if len(patterns) == 1 else pattern}.tar"
        merged = _merged(f"{folder.path}/{name}" if folder.path else name, some, is_tar=True)
        for one in some:
            del folder.folders[one.path.rpartition("/")[2]]
        folder.folders[name] = merged
        if not split:
            notes.append(
                f"{some[0].path} and {len(some) - 1:,} more: read as parts of one set (as classes: --class-folders top)"
            )
    folder.forget()
    return notes


def _numbered(name: str) -> str:
    return re.sub(r"\d+", "*", name)


def _merged(path: str, some: list[TarFolder], *, is_tar: bool) -> TarFolder:
    """Return a folder with the photos and the folders of several."""
    merged = TarFolder(path, tuple(part for one in some for part in one.parts), is_tar)
    merged.photos = sum(one.photos for one in some)
    inside: dict[str, list[TarFolder]] = {}
    for folder in (folder for one in some for folder in one.all()):
        inside.setdefault(folder.path.rpartition("/")[2], []).append(folder)
    for name, folders in sorted(inside.items()):
        merged.folders[name] = _merged(f"{path}/{name}", folders, is_tar=folders[0].is_tar)
    return merged


def _check(tree: TarTree, ask: Request) -> None:
    """Refuse what would be ignored in silence, and tars of photos of which nothing says that they are classes.

    Raises:
        UsageError: so it is.
    """
    if tree.unread:
        path, why = next(iter(tree.unread.items()))
        hint = "use --layout webdataset" if "WebDataset" in why else f"unpack {path.partition('/')[0]}"
        more = f"; and {len(tree.unread) - 1:,} more such members" if len(tree.unread) > 1 else ""
        raise UsageError(
            f"{tree.root / path}: {why}: it is not read{more}",
            f"{hint}; or go on without such members: --ignore '{path.rpartition('/')[2]}'",
        )
    if ask.class_folders != "auto" or ask.split == "test":
        return
    by_split: dict[str, list[TarFolder]] = {}
    for folder in tree.top.below():
        if folder.is_tar and folder.total and not split_of(folder.name) and not any(one.is_tar for one in folder.all()):
            above = next((path for path in _upwards(folder.path) if split_of(path.rpartition("/")[2])), "")
            by_split.setdefault(above, []).append(folder)
    for beside in by_split.values():
        bare = [one for one in beside if one.photos and not one.classes() and not is_wnid(one.name)]
        if bare and len({_numbered(one.name) for one in beside}) == 1:
            raise _asked(tree, bare)


def _asked(tree: TarTree, bare: list[TarFolder]) -> UsageError:
    more = f", as {bare[1].name} and {len(bare)} in all, or are they" if len(bare) > 1 else ", or is it"
    return UsageError(
        f"{tree.root / bare[0].path}: {in_words(bare[0].photos)} without a class folder. "
        f"Is {bare[0].name} a class{more} "
        f"part{'s' * (len(bare) > 1)} of a set without labels?",
        "if each tar is a class: --class-folders top; else add labels, as WebDataset has them or in class folders",
    )


def _unwrap(tree: TarTree, ask: Request) -> None:
    """Pass a single tar, so that photos beside its class folders do not make it a class."""
    while ask.class_folders != "top" and not tree.top.is_tar:
        inside = [folder for folder in tree.top.all() if folder.total]
        if len(inside) != 1 or split_of(inside[0].name) or not inside[0].classes():
            return
        tree.top = inside[0]


def _by_split(tree: TarTree, chosen: dict[str, tuple[str, str]], order: Iterable[str]) -> dict[str, Entries]:
    """Return the photos of each split, with class names; of a single split without a copy."""
    folders = tree.photos.class_counts()
    splits = {chosen[folder][0] for folder in folders if folder in chosen}
    if len(splits) == 1 and all(folder in chosen for folder in folders):
        tree.photos.rename({folder: chosen[folder][1] for folder in folders})
        return {split: tree.photos if split in splits else Entries() for split in order}
    entries = {split: Entries() for split in order}
    for entry in tree.photos:
        if entry.class_name in chosen:
            split, class_name = chosen[entry.class_name]
            entries[split].append(entry._replace(class_name=class_name))
    return entries


def _left_out(
    tree: TarTree, found: Found, chosen: dict[str, tuple[str, str]], paths: list[str], ask: Request
) -> list[LeftOut]:
    """Return the photos in no split, by folder, and why; `account.py` refuses those without a reason."""
    told = {one.path: one.why for one in found.left_out}
    lines = dict(tree.left_out)
    archives = {*paths}
    used = {path for folder in chosen for path in _upwards(folder) if path in archives}
    counts = tree.photos.class_counts()
    for folder in tree.top.below():
        for part in folder.parts:
            if part in chosen or not (count := counts.get(part, 0)):
                continue
            above = next((path for path in _upwards(folder.path) if path in told), "")
            why = told.get(above, "") or (f"not in the split {ask.split}" if ask.split else "")
            archive = next(path for path in _upwards(part) if path in archives)
            place = archive if archive not in used else above if above.startswith(archive) else part
            lines[place, why] = lines.get((place, why), 0) + count
    return [LeftOut(path, count, why) for (path, why), count in lines.items()]


def _upwards(path: str) -> Iterable[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""
