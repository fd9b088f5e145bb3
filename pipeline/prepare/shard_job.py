"""The unit of work: one shard, from its photos to its receipt, in any process on any machine.

In:  a ShardJob.  Out: the shard and its CSV under their final names, then the receipt that says so.
While it is at work, `.build/SPLIT-NUMBER.at` names the photo it is on: should the process die, the file stays and
says which photo it was.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import ShardError, SourceError
from ..files import final_names, with_final_name, write_csv, write_json
from ..shards.datum import encode
from ..shards.lmdb_shard import key, sha256_of, write_shard
from ..shards.records_csv import COLUMNS, listing_of
from ..sources.photo import LOST_ALONE, PARQUET, Photo, read_photo, stem_of
from .decode import PhotoError
from .known_anomalies import as_known
from .options import BuildOptions
from .prepared_cache import Spool
from .resize import Picture, prepare

_WNID_AT_END = re.compile(r"(?<=.)_n\d{8}$")  # Hugging Face's addition to ImageNet's names
MOST_BYTES = 1 << 29  # of one photo's file; ImageNet's largest has 15 MB


@dataclass(frozen=True)
class ShardJob:
    """One shard to be built: where from, where to, and its photos in key order."""

    root: Path
    out: Path
    split: str
    number: int
    photos: tuple[Photo, ...]
    options: BuildOptions

    @property
    def path(self) -> str:
        """The shard's folder, below out."""
        return f"{self.split}/{self.number:05d}.lmdb"

    @property
    def receipt(self) -> Path:
        """Written when the shard is durable."""
        return self.out / ".build" / f"{self.split}-{self.number:05d}.json"

    @property
    def at(self) -> Path:
        """Names the process and the photo it is on; gone when the shard is done."""
        return self.receipt.with_suffix(".at")


@dataclass
class _Account:
    """What became of the photos: every one of them is a row or a rejection."""

    rows: list[tuple] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    forms: Counter = field(default_factory=Counter)
    known: int = 0
    unlike: list[str] = field(default_factory=list)


def build_shard(job: ShardJob) -> dict:
    """Build one shard and its CSV, then leave the receipt.

    Returns:
        The receipt: records, bytes, sha256 and that of the CSV; the rejected photos with their reasons; forms, how many
        photos were what by their content; known, how many of ImageNet's known odd photos were as expected; unlike,
        which were not.
    Raises:
        ShardError: LMDB refused.
        NotWrittenError: the system refused a file.
        SourceError: the source cannot be read any more.
    """
    with with_final_name(job.out / job.path):
        return _build_shard(job)


def _build_shard(job: ShardJob) -> dict:
    account = _Account()
    handle = os.open(job.at, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        written = write_shard(job.out / job.path, _values(job, account, handle))
    except ShardError as error:  # of the file that it wrote beside, under a name that is gone by now
        raise type(error)(final_names(error.message), error.hint) from None
    finally:
        os.close(handle)
    write_csv(listing_of(job.out / job.path), COLUMNS, account.rows)
    receipt = {
        **asdict(written),
        "csv_sha256": sha256_of(listing_of(job.out / job.path)),
        "rejected": account.rejected,
        "forms": dict(sorted(account.forms.items())),
        "known": account.known,
        "unlike": account.unlike,
    }
    write_json(job.receipt, receipt)
    job.at.unlink(missing_ok=True)
    return receipt


def at_work(out: Path) -> dict[int, str]:
    """Of the processes that were building and did not finish: process id, and the photo each was on."""
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
            picture = spool.picture(photo) if photo.archive.endswith(PARQUET) else read_and_prepare(job, photo)
        except PhotoError as error:
            account.rejected.append((photo.path, str(error)))
            continue
        index = len(account.rows)
        account.rows.append((key(index).decode(), photo.label, photo.path, picture.source_width, picture.source_height))
        account.forms[picture.form] += 1
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


def read_and_prepare(job: ShardJob, photo: Photo) -> Picture:
    """Read a photo and make the stored picture.

    Raises:
        PhotoError: this photo cannot enter the set: it is rejected.
        SourceError: the source cannot be read any more: the build stops, and goes on when it can.
    """
    if photo.bytes > MOST_BYTES:
        raise PhotoError(f"{photo.bytes:,} bytes are more than {MOST_BYTES:,}")
    try:
        data = read_photo(job.root, photo)
    except OSError as error:
        if error.errno in LOST_ALONE and os.path.isdir(job.root):
            raise PhotoError(os.strerror(error.errno)) from None
        # A disk that fails or a share that is gone would reject every photo to come.
        raise SourceError(
            f"{job.root / photo.path}: {error.strerror or error}",
            "when the photos can be read again, run the same command: it goes on where it stopped",
        ) from None
    return prepare(data, **job.options.of_a_picture())
