"""What a layout finds: photos with class names, in compact arrays, and what it leaves out.

In:  an Entry per photo.  Out: Entries, and Photos: parts of them with labels, in an order.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .photo import Photo, stem_of


class Entry(NamedTuple):
    """A photo as a layout lists it, with its class name, empty for no label; otherwise as Photo."""

    class_name: str
    path: str
    bytes: int
    archive: str = ""
    offset: int = 0

    def place(self) -> tuple[str, str, str, int]:
        """Return the sort key, equal in every layout: class, then file name without suffix, path and offset.

        Hugging Face appends the class to the name, `n01440764_10026_n01440764.JPEG`, which is removed here.
        """
        return self.class_name, stem_of(self.path).removesuffix(f"_{self.class_name}"), self.path, self.offset


class Entries:
    """Photos of a split as a layout finds them: a list of Entry as arrays, 60 bytes a photo instead of 300.

    Folders, classes and archives are numbered; of a path only the file name is stored for each photo.
    """

    def __init__(self, entries: Iterable[Entry] = ()):
        self._names = bytearray()
        self._ends = array("q", [0])
        self._folders, self._classes, self._archives = _Numbered(), _Numbered(), _Numbered()
        self._folder, self._class, self._archive = array("i"), array("i"), array("i")
        self._bytes, self._offset = array("q"), array("q")
        self.extend(entries)

    def append(self, entry: Entry) -> None:
        """Add a photo."""
        folder, slash, name = entry.path.rpartition("/")
        self._names += name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._names))
        self._folder.append(self._folders.number(folder + slash))
        self._class.append(self._classes.number(entry.class_name))
        self._archive.append(self._archives.number(entry.archive))
        self._bytes.append(entry.bytes)
        self._offset.append(entry.offset)

    def extend(self, entries: Iterable[Entry]) -> None:
        """Add photos."""
        for entry in entries:
            self.append(entry)

    def relabel(self, class_names: Iterable[str]) -> None:
        """Replace every photo's class name."""
        self._classes = _Numbered()
        self._class = array("i", (self._classes.number(name) for name in class_names))

    def rename(self, names: dict[str, str]) -> None:
        """Replace class names by others; several may become one."""
        old, self._classes = self._classes.names, _Numbered()
        numbers = np.array([self._classes.number(names.get(name, name)) for name in old], dtype=np.intc)
        self._class = array("i", numbers[np.frombuffer(self._class, dtype=np.intc)].tobytes())

    def move(self, k: int, entry: Entry) -> None:
        """Replace the archive, the offset and the size of photo `k` by those of an entry."""
        self._archive[k] = self._archives.number(entry.archive)
        self._bytes[k], self._offset[k] = entry.bytes, entry.offset

    def __len__(self) -> int:
        return len(self._bytes)

    def __iter__(self) -> Iterator[Entry]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, k: int) -> Entry:
        return Entry(
            self._classes.names[self._class[k]],
            self.path(k),
            self._bytes[k],
            self._archives.names[self._archive[k]],
            self._offset[k],
        )

    def path(self, k: int) -> str:
        """Return the path of photo `k`."""
        name = self._names[self._ends[k] : self._ends[k + 1]].decode("utf-8", "surrogateescape")
        return self._folders.names[self._folder[k]] + name

    def class_counts(self) -> dict[str, int]:
        """Return the number of photos by class name; under "" those without a label."""
        return self._counts(self._classes, self._class)

    def folder_counts(self) -> dict[str, int]:
        """Return the number of photos by folder, which in an archive begins with the archive's path."""
        return {name.rstrip("/"): count for name, count in self._counts(self._folders, self._folder).items()}

    def archives(self) -> set[str]:
        """Return the archives that contain photos."""
        return {*self._archives.names} - {""}

    def sorted(self) -> np.ndarray:
        """Return the photos' numbers in the order of `Entry.place`, int64 (n,): class by class, to save memory."""
        classes = np.frombuffer(self._class, dtype=np.intc)
        order = np.argsort(classes, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(classes, minlength=len(self._classes.names)))])
        found = np.empty(len(order), dtype=np.int64)
        done = 0
        for number in sorted(range(len(self._classes.names)), key=self._classes.names.__getitem__):
            part = sorted(order[bounds[number] : bounds[number + 1]].tolist(), key=lambda k: self[k].place())
            found[done : done + len(part)] = part
            done += len(part)
        return found

    def label(self, k: int, labels: dict[str, int]) -> Photo:
        """Return photo `k` with its label."""
        class_name, path, size, archive, offset = self[k]
        return Photo(path, labels[class_name], size, archive, offset)

    def label_counts(self, order: np.ndarray, labels: dict[str, int]) -> dict[int, int]:
        """Return how many photos of those with some numbers have each label."""
        if not len(order):
            return {}
        numbers, counts = np.unique(np.frombuffer(self._class, dtype=np.intc)[order], return_counts=True)
        return {labels[self._classes.names[number]]: int(count) for number, count in zip(numbers, counts, strict=True)}

    @staticmethod
    def _counts(names: "_Numbered", column: array) -> dict[str, int]:
        numbers = np.frombuffer(column, dtype=np.intc) if column else np.zeros(0, dtype=np.intc)
        counts = np.bincount(numbers, minlength=len(names.names))
        return {name: int(count) for name, count in zip(names.names, counts, strict=False) if count}


class _Numbered:
    """Names, each with a number."""

    def __init__(self):
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number


class Photos(Sequence[Photo]):
    """Photos of a split with labels, made from Entries one at a time when they are asked for.

    A part of them, `photos[3:9]` or `photos.take(numbers)`, refers to the same Entries; pickled, it becomes a tuple of
    its own photos.
    """

    def __init__(self, entries: Entries, order: np.ndarray, labels: dict[str, int]):
        """Initialize.

        Args:
            entries: all photos of the split.
            order: those of them that this sequence has, in its order, int64 (n,).
            labels: label by class name.
        """
        self._entries, self._order, self._labels = entries, order, labels

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, k):
        if isinstance(k, slice):
            return Photos(self._entries, self._order[k], self._labels)
        return self._entries.label(int(self._order[k]), self._labels)

    def __iter__(self) -> Iterator[Photo]:
        return (self._entries.label(k, self._labels) for k in self._order)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Photos, list, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self):
        return tuple, (list(self),)

    def class_counts(self) -> dict[int, int]:
        """Return the number of photos by label."""
        return self._entries.label_counts(self._order, self._labels)

    def take(self, numbers: np.ndarray) -> "Photos":
        """Return the photos of some numbers, int64 (n,), in their order."""
        return Photos(self._entries, self._order[numbers], self._labels)


@dataclass(frozen=True)
class LeftOut:
    """Photos below the source that no split has.

    Attributes:
        path: a folder or an archive, relative to the source, "" for the source itself.
        photos: their number; -1 if it is not known.
        why: the reason, as a phrase.
    """

    path: str
    photos: int
    why: str


@dataclass(frozen=True)
class Request:
    """What is asked of a source; kept in dataset.json, to find the same photos again.

    Attributes:
        layout: name of the layout, or `auto`.
        split: list only this split; None for all.
        val_share: share that is held out as val, 0..0.9; None for the default.
        seed: seed of the hold-out.
        label_order: one of `find.LABEL_ORDERS`; None for the default.
        class_folders: one of CLASS_FOLDERS.
        paths_root: folder that the paths in lists are relative to; None to find it out.
        ignore: patterns of paths to ignore, as of a shell.
        rules: version of these rules; 1 is that of alexnet-dali 0.1.
    """

    layout: str = "auto"
    split: str | None = None
    val_share: float | None = None
    seed: int = 0
    label_order: str | None = None
    class_folders: str = "auto"
    paths_root: str | None = None
    ignore: tuple[str, ...] = ()
    rules: int = 2


CLASS_FOLDERS = {
    "auto": "the one possible reading",
    "top": "every folder directly in SOURCE, or in a split's folder, with all below it",
    "leaf": "every folder that has photos of its own, by its path",
}


@dataclass(frozen=True)
class Declined:
    """Why a layout does not fit a source.

    Attributes:
        wanted: what was looked for.
        found: what was found of it; empty for nothing.
        hint: what would help; empty if nothing is known to.
    """

    wanted: str
    found: str = ""
    hint: str = ""


def in_words(photos: int) -> str:
    """Return a number of photos in words; negative if it is not known."""
    return "photos" if photos < 0 else f"{photos:,} photo{'s' * (photos != 1)}"


@dataclass
class Found:
    """The photos that the module of a layout found.

    Attributes:
        kind: description of the layout.
        entries: photos by split; under "" if the layout has no splits, so that a share is held out.
        ignored: number of members of archives that are no photos.
        classes: all class names, if the layout has more than its photos show or numbers them itself.
        words: human-readable class names by class name.
        devkit_order: class names in the order of the ILSVRC devkit.
        notes: messages for the user, such as what was skipped.
        left_out: reasons why photos below the source are in no split; a folder's reason holds for all below it, and
            the number of photos is counted later.
        root: the folder that paths are relative to, if other than the requested path.
    """

    kind: str
    entries: dict[str, Entries]
    ignored: int = 0
    classes: tuple[str, ...] = ()
    words: dict[str, str] = field(default_factory=dict)
    devkit_order: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    root: Path | None = None
