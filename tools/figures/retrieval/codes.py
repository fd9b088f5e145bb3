"""`alexnet-figures codes`: short binary codes of an index, and what is lost and won by searching among them.

    RUN/index/codes.npy     uint8 (records, bits / 8), in the order of the index
    RUN/index/encoder.pt    the encoder's mean and weight: tensors, nothing that runs
    RUN/index/codes.json    of which index they are, and what was measured; written last

In:  a run's index, and photos of a split to measure with.  Out: these files, a few lines.
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
from ... import console
from ...process import keep_memory
from .. import open_run
from ..open_run import Opened
from . import index as vectors
from .index import Index

CODES, ENCODER, ABOUT = "codes.npy", "encoder.pt", "codes.json"
FORMAT, VERSION = "alexnet-dali codes", 2
QUERIES, NEAREST, REORDERED = 1000, 10, 100
# Each is searched alone, as `search` does; an exact search reads the whole index, 21 GB of ImageNet.
TIMED, TIMED_EXACTLY, ROUNDS = 10, 1, 3  # queries of a round; rounds, of which the median counts


@dataclass(frozen=True)
class StoredCodes:
    """Codes that were checked to be of an index: uint8 (records, bits / 8), and what makes a query's."""

    codes: np.ndarray
    encoder: Encoder


@dataclass(frozen=True)
class Measured:
    """What the codes keep of the exact answer, and how fast they are.

    Attributes:
        queries: photos that were asked about.
        recall_at_10: share of the exact ten nearest that is among the codes' ten, 0..1.
        recall_reordered: the same where the codes' best 100 are put in order by their vectors.
        exact_ms, codes_ms, reordered_ms: milliseconds a query, the median of the rounds.
        times_faster, times_faster_reordered: than the exact search, the median of each round's ratio.
        bytes_a_photo, bytes_a_vector: of a code, and of what it stands for.
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


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@open_run.RUN
@click.option("--bits", type=int, default=128, show_default=True, help="Of a code, a multiple of 8.")
@click.option("--epochs", type=click.IntRange(0), default=10, show_default=True, help="Of training the auto-encoder.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of training.")
@open_run.SHARDS
@open_run.SPLIT
@click.option("--index", "index_folder", type=open_run.FOLDER, help="The index.  [default: RUN/index]")
@open_run.DEVICE
def codes(run, bits, epochs, seed, shards, split, index_folder, device):
    """Train an auto-encoder that compresses the index of RUN to codes of so many bits; measure them.

    The photos of --split, a thousand at most, ask for their ten nearest: said is how many of the exact ten the codes
    find, and how much faster. search --codes uses them then.

    \b
    Example:
      alexnet-figures codes runs/source2012 --bits 256
    """
    keep_memory()
    opened = open_run.open_run(run, shards, device)
    index = vectors.open_index(opened, index_folder)
    opened.shard_set.split(split)  # says so where there is none
    with console.progress("training the codes", epochs, "epochs") as advance:
        encoder, unexplained = train(index.vectors, bits, epochs=epochs, seed=seed, advance=advance)
    stored = StoredCodes(encoder.encode(index.vectors), encoder)
    about = {"bits": bits, "epochs": epochs, "seed": seed, "unexplained": round(unexplained, 6), "split": split}
    written = write_codes(index, stored, about)  # first: they are of use whether or not they are measured
    asked = features.of_split(opened.trained, opened.shard_set, split, device=opened.device, first=QUERIES)
    measured = measure(index.vectors, stored, np.concatenate([batch.vectors for batch in asked]))
    add_measured(index, written, measured)
    for line in _lines(index, measured, bits, split):
        click.echo(line)


def measure(
    base: np.ndarray, stored: StoredCodes, queries: np.ndarray, clock: Callable[[], float] = time.perf_counter
) -> Measured:
    """Ask codes and vectors the same questions.

    Args:
        base: float32 (n, dimensions), may be memory-mapped.
        queries: float32 (q, dimensions).
    """
    columns, encoder = columns_of(stored.codes), stored.encoder
    exact = nearest(base, queries, NEAREST)[0]
    near = nearest_codes(columns, encoder.encode(queries), REORDERED)[0]
    again = [among(base, query, some, NEAREST)[0] for query, some in zip(queries, near, strict=True)]

    def by_codes(query: np.ndarray, count: int = NEAREST) -> np.ndarray:
        return nearest_codes(columns, encoder.encode(query[None]), count)[0][0]

    ways: tuple[tuple[Callable[[np.ndarray], Any], int], ...] = (
        (lambda query: nearest(base, query[None], NEAREST), TIMED_EXACTLY),
        (by_codes, TIMED),
        (lambda query: among(base, query, by_codes(query, REORDERED), NEAREST), TIMED),
    )
    rounds: list[list[float]] = []
    for _ in range(ROUNDS):  # in turn, so that all of them meet the same machine
        rounds.append([])
        for way, most in ways:
            started = clock()
            for query in queries[:most]:
                way(query)
            rounds[-1].append((clock() - started) / len(queries[:most]))
    exact_ms, codes_ms, reordered_ms = (1000 * statistics.median(one[way] for one in rounds) for way in range(3))
    return Measured(
        len(queries),
        _kept(exact, near[:, :NEAREST]),
        _kept(exact, again),
        exact_ms,
        codes_ms,
        reordered_ms,
        statistics.median(one[0] / one[1] for one in rounds),
        statistics.median(one[0] / one[2] for one in rounds),
        stored.codes.shape[1],
        base.shape[1] * base.itemsize,
    )


def put_in_order(
    index: Index, stored: StoredCodes, queries: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Find the nearest among the photos of the best codes, ten times as many as wanted and a hundred at least.

    Args:
        queries: float32 (q, dimensions).
    Returns:
        indices int64 and distances float64, (q, min(count, n)) each; how many were put in order.
    """
    most = max(REORDERED, REORDERED // NEAREST * count)
    near = nearest_codes(columns_of(stored.codes), stored.encoder.encode(queries), most)[0]
    found = [among(index.vectors, query, some, count) for query, some in zip(queries, near, strict=True)]
    indices, distances = (np.stack(one) for one in zip(*found, strict=True))
    return indices, distances, near.shape[1]


def write_codes(index: Index, stored: StoredCodes, about: dict) -> dict:
    """Put codes beside their index; return what codes.json says of them."""
    folder = index.folder
    with locked(folder):
        (folder / ABOUT).unlink(missing_ok=True)  # without it, what lies here is nobody's
        write_atomically(folder / CODES, lambda file: np.save(file, stored.codes, allow_pickle=False))
        layers = {"mean": stored.encoder.mean, "weight": stored.encoder.weight}
        write_atomically(folder / ENCODER, lambda file: torch.save(layers, file))
        sums = {f"{name}_sha256": _sha256(folder / name) for name in (CODES, ENCODER)}
        of = {name: index.about[name] for name in (*vectors.OF, "checkpoint", "shards")}  # the latter for people
        written = {"format": FORMAT, "version": VERSION, **about, "index": of, **sums}
        write_json(folder / ABOUT, written)
    return written


def add_measured(index: Index, written: dict, measured: Measured) -> None:
    """Add what was measured to what codes.json says, if it is still that of these codes."""
    path = index.folder / ABOUT
    with locked(index.folder):
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) == written:
            write_json(path, {**written, **asdict(measured)})


def open_codes(opened: Opened, index: Index) -> StoredCodes:
    """Read the codes beside an index.

    Raises:
        UsageError: there are none.
        TrainingError: they are of another index, or damaged.
    """
    folder = index.folder
    default = vectors.folder_of(opened, None)
    again = f"alexnet-figures codes {opened.run}" + ("" if folder == default else f" --index {folder}")
    if not (folder / ABOUT).exists():
        raise UsageError(f"{folder}: no codes there (no {ABOUT})", f"make them with: {again}")
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["format"] != FORMAT or about["version"] != VERSION:
            raise ValueError(f"format {about['format']!r}, version {about['version']!r}")
        of = dict(about["index"])
        for name in (CODES, ENCODER):
            if _sha256(folder / name) != about[f"{name}_sha256"]:
                raise ValueError(f"{name} is not what was written")
        layers = torch.load(folder / ENCODER, map_location="cpu", weights_only=True)
        stored = StoredCodes(np.load(folder / CODES, allow_pickle=False), Encoder(layers["mean"], layers["weight"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"{folder / ABOUT}: its codes are missing or damaged: {error}"
        raise TrainingError(said, f"make them again: {again}") from None
    other = [called for name, called in vectors.OF.items() if of.get(name) != index.about[name]]
    if other:
        made = f"they were made of {of.get('checkpoint')} and {of.get('shards')}"
        said = f"{folder / CODES}: codes of another index, of other {' and '.join(other)} ({made})"
        raise TrainingError(said, f"make them again: {again}")
    return stored


def _kept(exact, found) -> float:
    """The share of the exact answers that was found."""
    each = [len(np.intersect1d(one, other)) / len(one) for one, other in zip(exact, found, strict=True)]
    return float(np.mean(each))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lines(index: Index, measured: Measured, bits: int, split: str) -> list[str]:
    one = measured
    return [
        f"{index.folder / CODES}: {len(index.vectors):,} codes of {bits} bits, {one.bytes_a_photo} bytes a photo in "
        f"place of {one.bytes_a_vector:,}",
        f"recall at {NEAREST}, {one.queries:,} photos of {split}: codes alone {100 * one.recall_at_10:.1f}%, their "
        f"best {REORDERED} put in order by vectors {100 * one.recall_reordered:.1f}%",
        f"a query: exact {one.exact_ms:.2f} ms, codes {one.codes_ms:.3f} ms ({one.times_faster:,.0f} times as fast), "
        f"put in order {one.reordered_ms:.2f} ms ({one.times_faster_reordered:,.0f} times)",
    ]
