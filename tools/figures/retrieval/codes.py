"""`alexnet-figures codes`: short binary codes for the vectors of an index, their recall and their speed.

    RUN/index/codes.npy     uint8 (records, bits / 8), in the order of the index
    RUN/index/encoder.pt    the encoder's mean and weight: tensors only, no code
    RUN/index/codes.json    the index they belong to, and the measurements; written last

In:  a run's index, and photos of a split as queries.  Out: these files, three lines.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from ....model.analysis import features
from ....model.analysis.hash_codes import Encoder, train
from ....model.analysis.nearest import among, columns_of, nearest, nearest_codes
from ....pipeline.errors import TrainingError, UsageError
from ....pipeline.files import locked, write_atomically, write_json
from ... import console, options
from ...process import keep_memory
from .. import open_run
from ..open_run import Opened
from . import vectors
from .vectors import Index

CODES, ENCODER, ABOUT = "codes.npy", "encoder.pt", "codes.json"
FORMAT, VERSION = "alexnet-dali codes", 2
QUERIES, NEAREST, REORDERED = 1000, 10, 100
# Queries are timed one by one, as `search` runs them; an exact search reads the whole index, 21 GB for ImageNet.
TIMED, TIMED_EXACTLY, ROUNDS = 10, 1, 3  # queries per round; rounds, of which the median is reported


@dataclass(frozen=True)
class StoredCodes:
    """Codes that match an index, uint8 (records, bits / 8), and the encoder that makes a query's code."""

    codes: np.ndarray
    encoder: Encoder


@dataclass(frozen=True)
class Measured:
    """Recall and speed of the codes, compared with the exact search.

    Attributes:
        queries: number of query photos.
        recall_at_10: share of the exact ten nearest photos among the codes' ten nearest, 0..1.
        recall_reordered: the same after the codes' best 100 are reranked by their vectors.
        exact_ms, codes_ms, reordered_ms: milliseconds per query, the median of the rounds.
        times_faster, times_faster_reordered: speedup over the exact search, the median of the rounds' ratios.
        bytes_a_photo, bytes_a_vector: size of a code, and of the vector it replaces.
    """

    queries: int
    recall_at_10: float
    recall_reordered: float
    exact_ms: float
    codes_ms: float
    reordered_ms: float
    times_faster: float
    times_faster_reordered: float
    bytes_a_photo: int
    bytes_a_vector: int


@click.command(context_settings=options.SETTINGS)
@open_run.RUN
@click.option("--bits", type=int, default=128, show_default=True, help="Bits per code, a multiple of 8.")
@click.option(
    "--epochs", type=click.IntRange(0), default=10, show_default=True, help="Epochs of auto-encoder training."
)
@options.seed("Seed of the training.")
@options.run_shards
@open_run.SPLIT
@options.index_folder
@options.device
def codes(run, bits, epochs, seed, shards, split, index_folder, device):
    """Train an auto-encoder that compresses the index of RUN to binary codes of --bits bits, and measure the codes.

    Up to 1,000 photos of --split are the queries: printed are the recall of their ten nearest photos and the speedup
    over the exact search. Then search --codes uses the codes.

    \b
    Example:
      alexnet-figures codes runs/source2012 --bits 256
    """
    keep_memory()
    opened = open_run.open_run(run, shards, device, other_classes=True)
    index = vectors.open_index(opened, index_folder)
    opened.shard_set.split(split)  # raises before the training if the split does not exist
    with console.progress("training the codes", epochs, "epochs") as advance:
        encoder, unexplained = train(index.vectors, bits, epochs=epochs, seed=seed, advance=advance)
    stored = StoredCodes(encoder.encode(index.vectors), encoder)
    about = {"bits": bits, "epochs": epochs, "seed": seed, "unexplained": round(unexplained, 6), "split": split}
    written = write_codes(index, stored, about)  # first: a failed measurement does not lose them
    queries = features.of_split(opened.trained, opened.shard_set, split, device=opened.device, first=QUERIES)
    measured = measure(index.vectors, stored, np.concatenate([batch.vectors for batch in queries]))
    add_measured(index, written, measured)
    for line in _lines(index, measured, bits, split):
        click.echo(line)


def measure(
    base: np.ndarray, stored: StoredCodes, queries: np.ndarray, clock: Callable[[], float] = time.perf_counter
) -> Measured:
    """Search with the codes and with the vectors for the same queries, and compare.

    Args:
        base: float32 (n, dimensions), may be memory-mapped.
        queries: float32 (q, dimensions).
        clock: returns seconds.
    """
    columns, encoder = columns_of(stored.codes), stored.encoder
    exact = nearest(base, queries, NEAREST)[0]
    near = nearest_codes(columns, encoder.encode(queries), REORDERED)[0]
    reranked = [among(base, query, some, NEAREST)[0] for query, some in zip(queries, near, strict=True)]

    def by_codes(query: np.ndarray, count: int = NEAREST) -> np.ndarray:
        return nearest_codes(columns, encoder.encode(query[None]), count)[0][0]

    searches: tuple[tuple[Callable[[np.ndarray], Any], int], ...] = (
        (lambda query: nearest(base, query[None], NEAREST), TIMED_EXACTLY),
        (by_codes, TIMED),
        (lambda query: among(base, query, by_codes(query, REORDERED), NEAREST), TIMED),
    )
    rounds: list[list[float]] = []
    for _ in range(ROUNDS):  # interleaved, so that a slow spell of the machine affects all three alike
        rounds.append([])
        for search, most in searches:
            started = clock()
            for query in queries[:most]:
                search(query)
            rounds[-1].append((clock() - started) / len(queries[:most]))
    exact_ms, codes_ms, reordered_ms = (1000 * statistics.median(one[k] for one in rounds) for k in range(3))
    return Measured(
        len(queries),
        _recall(exact, near[:, :NEAREST]),
        _recall(exact, reranked),
        exact_ms,
        codes_ms,
        reordered_ms,
        statistics.median(one[0] / one[1] for one in rounds),
        statistics.median(one[0] / one[2] for one in rounds),
        stored.codes.shape[1],
        base.shape[1] * base.itemsize,
    )


def rerank(index: Index, stored: StoredCodes, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Find the nearest photos by vector among those with the best codes: 10 * count candidates, at least 100.

    Args:
        queries: float32 (q, dimensions).
    Returns:
        Record numbers int64 and distances float64, (q, min(count, n)) each; the number of candidates.
    """
    most = max(REORDERED, REORDERED // NEAREST * count)
    near = nearest_codes(columns_of(stored.codes), stored.encoder.encode(queries), most)[0]
    found = [among(index.vectors, query, some, count) for query, some in zip(queries, near, strict=True)]
    indices, distances = (np.stack(one) for one in zip(*found, strict=True))
    return indices, distances, near.shape[1]


def write_codes(index: Index, stored: StoredCodes, about: dict) -> dict:
    """Write codes beside their index; return the content of codes.json."""
    folder = index.folder
    with locked(folder):
        (folder / ABOUT).unlink(missing_ok=True)  # first: without it the other files are not codes of this index
        write_atomically(folder / CODES, lambda file: np.save(file, stored.codes, allow_pickle=False))
        layers = {"mean": stored.encoder.mean, "weight": stored.encoder.weight}
        write_atomically(folder / ENCODER, lambda file: torch.save(layers, file))
        sums = {f"{name}_sha256": _sha256(folder / name) for name in (CODES, ENCODER)}
        of = {name: index.about[name] for name in (*vectors.IDENTITY, "checkpoint", "shards")}  # paths: for messages
        written = {"format": FORMAT, "version": VERSION, **about, "index": of, **sums}
        write_json(folder / ABOUT, written)
    return written


def add_measured(index: Index, written: dict, measured: Measured) -> None:
    """Add the measurements to codes.json, unless another process has replaced the codes."""
    path = index.folder / ABOUT
    with locked(index.folder):
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) == written:
            write_json(path, {**written, **asdict(measured)})


def open_codes(opened: Opened, index: Index) -> StoredCodes:
    """Read the codes beside an index.

    Raises:
        UsageError: there are no codes.
        TrainingError: they belong to another index, or are damaged.
    """
    folder = index.folder
    default = vectors.folder_of(opened, None)
    command = f"alexnet-figures codes {opened.run}" + ("" if folder == default else f" --index {folder}")
    if not (folder / ABOUT).exists():
        raise UsageError(f"{folder}: no codes found ({ABOUT} is missing)", f"create them with: {command}")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["format"] != FORMAT or about["version"] != VERSION:
            raise ValueError(f"format {about['format']!r}, version {about['version']!r}")
        of = dict(about["index"])
        for name in (CODES, ENCODER):
            if _sha256(folder / name) != about[f"{name}_sha256"]:
                raise ValueError(f"the checksum of {name} does not match")
        layers = torch.load(folder / ENCODER, map_location="cpu", weights_only=True)
        stored = StoredCodes(np.load(folder / CODES, allow_pickle=False), Encoder(layers["mean"], layers["weight"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder / ABOUT}: its codes are missing or damaged: {error}"
        raise TrainingError(message, f"rebuild them with: {command}") from None
    other = [label for name, label in vectors.IDENTITY.items() if of.get(name) != index.about[name]]
    if other:
        built = f"the codes were built from {of.get('checkpoint')} and {of.get('shards')}"
        message = f"{folder / CODES}: codes of another index, with other {' and '.join(other)} ({built})"
        raise TrainingError(message, f"rebuild them with: {command}")
    return stored


def _recall(exact, found) -> float:
    """Return the mean share of the exact nearest photos that were found, 0..1."""
    each = [len(np.intersect1d(one, other)) / len(one) for one, other in zip(exact, found, strict=True)]
    return float(np.mean(each))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lines(index: Index, measured: Measured, bits: int, split: str) -> list[str]:
    one = measured
    return [
        f"{index.folder / CODES}: {len(index.vectors):,} codes of {bits} bits, {one.bytes_a_photo} bytes per photo "
        f"instead of {one.bytes_a_vector:,}",
        f"recall at {NEAREST}, {one.queries:,} photos of {split}: codes only {100 * one.recall_at_10:.1f}%, their "
        f"best {REORDERED} reranked by vectors {100 * one.recall_reordered:.1f}%",
        f"time per query: exact {one.exact_ms:.2f} ms, codes {one.codes_ms:.3f} ms ({one.times_faster:,.0f} times as "
        f"fast), reranked {one.reordered_ms:.2f} ms ({one.times_faster_reordered:,.0f} times as fast)",
    ]
