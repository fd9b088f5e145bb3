"""Which files below a source are lists of its photos.

In:  what is below a source.  Out: Lists: a table for each split, or one for all, and where their photos are.  A file is
a list of the source's photos if one of its first photos is there.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...errors import SourceError, UsageError
from ...shards.manifest import SPLITS
from ..entries import Request
from ..inventory import Inventory
from ..photo import is_photo
from ..splits import WORDS, split_of
from .photo_lookup import LIST_FOLDERS, Lookup
from .table import SUFFIXES, Line, Table, head_of, read_table, several_labels

_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_CATEGORIES = "categories_places365.txt"
_FIRST = 100  # lines of which one must name a photo that is there
_MOST_FILES = 50  # tables that are looked at in a folder


@dataclass
class Lists:
    """The lists of a source.

    Attributes:
        home: the folder that paths are relative to.
        tables: table by split; under "" one that has all photos.
        lookups: where the photos of each are.
        caffe: they are `train.txt` and `val.txt`, lines of path and label.
        unused: names of other tables of photos.
        categories: class names by number, if a file has them.
        why: why the lists cannot be used; empty if they can.
        hint: what would help.
    """

    home: Path
    tables: dict[str, Table] = field(default_factory=dict)
    lookups: dict[str, Lookup] = field(default_factory=dict)
    caffe: bool = False
    unused: list[str] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    why: str = ""
    hint: str = ""

    def names(self) -> str:
        """Return the files' names, for messages."""
        return " and ".join(os.path.relpath(table.path, self.home) for table in self.tables.values())

    def named(self, root: Path) -> dict[str, str]:
        """Return the split, "" for none, of every listed photo that is there, by its path relative to `root`."""
        found: dict[str, str] = {}
        prefix = os.path.relpath(self.home, root)
        for name, table in self.tables.items():
            for line in table.lines:
                try:
                    path, size = self.lookups[name].find(several_labels(line)[0] or line.path, line.split or name)
                except SourceError:  # several fit
                    continue
                if size >= 0:
                    found[os.path.normpath(os.path.join(prefix, path))] = line.split or name
        return found

    def is_about(self, named: dict[str, str]) -> bool:
        """Return whether the lists are of photos, not numbers that some photos happen to be called, as counts are."""
        lines = [line for table in self.tables.values() for line in table.lines]
        return 2 * len(named) > len(lines) or any(_names_photo(line) or "/" in line.path for line in lines)

    def of(self, split: str) -> Table:
        """Return the table that has the photos of a split."""
        return next(self.tables[name] for name in (split, "", "train", *self.tables) if name in self.tables)


class _Search(NamedTuple):
    """What is looked at, what is asked, and the listings of folders so far."""

    look: Inventory
    ask: Request
    listings: dict[str, dict[str, list[str]]]


def find_lists(look: Inventory, ask: Request) -> Lists | None:
    """Find the lists of a source.

    Returns:
        The lists; None if there are none. `why` is set if they are there, but not their photos.
    Raises:
        UsageError: the folder of --root is not there, or two lists are of the same split.
        SourceError: as read_table, if the source is the list itself or the layout was chosen.
    """
    root, at = look.source, _Search(look, ask, {})
    if ask.paths_root is not None and not Path(ask.paths_root).is_dir():
        raise UsageError(
            f"--root {ask.paths_root}: no such folder",
            "choose the folder that the lists' paths are in; for a set that was built with it, move the photos back "
            "there, or make a link there to where they are: ln -s",
        )
    if root.is_file():
        return _one_file(at)
    away: Lists | None = None
    for place in ("", *LIST_FOLDERS):
        lists = (_caffe(at, place) or _tables_in(at, place)) if (root / place).is_dir() else None
        if lists and lists.tables:
            _read_categories(lists, root / place)
            break
        away = away or lists
    else:
        lists = _in_split_folders(at) or away
    exact = _exact(look, "")
    if ask.layout != "auto" and exact and (lists is None or lists.why):
        return _at_home(at, root, "", exact)
    return lists


def _one_file(at: _Search) -> Lists | None:
    path = at.look.source
    head = head_of(path)
    listed = path.suffix.lower() in _TABLES or head.has_header or any(map(_names_photo, head.lines))
    if at.ask.layout == "auto" and not listed:
        return None
    split = split_of(path.stem) if at.ask.rules > 1 else WORDS.get(path.stem.lower(), "")
    lists = _at_home(at, path.parent, "", {split: path})
    _read_categories(lists, path.parent)
    return lists


def _exact(look: Inventory, place: str) -> dict[str, Path]:
    """Return the lists in a folder that are called `train.txt`, `val.txt`, `test.txt`."""
    paths = {name: look.source / place / f"{name}.txt" for name in SPLITS}
    kept = (name for name, path in paths.items() if path.is_file() and not look.ignores(os.path.join(place, path.name)))
    return {name: paths[name] for name in kept}


def _caffe(at: _Search, place: str) -> Lists | None:
    """Return Caffe's lists, `train.txt` and `val.txt`, whose lines have photos and labels."""
    exact = _exact(at.look, place)
    heads = [head_of(exact[name]).lines for name in ("train", "val") if name in exact]
    good = all(some and all(is_photo(line.path) and line.label for line in some) for some in heads)
    if len(heads) < 2 or not good:
        return None
    lists = _at_home(at, at.look.source, place, exact)
    lists.caffe = place == ""
    if not _there(lists, "train") and (at.look.at("train").classes() or place):
        lists.why = f"{os.path.join(place, 'train.txt')}, whose photos are not there"
        lists.hint = "say where they are: --root DIR"
    return lists


def _tables_in(at: _Search, place: str) -> Lists | None:
    """Return the tables of photos in a folder: one for each split, or one for all."""
    found: dict[str, list[Path]] = {}
    away = ""
    for path in _files(at.look, place):
        split = split_of(path.stem)
        if path.suffix.lower() not in _TABLES and not split:
            continue
        there = _about_photos(at, place, split, path)
        if there:
            found.setdefault(split, []).append(path)
        elif there is not None:
            away = away or os.path.join(place, path.name)
    by_split = {name: found[name] for name in SPLITS if name in found}
    if "" in found and not {"train", "val"} & by_split.keys():
        by_split = {"": found[""], **by_split}
    if not by_split:
        hint = "say where they are: --root DIR"
        return Lists(at.look.source, why=f"{away}, whose photos are not there", hint=hint) if away else None
    for name, paths in by_split.items():
        exact = [path for path in paths if path.name == f"{name}.txt"]
        by_split[name] = exact or paths
        if len(paths) > 1 and not exact:
            names = " and ".join(os.path.join(place, path.name) for path in paths)
            raise UsageError(
                f"{at.look.source}: {names} both list the photos of {name or 'all splits'}",
                f"choose one of these files, or leave one out: --ignore '{os.path.join(place, paths[1].name)}'",
            )
    lists = _at_home(at, at.look.source, place, {name: paths[0] for name, paths in by_split.items()})
    if "" in lists.tables and any(line.split for line in lists.tables[""].lines):
        lists.tables, lists.lookups = {"": lists.tables[""]}, {"": lists.lookups[""]}
    used = {table.path for table in lists.tables.values()}
    lists.unused = sorted(path.name for paths in found.values() for path in paths if path not in used)
    return lists


def _in_split_folders(at: _Search) -> Lists | None:
    """Return the tables in the splits' folders, as Hugging Face's `train/metadata.csv`."""
    found: dict[str, tuple[str, Path]] = {}
    for folder in at.look.top.classes():
        split = split_of(folder.name)
        paths = [path for path in _files(at.look, folder.path) if path.suffix.lower() in _TABLES] if split else []
        paths = [path for path in paths if _about_photos(at, folder.path, split, path)]
        if len(paths) == 1 and split not in found:
            found[split] = folder.path, paths[0]
    if not found:
        return None
    lists = Lists(at.look.source)
    for split, (place, path) in found.items():
        one = _at_home(at, at.look.source, place, {split: path})
        lists.tables |= one.tables
        lists.lookups |= one.lookups
    return lists


def _files(look: Inventory, place: str) -> list[Path]:
    """Return the files in a folder that may be lists, without samples of what to send to a contest."""
    with os.scandir(look.source / place) as entries:
        names = sorted(one.name for one in entries if one.name.lower().endswith(SUFFIXES) and one.is_file())
    names = [name for name in names if not name.startswith(".") and "submission" not in name.lower()]
    return [look.source / place / name for name in names if not look.ignores(os.path.join(place, name))][:_MOST_FILES]


def _about_photos(at: _Search, place: str, split: str, path: Path) -> bool | None:
    """Return whether one of the first photos of a list is there; None if it is no list."""
    head = head_of(path)
    if not head.lines:
        return None
    lists = Lists(at.look.source)
    for home, inside in _homes(at, at.look.source, place):
        lists = Lists(home, {split: head}, {split: _lookup(home, inside, path, at, head)})
        if _there(lists, split):
            return True
    return False if head.has_header or any(map(_names_photo, head.lines)) else None


def _names_photo(line: Line) -> bool:
    return is_photo(line.path) or bool(several_labels(line)[0])


def _there(lists: Lists, split: str) -> bool:
    lookup = lists.lookups[split]
    return any(
        lookup.has(path, line.split or split)
        for line in lists.tables[split].lines[:_FIRST]
        for path in (line.path, several_labels(line)[0])
        if path
    )


def _homes(at: _Search, folder: Path, place: str) -> list[tuple[Path, str]]:
    """Return the folders that paths may be relative to, and the lists' folder relative to each."""
    if at.ask.paths_root is not None:
        return [(Path(at.ask.paths_root), "")]
    homes = [(folder, place)]
    name = folder.resolve().name
    if not place and name.lower() in LIST_FOLDERS:
        homes.append((folder.parent if folder.name == name else folder.resolve().parent, name))
    return homes


def _lookup(home: Path, place: str, path: Path, at: _Search, table: Table | None) -> Lookup:
    lookup = Lookup(home, place, path.stem.lower(), at.look, at.listings, is_root=at.ask.paths_root is not None)
    lookup.set_base([line.path for line in table.lines[:_FIRST]] if table else [])
    return lookup


def _at_home(at: _Search, folder: Path, place: str, paths: dict[str, Path]) -> Lists:
    """Read lists, with paths relative to the first folder that has one of their first photos."""
    lists = Lists(folder)
    for home, inside in reversed(_homes(at, folder, place)):
        lists = Lists(home)
        for split, path in paths.items():
            probe = _lookup(home, inside, path, at, None)
            table = read_table(path, _fits(probe, split), guess=split != "test")
            lists.tables[split] = table
            lists.lookups[split] = _lookup(home, inside, path, at, table)
    for home, inside in _homes(at, folder, place):
        lookups = {split: _lookup(home, inside, path, at, lists.tables[split]) for split, path in paths.items()}
        tried = Lists(home, lists.tables, lookups)
        if any(_there(tried, split) for split in paths):
            return tried
    return lists


def _fits(lookup: Lookup, split: str) -> Callable[[str], bool]:
    """Return a function that says whether a cell of a table names a photo that is there."""
    return lambda cell: lookup.has(cell, split)


def _read_categories(lists: Lists, folder: Path) -> None:
    """Set the class names of Places365, where its lists are."""
    if not (folder / _CATEGORIES).is_file() or not lists.tables:
        return
    for line in read_table(folder / _CATEGORIES).lines:
        if not line.label.isdigit():
            raise SourceError(f"{folder / _CATEGORIES}: line {line.number}: no number", "download the file again")
        lists.categories[int(line.label)] = line.path.strip("/")
