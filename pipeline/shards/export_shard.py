"""Export one shard as a tar file or as pictures in class folders, in any process.

In:  an ExportJob.  Out: its files under their final names, then a receipt.  JPEG payloads are copied unchanged, raw
pixels become PNG, lossless; equal sets give equal bytes.
"""

import ctypes
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from ..errors import ShardError
from ..files import write_atomically, writing_to
from . import datum
from .lmdb_shard import Shard, ShardFile, key, repair_hint
from .records_csv import Row, read_listing

WORK = ".export"  # folder for unfinished work
UNLABELLED_DIR = "unlabelled"  # the class folder of label -1
_LONGEST_NAME = 200  # bytes of a class folder; file systems take 255


@dataclass(frozen=True)
class ExportJob:
    """One shard to export.

    Attributes:
        root, target: folders of the shard set and of the export.
        format: `webdataset` or `folder`.
        split, number: of the shard.
        path: the shard's folder, relative to root.
        file: its number of records and bytes.
        names, words: of the classes, by label.
        folders: names of the class folders, by label.
    """

    root: Path
    target: Path
    format: str
    split: str
    number: int
    path: str
    file: ShardFile
    names: tuple[str, ...]
    words: tuple[str, ...]
    folders: tuple[str, ...]

    @property
    def receipt(self) -> Path:
        """The file that is written when the shard's export is durable."""
        return self.target / WORK / f"{self.split}-{self.number:06d}.done"


def export_shard(job: ExportJob) -> None:
    """Export one shard and leave its receipt; runs in any process.

    Raises:
        ShardError: a record or the CSV is damaged; the message names it.
        NotWrittenError: a file cannot be written.
    """
    if job.format == "webdataset":
        write_atomically(job.target / f"{job.split}-{job.number:06d}.tar", lambda file: _write_tar(job, file))
    else:
        with writing_to(job.target / job.split):
            _write_folder(job)
    write_atomically(job.receipt, b"")


def class_folders(names: Sequence[str]) -> tuple[str, ...]:
    """Name a folder for each class: its own name if all are valid and sort like the labels; else prefixed by the label.

    ImageFolder numbers the sorted folders.
    """
    if list(names) == sorted(set(names)) and all(_is_valid(name) for name in names):
        return tuple(names)
    safe = (os.fsdecode(os.fsencode(name)[:_LONGEST_NAME]).replace("/", "_").replace("\0", "_") for name in names)
    return tuple(f"{label:05d}_{name}" for label, name in enumerate(safe))


def _is_valid(name: str) -> bool:
    encoded = os.fsencode(name)
    return 0 < len(encoded) <= _LONGEST_NAME and not name.startswith(".") and not {b"/"[0], 0} & set(encoded)


def _records(job: ExportJob) -> Iterator[tuple[str, str, bytes | memoryview, datum.Datum, Row]]:
    """Yield name, suffix, payload, record and CSV row of every record, in key order."""
    folder = job.root / job.path
    rows = read_listing(folder)
    shard = Shard(folder, job.file)
    hint = repair_hint(folder)
    if len(rows) != shard.records:
        raise ShardError(f"{folder}: {shard.records:,} records, but its CSV has {len(rows):,} rows", hint)
    for k, row in enumerate(rows):
        try:
            record = datum.parse(shard.value(k))
            if not -1 <= record.label < len(job.names):
                raise ShardError(f"label {record.label}, but there are {len(job.names)} classes")
        except ShardError as error:
            raise ShardError(f"{folder}, record {k}: {error.message}", hint) from None
        suffix, payload = ("jpg", record.data) if record.encoded else ("png", _png(record))
        # With the shard's number, because readers distinguish samples of all files by name.
        yield f"{job.number:05d}_{key(k).decode()}", suffix, payload, record, row


def _png(record: datum.Datum) -> bytes:
    pixels = np.frombuffer(record.data, np.uint8).reshape(record.height, record.width, datum.CHANNELS)
    _, encoded = cv2.imencode(".png", pixels[:, :, ::-1])
    return encoded.tobytes()


def _write_tar(job: ExportJob, file: BinaryIO) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, suffix, payload, record, row in _records(job):
            about = {
                "source_path": row.source_path,
                "class": job.names[record.label] if record.label >= 0 else None,
                "words": job.words[record.label] if record.label >= 0 else "",
                "width": record.width,
                "height": record.height,
                "source_width": row.source_width,
                "source_height": row.source_height,
            }
            _add(archive, f"{name}.cls", str(record.label).encode())
            _add(archive, f"{name}.{suffix}", payload)
            _add(archive, f"{name}.json", json.dumps(about).encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes | memoryview) -> None:
    member = tarfile.TarInfo(name)  # mtime, uid and gid 0, mode 644
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _write_folder(job: ExportJob) -> None:
    """Write a shard's pictures into a temporary folder, sync them at once, then move each to its place."""
    beside = job.target / WORK / f"{job.split}-{job.number:06d}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    places = []
    for name, suffix, payload, record, _ in _records(job):
        place = job.target / job.split / (job.folders[record.label] if record.label >= 0 else UNLABELLED_DIR)
        places.append((f"{name}.{suffix}", place))
        with writing_to(place / f"{name}.{suffix}"):
            (beside / f"{name}.{suffix}").write_bytes(payload)
    _sync_disk(beside)
    for place in {place for _, place in places}:
        place.mkdir(parents=True, exist_ok=True)
    for name, place in places:
        with writing_to(place / name):
            os.rename(beside / name, place / name)
    _sync_disk(job.target)
    beside.rmdir()


def _sync_disk(folder: Path) -> None:
    """Sync this folder's whole file system: one sync for each of 5,000 pictures would take minutes."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(handle)
