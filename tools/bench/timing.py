"""The measurements of `alexnet-bench`: interleaved rounds, so that a slow spell of the machine affects all cases alike.

In:  cases, each a function that processes some images.  Out: images per second, median and spread, as a table and as
JSON, with machine and versions.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from ...pipeline.errors import UsageError
from ...pipeline.versions import installed_versions
from ...pipeline.workers import available_cores

PACKAGES = (
    *("alexnet-dali", "nvidia-dali-cuda120", "nvidia-dali-cuda130", "torch", "torchvision", "lmdb", "numpy", "scipy"),
    *("opencv-python-headless", "pillow", "simplejpeg", "ffcv", "numba", "webdataset", "litdata", "mosaicml-streaming"),
    *("torchcodec", "spdl", "grain", "array-record", "pylance", "pyarrow"),
)


@dataclass(frozen=True)
class Row:
    """The result of one case, with the keys of the JSON file.

    Attributes:
        case: its name.
        images_per_second: the median of the rounds.
        min, max: of the rounds, images per second.
        peak_bytes: peak resident memory of the largest process; 0 if not measured.
    """

    case: str
    images_per_second: float
    min: float
    max: float
    peak_bytes: int = 0


def rounds(cases: dict[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Run all cases in turn, one warm-up round and `repeats` measured rounds.

    Args:
        cases: functions that return the number of images processed, by name.
    Returns:
        Images per second by case, one for each measured round.
    """
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(repeats + 1):
        for name, case in cases.items():
            started = time.perf_counter()
            images = case()
            rate = images / (time.perf_counter() - started)
            if number:
                rates[name].append(rate)
            show_round(number, name, rate)
    return rates


def show_round(number: int, case: str, rate: float) -> None:
    """Print the result of a round on stderr; round 0 is the warm-up."""
    click.echo(f"{f'round {number}' if number else 'warm-up'}: {case} {rate:,.0f} images/s", err=True)


def pick(what: str, requested: str | None, names: Sequence[str]) -> list[str]:
    """Return the names in a comma-separated list, in the order of `names`; all for None.

    Args:
        what: the kind of name, for the message.
    Raises:
        UsageError: a name is unknown.
    """
    if requested is None:
        return list(names)
    wanted = [name.strip() for name in requested.split(",")]
    for name in wanted:
        if name not in names:
            raise UsageError(f"unknown {what} {name!r}", f"choose from {', '.join(names)}")
    return [name for name in names if name in wanted]


def row(case: str, rates: list[float], peak_bytes: int = 0) -> Row:
    """Summarise the rounds of a case."""
    return Row(case, statistics.median(rates), min(rates), max(rates), peak_bytes)


def ratio(rates: list[float], to: list[float]) -> float:
    """Return the median over the rounds of the ratio of two cases' rates in the same round."""
    return statistics.median(one / other for one, other in zip(rates, to, strict=True))


def table(rows: list[Row], columns: dict[str, dict[str, float]]) -> str:
    """Format rows as a text table, with further columns of ratios by case."""
    width = max(len(one.case) for one in rows)
    lines = [
        "  ".join([f"{'case':<{width}}", f"{'images/s':>9}", f"{'min':>7}", f"{'max':>7}", *columns])
        + ("  peak/process" if any(one.peak_bytes for one in rows) else "")
    ]
    for one in rows:
        cells = [f"{one.case:<{width}}", f"{one.images_per_second:9,.0f}", f"{one.min:7,.0f}", f"{one.max:7,.0f}"]
        for name, values in columns.items():
            cells.append(f"{values[one.case]:{len(name)}.2f}" if one.case in values else " " * len(name))
        lines.append("  ".join(cells) + (f"  {one.peak_bytes / 1e6:7.0f} MB" if one.peak_bytes else ""))
    return "\n".join(lines)


def as_json(rows: list[Row]) -> list[dict]:
    """Return rows as JSON objects; scripts rely on their keys."""
    return [asdict(one) for one in rows]


def peak_of(process: int) -> int:
    """Return the peak resident memory of a running process in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def machine() -> str:
    """Describe processor, cores, system and the versions of the measured software, in two lines."""
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = [f"{name} {version}" for name, version in installed_versions(PACKAGES).items()]
    return (
        f"{model}, {available_cores()} cores, {memory:.0f} GiB; {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}\n{', '.join(versions)}"
    )
