"""Which decoder is faster with this GPU, DALI or threads: both are measured on the first batches of the run.

In:  a function that makes a stream.  Out: the faster decoder's name, and a sentence with the measurement.
The measured batches are discarded, and the run starts at its first batch with one decoder for all of it. So the choice
changes no batch; but on a GPU, whose decoder rounds differently, a resumed run has to use the same decoder.
On the CPU nothing is measured (make_stream.py): threads are faster there, and fastest where no graph follows.
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

FUSED, THREADS, DALI = DECODERS = ("fused", "threads", "dali")
WARM_UP, MEASURED = 3, 8  # batches with each decoder
LONGEST_SECONDS = 2.0  # of measuring each

_known: dict[Hashable, tuple[str, str]] = {}


def check(decode: str) -> None:
    """Check the name of a decoder.

    Raises:
        UsageError: it is neither `auto` nor one of `DECODERS`.
    """
    if decode not in ("auto", *DECODERS):
        raise UsageError(f"unknown decoder {decode!r}", "choose auto, fused, threads or dali")


def pick_decoder(
    make: "Callable[[str], Stream]", key: Hashable, feed: RecordReader, records: Iterable[np.ndarray]
) -> tuple[str, str]:
    """Measure `threads` and `dali`, once for each `key` in this process.

    Args:
        make: makes the run's stream with a decoder, from its first batch on.
        feed: of the split; closed here.
        records: of the first batches, int64 (n,) each: read into memory first, so that the disk is not measured.
    Returns:
        the faster decoder, and a sentence with images a second; empty where there are too few batches to measure.
    Raises:
        Exception: that of the first decoder, where neither works.
    """
    if key not in _known:
        with closing(feed), closing(ReadAhead(feed)) as reader:
            for reading in [reader.want(batch) for batch in islice(records, WARM_UP + MEASURED)]:
                reading.result()
        tried = {name: _rate(make, name) for name in (THREADS, DALI)}
        rates = {name: rate for name, rate in tried.items() if not isinstance(rate, Exception)}
        failed = {name: error for name, error in tried.items() if isinstance(error, Exception)}
        if not rates:
            raise failed[THREADS]
        best = max(rates, key=lambda name: rates[name])  # the first where they are equal
        for name, error in failed.items():
            _known[key] = best, f"decode {best}: {name} failed: {_in_one_line(error)}"
            return _known[key]
        if not all(rates.values()):
            return best, ""
        found = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
        _known[key] = best, f"decode {best}: images/s of the first batches: {found}"
    return _known[key]


def _rate(make: "Callable[[str], Stream]", decode: str) -> float | Exception:
    """Images a second of the first batches, 0 where there are too few; or the error of this decoder."""
    try:
        with make(decode) as stream:
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


def _in_one_line(error: Exception) -> str:
    name = "" if isinstance(error, AlexnetError) else f"{type(error).__name__}: "
    return name + " ".join(str(error).split())[:300]
