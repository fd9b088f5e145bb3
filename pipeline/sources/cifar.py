"""CIFAR-10 and CIFAR-100 as they are unpacked: files of raw pixels, read in place.

    cifar-10-batches-py/     data_batch_1 to data_batch_5, test_batch, batches.meta             as torchvision has them
    cifar-100-python/        train, test, meta
    cifar-10-batches-bin/    data_batch_1.bin to data_batch_5.bin, test_batch.bin, batches.meta.txt
    cifar-100-binary/        train.bin, test.bin, fine_label_names.txt

In:  an Inventory with one of these folders, or of one.  Out: Found, with an entry per picture of 3,072 bytes.
The python files are pickles, which are never unpickled: their instructions are listed as data (`pickletools`), among
which are the labels, and the place in the file where the pixels begin. Nothing in them is executed or imported.
"""

import os
import pickletools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SourceError, UsageError
from .entries import Declined, Entries, Entry, Found, Request
from .imagenet.devkit import read_small
from .inventory import Inventory
from .photo import PLANES, PLANES_BYTES
from .photo_tables import below, has_file, places

_MOST_BYTES = 256 << 20  # of a file; the largest real one has 155 MB
_AGAIN = "unpack the archive again"
_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
_INTS = frozenset(["BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1"])
_TEXTS = frozenset(["SHORT_BINSTRING", "BINSTRING", "STRING", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE"])
_BYTES = {"SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9, "BYTEARRAY8": 9, "BINSTRING": 5}  # code and length


@dataclass(frozen=True)
class _Form:
    """A form in which the set is distributed: its splits' files, the file of class names, the key or byte of labels."""

    name: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str | int  # the labels' key in a pickle; or, in a binary file, how many bytes are before each picture

    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


_FORMS = (
    _Form("CIFAR-10", _BATCHES, "test_batch", "batches.meta", "labels"),
    _Form("CIFAR-100", ("train",), "test", "meta", "fine_labels"),
    _Form("CIFAR-10", tuple(f"{name}.bin" for name in _BATCHES), "test_batch.bin", "batches.meta.txt", 1),
    _Form("CIFAR-100", ("train.bin",), "test.bin", "fine_label_names.txt", 2),
)
_ARCHIVES = frozenset(f"cifar-{n}-{form}.tar.gz" for n in (10, 100) for form in ("python", "binary"))
_WANTED = "CIFAR's files of raw pixels: data_batch_1, ..., test_batch, batches.meta, or train, test, meta; or .bin"


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if all files of one form are there."""
    forms = _forms(look)
    if any(not missing for _, _, missing in forms):
        return None
    if forms:
        base, form, missing = forms[0]
        return Declined(_WANTED, f"{below(base, form.meta)}, but no {missing[0]}", _AGAIN)
    packed = next((path for path in look.archives if path.rpartition("/")[2] in _ARCHIVES), "")
    hint = f"unpack it: tar -xf {packed}; or use parquet files of the same set" if packed else ""
    return Declined(_WANTED, f"{packed}, which is not unpacked" if packed else "", hint)


def find(look: Inventory, ask: Request) -> Found:
    """List the pictures.

    Raises:
        UsageError: there is no such set, or several.
        SourceError: a file is damaged.
    """
    complete = [(base, form) for base, form, missing in _forms(look) if not missing]
    if not complete:
        declined = declines(look, ask)
        raise UsageError(f"{look.source}: no {_WANTED}", (declined and declined.hint) or "choose their folder")
    if len(complete) > 1:
        one, two = (below(base, form.meta) for base, form in complete[:2])
        raise UsageError(f"{look.source}: {one} and {two} are of two sets", "choose the folder of one of them")
    base, form = complete[0]
    names = _names(look.root / below(base, form.meta), f"{form.labels}".removesuffix("s") + "_names")
    found = Found(f"{form.name}, train, test", {"train": Entries(), "test": Entries()}, classes=tuple(names))
    for split, files in (("train", form.train), ("test", (form.test,))):
        for name in files:
            path = below(base, name)
            labels, offsets = _pictures(look.root / path, form.labels)
            if wrong := [label for label in labels if not 0 <= label < len(names)]:
                raise SourceError(f"{look.root / path}: label {wrong[0]} of {len(names)} classes", _AGAIN)
            found.entries[split].extend(
                Entry(names[label], f"{path}/{row:05d}{PLANES}", PLANES_BYTES, path, offset)
                for row, (label, offset) in enumerate(zip(labels, offsets, strict=True))
            )
    if form.name == "CIFAR-100":
        found.notes.append("the classes are the 100 fine ones; the 20 coarse labels are not used")
    return found


def _forms(look: Inventory) -> list[tuple[str, _Form, list[str]]]:
    """Return the folders with the file of class names and another of a form, and the files that are missing."""
    found = []
    for base in places(look):
        for form in _FORMS:
            if has_file(look, base, form.meta):
                missing = [name for name in form.files() if not has_file(look, base, name)]
                if len(missing) < len(form.files()) - 1:
                    found.append((base, form, missing))
    return found


def _names(path: Path, key: str) -> list[str]:
    """Return the class names by label, of a pickle by their key."""
    if path.suffix == ".txt":
        lines = read_small(path).decode("utf-8", "replace").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    else:
        names = [str(name) for name in _outline(path).lists.get(key, [])]
    if not names or len({*names}) < len(names):
        raise SourceError(f"{path}: no list of class names", _AGAIN)
    return names


def _pictures(path: Path, labels: str | int) -> tuple[list[int], range]:
    """Return labels and offsets of a file's pictures."""
    if isinstance(labels, int):
        each = labels + PLANES_BYTES
        data = _whole(path)
        if not data or len(data) % each:
            raise SourceError(f"{path}: {len(data):,} bytes are not a multiple of {each:,}", _AGAIN)
        return list(data[labels - 1 :: each]), range(labels, len(data), each)
    outline = _outline(path)
    numbers = [number for number in outline.lists.get(labels, []) if isinstance(number, int)]
    if not numbers or len(outline.pixels) != 1 or outline.pixels[0][1] != len(numbers) * PLANES_BYTES:
        raise SourceError(
            f"{path}: {len(numbers):,} {labels}, and not as many pictures of {PLANES_BYTES:,} bytes",
            f"{_AGAIN}; a file that was written again by another program cannot be read",
        )
    offset, size = outline.pixels[0]
    return numbers, range(offset, offset + size, PLANES_BYTES)


@dataclass
class _Outline:
    """What a pickle contains: lists of numbers and texts by the text before them, and where long bytes are."""

    lists: dict[str, list[int | str]] = field(default_factory=dict)
    pixels: list[tuple[int, int]] = field(default_factory=list)


def _outline(path: Path) -> _Outline:
    """List a pickle's instructions, without executing them."""
    outline = _Outline()
    since_mark: list[int | str] = []
    current: list[int | str] = []
    order = ""
    try:
        value: Any
        for code, value, place in pickletools.genops(_whole(path)):
            if code.name in _BYTES and len(value) >= PLANES_BYTES:
                if order != "NEWFALSE":  # an array's state ends with the order of its axes and its bytes
                    raise ValueError("its pixels are not an array of rows")
                outline.pixels.append(((place or 0) + _BYTES[code.name], len(value)))
            elif code.name in _INTS or code.name in _TEXTS or code.name in _BYTES:
                since_mark.append(value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else value)
            elif code.name == "EMPTY_LIST" and since_mark:
                current = outline.lists.setdefault(str(since_mark[-1]), [])
            elif code.name == "APPEND":
                current += since_mark[-1:]
            elif code.name in ("MARK", "APPENDS"):
                current += since_mark if code.name == "APPENDS" else []
                since_mark = []
            order = code.name
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{path}: not CIFAR's pickle ({error})", _AGAIN) from None
    return outline


def _whole(path: Path) -> bytes:
    if os.path.getsize(path) > _MOST_BYTES:
        raise SourceError(f"{path}: larger than {_MOST_BYTES >> 20} MiB", "use the original files")
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", "make the file readable") from None
