"""Check one shard: its bytes, its structure, every record, its CSV.

In:  a shard's folder and what dataset.json says of it.  Out: a list of Damage, empty for an intact shard.
Runs in any process and must survive any file. liblmdb would follow a bad page pointer out of its memory map, so it is
not used: sizes are checked first, then py-lmdb's verifier reads the pages in pure Python, then our own reader.
Imports neither DALI nor torch.
"""

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

import simplejpeg
from lmdb import verify as lmdb_verify

from ..errors import ShardError
from . import datum
from .lmdb_pages import newest, read_metas
from .lmdb_shard import Shard, ShardFile, check_format, key, sha256_of
from .records_csv import Row, read_listing

LISTED = 3  # structural faults that are reported for a shard; one torn page causes hundreds

_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # frame headers of a JPEG; 0xC0 is baseline
_SOS, _APP0, _APP15, _COMMENT = 0xDA, 0xE0, 0xEF, 0xFE
_SAMPLING_420 = b"\x22\x11\x11"


@dataclass(frozen=True)
class Damage:
    """One fault.

    Attributes:
        shard: the shard's folder, relative to the root; of other files their name.
        record: index of the record in the shard; None for a fault of the whole shard.
        source_path: of the photo that the record was made from, if the CSV can be read.
        reason: in words.
    """

    shard: str
    record: int | None
    source_path: str
    reason: str


@dataclass(frozen=True)
class Rules:
    """What dataset.json promises of every record of a split.

    Attributes:
        size: pixels of the short side.
        fit: `crop` or `short-side`.
        encoded: records are JPEG files; otherwise raw pixels.
        classes: number of classes.
        unlabelled: whether the label may be -1, as in a split `test`.
    """

    size: int
    fit: str
    encoded: bool
    classes: int
    unlabelled: bool


def check_shard(root: Path, path: str, file: ShardFile, rules: Rules) -> list[Damage]:
    """Check a shard and its CSV completely; does not stop at the first fault.

    Args:
        root: the shard set's folder.
        path: the shard's folder, relative to root.
    Returns:
        all faults found; empty for an intact shard.
    """
    found: list[Damage] = []
    rows: list[Row] = []
    try:
        rows = read_listing(root / path)
    except ShardError as error:
        found.append(Damage(path, None, "", _short(error.message, root, path)))
    else:
        if len(rows) != file.records:
            reason = f"its CSV has {len(rows):,} rows, but dataset.json says {file.records:,} records"
            found.append(Damage(path, None, "", reason))
    faults, readable = check_file(root / path, file)
    found.extend(Damage(path, None, "", fault) for fault in faults)
    if readable:
        try:
            found.extend(_check_records(root, path, file, rules, rows))
        except ShardError as error:
            found.append(Damage(path, None, "", _short(error.message, root, path)))
    return found


def check_file(folder: Path, file: ShardFile) -> tuple[list[str], bool]:
    """Check data.mdb as a file: size, SHA-256, format, structure.

    The structure is checked whether the hash matches or not: a matching hash proves that the bytes are those that
    dataset.json names, not that the two were not forged together. It costs 5 us a record; decoding takes 220 us.

    Returns:
        the faults, and whether the records can be read.
    """
    data = folder / "data.mdb"
    faults: list[str] = []
    try:
        status = data.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block for ever
            return ["data.mdb is not a file"], False
        if status.st_size != file.bytes:
            return [f"data.mdb has {status.st_size:,} bytes, but dataset.json says {file.bytes:,}"], False
        digest = sha256_of(data)
        if digest != file.sha256:
            faults.append(f"the SHA-256 of data.mdb is {digest[:12]}..., but dataset.json says {file.sha256[:12]}...")
        check_format(data)
        structure = _structure(data, status.st_size)
    except OSError as error:
        return [*faults, f"data.mdb: {error.strerror}"], False
    except ShardError as error:
        return [*faults, error.message.rpartition("data.mdb: ")[2]], False
    return faults + structure, not structure


def _structure(data: Path, size: int) -> list[str]:
    """Faults of the tree of pages, free ones included."""
    try:
        faults = lmdb_verify.verify(os.fspath(data), subdir=False)
    except OSError:
        raise
    except Exception as error:  # VerifyError, and whatever else a malicious page may cause
        faults = [str(error) or type(error).__name__]
    faults = faults or _check_length(data, size)
    more = [f"and {len(faults) - LISTED:,} more faults of its pages"] if len(faults) > LISTED else []
    return [*(f"LMDB structure: {fault}" for fault in faults[:LISTED]), *more]


def _check_length(data: Path, size: int) -> list[str]:
    """Check that the file has all pages that its newest meta page counts, which py-lmdb's verifier does not."""
    try:
        with open(data, "rb") as file:
            metas = read_metas(file.fileno())
    except struct.error:
        return ["it ends within a meta page"]
    pages, page_bytes = newest(metas).last_page + 1, metas[0].page_bytes
    return [f"{pages:,} pages of {page_bytes} bytes in a file of {size:,}"] if pages * page_bytes > size else []


def _check_records(root: Path, path: str, file: ShardFile, rules: Rules, rows: list[Row]) -> list[Damage]:
    shard = Shard(root / path, file)
    found = []
    pixels = bytearray(rules.size * rules.size * datum.CHANNELS)  # reused: fresh memory costs a tenth more time
    for index in range(shard.records):
        row = rows[index] if index < len(rows) else None
        try:
            record = check_record(shard.value(index), rules, pixels)
            if row is not None:
                _check_row(row, index, record.label)
        except (ShardError, ValueError) as error:
            reason = error.message if isinstance(error, ShardError) else " ".join(str(error).split())
            found.append(Damage(path, index, row.source_path if row else "", _short(reason, root, path)))
    return found


def check_record(value: bytes | memoryview, rules: Rules, pixels: bytearray) -> datum.Datum:
    """Check one record and decode its picture completely.

    Args:
        value: the record's bytes, a Datum.
        pixels: what a JPEG is decoded into, uint8 height x width x 3; grows as needed.
    Returns:
        the parsed record.
    Raises:
        ShardError: a field is wrong, or the JPEG is not of the kind that the format promises.
        ValueError: the JPEG does not decode.
    """
    record = datum.parse(value)
    height, width = record.height, record.width
    if not (0 <= record.label < rules.classes or (record.label == -1 and rules.unlabelled)):
        raise ShardError(f"label {record.label}, but there are {rules.classes} classes")
    short, long = min(height, width), max(height, width)
    if short != rules.size or (rules.fit == "crop" and long != rules.size):
        raise ShardError(f"{width}x{height} pixels in a set of --size {rules.size} --fit {rules.fit}")
    if record.encoded != rules.encoded:
        raise ShardError("a JPEG in a raw set" if record.encoded else "raw pixels in a JPEG set")
    if record.encoded:
        check_jpeg_header(record.data, height, width)
        need = height * width * datum.CHANNELS
        if len(pixels) < need:
            pixels.extend(bytes(need - len(pixels)))
        simplejpeg.decode_jpeg(record.data, colorspace="RGB", buffer=pixels, strict=True)
    return record


def check_jpeg_header(data: memoryview, height: int, width: int) -> None:
    """Check that a JPEG is baseline, YCbCr 4:2:0, of this size and without metadata, by its segments' markers.

    Args:
        height, width: pixels.
    Raises:
        ShardError: it is not.
    """
    place, end = 2, len(data)
    frame = b""
    while place + 4 <= end and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _SOS:
            break
        if _APP0 < marker <= _APP15 or marker == _COMMENT:
            raise ShardError(f"the JPEG holds metadata (segment {marker:#x})")
        length = data[place + 2] << 8 | data[place + 3]
        if marker in _SOF:
            if marker != 0xC0:
                raise ShardError(f"not a baseline JPEG (frame {marker:#x})")
            frame = bytes(data[place + 4 : place + 2 + length])
        place += 2 + length
    if len(frame) != 15 or frame[5] != 3:
        raise ShardError("the JPEG has no frame of three components")
    if frame[7::3] != _SAMPLING_420:
        raise ShardError("the JPEG is not 4:2:0")
    sides = frame[3] << 8 | frame[4], frame[1] << 8 | frame[2]
    if sides != (width, height):
        raise ShardError(f"the JPEG has {sides[0]}x{sides[1]} pixels, its Datum says {width}x{height}")


def _check_row(row: Row, index: int, label: int) -> None:
    if row.key != key(index).decode():
        raise ShardError(f"its CSV has the key {row.key!r} in this row")
    if row.label != label:
        raise ShardError(f"label {label}, but its CSV says {row.label}")
    if row.source_width < 1 or row.source_height < 1:
        raise ShardError(f"its CSV says a photo of {row.source_width}x{row.source_height} pixels")


def _short(message: str, root: Path, path: str) -> str:
    """The message without the folder, which is named beside it."""
    folder = str(root / path)
    for prefix in (f"{folder}/", f"{folder}: ", f"{(root / path).parent}/"):
        message = message.removeprefix(prefix)
    return message
