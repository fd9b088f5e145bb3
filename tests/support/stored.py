"""What a shard set holds, read without the product's code, and ways to damage a copy of one.

LMDB must not open a file twice in one process, so everything here works on copies of data.mdb.
"""

import csv
import io
import json
import shutil
import struct
import tempfile
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

PAGE = 4096  # of LMDB


@dataclass(frozen=True)
class Record:
    """One record: uint8 pixels (height, width, 3), the CSV's label, the shard's folder and the index in it."""

    pixels: np.ndarray
    label: int
    shard: Path
    index: int


def records(root: Path, split: str) -> list[Record]:
    """All records of a split in the order of dataset.json."""
    found = []
    for entry in json.loads((root / "dataset.json").read_text())["splits"][split]["shards"]:
        folder = root / entry["path"]
        labels = [int(row["label"]) for row in csv.DictReader(folder.with_suffix(".csv").open(newline=""))]
        for index, value in enumerate(values(folder)):
            found.append(Record(pixels(value), labels[index], folder, index))
    return found


def values(folder: Path) -> list[bytes]:
    """The values of a shard, by cursor."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(folder / "data.mdb", copy)
        with lmdb.open(copy, readonly=True, lock=False) as environment, environment.begin() as transaction:
            return [bytes(value) for _, value in transaction.cursor()]


def pixels(value: bytes) -> np.ndarray:
    """The picture of a record as docs/shard-format.md has it, decoded by Pillow."""
    data, height, width, encoded = parts(value)
    if encoded:
        return np.array(Image.open(io.BytesIO(data)))
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def parts(value: bytes) -> tuple[bytes, int, int, bool]:
    """Data, height, width and encoded of a record, field after field."""
    place = 0

    def number() -> int:
        nonlocal place
        total = shift = 0
        while True:
            byte = value[place]
            place += 1
            total |= (byte & 0x7F) << shift
            if byte < 0x80:
                return total
            shift += 7

    fields: dict[int, int | bytes] = {}
    while place < len(value):
        tag = number()
        content: int | bytes = number()
        if tag & 7 == 2:
            length = int(content)
            content = value[place : place + length]
            place += length
        fields[tag >> 3] = content
    data, height, width, encoded = fields[4], fields[2], fields[3], fields[7]
    assert isinstance(data, bytes) and isinstance(height, int) and isinstance(width, int)
    return data, height, width, bool(encoded)


def damaged(root: Path, copy: Path, split: str, shard: int, index: int, value: bytes | None) -> Path:
    """Copy a set, and replace (or, with None, remove) one record; dataset.json still fits. Returns the shard's folder.

    The hashes stay, so that the copy keeps its statistics: a flipped byte on a disk changes no hash either.
    """
    shutil.copytree(root, copy)
    manifest = json.loads((copy / "dataset.json").read_text())
    entry = manifest["splits"][split]["shards"][shard]
    folder = copy / entry["path"]
    kept = dict(enumerate(values(folder)))
    kept.pop(index) if value is None else kept.update({index: value})
    shutil.rmtree(folder)
    with lmdb.open(str(folder), map_size=1 << 28, lock=False) as environment, environment.begin(write=True) as writing:
        for key, content in kept.items():
            writing.put(b"%08d" % key, content)
    entry["bytes"] = (folder / "data.mdb").stat().st_size
    manifest["splits"][split]["records"] += len(kept) - entry["records"]
    entry["records"] = len(kept)
    (copy / "dataset.json").write_text(json.dumps(manifest))
    return folder


def page_kinds(data):
    """The numbers of the pages of a data.mdb by kind, read from mdb.c's page header; payload are overflow's rest."""
    names = {0x01: "branch", 0x02: "leaf", 0x04: "overflow", 0x08: "meta"}
    kinds = {"meta": [], "branch": [], "leaf": [], "overflow": [], "payload": []}
    number = 0
    while number * PAGE < len(data):
        flags, _, _ = struct.unpack_from("=HHH", data, number * PAGE + 10)
        kind = names[flags & 0x0F]
        kinds[kind].append(number)
        run = struct.unpack_from("=I", data, number * PAGE + 12)[0] if kind == "overflow" else 1
        kinds["payload"] += range(number + 1, number + run)
        number += run
    return kinds


class Here(Executor):
    """Does each job at once in this process."""

    def submit(self, function, /, *arguments, **keywords):
        future: Future = Future()
        future.set_result(function(*arguments, **keywords))
        return future
