"""The same crops in every loader's form: what `alexnet-bench loader` lays out before it measures.

In:  a shard set of 256x256 JPEG records.  Out: below one folder, of the train split's first shards,

    jpeg/   the set itself, its shards linked, with statistics
    raw/    its records decoded once: the same pixels, nothing lost since
    files/  the JPEG files in class folders, byte for byte, for ImageFolder
    tars/   the same files in tars, for webdataset

A shard is a random sample of all classes, so the first few are one too. FFCV's, LitData's and MosaicML's forms are
written by their own programs (rival_*.py).
"""

import os
import shutil
from collections.abc import Iterator
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
EXPORTS = {"files": "folder", "tars": "webdataset"}  # what pipeline/shards/export.py calls them


def open_crops(root: Path, crop: int) -> ShardSet:
    """Open a set that the benchmark can use.

    Raises:
        UsageError: it is not of JPEG squares, or they are no larger than the crop.
        ShardError: it has no records to train on.
    """
    shard_set = open_shard_set(root)
    if shard_set.encoding != "jpeg" or shard_set.fit != "crop" or shard_set.size <= crop:
        raise UsageError(
            f"{root}: records of --encoding {shard_set.encoding} --fit {shard_set.fit} --size {shard_set.size}, but "
            f"loaders are compared on JPEG squares larger than {crop}",
            "build a set with alexnet-prep build-lmdb and its defaults; the bench makes the raw form itself",
        )
    shard_set.split(SPLIT)
    return shard_set


def lay_out(shard_set: ShardSet, folder: Path, records: int, forms: set[str], pool: Executor) -> ShardSet:
    """Write the forms that are asked for; `jpeg` always.

    Args:
        records: as many whole shards as hold this many.
    Returns:
        The set of `jpeg`.
    Raises:
        UsageError: no room for it.
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
    """The payload and the label of every record, in order."""
    for path, file in shard_set.split(SPLIT).shards:
        shard = Shard(path, file)
        for index in range(file.records):
            record = datum.parse(shard.value(index))
            yield record.data, record.label


def data_files(shard_set: ShardSet) -> list[Path]:
    """The files that hold a set's records."""
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
    """Write the dataset.json of a form that has these shards, and open it."""
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
    """Decode a shard; runs in any process."""
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
    # Every form once more for a program that writes beside; FFCV's two raw cases share a file.
    needed = 2 * small * len(forms - {"raw"}) + 2 * large * ("raw" in forms)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"{folder}: the forms of {split.records:,} records need {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free",
            "measure fewer with --records or --cases, or set TMPDIR to a larger disk",
        )
