"""The same crops in the format of each loader, written before `alexnet-bench loader` measures.

In:  a shard set of 256x256 JPEG records.  Out: in one folder, from the first shards of the training split,

    jpeg/   the set itself, its shards linked, with statistics
    raw/    its records decoded: the same pixels
    files/  the JPEG files in class folders, byte for byte, for ImageFolder
    tars/   the same files in tar files, for WebDataset

A shard is a random sample of all classes, and so are the first few. The formats of FFCV, Grain, Lance, LitData and
MosaicML are written by their own programs (competitor_*.py), once for all processes that read them.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from ....pipeline.errors import ShardError, UsageError
from ....pipeline.files import write_json
from ....pipeline.shards import datum, stats
from ....pipeline.shards.datum import record_pixels
from ....pipeline.shards.export import export_shards
from ....pipeline.shards.lmdb_shard import Shard, ShardFile, write_shard
from ....pipeline.shards.manifest import MANIFEST, ShardSet, open_shard_set
from ....pipeline.shards.records_csv import listing_of

SPLIT = "train"
FORMS = ("jpeg", "raw", "files", "tars")
EXPORTS = {"files": "folder", "tars": "webdataset"}  # their names in pipeline/shards/export.py


def open_crops(root: Path, crop: int) -> ShardSet:
    """Open a set that the benchmark can use.

    Args:
        crop: side of the windows in pixels.
    Raises:
        UsageError: its records are not JPEG squares larger than the crop.
        ShardError: it has no training records.
    """
    shard_set = open_shard_set(root)
    if shard_set.encoding != "jpeg" or shard_set.fit != "crop" or shard_set.size <= crop:
        raise UsageError(
            f"{root}: built with --encoding {shard_set.encoding} --fit {shard_set.fit} --size {shard_set.size}, but "
            f"loaders are compared on JPEG squares larger than {crop}",
            "build a set with alexnet-prep build-lmdb and its defaults; the benchmark makes the raw pixels itself",
        )
    shard_set.split(SPLIT)
    return shard_set


def lay_out(shard_set: ShardSet, folder: Path, records: int, forms: set[str], pool: Executor) -> ShardSet:
    """Write the requested formats; `jpeg` always.

    Args:
        folder: an empty folder.
        records: least number of records; whole shards are taken.
        forms: names of FORMS.
    Returns:
        The shard set in `jpeg`.
    Raises:
        UsageError: the disk is too small.
    """
    chosen = _first_shards(shard_set, records)
    jpeg = folder / "jpeg"
    for path, _ in chosen:
        target = jpeg / path.relative_to(shard_set.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(path.absolute(), target)
        os.symlink(listing_of(path).absolute(), listing_of(target))
    crops = _describe(shard_set, jpeg, "jpeg", [file for _, file in chosen])
    _check_room(crops, folder, forms)
    measured = stats.measure_stats(crops, pool, SPLIT)
    stats.save_stats(measured, jpeg)
    if "raw" in forms:
        shards = crops.split(SPLIT).shards
        targets = [folder / "raw" / path.relative_to(jpeg) for path, _ in shards]
        files = list(pool.map(_write_raw, *zip(*shards, strict=True), targets))
        for (path, _), target in zip(shards, targets, strict=True):
            os.symlink(listing_of(path), listing_of(target))
        raw = _describe(shard_set, folder / "raw", "raw", files)
        stats.save_stats(replace(measured, fingerprint=raw.split(SPLIT).fingerprint()), raw.root)
    for form in sorted(forms & set(EXPORTS)):
        export_shards(crops, folder / form, EXPORTS[form], pool, splits=[SPLIT])
    return crops


def crops_of(shard_set: ShardSet) -> Iterator[tuple[memoryview, int]]:
    """Yield the payload and the label of every record, in order."""
    for path, file in shard_set.split(SPLIT).shards:
        shard = Shard(path, file)
        for index in range(file.records):
            record = datum.parse(shard.value(index))
            yield record.data, record.label


def write_once(target: Path, write: Callable[[Path], None]) -> Path:
    """Write a file or folder unless it exists; a second process waits for the first.

    Args:
        write: called with the path to write to, which then gets the name `target`.
    Returns:
        `target`.
    """
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            part = target.with_suffix(".part")
            write(part)
            part.rename(target)
    return target


def data_files(shard_set: ShardSet) -> list[Path]:
    """Return the files that contain a set's records."""
    return [path / "data.mdb" for path, _ in shard_set.split(SPLIT).shards]


def _first_shards(shard_set: ShardSet, records: int) -> list[tuple[Path, ShardFile]]:
    chosen, count = [], 0
    for path, file in shard_set.split(SPLIT).shards:
        if count >= records:
            break
        chosen.append((path, file))
        count += file.records
    return chosen


def _describe(shard_set: ShardSet, root: Path, encoding: str, files: list[ShardFile]) -> ShardSet:
    """Write the dataset.json of a set with these shards, and open the set."""
    manifest = dict(shard_set.manifest)
    shards = [
        {**entry, "records": file.records, "bytes": file.bytes, "sha256": file.sha256}
        for entry, file in zip(manifest["splits"][SPLIT]["shards"], files, strict=False)  # the first ones
    ]
    manifest["encoding"] = encoding
    manifest["splits"] = {SPLIT: {"records": sum(file.records for file in files), "shards": shards}}
    write_json(root / MANIFEST, manifest)
    return open_shard_set(root)


def _write_raw(path: Path, file: ShardFile, target: Path) -> ShardFile:
    """Decode a shard into another; runs in a worker process."""
    shard = Shard(path, file)

    def values() -> Iterator[bytes]:
        for index in range(file.records):
            value = shard.value(index)
            try:
                pixels = record_pixels(value)
            except ValueError as error:
                raise ShardError(
                    f"{path}, record {index}: {error}", "alexnet-prep verify finds what is damaged"
                ) from None
            height, width = pixels.shape[:2]
            label = datum.parse(value).label
            yield datum.encode(pixels.tobytes(), height=height, width=width, label=label, encoded=False)

    target.parent.mkdir(parents=True, exist_ok=True)
    return write_shard(target, values())


def _check_room(crops: ShardSet, folder: Path, forms: set[str]) -> None:
    split = crops.split(SPLIT)
    small = sum(file.bytes for _, file in split.shards)
    large = split.records * crops.size**2 * datum.CHANNELS
    # Every format several times: the other loaders' writers make copies. FFCV's two raw cases share a file.
    needed = 3 * small * len(forms - {"raw"}) + 2 * large * ("raw" in forms)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"{folder}: {split.records:,} records need {needed / 1e9:.1f} GB in all formats, but only "
            f"{free / 1e9:.1f} GB are free",
            "measure fewer with --records or --cases, or set TMPDIR to a larger disk",
        )
