"""`alexnet-figures index`: the training photos' vectors of a run, written once, for search and neighbours."""

import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import simplejpeg

from ....model.analysis import features
from ....model.weights.trained import Trained
from ....pipeline.errors import ShardError, TrainingError, UsageError
from ....pipeline.files import locked, sync_folder, write_json
from ....pipeline.shards.lmdb_shard import repair_hint
from ....pipeline.shards.manifest import ShardSet, Split
from ....pipeline.shards.records_csv import Row, listing_of, read_listing
from ....pipeline.stream.record_reader import RecordReader
from ... import console
from ...process import keep_memory
from .. import open_run
from ..open_run import Opened

FORMAT, VERSION = "alexnet-dali index", 1
SPLIT = "train"
VECTORS, ABOUT = "vectors.npy", "index.json"
BEGUN, PROGRESS = "begun.npy", "begun.json"
# What an index is of, and what that is called.
OF = {
    "weights_sha256": "weights",
    "split_fingerprint": "photos",
    "stats_fingerprint": "statistics",
    "crop": "crop",
    "mean": "mean",
}


@dataclass(frozen=True)
class Index:
    """Vectors that were checked to be of a run and its set.

    Attributes:
        folder: where they lie.
        vectors: float32 (records, dimensions), memory-mapped.
        about: index.json.
    """

    folder: Path
    vectors: np.ndarray
    about: dict


def folder_of(opened: Opened, named: Path | None) -> Path:
    """The index's folder: as named, else beside the run's checkpoints."""
    return named or (opened.run if opened.run.is_dir() else opened.run.parent) / "index"


def identity(opened: Opened) -> dict:
    """What an index is of: two that are equal hold equal vectors."""
    trained = opened.trained
    return {
        "weights_sha256": weights_sha256(trained),
        "split_fingerprint": opened.shard_set.split(SPLIT).fingerprint(),
        "stats_fingerprint": trained.stats.fingerprint,
        "crop": trained.recipe.crop,
        "mean": trained.recipe.mean,
    }


def weights_sha256(trained: Trained) -> str:
    """A digest of a net's weights, names and shapes included, wherever its checkpoint lies."""
    digest = hashlib.sha256()
    for name, tensor in trained.net.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    return digest.hexdigest()


def write_index(opened: Opened, folder: Path) -> bool:
    """Look at all training photos and write their vectors; nothing is done where they are there already.

    What was interrupted goes on with the first shard that was not whole, to the same vectors.

    Returns:
        Whether anything was written.
    Raises:
        UsageError, ShardError, TrainingError: see model/analysis/features.py; or another process writes there.
    """
    records, own = opened.shard_set.split(SPLIT).records, identity(opened)
    versions = {name: importlib.metadata.version(name) for name in ("alexnet-dali", "torch", "numpy")}
    if (folder / ABOUT).exists() and _says(folder, own):
        try:
            _read(folder, records, opened)
            return False
        except TrainingError:
            pass  # damaged: written again
    with locked(folder):
        (folder / ABOUT).unlink(missing_ok=True)  # without it, what lies here is nobody's
        with console.progress("indexing", records) as advance:
            _look(opened, folder, {**own, "device": opened.device.type, "versions": versions}, advance)
        os.replace(folder / BEGUN, folder / VECTORS)
        sync_folder(folder)
        vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
        write_json(
            folder / ABOUT,
            {
                "format": FORMAT,
                "version": VERSION,
                "checkpoint": str(opened.trained.file),
                "shards": str(opened.shard_set.root),
                "split": SPLIT,
                "records": records,
                "dimensions": vectors.shape[1],
                "bytes": (folder / VECTORS).stat().st_size,
                **own,
                "versions": versions,
            },
        )
        (folder / PROGRESS).unlink()
    return True


def open_index(opened: Opened, named: Path | None = None) -> Index:
    """Open a run's index.

    Raises:
        UsageError: there is none.
        TrainingError: it is of another checkpoint, or damaged.
        ShardError: it is of another set.
    """
    folder, again = folder_of(opened, named), _again(opened, named)
    if not (folder / ABOUT).exists():
        raise UsageError(f"{folder}: no index there (no {ABOUT})", f"make it with: {again}")
    about, own = _about(folder, again), identity(opened)
    for names, kind, of in (
        (("weights_sha256", "crop", "mean", "stats_fingerprint"), TrainingError, opened.trained.file),
        (("split_fingerprint",), ShardError, opened.shard_set.root),
    ):
        if any(about.get(name) != own[name] for name in names):
            was = about.get("checkpoint" if kind is TrainingError else "shards")
            change = f"{of} as it is now" if str(was) == str(of) else f"{of} (it was made of {was})"
            raise kind(f"{folder}: not an index of {change}", f"make it again: {again}")
    return Index(folder, _read(folder, opened.shard_set.split(SPLIT).records, opened, named), about)


def rows_of(shard_set: ShardSet, split: str, records: np.ndarray) -> list[Row]:
    """Where photos came from, and their labels: of the shards that hold them, the CSVs are read, each once.

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
    """Stored pictures: uint8 (height, width, 3) each.

    Raises:
        ShardError: one is damaged; the message names it.
    """
    feed = RecordReader(shard_set, split)
    pictures = []
    for record, data in zip(records.tolist(), feed.read(records).data, strict=True):
        try:
            pictures.append(simplejpeg.decode_jpeg(data, colorspace="RGB") if feed.encoded else data.copy())
        except ValueError as error:
            raise ShardError(f"{feed.name(record)}: a damaged JPEG: {error}", feed.hint(record)) from None
    return pictures


def _look(opened: Opened, folder: Path, of: dict, advance: Callable[[int], object]) -> None:
    """Write the split's vectors as an .npy, a batch at a time: a large set's do not fit into memory.

    Args:
        of: what they are of; an interrupted file of the same is gone on with.
    """
    shard_set, split = opened.shard_set, opened.shard_set.split(SPLIT)
    done, end = _progress(folder, of)
    if not done:
        (folder / PROGRESS).unlink(missing_ok=True)  # of what is about to be overwritten
    advance(sum(file.records for _, file in split.shards[:done]))
    with open(folder / BEGUN, "r+b" if done else "wb") as file:
        file.truncate(end)
        file.seek(end)
        for number, shard in enumerate(split.shards[done:], done + 1):
            # A shard has a stream of its own, so that its batches are the same wherever a file was gone on with.
            alone = replace(shard_set, splits={SPLIT: Split(SPLIT, (shard,))})
            batches = features.of_split(opened.trained, alone, SPLIT, device=opened.device, decode="threads")
            for batch in batches if shard[1].records else ():
                if not file.tell():
                    shape = (split.records, batch.vectors.shape[1])
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(batch.vectors, "<f4").data)
                advance(len(batch.vectors))
            file.flush()
            os.fsync(file.fileno())
            write_json(folder / PROGRESS, {"of": of, "shards": number, "bytes": file.tell()})


def _progress(folder: Path, of: dict) -> tuple[int, int]:
    """How many shards an interrupted file holds, and where they end in it; 0 and 0 where there is none of the same."""
    try:
        begun = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        done, end = int(begun["shards"]), int(begun["bytes"])
        return (done, end) if begun["of"] == of and (folder / BEGUN).stat().st_size >= end else (0, 0)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def _says(folder: Path, own: dict) -> bool:
    try:
        about = _about(folder, "")
    except TrainingError:
        return False
    return all(about.get(name) == value for name, value in own.items())


def _about(folder: Path, again: str) -> dict:
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["format"] != FORMAT or about["version"] != VERSION:
            raise ValueError(f"format {about['format']!r}, version {about['version']!r}")
        return about
    except (ValueError, KeyError, TypeError) as error:
        said = f"{path}: not an index of ours: {type(error).__name__} {error}"
        raise TrainingError(said, f"make it again: {again}") from None


def _read(folder: Path, records: int, opened: Opened, named: Path | None = None) -> np.ndarray:
    path = folder / VECTORS
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        dimensions, size = (_about(folder, "")[name] for name in ("dimensions", "bytes"))
        if vectors.dtype != np.float32 or vectors.shape != (records, dimensions) or path.stat().st_size != size:
            raise ValueError(f"{vectors.dtype} {vectors.shape}, not float32 {(records, dimensions)}")
        return vectors
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise TrainingError(f"{path}: missing or damaged: {error}", f"make it again: {_again(opened, named)}") from None


def _again(opened: Opened, named: Path | None) -> str:
    """The command that makes a run's index."""
    trained_on = opened.trained.shards == opened.shard_set.root
    return (
        f"alexnet-figures index {opened.run}"
        + ("" if trained_on else f" --shards {opened.shard_set.root}")
        + (f" --out {named}" if named else "")
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@open_run.RUN
@click.option("--out", type=open_run.FOLDER, help="Folder of the index.  [default: RUN/index]")
@open_run.SHARDS
@open_run.DEVICE
def index(run, out, shards, device):
    """Write the last hidden layer's activities of each training photo of RUN: what search and neighbours look in.

    16 kB a photo in the net of 2012. Where they are there already, of this checkpoint and this set, nothing is done.

    \b
    Example:
      alexnet-figures index runs/source2012
    """
    keep_memory()
    opened = open_run.open_run(run, shards, device)
    folder = folder_of(opened, out)
    started = time.monotonic()
    written = write_index(opened, folder)
    about = open_index(opened, out).about
    click.echo(
        f"{folder / VECTORS}: {about['records']:,} vectors of {about['dimensions']:,} numbers, "
        f"{console.size(about['bytes'])}"
        + (f", in {console.duration(time.monotonic() - started)}" if written else "; up to date, nothing to do")
    )
