"""Photos in WebDataset's tar files, where a photo and its label are members with the same key.

    imagenet1k-train-0000.tar     n01440764_10026.jpg, n01440764_10026.cls (the label as text), .json (metadata)
    train/000012.tar              the split in the folder's name

In:  a folder of tars, or one tar.  Out: Found.  The key is the member's path up to the first dot of its file name.
Reads headers and the small members with labels; unpacks nothing.
"""

import json
import os
import tarfile
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..errors import SourceError, UsageError
from ..shards.datum import NO_LABEL
from .class_folders import read_words
from .entries import Declined, Found, Request
from .inventory import Inventory
from .label_names import Row, find_classes
from .photo import SUFFIXES
from .splits import files_by_split, first_file
from .tar_index import Member, members

KIND = "WebDataset"
TAR = ".tar"
LABELS = ("cls", "cls.txt", "json")
NUMBERS_IN_JSON = ("label", "cls", "class", "class_id", "class_index")
NAMES_IN_JSON = ("wnid", "class", "class_name", "label", "cls")
_FIRST = 12  # members read to detect the layout
_MOST_BYTES = {"cls": 64, "cls.txt": 64, "json": 1 << 20}


class About(NamedTuple):
    """Content of the members beside a photo: number and name as in Row, and the human-readable class name."""

    number: int | None
    name: str
    words: str


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if the path is a tar, or a folder of tars, whose first one begins with photos and labels."""
    root, wanted = look.source, "WebDataset tars: KEY.jpg with KEY.cls or KEY.json"
    first = first_file(root, TAR)
    if not first or os.path.basename(first).startswith("ILSVRC20"):
        return Declined(wanted)
    path = root if root.is_file() else root / first
    try:
        with tarfile.open(path, "r:") as archive:
            names = [member.name for member in islice(archive, _FIRST)]
    except (tarfile.TarError, OSError):
        return Declined(wanted, f"{first}, a damaged tar") if look.top.classes() else None  # find reports the damage
    keys: dict[str, set[str]] = {}
    for name in names:
        key, ending = _split(name)
        keys.setdefault(key, set()).add(ending)
    if any(_is_photo(one) and endings & {*LABELS} for endings in keys.values() for one in endings):
        return None
    return Declined(wanted, f"{first}, which begins with {', '.join(names[:3]) or 'nothing'}")


def find(look: Inventory, ask: Request) -> Found:
    """List the photos in the tars.

    Raises:
        UsageError: there are no tars, or their names do not determine the splits.
        SourceError: a tar is damaged, a photo has no label or an invalid one, or a key has two photos.
    """
    root, split = look.source, ask.split
    folder = root.parent if root.is_file() else root
    files = files_by_split(root, TAR)
    if not files:
        raise UsageError(f"{root}: no tar files", "put them into the folder itself, its data/, or train/ and val/")
    rows: dict[str, list[Row]] = {}
    ignored = 0
    for name, paths in files.items():
        rows[name] = []
        for path in paths:
            inside, others = _rows(folder, path)
            rows[name] += inside
            ignored += others
    if not any(rows.values()):
        raise UsageError(f"{root}: {sum(map(len, files.values()))} tar files without photos", "check the folder")
    found = find_classes(
        KIND, rows, split, lambda _, row: f"{folder / row.archive}: {row.path[len(row.archive) + 1 :]}"
    )
    found.root, found.ignored, found.words = folder, ignored, read_words(folder) | found.words
    return found


def _rows(folder: Path, path: str) -> tuple[list[Row], int]:
    """Return the photos of a tar, and the number of members that belong to none."""
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
    """Split a member's name into key and extension: `a/b/1.seg.PNG` into `a/b/1` and `seg.png`."""
    folder, _, last = name.rpartition("/")
    base, _, ending = last.partition(".")
    return f"{folder}/{base}", ending.lower()


def _is_photo(ending: str) -> bool:
    return f".{ending}" in SUFFIXES


def _photo(path: Path, key: str, beside: dict[str, Member]) -> Member | None:
    """Return the photo of a key: `1.jpg`, or else `1.image.jpg` if it is the only one."""
    for endings in (
        [ending for ending in beside if _is_photo(ending)],
        [ending for ending in beside if _is_photo(ending.rpartition(".")[2])],
    ):
        if len(endings) > 1:
            raise SourceError(
                f"{path}: the key {key.lstrip('/')} has {len(endings)} photos: "
                + " and ".join(beside[ending].name for ending in endings[:2]),
                "remove one of them, or rename it",
            )
        if endings:
            return beside[endings[0]]
    return None


def _about(path: Path, handle: int, beside: dict[str, Member]) -> About:
    """Read the members with labels; a number in `.cls` takes precedence over one in `.json`."""
    number: int | None = None
    name = words = ""
    if member := beside.get("cls") or beside.get("cls.txt"):
        number = _number(path, member, _small(path, handle, member, _MOST_BYTES["cls"]))
    if member := beside.get("json"):
        about = _json(path, member, _small(path, handle, member, _MOST_BYTES["json"]))
        if number is None:
            number = next((about[key] for key in NUMBERS_IN_JSON if type(about.get(key)) is int), None)
        name = next((about[key] for key in NAMES_IN_JSON if isinstance(about.get(key), str)), "")
        words = about["words"] if isinstance(about.get("words"), str) else ""
    if number is None and not name:
        number = NO_LABEL
    return About(number, name, words)


def _number(path: Path, member: Member, text: bytes) -> int:
    try:
        return int(text.decode("ascii"))
    except ValueError:
        raise SourceError(
            f"{path}: {member.name}: the label {text[:40].decode('utf-8', 'replace')!r} is not a number",
            "write the class index, from 0, as text; a class name goes into the .json as class_name",
        ) from None


def _json(path: Path, member: Member, text: bytes) -> dict:
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise SourceError(f"{path}: {member.name}: not a JSON object", "create this tar again, or remove the member")
    return about


def _small(path: Path, handle: int, member: Member, most: int) -> bytes:
    if member.bytes > most:
        raise SourceError(
            f"{path}: {member.name}: a label of {member.bytes:,} bytes", f"a label may have {most:,} bytes"
        )
    return os.pread(handle, member.bytes, member.offset)
