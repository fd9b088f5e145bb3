"""The members of tars as a tree of folders, so that the rules of class folders hold for them, written once.

    photos.tar/cat/1.jpg                      a tar is a folder, called as the tar without its ending
    whole.tar/n01440764.tar/1.JPEG            so is a tar in a tar
    train_images_0.tar/1_n01440764.JPEG       a photo directly in a tar that its name gives a class: below that class

In:  tars.  Out: TarTree, an Inventory; its photos, in Entries of 60 bytes each, whose class is the folder they are in.
Reads headers, in 15 us a photo, and the first bytes of members with unknown endings; gzipped tars are read in order.
"""

import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

import numpy as np

from ...errors import SourceError
from ..entries import Entries, Entry
from ..inventory import ARCHIVES, Folder, Inventory, is_known, no_part
from ..magic import HEAD_BYTES, is_photo_head
from ..photo import TAR_GZ, is_photo
from ..splits import WORDS, split_of
from .passed_over import LINKS, REPLACED, PassedOver
from .tar_index import Archive, Member, open_tar, original_hint

TARS = (".tar", *TAR_GZ)
_ENDING = re.compile(r"(?i)\.(?:tar|tar\.gz|tgz)(?=/|$)")
_WNID = re.compile(r"n\d{8}")
_WNID_AT_START, _WNID_AT_END = re.compile(r"(n\d{8})_\d+[._]"), re.compile(r"_(n\d{8})\.[^.]+$")
_LIST = re.compile(r"(?i)\.(?:txt|csv|tsv|json|mat)$")
_WORD = re.compile(r"[A-Za-z]+")


class TarFolder(Folder):
    """A folder of a TarTree.

    Attributes:
        called: its name, of a tar without the ending.
        parts: paths of the folders in tars whose photos it has; several if it is of parts of one set.
        is_tar: whether it is a tar.
    """

    __slots__ = ("called", "is_tar", "parts")

    def __init__(self, path: str, parts: tuple[str, ...] = (), is_tar: bool = False):
        super().__init__(path)
        self.called = without_ending(path.rpartition("/")[2]) if is_tar else path.rpartition("/")[2]
        self.parts, self.is_tar = parts or (path,), is_tar

    @property
    def name(self) -> str:
        """The folder's name, of a tar without its ending."""
        return self.called

    def all(self) -> list["TarFolder"]:
        """Return the folders in it."""
        return cast("list[TarFolder]", [*self.folders.values()])

    def below(self) -> Iterator["TarFolder"]:
        """Yield the folder and all folders below it."""
        yield self
        for folder in self.all():
            yield from folder.below()

    def inside(self, name: str, *, is_tar: bool = False) -> "TarFolder":
        """Return a folder in it, made if needed."""
        if name not in self.folders:
            self.folders[name] = TarFolder(f"{self.path}/{name}" if self.path else name, is_tar=is_tar)
        return cast("TarFolder", self.folders[name])

    def forget(self) -> None:
        """Sort the folders in it and below, and count all photos again."""
        self._total = -1
        self.folders = dict(sorted(self.folders.items()))
        for folder in self.all():
            folder.forget()


@dataclass
class TarTree(Inventory):
    """What is in tars.

    Attributes:
        photos: all photos, whose class names are the paths of their folders, one of `TarFolder.parts`.
        members: number of members that are no photos.
        left_out: number of photos in folders that are no part of the photos, that are links, or that another of the
            same name replaces, by path and reason.
        unread: members that must not be ignored in silence, with the reason.
    """

    top: TarFolder = field(default_factory=lambda: TarFolder(""))
    photos: Entries = field(default_factory=Entries)
    members: int = 0
    left_out: dict[tuple[str, str], int] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)

    def photos_in(self, folder: Folder, class_name: str) -> Iterator[Entry]:
        """Yield one Entry for each part of a folder, in place of its photos; `TarTree.photos` has these."""
        assert isinstance(folder, TarFolder)
        return (Entry(class_name, f"{part}/", 0) for part in folder.parts if folder.photos)


def tars_of(look: Inventory) -> list[str]:
    """Return the paths of the tars below a source, sorted, or of the source itself."""
    if look.source.is_file():
        return [look.source.name] if look.source.name.lower().endswith(TARS) else []
    return sorted(path for path in look.archives if path.lower().endswith(TARS))


def without_ending(name: str) -> str:
    """Return a path without the endings of tars in it."""
    return _ENDING.sub("", name)


def read_tars(look: Inventory, paths: list[str]) -> TarTree:
    """Read tars into a tree; of several members with one name the last counts.

    Raises:
        SourceError: a tar cannot be read, is truncated or damaged.
    """
    tree = TarTree(look.source, look.root, ignore=look.ignore, unmatched=look.unmatched)
    hashes = array("q")
    for path in paths:
        for entry in _photos(tree, path):
            tree.photos.append(entry)
            hashes.append(hash(entry.path))
    if replaced := _replaced(tree.photos, hashes):
        for archive, count in Counter(tree.photos[k].archive for k in replaced).items():
            tree.left_out[archive, REPLACED] = count
        tree.photos = Entries(entry for k, entry in enumerate(tree.photos) if k not in replaced)
    counts = tree.photos.class_counts()
    for folder in tree.top.below():
        folder.photos = counts.get(folder.path, 0)
    tree.top.forget()
    return tree


def begins(look: Inventory, path: str) -> list[str]:
    """Return the names of a tar's first members that are files; empty if there is a photo in it, anywhere.

    Raises:
        SourceError: it cannot be read, or is damaged.
    """
    if next(_photos(TarTree(look.source, look.root, ignore=look.ignore, unmatched=look.unmatched), path), None):
        return []
    with open_tar(look.root / path) as tar:
        return [member.name for member in islice(tar.members(), 3)] or ["nothing"]


def is_wnid(name: str) -> bool:
    """Return whether a name is a wnid, `n01440764`."""
    return bool(_WNID.fullmatch(name))


def _photos(tree: TarTree, path: str) -> Iterator[Entry]:
    """Yield the photos of a tar, their folders as class names."""
    folder = tree.top
    for name in path.split("/")[:-1]:
        folder = folder.inside(name)
    with open_tar(tree.root / path) as tar:
        yield from _photos_of(tree, path, tar, None, folder.inside(path.rpartition("/")[2], is_tar=True))


def _photos_of(tree: TarTree, path: str, tar: Archive, inside: Member | None, top: TarFolder) -> Iterator[Entry]:
    """Yield the photos of a tar, or of a tar in it, and of those in this one.

    Args:
        tree: receives folders and members that are no photos.
        path: the file's.
        tar: the file.
        inside: the tar in it; None for the file itself.
        top: the tar's folder.
    """
    skipped = PassedOver()
    places: dict[str, TarFolder | tuple[str, str]] = {}
    by_name = not is_wnid(top.name)
    for member in tar.members(inside, skipped):
        above, _, name = member.name.rpartition("/")
        place = places.get(above)
        if place is None:
            place = places[above] = _place(tree, top, above)
        if is_photo(name) or _is_photo_by_bytes(tar, member, name):
            where = f"{top.path}/{member.name}"
            if tree.ignore and isinstance(place, TarFolder) and tree.ignores(where):
                place = where, "ignored, as requested"
            if isinstance(place, tuple):
                tree.left_out[place] = tree.left_out.get(place, 0) + 1
                continue
            key = place.path
            if by_name and (place is top or split_of(place.name)) and (wnid := _wnid(tree, where, name)):
                key = place.inside(wnid).path
            yield Entry(key, where, member.bytes, path, member.offset)
        elif isinstance(place, tuple) or (tree.ignore and tree.ignores(f"{top.path}/{member.name}")):
            tree.members += 1
        elif name.lower().endswith(".tar"):
            if name in place.folders:
                raise SourceError(
                    f"{tree.root / place.path}: two tars {name}, or a folder and a tar", original_hint(tree.root / path)
                )
            if inside is not None:
                tree.unread[f"{top.path}/{member.name}"] = "a tar in a tar in a tar"
                continue
            folder = place.inside(name, is_tar=True)
            if member.bytes:
                yield from _photos_of(tree, path, tar, member, folder)
        else:
            tree.members += 1
            if why := _speaks_of_photos(name):
                tree.unread.setdefault(f"{top.path}/{member.name}", why)
    tree.members += len(skipped.others)
    for link in skipped.links:
        where = f"{top.path}/{link}"
        place = places.get(link.rpartition("/")[0])
        if tree.ignores(where):
            reason = where, "ignored, as requested"
        else:
            reason = place if isinstance(place, tuple) else (path, LINKS)
        if is_photo(link):
            tree.left_out[reason] = tree.left_out.get(reason, 0) + 1
        elif reason[1] == LINKS:
            tree.unread[where] = "a link to a tar"
        else:
            tree.members += 1


def _is_photo_by_bytes(tar: Archive, member: Member, name: str) -> bool:
    return not is_known(name) and is_photo_head(tar.read(member, HEAD_BYTES))


def _place(tree: TarTree, top: TarFolder, above: str) -> TarFolder | tuple[str, str]:
    """Return the folder of a member, given the path of it in the tar; or path and reason why it is no part of it."""
    folder = top
    for name in above.split("/"):
        if name in ("", ".", ".."):
            continue
        if why := no_part(name, f"{folder.path}/{name}", tree):
            return f"{folder.path}/{name}", why
        folder = folder.inside(name)
    return folder


def _wnid(tree: TarTree, where: str, name: str) -> str:
    """Return the wnid in a photo's name, `n01440764_1.JPEG` or `NAME_n01440764.JPEG`; empty if there is none."""
    start, end = _WNID_AT_START.match(name), _WNID_AT_END.search(name)
    if start and end and start[1] != end[1]:
        raise SourceError(f"{tree.root / where}: is named after two wnids", "which of them is its class?")
    found = start or end
    return found[1] if found else ""


def _speaks_of_photos(name: str) -> str:
    """Return why a member that is no photo must not be ignored in silence; empty if it may be."""
    lower = name.lower()
    if lower.endswith(ARCHIVES):
        return "an archive in a tar"
    if lower.endswith((".cls", ".cls.txt")):
        return "a label, as WebDataset has them beside photos"
    if _LIST.search(lower) and any(word in WORDS for word in _WORD.findall(os.path.splitext(lower)[0])):
        return "a list, which may say the photos' splits or labels"
    return ""


def _replaced(photos: Entries, hashes: array) -> set[int]:
    """Return the numbers of photos after which another has the same path; compares 8 bytes a photo, then paths."""
    values = np.sort(np.frombuffer(hashes, dtype=np.int64))
    alike = values[1:][values[1:] == values[:-1]]
    last: dict[str, int] = {}
    found: set[int] = set()
    for k in np.flatnonzero(np.isin(np.frombuffer(hashes, dtype=np.int64), alike)).tolist() if len(alike) else ():
        path = photos.path(k)
        if path in last:
            found.add(last[path])
        last[path] = k
    return found
