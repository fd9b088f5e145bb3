"""Records of a shard set as pictures and CSV rows, and a photo as the set would store it.

In:  a shard set and record numbers, or a photo.  Out: uint8 (height, width, 3) RGB, rows of the shards' CSVs.
"""

import io
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from ....pipeline.errors import ShardError, SourceError, UsageError
from ....pipeline.prepare.decode import PhotoError
from ....pipeline.prepare.options import options_of
from ....pipeline.prepare.resize import prepare
from ....pipeline.shards.lmdb_shard import repair_hint
from ....pipeline.shards.manifest import ShardSet
from ....pipeline.shards.records_csv import Row, listing_of, read_listing
from ....pipeline.stream.record_reader import RecordReader

PHOTO_HINT = "choose a photo: JPEG, PNG, GIF, BMP, WebP or TIFF"


def rows_of(shard_set: ShardSet, split: str, records: np.ndarray) -> list[Row]:
    """Return the CSV row (source path, label) of each record; each shard's CSV is read at most once.

    Args:
        records: int64 (n,), record numbers of the split.
    Raises:
        ShardError: a CSV is missing or damaged.
    """
    shards = shard_set.split(split).shards
    ends = np.cumsum([file.records for _, file in shards])
    listings: dict[int, list[Row]] = {}
    rows = []
    for record in records.tolist():
        number = int(np.searchsorted(ends, record, side="right"))
        folder, file = shards[number]
        if number not in listings:
            listings[number] = read_listing(folder)
            if len(listings[number]) != file.records:
                raise ShardError(
                    f"{listing_of(folder)}: {len(listings[number])} rows, but the shard has {file.records} records",
                    repair_hint(folder),
                )
        rows.append(listings[number][record - int(ends[number] - file.records)])
    return rows


def pictures_of(shard_set: ShardSet, split: str, records: np.ndarray) -> list[np.ndarray]:
    """Decode stored records: uint8 (height, width, 3) each.

    Args:
        records: int64 (n,), record numbers of the split.
    Raises:
        ShardError: a record is damaged; the message names it.
    """
    reader = RecordReader(shard_set, split)
    pictures = []
    for record, data in zip(records.tolist(), reader.read(records).data, strict=True):
        try:
            pictures.append(simplejpeg.decode_jpeg(data, colorspace="RGB") if reader.encoded else data.copy())
        except ValueError as error:
            raise ShardError(f"{reader.name(record)}: a damaged JPEG: {error}", reader.hint(record)) from None
    return pictures


def stored_picture(photo: Path, shard_set: ShardSet) -> np.ndarray:
    """Return a photo's pixels as the set's shards would store them: uint8 (height, width, 3).

    Raises:
        UsageError: the file cannot be read.
        SourceError: it is not a picture, or cannot be decoded.
    """
    try:
        data = photo.read_bytes()
    except OSError as error:
        raise UsageError(f"{photo}: {error.strerror}", "name a picture file") from None
    return as_stored(data, str(photo), shard_set)


def as_stored(data: bytes, name: str, shard_set: ShardSet) -> np.ndarray:
    """Do the same for a photo's bytes; `name` is the file's name in error messages."""
    try:
        made = prepare(data, **options_of(shard_set.manifest).of_a_picture())
    except PhotoError as error:
        raise SourceError(f"{name}: {error}", PHOTO_HINT) from None
    if shard_set.encoding == "raw":
        return np.frombuffer(made.data, np.uint8).reshape(made.height, made.width, 3)
    return np.asarray(Image.open(io.BytesIO(made.data)).convert("RGB"))
