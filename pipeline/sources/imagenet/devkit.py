"""The ILSVRC devkit: the classes by number, and the labels of photos without class folders.

    ILSVRC2012_devkit_t12.tar.gz     meta.mat and ILSVRC2012_validation_ground_truth.txt in its data/,
    ILSVRC2010_devkit-1.0.tar.gz     or that folder unpacked, or the two files themselves beside the photos

In:  a folder and a year.  Out: a Devkit.  Read in memory, with size limits; nothing is unpacked to disk.
`meta.mat` is a MATLAB file, read by `matfile.py`. The classes are the leaves of its tree; the inner nodes ("animal")
have higher numbers.
"""

import gzip
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import SourceError
from ..entries import Entries, Entry
from ..tars.tar_index import members_in_memory, original_hint
from .matfile import read_structs

ARCHIVES = {2012: "ILSVRC2012_devkit_t12.tar.gz", 2010: "ILSVRC2010_devkit-1.0.tar.gz"}
FOLDERS = {2012: ("ILSVRC2012_devkit_t12",), 2010: ("devkit-1.0", "ILSVRC2010_devkit-1.0")}
_META = "meta.mat"
_MOST_BYTES = 256 << 20  # of the archive unpacked; the real ones have a few megabytes
_MOST_META_BYTES = 64 << 20
_WNID = re.compile(r"n\d{8}")
_NUMBER = re.compile(r"_(\d+)\.\w+$")


@dataclass(frozen=True)
class Devkit:
    """The content of a devkit.

    Attributes:
        path: the file it was read from, for error messages.
        order: wnids by ILSVRC ID, from ID 1 on.
        words: human-readable class names by wnid.
        groups: wnids of inner nodes by ID, which are not classes.
        truth: ILSVRC IDs of the val photos in the order of their file names, as lines of text; None if missing.
    """

    path: Path
    order: tuple[str, ...]
    words: dict[str, str]
    groups: dict[int, str] = field(default_factory=dict)
    truth: tuple[str, ...] | None = None

    def label(self, photos: Iterable[Entry], lines: tuple[str, ...], table: str) -> Entries:
        """Label photos with a ground truth: one ID per line, in the order of their file names.

        Args:
            photos: entries without class names, in any order.
            lines: lines of the ground truth.
            table: name of the ground truth, for error messages.
        Returns:
            Entries with class names, sorted by file name.
        Raises:
            SourceError: the numbers of lines and photos differ, photos are missing, or an ID is not of a class.
        """
        photos = sorted(photos, key=lambda entry: (entry.path.rsplit("/", 1)[-1], entry.path))
        for k, entry in enumerate(photos, 1):  # a missing photo would shift all later labels
            number = _NUMBER.search(entry.path)
            if number and int(number[1]) != k:
                raise SourceError(
                    f"{entry.path}: is photo {k:,} in the order of file names: photos are missing or added before it "
                    f"({len(photos):,} photos, {len(lines):,} lines in {table})",
                    "complete the photos of the split: labels are assigned in the order of file names",
                )
        if len(photos) != len(lines):
            raise SourceError(
                f"{table}: {len(lines):,} lines for {len(photos):,} photos", "use a file with one line per photo"
            )
        return Entries(
            entry._replace(class_name=self._class(line, f"{table}, line {k}"))
            for k, (entry, line) in enumerate(zip(photos, lines, strict=True), 1)
        )

    def name_ids(self, photos: Entries) -> bool:
        """Replace the class names of photos, if all are ILSVRC IDs, 1 to 1000, by wnids; return whether they are."""
        names = photos.class_counts()
        if not names or not all(
            name.isascii() and name.isdigit() and 0 < int(name) <= len(self.order) for name in names
        ):
            return False
        photos.relabel(self.order[int(entry.class_name) - 1] for entry in photos)
        return True

    def _class(self, line: str, where: str) -> str:
        text = line.strip()
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        if 1 <= number <= len(self.order):
            return self.order[number - 1]
        if number in self.groups:
            raise SourceError(f"{where}: {number} is {self.groups[number]}, a group of classes, not a class")
        raise SourceError(f"{where}: {text[:40]!r} is not the ILSVRC ID of a class, 1 to {len(self.order)}")


def has_devkit(root: Path, year: int) -> bool:
    """Return whether the folder has a devkit of the year."""
    return (root / ARCHIVES[year]).is_file() or _folder(root, year) is not None


def read_devkit(root: Path, year: int) -> Devkit | None:
    """Read the folder's devkit of the year; None if there is none.

    Raises:
        SourceError: it is damaged, too large, or inconsistent.
    """
    archive, folder = root / ARCHIVES[year], _folder(root, year)
    truth_name = f"ILSVRC{year}_validation_ground_truth.txt"
    if archive.is_file():
        meta, truth = _from_archive(archive, (_META, truth_name))
        path = archive
    elif folder:
        path = folder / _META
        meta = read_small(path)
        truth = read_small(folder / truth_name) if (folder / truth_name).is_file() else None
    else:
        return None
    if meta is None:
        raise SourceError(f"{path}: contains no {_META}", original_hint(path))
    order, words, groups = _classes(path, meta, f"ILSVRC{year}_ID")
    return Devkit(path, order, words, groups, None if truth is None else text_lines(truth))


def is_wnid(name: str) -> bool:
    """Return whether a name is a WordNet ID of a noun, such as n01440764."""
    return _WNID.fullmatch(name) is not None


def text_lines(data: bytes) -> tuple[str, ...]:
    """Return the lines of a text file, with any line ends, without empty ones at the end."""
    return tuple(data.decode("utf-8-sig", "replace").rstrip().splitlines())


def _folder(root: Path, year: int) -> Path | None:
    """Return the folder of an unpacked devkit, which may be the photos' folder itself."""
    places = [root / name / "data" for name in FOLDERS[year]] + [root]
    truth = f"ILSVRC{year}_validation_ground_truth.txt"
    for place in places:
        if (place / _META).is_file() and (place != root or (place / truth).is_file()):
            return place
    return None


def read_small(path: Path) -> bytes:
    """Read a file of at most 64 MiB.

    Raises:
        SourceError: it is larger, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_META_BYTES + 1)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", "copy it again") from None
    if len(data) > _MOST_META_BYTES:
        raise SourceError(f"{path}: larger than {_MOST_META_BYTES >> 20} MiB", "copy it again")
    return data


def _from_archive(path: Path, names: tuple[str, str]) -> list[bytes | None]:
    """Return the contents of two files of a .tar.gz, by their names without folders."""
    try:
        with gzip.open(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path}: cannot be unpacked ({error})", original_hint(path)) from None
    if len(data) > _MOST_BYTES:
        raise SourceError(f"{path}: unpacks to more than {_MOST_BYTES >> 20} MiB", original_hint(path))
    by_name = {member.name.rsplit("/", 1)[-1]: member for member in members_in_memory(data, path)}
    found: list[bytes | None] = []
    for name in names:
        member = by_name.get(name)
        if member and member.bytes > _MOST_META_BYTES:
            raise SourceError(f"{path}: {name} has {member.bytes:,} bytes, more than the original", original_hint(path))
        found.append(data[member.offset : member.offset + member.bytes] if member else None)
    return found


def _classes(path: Path, meta: bytes, id_field: str) -> tuple[tuple[str, ...], dict[str, str], dict[int, str]]:
    """Return wnids in the order of IDs, readable names by wnid, and groups by ID."""
    leaves: dict[int, str] = {}
    groups: dict[int, str] = {}
    words: dict[str, str] = {}
    for number, (identity, wnid, text, children) in enumerate(_synsets(path, meta, id_field), 1):
        if not is_wnid(wnid) or wnid in words or identity in leaves or identity in groups or identity < 1:
            raise SourceError(
                f"{path}: synset {number} of {_META} has the {id_field} {identity} and the WNID {wnid!r}: "
                "invalid or duplicate",
                original_hint(path),
            )
        words[wnid] = text
        (groups if children else leaves)[identity] = wnid
    if not leaves or sorted(leaves) != list(range(1, len(leaves) + 1)):
        raise SourceError(
            f"{path}: the {len(leaves):,} classes of {_META} are not numbered from 1 to {len(leaves):,}",
            original_hint(path),
        )
    order = tuple(leaves[identity] for identity in sorted(leaves))
    return order, {wnid: words[wnid] for wnid in order}, groups


def _synsets(path: Path, meta: bytes, id_field: str) -> list[tuple[int, str, str, int]]:
    """Return ID, WNID, words and number of children of every synset in a meta.mat."""
    fields = (id_field, "WNID", "words", "num_children")
    try:
        rows = read_structs(meta, "synsets", fields, _MOST_META_BYTES)
        return [(int(identity), str(wnid), str(words), int(children)) for identity, wnid, words, children in rows]
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{path}: {_META} cannot be read: {error}", original_hint(path)) from None
