"""The job of one shard, from its photos to its receipt, in any process on any machine.

In:  a ShardJob.  Out: the shard and its CSV under their final names, its photos' hashes, then the receipt.
`.build/SPLIT-NUMBER.at` names the process and its current photo; if the process dies, the file remains.
"""

import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..csv_files import write_csv
from ..errors import ShardError, SourceError
from ..files import final_names, with_final_name, write_json
from ..shards.datum import encode
from ..shards.lmdb_shard import key, sha256_of, write_shard
from ..shards.records_csv import COLUMNS, listing_of
from ..sources.photo import LOST_ALONE, Photo, is_sequential, read_photo, stem_of
from .decode import PhotoError
from .duplicates import hash_of, write_hashes
from .known_anomalies import as_known
from .options import BuildOptions
from .prepared_cache import MOST_BYTES, Spool
from .resize import prepare

MOST_EMPTY = 20  # photos that show nothing, by name in a receipt
_WNID_AT_END = re.compile(r"(?<=.)_n\d{8}$")  # Hugging Face's addition to ImageNet's names


@dataclass(frozen=True)
class ShardJob:
    """A shard to build: folders of photos and set, and the shard's photos in key order."""

    root: Path
    out: Path
    split: str
    number: int
    photos: Sequence[Photo]
    options: BuildOptions

    @property
    def path(self) -> str:
        """The shard's folder, relative to out."""
        return f"{self.split}/{self.number:05d}.lmdb"

    @property
    def receipt(self) -> Path:
        """The path of the receipt, written when the shard is on disk."""
        return self.out / ".build" / f"{self.split}-{self.number:05d}.json"

    @property
    def at(self) -> Path:
        """The path of the file that names the process and its current photo; removed when the shard is done."""
        return self.receipt.with_suffix(".at")

    @property
    def hashes(self) -> Path:
        """The path of the hashes of the records' photos."""
        return self.receipt.with_suffix(".hashes")


@dataclass
class _Account:
    """The outcome of every photo: a row or a rejection."""

    rows: list[tuple] = field(default_factory=list)
    hashes: array = field(default_factory=lambda: array("Q"))
    rejected: list[tuple[str, str]] = field(default_factory=list)
    forms: Counter = field(default_factory=Counter)
    known: int = 0
    unlike: list[str] = field(default_factory=list)
    empty: list[tuple[str, str]] = field(default_factory=list)


def build_shard(job: ShardJob) -> dict:
    """Build a shard and its CSV, write the hashes of its photos, then the receipt.

    Returns:
        The receipt: records, bytes, sha256 and csv_sha256; rejected, pairs of photo and reason; forms, the number of
        photos by format; known, the number of ImageNet's known anomalies that were as listed; unlike, those that
        were not; empty, the number of pictures that show nothing; empty_photos, the first of them with the reason.
    Raises:
        ShardError: LMDB cannot write the shard.
        NotWrittenError: a file cannot be written.
        SourceError: the source has become unreadable.
    """
    with with_final_name(job.out / job.path):
        return _build_shard(job)


def _build_shard(job: ShardJob) -> dict:
    account = _Account()
    handle = os.open(job.at, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        written = write_shard(job.out / job.path, _values(job, account, handle))
    except ShardError as error:  # names the temporary file, which is removed by now
        raise type(error)(final_names(error.message), error.hint) from None
    finally:
        os.close(handle)
    write_csv(listing_of(job.out / job.path), COLUMNS, account.rows)
    write_hashes(job.hashes, account.hashes, [row[1] for row in account.rows])
    receipt = {
        **asdict(written),
        "csv_sha256": sha256_of(listing_of(job.out / job.path)),
        "rejected": account.rejected,
        "forms": dict(sorted(account.forms.items())),
        "known": account.known,
        "unlike": account.unlike,
        "empty": len(account.empty),
        "empty_photos": account.empty[:MOST_EMPTY],
    }
    write_json(job.receipt, receipt)
    job.at.unlink(missing_ok=True)
    return receipt


def at_work(out: Path) -> dict[int, str]:
    """Return the current photo of each unfinished job, by process id."""
    found = {}
    for path in sorted((out / ".build").glob("*.at")):
        with suppress(OSError, ValueError):
            process, _, photo = path.read_bytes().partition(b"\0")[0].partition(b" ")
            found[int(process)] = os.fsdecode(photo)
    return found


def _values(job: ShardJob, account: _Account, handle: int) -> Iterator[bytes]:
    options, process = job.options, b"%d " % os.getpid()
    spool = Spool(job.out)
    for photo in job.photos:
        os.pwrite(handle, process + os.fsencode(photo.path) + b"\0", 0)  # two microseconds
        try:
            if is_sequential(photo.archive):
                picture, content = spool.picture_and_hash(photo)
            else:
                data = read(job, photo)
                picture, content = prepare(data, **options.of_a_picture()), hash_of(data)
        except PhotoError as error:
            account.rejected.append((photo.path, str(error)))
            continue
        index = len(account.rows)
        account.rows.append((key(index).decode(), photo.label, photo.path, picture.source_width, picture.source_height))
        account.hashes.append(content)
        account.forms[picture.form] += 1
        if picture.empty:
            account.empty.append((photo.path, picture.empty))
        known = as_known(_WNID_AT_END.sub("", stem_of(photo.path)), picture.form)
        account.known += known is True
        if known is False:
            account.unlike.append(photo.path)
        yield encode(
            picture.data,
            height=picture.height,
            width=picture.width,
            label=photo.label,
            encoded=options.encoding == "jpeg",
        )


def read(job: ShardJob, photo: Photo) -> bytes:
    """Read a photo.

    Raises:
        PhotoError: this photo is rejected.
        SourceError: the source has become unreadable: the build stops and can be resumed.
    """
    if photo.bytes > MOST_BYTES:
        raise PhotoError(f"the file has {photo.bytes:,} bytes, more than {MOST_BYTES:,}")
    try:
        return read_photo(job.root, photo)
    except OSError as error:
        if error.errno in LOST_ALONE and os.path.isdir(job.root):
            raise PhotoError(os.strerror(error.errno)) from None
        # With a failed disk or lost network share, all later photos would be rejected.
        raise SourceError(
            f"{job.root / photo.path}: {error.strerror or error}",
            "when the photos can be read again, run the same command to resume",
        ) from None
