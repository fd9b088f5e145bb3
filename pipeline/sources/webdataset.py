"""Photos in tar files as WebDataset has them: a photo and its label are two members with one key.

    imagenet1k-train-0000.tar     n01440764_10026.jpg, n01440764_10026.cls (the label as text), .json (more about it)
    train/000012.tar              the split in the folder's name

In:  a folder of tars, or one tar.  Out: Found. The key is the member's name up to the first dot of its last part, its
folders included. Reads headers and the small members with the labels, no photo, and unpacks nothing.
"""

import json
import os
import tarfile
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..errors import SourceError, UsageError
from ..shards.datum import NO_LABEL
from .class_folders import has_folders, read_words
from .label_names import Row, find_classes
from .photo import SUFFIXES, Found
from .splits import files_by_split, first_file
from .tar_index import Member, members

KIND = "WebDataset"
TAR = ".tar"
LABELS = ("cls", "cls.txt", "json")
NUMBERS_IN_JSON = ("label", "cls", "class", "class_id", "class_index")
NAMES_IN_JSON = ("wnid", "class", "class_name", "label", "cls")
_FIRST = 12  # members that tell the layout
_MOST_BYTES = {"cls": 64, "cls.txt": 64, "json": 1 << 20}


class About(NamedTuple):
    """What the members beside a photo say: its label as in Row, and what people call its class."""

    number: int | None
    name: str
    words: str


def looks_like(root: Path) -> bool:
    """A tar, or a folder of tars, the first of which begins with photos and labels; ImageNet's own have no labels."""
    first = first_file(root, TAR)
    if not first or os.path.basename(first).startswith("ILSVRC20"):
        return False
    path = root if root.is_file() else root / first
    try:
        with tarfile.open(path, "r:") as archive:
            names = [member.name for member in islice(archive, _FIRST)]
    except (tarfile.TarError, OSError):
        return not has_folders(root)  # that it is damaged is then told by find
    keys: dict[str, set[str]] = {}
    for name in names:
        key, ending = _split(name)
        keys.setdefault(key, set()).add(ending)
    return any(_is_photo(one) and endings & {*LABELS} for endings in keys.values() for one in endings)


def find(root: Path, split: str | None) -> Found:
    """List the photos in the tars.

    Raises:
        UsageError: there are no tars, or their names do not tell the splits.
        SourceError: a tar is damaged; a photo has no label, or one that is no number; a key has two photos.
    """
    folder = root.parent if root.is_file() else root
    files = files_by_split(root, TAR)
    if not files:
        raise UsageError(f"{root}: no tar files", "they lie in the folder itself, in its data/, or in train/ and val/")
    rows: dict[str, list[Row]] = {}
    ignored = 0
    for name, paths in files.items():
        rows[name] = []
        for path in paths:
            inside, others = _rows(folder, path)
            rows[name] += inside
            ignored += others
    if not any(rows.values()):
        raise UsageError(f"{root}: {sum(map(len, files.values()))} tar files without a photo", "is this the folder?")
    found = find_classes(
        KIND, rows, split, lambda _, row: f"{folder / row.archive}: {row.path[len(row.archive) + 1 :]}"
    )
    found.root, found.ignored, found.words = folder, ignored, read_words(folder) | found.words
    return found


def _rows(folder: Path, path: str) -> tuple[list[Row], int]:
    """The photos of a tar, and the number of members that belong to none."""
    rows: list[Row] = []
    ignored = 0
    keys: dict[str, dict[str, Member]] = {}
    for member in members(folder / path):
        key, ending = _split(member.name)
        keys.setdefault(key, {})[ending] = member
    with open(folder / path, "rb") as file:
        for key, beside in keys.items():
            photo = _photo(folder / path, key, beside)
            if photo is None:
                ignored += len(beside)
                continue
            about = _about(folder / path, file.fileno(), beside)
            rows.append(
                Row(
                    about.number, about.name, f"{path}/{photo.name}", photo.bytes, path, photo.offset, words=about.words
                )
            )
    return rows, ignored


def _split(name: str) -> tuple[str, str]:
    """A member's key and ending, `a/b/1.seg.PNG` being `a/b/1` and `seg.png`."""
    folder, _, last = name.rpartition("/")
    base, _, ending = last.partition(".")
    return f"{folder}/{base}", ending.lower()


def _is_photo(ending: str) -> bool:
    return f".{ending}" in SUFFIXES


def _photo(path: Path, key: str, beside: dict[str, Member]) -> Member | None:
    """The photo of a key: `1.jpg`; or else `1.image.jpg`, if it is the only one."""
    for endings in (
        [ending for ending in beside if _is_photo(ending)],
        [ending for ending in beside if _is_photo(ending.rpartition(".")[2])],
    ):
        if len(endings) > 1:
            raise SourceError(
                f"{path}: the key {key.lstrip('/')} has {len(endings)} photos: "
                + " and ".join(beside[ending].name for ending in endings[:2]),
                "remove one of them, or name them apart",
            )
        if endings:
            return beside[endings[0]]
    return None


def _about(path: Path, handle: int, beside: dict[str, Member]) -> About:
    """What the label's members say; the number in `.cls` goes before that in `.json`."""
    number: int | None = None
    name = words = ""
    if member := beside.get("cls") or beside.get("cls.txt"):
        number = _number(path, member, _small(path, handle, member, _MOST_BYTES["cls"]))
    if member := beside.get("json"):
        said = _json(path, member, _small(path, handle, member, _MOST_BYTES["json"]))
        if number is None:
            number = next((said[key] for key in NUMBERS_IN_JSON if type(said.get(key)) is int), None)
        name = next((said[key] for key in NAMES_IN_JSON if isinstance(said.get(key), str)), "")
        words = said["words"] if isinstance(said.get("words"), str) else ""
    if number is None and not name:
        number = NO_LABEL
    return About(number, name, words)


def _number(path: Path, member: Member, text: bytes) -> int:
    try:
        return int(text.decode("ascii"))
    except ValueError:
        raise SourceError(
            f"{path}: {member.name}: the label {text[:40].decode('utf-8', 'replace')!r} is not a number",
            "write the class's number, from 0, as text; a name goes into the .json as class_name",
        ) from None


def _json(path: Path, member: Member, text: bytes) -> dict:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise SourceError(f"{path}: {member.name}: not a JSON object", "pack this tar again, or remove the member")
    return said


def _small(path: Path, handle: int, member: Member, most: int) -> bytes:
    if member.bytes > most:
        raise SourceError(
            f"{path}: {member.name}: {member.bytes:,} bytes are too many for a label", f"{most:,} are enough"
        )
    return os.pread(handle, member.bytes, member.offset)
