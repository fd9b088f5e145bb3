"""The index of a run on disk: one vector for each training photo, the last hidden layer's activations.

    RUN/index/vectors.npy   float32 (records, dimensions), in the order of the training records
    RUN/index/index.json    which weights and photos it belongs to; written last
    RUN/index/begun.*       an unfinished index: the vectors so far, and how many shards they cover

In:  a run as opened.  Out: these files; an Index that matches the run and its shard set.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ....model.analysis import features
from ....model.weights.trained import Trained
from ....pipeline.errors import ShardError, TrainingError, UsageError
from ....pipeline.files import locked, sync_folder, write_json
from ....pipeline.shards.manifest import Split
from ....pipeline.versions import installed_versions
from ... import console
from ..open_run import Opened

FORMAT, VERSION = "alexnet-dali index", 1
SPLIT = "train"
VECTORS, ABOUT = "vectors.npy", "index.json"
PARTIAL, PROGRESS = "begun.npy", "begun.json"
# The keys that identify an index, and their names in error messages.
IDENTITY = {
    "weights_sha256": "weights",
    "split_fingerprint": "photos",
    "stats_fingerprint": "statistics",
    "crop": "crop",
    "mean": "mean",
}


@dataclass(frozen=True)
class Index:
    """Vectors that match a run and its shard set.

    Attributes:
        folder: that holds the files.
        vectors: float32 (records, dimensions), memory-mapped.
        about: the content of index.json.
    """

    folder: Path
    vectors: np.ndarray
    about: dict


def folder_of(opened: Opened, folder: Path | None) -> Path:
    """Return the index's folder: as given, else beside the run's checkpoints."""
    return folder or opened.folder / "index"


def identity(opened: Opened) -> dict:
    """Return the values that determine an index: equal values mean equal vectors."""
    trained = opened.trained
    return {
        "weights_sha256": weights_sha256(trained),
        "split_fingerprint": opened.shard_set.split(SPLIT).fingerprint(),
        "stats_fingerprint": trained.stats.fingerprint,
        "crop": trained.recipe.crop,
        "mean": trained.recipe.mean,
    }


def weights_sha256(trained: Trained) -> str:
    """Return a digest of a net's weights, their names and shapes; it does not depend on the checkpoint's path."""
    digest = hashlib.sha256()
    for name, tensor in trained.net.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    return digest.hexdigest()


def write_index(opened: Opened, folder: Path) -> bool:
    """Compute and write the vectors of all training photos; keep an existing index that matches.

    An interrupted call is continued from its first incomplete shard, with the same result.

    Returns:
        Whether anything was written.
    Raises:
        UsageError, ShardError, TrainingError: see model/analysis/features.py; or another process writes there.
    """
    records, own = opened.shard_set.split(SPLIT).records, identity(opened)
    versions = installed_versions(("alexnet-dali", "torch", "numpy"))
    if (folder / ABOUT).exists() and _matches(folder, own):
        try:
            _open_vectors(folder, records, opened)
            return False
        except TrainingError:
            pass  # damaged: write it again
    with locked(folder):
        (folder / ABOUT).unlink(missing_ok=True)  # first: without it the other files are not an index
        with console.progress("indexing", records) as advance:
            _write_vectors(opened, folder, {**own, "device": opened.device.type, "versions": versions}, advance)
        os.replace(folder / PARTIAL, folder / VECTORS)
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


def open_index(opened: Opened, folder: Path | None = None) -> Index:
    """Open a run's index.

    Args:
        folder: that holds it; None, the run's own.
    Raises:
        UsageError: there is no index.
        TrainingError: it belongs to another checkpoint, or is damaged.
        ShardError: it belongs to another shard set.
    """
    where, rebuild = folder_of(opened, folder), _rebuild_command(opened, folder)
    if not (where / ABOUT).exists():
        raise UsageError(f"{where}: no index found ({ABOUT} is missing)", f"create it with: {rebuild}")
    about, own = _read_about(where, rebuild), identity(opened)
    for names, error, source, key in (
        (("weights_sha256", "crop", "mean", "stats_fingerprint"), TrainingError, opened.trained.file, "checkpoint"),
        (("split_fingerprint",), ShardError, opened.shard_set.root, "shards"),
    ):
        if any(about.get(name) != own[name] for name in names):
            built = about.get(key)
            changed = f"{source} has changed since the index was built"
            other = f"the index was built from {built}, not from {source}"
            mismatch = changed if str(built) == str(source) else other
            raise error(f"{where}: {mismatch}", f"rebuild it with: {rebuild}")
    return Index(where, _open_vectors(where, opened.shard_set.split(SPLIT).records, opened, folder), about)


def _write_vectors(opened: Opened, folder: Path, own: dict, advance: Callable[[int], object]) -> None:
    """Write the split's vectors as an .npy file, a batch at a time: those of a large set do not fit into memory.

    Args:
        own: identifies the index; an unfinished file of the same index is continued.
    """
    shard_set, split = opened.shard_set, opened.shard_set.split(SPLIT)
    done, end = _progress(folder, own)
    if not done:
        (folder / PROGRESS).unlink(missing_ok=True)  # it describes the file that is about to be overwritten
    advance(sum(file.records for _, file in split.shards[:done]))
    with open(folder / PARTIAL, "r+b" if done else "wb") as file:
        file.truncate(end)
        file.seek(end)
        for number, shard in enumerate(split.shards[done:], done + 1):
            # One stream per shard: its batches, and so its vectors, do not depend on where the file was continued.
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
            write_json(folder / PROGRESS, {"of": own, "shards": number, "bytes": file.tell()})


def _progress(folder: Path, own: dict) -> tuple[int, int]:
    """Return the number of shards in an unfinished file of this index and where they end in it; else 0 and 0."""
    try:
        progress = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        done, end = int(progress["shards"]), int(progress["bytes"])
        return (done, end) if progress["of"] == own and (folder / PARTIAL).stat().st_size >= end else (0, 0)
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def _matches(folder: Path, own: dict) -> bool:
    try:
        about = _read_about(folder, "")
    except TrainingError:
        return False
    return all(about.get(name) == value for name, value in own.items())


def _read_about(folder: Path, rebuild: str) -> dict:
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["format"] != FORMAT or about["version"] != VERSION:
            raise ValueError(f"format {about['format']!r}, version {about['version']!r}")
        return about
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path}: not a valid index: {type(error).__name__} {error}"
        raise TrainingError(message, f"rebuild it with: {rebuild}") from None


def _open_vectors(folder: Path, records: int, opened: Opened, named: Path | None = None) -> np.ndarray:
    path = folder / VECTORS
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        dimensions, size = (_read_about(folder, "")[name] for name in ("dimensions", "bytes"))
        if vectors.dtype != np.float32 or vectors.shape != (records, dimensions) or path.stat().st_size != size:
            raise ValueError(f"{vectors.dtype} {vectors.shape}, not float32 {(records, dimensions)}")
        return vectors
    except (OSError, ValueError, KeyError, EOFError) as error:
        hint = f"rebuild it with: {_rebuild_command(opened, named)}"
        raise TrainingError(f"{path}: missing or damaged: {error}", hint) from None


def _rebuild_command(opened: Opened, folder: Path | None) -> str:
    """Return the command that writes this run's index."""
    trained_on = opened.trained.shards == opened.shard_set.root
    return (
        f"alexnet-figures index {opened.run}"
        + ("" if trained_on else f" --shards {opened.shard_set.root}")
        + (f" --out {folder}" if folder else "")
    )
