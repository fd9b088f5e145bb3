"""Where the photos of a list are: paths relative to some folder, and ids without an ending.

In:  a folder, and a path or id as a list has it.  Out: the photo's path and size.  A path is relative to the list's
folder, or to `train/` in it if the list is `train.txt`; else to a folder named after the split (`train_images/`), or
after none (`images/`, `data_256/`), one or two levels below. With two photos that fit, none is taken.
"""

import os
import stat
from pathlib import Path

from ...errors import SourceError
from ..inventory import Inventory
from ..photo import is_photo
from ..splits import WORDS, split_of

LIST_FOLDERS = ("meta", "lists", "list", "splits", "split", "annotations", "labels")  # beside the photos' folders
_MOST_FOLDERS = 32  # that are searched at a level; more are class folders
_FIRST = 100  # photos that determine the folder of relative paths


class Lookup:
    """Finds the photos of one list.

    Attributes:
        home: the folder that the found paths are relative to.
        base: the folder that the list's paths are relative to, relative to home, where all are in one.
        is_root: home was given as the folder of the paths.
    """

    def __init__(self, home: Path, place: str, stem: str, look: Inventory, listings: dict, *, is_root: bool):
        """Initialize.

        Args:
            home: the folder that the found paths are relative to.
            place: the list's folder, relative to it.
            stem: the list's name without ending.
            look: knows what is ignored.
            listings: photos by name without ending, by folder; filled here, for other lists of the same folders.
            is_root: home was given as the folder of the paths: only it and the splits' folders in it are searched.
        """
        self.home, self.place, self.base = home, place, place
        self._look, self.is_root = look, is_root
        self._top = os.path.join(home, "")
        self._absolute = os.path.join(os.path.abspath(home), "")
        own = os.path.join(place, stem)
        self.bases = [place, *([own] if stem in WORDS and (home / own).is_dir() else [])]
        self._folders: dict[str, list[str]] = {}
        self._there: dict[tuple[str, str], list[str]] = {}
        self._stems: dict[str, dict[str, list[str]]] = listings

    def set_base(self, paths: list[str]) -> None:
        """Choose the first of the bases that contains one of the first paths."""
        for base in self.bases:
            if any(self._size(self._relative(base, path)) >= 0 for path in paths[:_FIRST]):
                self.base = base
                return

    def has(self, path: str, split: str) -> bool:
        """Return whether there is a photo, or several."""
        try:
            return self.find(path, split)[1] >= 0
        except SourceError:
            return True

    def find(self, path: str, split: str) -> tuple[str, int]:
        """Return a photo's path, relative to home if it is below it, and its size in bytes; -1 if there is none.

        Raises:
            SourceError: several photos fit.
        """
        rel = self._relative(self.base, path)
        if (size := self._size(rel)) >= 0 and not (self.is_root and path.startswith("/")):
            return rel, size
        if not path.strip("/"):
            return rel, -1
        inside, name = os.path.split(os.path.normpath(path.lstrip("/")))
        fits: dict[str, int] = {}
        for folder in self._existing(inside, split):
            for one in (name, *self._completed(folder, name)):
                if (size := self._size(rel := os.path.join(folder, one))) >= 0:
                    fits[rel] = size
        if len(fits) > 1:
            one, two = list(fits)[:2]
            top = os.path.dirname(one) or one
            raise SourceError(
                f"{path} may be {one} or {two}",
                f"say where the photos are: --root '{self.home / os.path.dirname(one)}'; or leave the others out: "
                f"--ignore '{os.path.dirname(two) or two}'"
                if top != one
                else f"remove one of them, or leave it out: --ignore '{two}'",
            )
        if not fits and "\\" in path:  # as Windows writes it
            return self.find(path.replace("\\", "/"), split)
        return next(iter(fits.items()), (self._relative(self.base, path), -1))

    def ignores(self, rel: str) -> bool:
        """Return whether a photo, or a folder that it is in, is ignored on request."""
        parts = rel.split("/")
        return bool(self._look.ignore) and any(
            self._look.ignores("/".join(parts[:k])) for k in range(1, len(parts) + 1)
        )

    def _completed(self, folder: str, stem: str) -> list[str]:
        """Return the photos in a folder whose name is an id with an ending."""
        if is_photo(stem):
            return []
        key = self._top + folder
        if key not in self._stems:
            stems: dict[str, list[str]] = {}
            for name, is_folder in self._inside(folder):
                if not is_folder and is_photo(name):
                    stems.setdefault(os.path.splitext(name)[0], []).append(name)
            self._stems[key] = stems
        return self._stems[key].get(stem, [])

    def _existing(self, inside: str, split: str) -> list[str]:
        """Return the folders that are there of those called `inside` in the candidates."""
        key = inside, split
        if key not in self._there:
            folders = (os.path.normpath(os.path.join(folder, inside)) for folder in self._candidates(split))
            self._there[key] = ["" if one == "." else one for one in folders if os.path.isdir(self._top + one)]
        return self._there[key]

    def _candidates(self, split: str) -> list[str]:
        """Return the folders that photos of a split may be in; of another split's there are none."""
        if split not in self._folders:
            tops = list(dict.fromkeys([self.place, ""]))
            found = dict.fromkeys(tops)
            for top in tops:
                for folder in self._below(top, split):
                    found[folder] = None
                    if not self.is_root:
                        found |= dict.fromkeys(self._below(folder, split))
            self._folders[split] = list(found)
        return self._folders[split]

    def _below(self, top: str, split: str) -> list[str]:
        names = [name for name, is_folder in self._inside(top) if is_folder]
        named = [name for name in names if split_of(name) and split in ("", split_of(name))]
        others = [name for name in names if not split_of(name)]
        if self.is_root or len(others) > _MOST_FOLDERS:
            others = []
        return [os.path.join(top, name) for name in (*named, *others)]

    def _inside(self, folder: str) -> list[tuple[str, bool]]:
        try:
            with os.scandir(self.home / folder) as entries:
                inside = [(one.name, one.is_dir()) for one in entries if not one.name.startswith((".", "@", "__"))]
        except OSError:
            return []
        kept = [one for one in inside if not (self._look.ignore and self._look.ignores(os.path.join(folder, one[0])))]
        return sorted(kept)

    def _size(self, rel: str) -> int:
        """Return the size of a regular file; -1 if there is none."""
        try:
            status = os.stat(rel if rel.startswith("/") else self._top + rel)
        except (OSError, ValueError):
            return -1
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def _relative(self, base: str, path: str) -> str:
        """Return a photo's path, relative to home if it is below it, so that a copy has the same paths."""
        unusual = "//" in path or "/." in path or path[:1] in ("", ".") or path[-1] == "/"
        if unusual and ".." not in path.split("/"):  # with symbolic links, normalizing `..` changes the path
            path = os.path.normpath(path)
        return path[len(self._absolute) :] if path.startswith(self._absolute) else os.path.join(base, path)


def relative_root(source: Path, root: Path) -> str:
    """Return the folder of a list's paths as a set records it: `./img` in the source's folder, else absolute.

    So a source that is moved as a whole is found again.
    """
    home, root = (source if source.is_dir() else source.parent).resolve(), root.resolve()
    return f"./{root.relative_to(home)}" if root.is_relative_to(home) else str(root)
