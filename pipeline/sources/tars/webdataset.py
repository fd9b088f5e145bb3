"""Photos in WebDataset's tar files, where a photo and its label are members with the same key.

    imagenet1k-train-0000.tar     n01440764_10026.jpg, n01440764_10026.cls (the label as text), .json (metadata)
    train/000012.tar.gz           the split in the folder's name; gzipped

In:  a folder of tars, or one tar.  Out: Found.  The key is the member's path up to the first dot of its file name.
A key has one photo, KEY.jpg or the only KEY.NAME.jpg, and one label, KEY.cls or the only KEY.NAME.cls.
Reads headers and the small members with labels; unpacks nothing.
"""

import json
import re
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ...errors import SourceError, UsageError
from ...shards.datum import NO_LABEL
from ..entries import Declined, Found, LeftOut, Request
from ..inventory import Inventory, is_known
from ..label_names import Row, find_classes, read_words
from ..magic import HEAD_BYTES, is_photo_head
from ..photo import SUFFIXES, TAR_GZ
from ..splits import files_by_split, first_file
from .passed_over import PassedOver
from .tar_index import Archive, Member, open_tar

KIND = "WebDataset"
TARS = (".tar", *TAR_GZ)
LABELS = ("cls", "cls.txt", "json")
NUMBERS_IN_JSON = ("label", "cls", "class", "class_id", "class_index")
NAMES_IN_JSON = ("wnid", "class", "class_name", "label", "cls")
_FIRST = 1000  # members read to detect the layout, in 10 ms; photos and labels are beside each other
_MOST_BYTES = {"cls": 64, "cls.txt": 64, "json": 1 << 20}


class About(NamedTuple):
    """Content of the members beside a photo: number and name as in Row, and the human-readable class name."""

    number: int | None
    name: str
    words: str


class _Part(NamedTuple):
    """A member with a key.

    Attributes:
        member: where it lies.
        is_photo: whether its name says that it is a photo.
        by_bytes: whether its bytes say so, and its name nothing.
        label: which of LABELS it is; empty for none.
        text: the label's bytes; None if there are too many.
    """

    member: Member
    is_photo: bool = False
    by_bytes: bool = False
    label: str = ""
    text: bytes | None = None


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if the path is a tar, or a folder of tars, whose first one begins with photos and labels."""
    root, wanted = look.source, "WebDataset tars: KEY.jpg with KEY.cls or KEY.json"
    first = first_file(root, TARS, look.ignores)
    if not first or first.rpartition("/")[2].startswith("ILSVRC20"):
        return Declined(wanted)
    path = root if root.is_file() else root / first
    try:
        names = _names_without_labels(path)
    except SourceError:
        return Declined(wanted, f"{first}, a damaged tar") if look.top.classes() else None  # find reports the damage
    if not names:
        return None
    without = f"without labels in their first {_FIRST:,} members" if len(names) == _FIRST else "without labels"
    return Declined(wanted, f"{first}, {without}: {', '.join(names[:3])}".rstrip(": "))


def _names_without_labels(path: Path) -> list[str]:
    """Return the names of a tar's first members; empty if a photo with a label is among them."""
    keys: dict[str, dict[str, _Part]] = {}
    names: list[str] = []
    with open_tar(path) as tar:
        for member in islice(tar.members(), _FIRST):
            names.append(member.name)
            if member.name.endswith(".tar"):
                break
            key, ending = _split(member.name)
            beside = keys.setdefault(key, {})
            beside[ending] = _part(tar, member, ending)
            if any(one.is_photo or one.by_bytes for one in beside.values()) and _has_label(path, key, beside):
                return []
    return names or [""]


def _has_label(path: Path, key: str, beside: dict[str, _Part]) -> bool:
    if not any(one.label for one in beside.values()):
        return False
    if any(one.label != "json" for one in beside.values() if one.label):
        return True
    about = _about(path, key, beside)
    return about.number != NO_LABEL or bool(about.name)


def find(look: Inventory, ask: Request) -> Found:
    """List the photos in the tars.

    Raises:
        UsageError: there are no tars, or their names do not determine the splits.
        SourceError: a tar is damaged, a photo has no label or an invalid one, or a key has two photos or labels.
    """
    root, split = look.source, ask.split
    folder = root.parent if root.is_file() else root
    files = files_by_split(root, TARS, look.ignores)
    if not files:
        raise UsageError(f"{root}: no tar files", "put them into the folder itself, its data/, or train/ and val/")
    rows: dict[str, list[Row]] = {}
    ignored = 0
    left_out: dict[str, list[LeftOut]] = {}
    for name, paths in files.items():
        rows[name], left_out[name] = [], []
        for path in paths:
            inside, others, passed = _rows(folder, path)
            rows[name] += inside
            left_out[name] += passed.left_out(path)
            ignored += others
    if not any(rows.values()):
        raise UsageError(f"{root}: {sum(map(len, files.values()))} tar files without photos", "check the folder")
    found = find_classes(
        KIND, rows, split, lambda _, row: f"{folder / row.archive}: {row.path[len(row.archive) + 1 :]}"
    )
    found.left_out += [one for name in found.entries for one in left_out[name]]
    found.root, found.ignored, found.words = folder, ignored, read_words(folder) | found.words
    return found


def _rows(folder: Path, path: str) -> tuple[list[Row], int, PassedOver]:
    """Return the photos of a tar, the number of members that belong to none, and what is passed over."""
    rows: list[Row] = []
    ignored = 0
    keys: dict[str, dict[str, _Part]] = {}
    passed = PassedOver()
    with open_tar(folder / path) as tar:
        for member in tar.members(skipped=passed):
            key, ending = _split(member.name)
            beside = keys.setdefault(key, {})
            if ending in beside:
                _replace(folder / path, beside[ending], member, passed)
            beside[ending] = _part(tar, member, ending)
    for key, beside in keys.items():
        photo = _photo(folder / path, key, beside)
        if photo is None:
            ignored += len(beside)
            continue
        number, name, words = _about(folder / path, key, beside)
        rows.append(Row(number, name, f"{path}/{photo.name}", photo.bytes, path, photo.offset, words=words))
    return rows, ignored, passed


def _replace(path: Path, before: _Part, member: Member, passed: PassedOver) -> None:
    """Count a photo that a later member of the same name replaces.

    Raises:
        SourceError: the names differ, `1.jpg` and `1.JPG`.
    """
    if not (before.is_photo or before.by_bytes):
        return
    if before.member.name != member.name:
        raise SourceError(
            f"{path}: {before.member.name} and {member.name} are two photos of one key",
            "remove one of them, or rename it",
        )
    passed.replaced += 1


def _split(name: str) -> tuple[str, str]:
    """Split a member's name into key and extension: `a/b/1.seg.PNG` into `a/b/1` and `seg.png`."""
    folder, _, last = name.rpartition("/")
    base, _, ending = last.partition(".")
    return f"{folder}/{base}", ending.lower()


def _part(tar: Archive, member: Member, ending: str) -> _Part:
    """Look at a member when it passes: a gzipped tar can only be read in order."""
    if f".{ending.rpartition('.')[2]}" in SUFFIXES:
        return _Part(member, is_photo=True)
    for label in LABELS:
        if ending == label or ending.endswith(f".{label}"):
            most = _MOST_BYTES[label]
            return _Part(member, label=label, text=tar.read(member, most) if member.bytes <= most else None)
    known = is_known(member.name)
    return _Part(member, by_bytes=not known and is_photo_head(tar.read(member, HEAD_BYTES)))


def _photo(path: Path, key: str, beside: dict[str, _Part]) -> Member | None:
    """Return the photo of a key: `1.jpg`, or else `1.image.jpg` if it is the only one; beside a label, also `1.img`."""
    endings = {ending for ending, one in beside.items() if one.is_photo}
    if not endings and any(one.label for one in beside.values()):
        endings = {ending for ending, one in beside.items() if one.by_bytes}
    ending = _only(path, key, beside, "photos", endings)
    return beside[ending].member if ending is not None else None


def _only(path: Path, key: str, beside: dict[str, _Part], what: str, endings: set[str]) -> str | None:
    """Return the one of some endings that is without a dot, or else the only one; None if there is none.

    Raises:
        SourceError: there are several.
    """
    for some in ([one for one in endings if one.removesuffix(".txt").count(".") == 0], [*endings]):
        if len(some) > 1:
            names = sorted(beside[ending].member.name for ending in some)
            raise SourceError(
                f"{path}: the key {key.lstrip('/')} has {len(some)} {what}: " + " and ".join(names[:2]),
                "remove one of them, or rename it",
            )
        if some:
            return some[0]
    return None


def _about(path: Path, key: str, beside: dict[str, _Part]) -> About:
    """Read the members with labels; a number in `.cls` takes precedence over one in `.json`."""
    number: int | None = None
    name = words = ""
    labels = {ending for ending, one in beside.items() if one.label.startswith("cls")}
    if labels and (ending := _only(path, key, beside, "labels", labels)) is not None:
        number = _number(path, beside[ending].member, _small(path, beside[ending]))
    tables = [ending for ending, one in beside.items() if one.label == "json"]
    if "json" in beside or len(tables) == 1:
        part = beside.get("json") or beside[tables[0]]
        about = _json(path, part.member, _small(path, part))
        if number is None:
            number = next((_whole(about[one]) for one in NUMBERS_IN_JSON if _whole(about.get(one)) is not None), None)
        names = [one for one in NAMES_IN_JSON if isinstance(about.get(one), str)]
        name = next((about[one] for one in names if one not in NUMBERS_IN_JSON or _whole(about[one]) is None), "")
        words = about["words"] if isinstance(about.get("words"), str) else ""
    if number is None and not name:
        number = NO_LABEL
    return About(number, name, words)


def _whole(value: object) -> int | None:
    """Return a whole number, also one that is written as text, `"3"`; else None."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    return value if type(value) is int else None


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


def _small(path: Path, part: _Part) -> bytes:
    if part.text is None:
        raise SourceError(
            f"{path}: {part.member.name}: a label of {part.member.bytes:,} bytes",
            f"a label may have {_MOST_BYTES[part.label]:,} bytes",
        )
    return part.text
