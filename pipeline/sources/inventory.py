"""All that lies below a source: photos by folder, archives, other files, and folders that are no part of the photos.

In:  a path and patterns of names to ignore.  Out: an Inventory, which the layouts read instead of the disk; and, when a
layout has found its photos, an account of those that it left out.  A photo is what has a photo's ending, or, where the
ending is unknown, a photo's first bytes.  Reads names, and those first bytes.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from ..errors import UsageError
from .entries import Entries, Entry, LeftOut
from .magic import HEAD_BYTES, is_photo_head
from .photo import is_photo

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".rar", ".parquet")
_SYSTEM = frozenset(  # folders that file servers, operating systems and programs leave behind
    [
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@recycle", "@recently-snapshot", "@sharebin"),  # Synology, QNAP
        *("$recycle.bin", "system volume information", "recycler", "lost+found", "found.000"),  # Windows, ext4
        *("__macosx", "network trash folder", "temporary items"),  # macOS
        *("~snapshot", "__pycache__", "node_modules"),
    ]
)
_KNOWN = frozenset(  # endings of files that are no photos, so that their bytes need not be looked at
    """.txt .csv .tsv .json .jsonl .ndjson .xml .md .html .htm .pdf .yaml .yml .toml .ini .cfg .log .rst .py .ipynb
    .sh .m .mat .npy .npz .pkl .pickle .pt .pth .h5 .hdf5 .lmdb .mdb .db .sqlite .bin .idx .arrow .feather .parquet
    .tfrecord
    .safetensors .onnx .tar .gz .tgz .bz2 .xz .zst .zip .7z .rar .md5 .sha256 .torrent .mp4 .avi .mov .mkv .webm .wav
    .mp3 .cls .db-wal .lnk .url .bak .tmp .part
    .crdownload .rtf .doc .docx .xls .xlsx .svg .caffemodel .prototxt""".split()
)
NAMED = 3  # names that are kept of each kind of other files


class Folder:
    """A folder below the source.

    Attributes:
        path: relative to the source, "" for the source itself.
        photos: number of photos in the folder itself.
        folders: the folders in it by name, sorted, without those that are no part of the photos.
        by_bytes: names of those photos that only their bytes show to be photos.
    """

    __slots__ = ("_total", "by_bytes", "folders", "path", "photos")

    def __init__(self, path: str = ""):
        self.path, self.photos, self.folders, self.by_bytes = path, 0, dict[str, Folder](), set[str]()
        self._total = -1

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.rpartition("/")[2]

    @property
    def total(self) -> int:
        """The number of photos in the folder and below."""
        if self._total < 0:
            self._total = self.photos + sum(folder.total for folder in self.folders.values())
        return self._total

    def classes(self) -> list["Folder"]:
        """Return the folders in it that have photos, in themselves or below."""
        return [folder for folder in self.folders.values() if folder.total]

    def below(self) -> Iterator["Folder"]:
        """Yield the folder and all folders below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.below()

    def leaves(self) -> list["Folder"]:
        """Return the folders that have photos of their own: this one and those below."""
        return [folder for folder in self.below() if folder.photos]


@dataclass
class Inventory:
    """What is below a source.

    Attributes:
        source: the path that was asked for, a folder or a file.
        root: the folder that all paths are relative to.
        top: the source's folders and numbers of photos; without any if the source is a file.
        others: other files but archives by ending: their number and the first few paths.
        archives: paths of archives and parquet files.
        skipped: folders that are no part of the photos: left by systems, hidden or ignored on request.
        ignore: patterns of names and paths to ignore.
        unmatched: those of them that have matched nothing yet.
    """

    source: Path
    root: Path
    top: Folder = field(default_factory=Folder)
    others: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    archives: list[str] = field(default_factory=list)
    skipped: list[LeftOut] = field(default_factory=list)
    ignore: tuple[str, ...] = ()
    unmatched: set[str] = field(default_factory=set)

    def at(self, path: str) -> Folder:
        """Return a folder by its path; one without photos if there is none."""
        folder = self.top
        for name in path.split("/") if path else ():
            folder = folder.folders.get(name, Folder(path))
        return folder

    def ignores(self, path: str) -> bool:
        """Return whether a path matches a pattern, as a whole or by its last name; `unmatched` then loses it."""
        found = next((one for one in self.ignore if fnmatch(path, one) or fnmatch(path.rpartition("/")[2], one)), None)
        self.unmatched.discard(found or "")
        return found is not None

    def photos_in(self, folder: Folder, class_name: str) -> Iterator[Entry]:
        """Yield the photos that lie in a folder itself; broken links with 0 bytes, which the build rejects."""
        if not folder.photos:
            return
        prefix = f"{folder.path}/" if folder.path else ""
        with os.scandir(self.root / folder.path) as entries:
            for one in entries:
                if _is_photo(one, prefix, self, folder.by_bytes) and (size := _bytes(one)) >= 0:
                    yield Entry(class_name, prefix + one.name, size)


def take_inventory(source: Path, ignore: tuple[str, ...] = ()) -> Inventory:
    """Look at all that is below a source.

    Args:
        source: a folder; or a file, then there is nothing else.
        ignore: patterns as of a shell, of names or of paths below the source, that are left out.
    Raises:
        UsageError: a folder cannot be read, or a link leads back to a folder above it.
    """
    if not source.is_dir():
        return Inventory(source, source.parent, ignore=ignore, unmatched={*ignore})
    found = Inventory(source, source, ignore=ignore, unmatched={*ignore})
    _walk(found, found.top, frozenset())
    return found


def _walk(found: Inventory, folder: Folder, above: frozenset) -> None:
    place = found.root / folder.path
    prefix = f"{folder.path}/" if folder.path else ""
    inside = []
    for one in _entries_of(place, folder.path):
        path = prefix + one.name
        if _is_folder(one):
            if why := no_part(one.name, path, found):
                found.skipped.append(LeftOut(path, _count(Path(one.path)), why))
            else:
                inside.append(one.name)
        elif found.ignores(path):
            _other(found, "ignored", path)
        elif _looks_like_photo(one, folder) and _bytes(one) >= 0:
            folder.photos += 1
        elif one.name.startswith("."):
            _other(found, "hidden", path)
        elif one.name.lower().endswith(ARCHIVES):
            found.archives.append(path)
        else:
            _other(found, ending_of(one.name), path)
    if not inside:
        return
    status = place.stat()
    above |= {(status.st_dev, status.st_ino)}
    for name in sorted(inside):
        status = (place / name).stat()
        if (status.st_dev, status.st_ino) in above:
            raise UsageError(
                f"{place / name}: symbolic link to a folder above it",
                f"remove the link, or go on without it: --ignore '{prefix}{name}'",
            )
        folder.folders[name] = Folder(prefix + name)
        _walk(found, folder.folders[name], above)


def _entries_of(place: Path, path: str) -> list[os.DirEntry]:
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda one: one.name)  # so that a copy has the same account
    except OSError as error:
        go_on = f"make it readable (chmod -R a+rX '{place}')"
        raise UsageError(
            f"{place}: {error.strerror}", f"{go_on}, or go on without it: --ignore '{path}'" if path else go_on
        ) from None


def no_part(name: str, path: str, found: Inventory) -> str:
    """Return why a folder is no part of the photos; empty if it may be."""
    if found.ignores(path):
        return "ignored, as requested"
    if name.startswith("."):
        return "hidden"
    return "left by the system" if name.lower() in _SYSTEM else ""


def _count(top: Path) -> int:
    """Return the number of files below a folder that have a photo's ending; those that can be seen."""
    return sum(is_photo(name) for _, _, names in os.walk(top, onerror=None) for name in names)


def _looks_like_photo(one: os.DirEntry, folder: Folder) -> bool:
    if one.name.startswith("."):
        return False
    if is_photo(one.name):
        return True
    try:
        if ending_of(one.name) in _KNOWN or not one.is_file():
            return False
        with open(one.path, "rb", buffering=0) as file:
            if not is_photo_head(file.read(HEAD_BYTES)):
                return False
    except OSError:
        return False
    folder.by_bytes.add(one.name)
    return True


def _is_photo(one: os.DirEntry, prefix: str, found: Inventory, by_bytes: set[str]) -> bool:
    known = one.name in by_bytes or is_photo(one.name)
    return known and not _is_folder(one) and not (found.ignore and found.ignores(prefix + one.name))


def ending_of(name: str) -> str:
    """Return a file's ending in small letters: `.jpg`, or "no ending"."""
    ending = os.path.splitext(name)[1].lower()
    return ending if re.fullmatch(r"\.[\w-]{1,12}", ending) else "no ending"


def is_known(name: str) -> bool:
    """Return whether a file's ending says that it is no photo, so that its bytes need not be looked at."""
    return ending_of(name) in _KNOWN


def _other(found: Inventory, ending: str, path: str) -> None:
    count, names = found.others.get(ending, (0, []))
    found.others[ending] = count + 1, names if len(names) == NAMED else [*names, path]


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _bytes(entry: os.DirEntry) -> int:
    """Return the size of a regular file; 0 for a broken link; -1 for a pipe or device."""
    try:
        return entry.stat().st_size if entry.is_file() else -1 if os.path.exists(entry.path) else 0
    except OSError:
        return 0


def unused(found: Inventory, prefix: str, entries: dict[str, Entries]) -> dict[str, int]:
    """Return the number of photos by folder that are in no split.

    Args:
        found: what is below the source.
        prefix: the folder that the entries' paths are relative to, relative to the source; "" for the source.
        entries: the photos of the splits.
    """
    used: dict[str, int] = {}
    for split in entries.values():
        for folder, count in split.folder_counts().items():
            path = os.path.normpath(os.path.join(prefix, folder)).removeprefix(".")
            used[path] = used.get(path, 0) + count
    left = ((folder.path, folder.photos - used.get(folder.path, 0)) for folder in found.top.below())
    return {path: count for path, count in left if count > 0}
