"""The list of photos that a build was begun with, so that it can be finished although the source has changed since.

    out/.build/photos.csv   split,path,label,bytes,archive,offset: in the order of the source; gone when the set is done

In:  a Source.  Out: its photos as they were. A photo that vanished in between is then missed by name.
"""

import json
from dataclasses import replace
from pathlib import Path

from ..files import read_csv, write_csv
from ..sources.find import Source
from ..sources.photo import Photo

PHOTOS = ".build/photos.csv"
_HEADER = ("split", "path", "label", "bytes", "archive", "offset")
_NAMED = 3  # photos that a message names


def write_photos(path: Path, source: Source) -> None:
    """Write down the photos of a source, atomically."""
    rows = [
        (split, photo.path, photo.label, photo.bytes, photo.archive, photo.offset)
        for split, photos in source.splits.items()
        for photo in photos
    ]
    write_csv(path, _HEADER, rows)


def as_begun(source: Source, out: Path) -> Source:
    """The source as the build in `out` was begun with it, if all that has happened since is that photos vanished.

    Returns:
        The source as it was; or, where more has changed or no build was begun, as it is now.
    """
    try:
        fingerprint = json.loads((out / ".build" / "job.json").read_text())["source"]["fingerprint"]
        if source.fingerprint() == fingerprint:
            return source
        splits: dict[str, list[Photo]] = {split: [] for split in source.splits}
        for split, name, label, count, archive, offset in read_csv(out / PHOTOS):
            splits.setdefault(split, []).append(Photo(name, int(label), int(count), archive, int(offset)))
    except (OSError, ValueError, KeyError, TypeError):  # nothing there, or damaged: receipts.py says so
        return source
    begun = replace(source, splits=splits)
    if begun.fingerprint() != fingerprint:  # the classes are others
        return source
    there = {split: set(photos) for split, photos in splits.items()}
    more = [photo for split, photos in source.splits.items() for photo in photos if photo not in there.get(split, ())]
    return source if more else begun


def changes(out: Path, source: Source) -> str:
    """How a source differs from the one that the build in `out` was begun with; see `difference`."""
    return difference({path for _, path, *_ in read_csv(out / PHOTOS)}, source)


def difference(there: set[str], source: Source) -> str:
    """Say which photos a source has and had: `gone: a/1.jpg; new: a/2.jpg and 5 more`; empty, the names are the same.

    Args:
        there: all paths, as they were.
    """
    here = {photo.path for photos in source.splits.values() for photo in photos}
    parts = (("gone", sorted(there - here)), ("new", sorted(here - there)))
    return "; ".join(f"{word}: {_some(paths)}" for word, paths in parts if paths)


def _some(paths: list[str]) -> str:
    more = len(paths) - _NAMED
    return ", ".join(paths[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
