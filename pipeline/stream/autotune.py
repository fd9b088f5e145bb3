"""Who decodes faster on this machine, DALI or threads: both are tried on the first batches of the run.

In:  a way to make a stream.  Out: the faster way's name, and a sentence that says so.
A rehearsal: what it reads is thrown away, and the run begins at its own beginning with one decoder to its end. So the
choice changes no batch; on a GPU, whose decoder rounds otherwise, it has to be the same when a run is resumed.
"""

import time
from collections.abc import Callable, Hashable, Iterable
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ..errors import AlexnetError, UsageError
from .prefetch import ReadAhead
from .record_reader import RecordReader

if TYPE_CHECKING:  # the command line reads DECODERS and must not wait for torch and DALI
    from .stream import Stream

DECODERS = ("threads", "dali")
WARM_UP, MEASURED = 3, 8  # batches of each way
LONGEST_SECONDS = 2.0  # of measuring each

_known: dict[Hashable, tuple[str, str]] = {}


def check(decode: str) -> None:
    """Refuse what is no way of decoding.

    Raises:
        UsageError: with what can be chosen.
    """
    if decode not in ("auto", *DECODERS):
        raise UsageError(f"nobody decodes by {decode!r}", "choose auto, threads or dali")


def pick_decoder(
    make: "Callable[[str], Stream]", key: Hashable, feed: RecordReader, records: Iterable[np.ndarray]
) -> tuple[str, str]:
    """Measure both ways, once for each `key` in this process.

    Args:
        make: makes the run's stream in a way, from its first batch on.
        feed: of the split; it is closed.
        records: of the first batches, int64 (n,) each: brought into memory first, so that none pays for the disk.
    Returns:
        the way, and a sentence; the sentence is empty where too little was there to measure.
    Raises:
        what the first way raised, where none works.
    """
    if key not in _known:
        with closing(feed), closing(ReadAhead(feed)) as reader:
            for reading in [reader.want(batch) for batch in islice(records, WARM_UP + MEASURED)]:
                reading.result()
        tried = {way: _rate(make, way) for way in DECODERS}
        rates = {way: rate for way, rate in tried.items() if not isinstance(rate, Exception)}
        failed = {way: error for way, error in tried.items() if isinstance(error, Exception)}
        if not rates:
            raise failed[DECODERS[0]]
        best = max(rates, key=lambda way: rates[way])  # of equals the first
        for way, error in failed.items():
            _known[key] = best, f"decode {best}: {way} failed: {_told(error)}"
            return _known[key]
        if not all(rates.values()):
            return best, ""
        found = ", ".join(f"{way} {rate:,.0f}" for way, rate in rates.items())
        _known[key] = best, f"decode {best}: images/s of the first batches here: {found}"
    return _known[key]


def _rate(make: "Callable[[str], Stream]", way: str) -> float | Exception:
    """Images a second of the first batches, 0 where there are too few; or why this way does not work."""
    try:
        with make(way) as stream:
            for _ in islice(stream, WARM_UP):
                pass
            stream.synchronize()
            began, images = time.perf_counter(), 0
            for batch in islice(stream, MEASURED):
                images += len(batch.records)
                if time.perf_counter() - began > LONGEST_SECONDS:
                    break
            stream.synchronize()
            return images / (time.perf_counter() - began)
    except Exception as error:
        return error


def _told(error: Exception) -> str:
    """An error in one line."""
    name = "" if isinstance(error, AlexnetError) else f"{type(error).__name__}: "
    return name + " ".join(str(error).split())[:300]
