"""How `alexnet-bench` measures: cases in turn, round after round, so that all of them meet the same machine.

In:  cases, each a function that does some images.  Out: rows of images a second, median and spread, for people and as
JSON, with machine and versions.
"""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from ...pipeline.workers import available_cores

PACKAGES = (
    *("alexnet-dali", "nvidia-dali-cuda120", "nvidia-dali-cuda130", "torch", "torchvision", "lmdb", "numpy", "scipy"),
    *("opencv-python-headless", "pillow", "simplejpeg", "ffcv", "webdataset", "litdata", "mosaicml-streaming"),
)


@dataclass(frozen=True)
class Row:
    """One case, as a bench's JSON has it.

    Attributes:
        case: its name.
        images_per_second: the median of the rounds.
        min, max: of the rounds.
        peak_bytes: resident memory of the largest process at its peak, 0 where it was not looked at.
    """

    case: str
    images_per_second: float
    min: float
    max: float
    peak_bytes: int = 0


def rounds(cases: dict[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Run every case once to warm up, then `repeats` times in turn; images a second by case and round.

    Each case returns the number of images it did.
    """
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(repeats + 1):
        for name, case in cases.items():
            began = time.perf_counter()
            images = case()
            rate = images / (time.perf_counter() - began)
            if number:
                rates[name].append(rate)
            click.echo(f"{'round ' + str(number) if number else 'warm-up'}: {name} {rate:,.0f} images/s", err=True)
    return rates


def row(case: str, rates: list[float], peak_bytes: int = 0) -> Row:
    """The rounds of a case as one row."""
    return Row(case, statistics.median(rates), min(rates), max(rates), peak_bytes)


def ratio(rates: list[float], to: list[float]) -> float:
    """The median over the rounds of one case's rate to another's in the same round."""
    return statistics.median(one / other for one, other in zip(rates, to, strict=True))


def table(rows: list[Row], columns: dict[str, dict[str, float]]) -> str:
    """Rows for a terminal, with further columns of ratios by case."""
    width = max(len(one.case) for one in rows)
    lines = [
        "  ".join([f"{'case':<{width}}", f"{'images/s':>9}", f"{'min':>7}", f"{'max':>7}", *columns])
        + ("  peak a process" if any(one.peak_bytes for one in rows) else "")
    ]
    for one in rows:
        cells = [f"{one.case:<{width}}", f"{one.images_per_second:9,.0f}", f"{one.min:7,.0f}", f"{one.max:7,.0f}"]
        for name, values in columns.items():
            cells.append(f"{values[one.case]:{len(name)}.2f}" if one.case in values else " " * len(name))
        lines.append("  ".join(cells) + (f"  {one.peak_bytes / 1e6:7.0f} MB" if one.peak_bytes else ""))
    return "\n".join(lines)


def as_json(rows: list[Row]) -> list[dict]:
    """Rows as scripts rely on them."""
    return [asdict(one) for one in rows]


def peak_of(process: int) -> int:
    """The most memory that a living process has held, in bytes."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def machine() -> str:
    """Processor, cores, system and the versions of what is measured, in two lines."""
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return (
        f"{model}, {available_cores()} cores, {memory:.0f} GiB; {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}\n{', '.join(found)}"
    )
