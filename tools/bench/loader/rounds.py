"""The rounds of `alexnet-bench loader`: all cases in turn, round after round; ours with a cold page cache.

In:  cases and the folder of crops.  Out: images per second by case and round; the failed cases and the reasons.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import click

from ....pipeline.errors import UsageError
from ....pipeline.shards.manifest import ShardSet, open_shard_set
from ....pipeline.workers import available_cores
from ... import console
from ..timing import ratio, show_round
from .cases import CASES, CROP, Case
from .data import SPLIT, data_files
from .page_cache import drop, sequential_rate
from .process import LoaderFailedError, LoaderProcess, lead_of

Rates = dict[str, list[float]]
T = TypeVar("T")
STAYED = 0.01  # share of a dropped set that may stay in memory without a remark


class Run:
    """The measurement of all cases over the prepared crops.

    Args:
        folder: of the crops in all formats.
        crops: the set in our format.
        batches: least number per round.
        workers: threads or processes of each loader.
        decode: decoder of our cases.

    Attributes:
        remarks: notes on the results, a line each.
        failed: the cases that failed.
    """

    def __init__(self, folder: Path, crops: ShardSet, batch_size: int, batches: int, workers: int, decode: str):
        self._folder, self._crops = folder, crops
        self._batch_size, self._batches, self._workers = batch_size, batches, workers
        self.remarks: list[str] = []
        self.failed: list[Case] = []
        self._decode = decode

    def __str__(self) -> str:
        split = self._crops.split(SPLIT)
        each = console.size(sum(file.bytes for _, file in split.shards) // split.records)
        workers = f"{self._workers} worker{'s' if self._workers > 1 else ''}"
        return (
            f"{split.records:,} crops of {self._crops.size}x{self._crops.size}, {each} as JPEG; "
            f"batches of {self._batch_size} windows of {CROP}x{CROP}; {workers}"
        )

    def warm(self, cases: Sequence[Case], repeats: int, seconds: float) -> Rates:
        """Measure with a warm page cache, all cases' processes at hand; each takes about 1 GB of memory.

        Args:
            seconds: least length of a round.
        Returns:
            The rates of the cases that did not fail, images per second.
        """
        processes: dict[str, LoaderProcess] = {}
        rates: Rates = {case.name: [] for case in cases}

        def start(case: Case) -> None:
            click.echo(f"starting {case.name}", err=True)
            process = self._try(case, self._process, case)
            if process is not None:
                processes[case.name] = process

        starting = ThreadPoolExecutor(available_cores())  # a start is mostly imports, in one thread
        try:
            list(starting.map(start, cases))
            for case in cases:
                if case.is_ours and case.name in processes:
                    process = processes[case.name]
                    self.remarks.append(f"{case.name}: {process.chosen or process.decode}")
            for number in range(1, repeats + 1):
                for case in cases:
                    if case.name not in processes:
                        continue
                    rate = self._try(case, processes[case.name].round, self._least(case), seconds)
                    if rate is None:
                        processes.pop(case.name).close()
                        continue
                    show_round(number, case.name, rate)
                    rates[case.name].append(rate)
        finally:
            starting.shutdown(cancel_futures=True)
            for process in processes.values():
                process.ask_to_exit()
            for process in processes.values():
                process.close()
        return {name: rates[name] for name in rates if name in processes}

    def fresh(self, cases: Sequence[Case], repeats: int, seconds: float) -> Rates:
        """Measure as `warm` does, but with a new process for each round, so that no round inherits another's state."""
        rates: Rates = {case.name: [] for case in cases}
        for number in range(1, repeats + 1):
            for case in cases:
                rate = self._try(case, self._once, case, self._least(case), seconds) if case.name in rates else None
                if rate is None:
                    rates.pop(case.name, None)
                    continue
                show_round(number, case.name, rate)
                rates[case.name].append(rate)
        return rates

    def cold(self, cases: Sequence[Case], repeats: int) -> Rates:
        """Measure with the set dropped from the page cache before each round, and measure the disk.

        Each round is a new process, because mapped pages cannot be dropped; it ends before a record is read twice.

        Returns:
            The rates as `NAME-cold`, and the sequential read rate as `disk-jpeg` or `disk-raw`, images per second.
        """
        forms = list(dict.fromkeys(case.form for case in cases))
        names = [f"disk-{form}" for form in forms] + [f"{case.name}-cold" for case in cases]
        rates: Rates = {name: [] for name in names}
        batches = min(self._batches, unread(self._crops.split(SPLIT).records, self._batch_size, self._workers))
        cases, stayed = list(cases), 0.0
        for number in range(1, repeats + 1):
            for form in forms:
                files, records = self._files(form)
                stayed = max(stayed, drop(files))
                rate = sequential_rate(files) * records / sum(path.stat().st_size for path in files)
                rates[f"disk-{form}"].append(rate)
                show_round(number, f"disk-{form}", rate)
            for case in list(cases):
                stayed = max(stayed, drop(self._files(case.form)[0]))
                cold = self._try(case, self._once, case, batches, 0.0)
                if cold is None:
                    del rates[f"{case.name}-cold"]
                    cases.remove(case)
                    continue
                rates[f"{case.name}-cold"].append(cold)
                show_round(number, f"{case.name}-cold", cold)
        if stayed > STAYED:
            self.remarks.append(f"not entirely cold: {stayed:.0%} of a set could not be dropped from memory")
        return rates

    def _least(self, case: Case) -> int:
        """Return the least batches of a round: half as many of photos, which take several times as long."""
        return -(-self._batches // 2) if case.form == "photos" else self._batches

    def _files(self, form: str) -> tuple[list[Path], int]:
        """Return the files of our set in a format, and its number of records."""
        shard_set = open_shard_set(self._folder / form)
        return data_files(shard_set), shard_set.split(SPLIT).records

    def _process(self, case: Case) -> LoaderProcess:
        return LoaderProcess(case.name, self._folder, self._batch_size, self._workers, self._decode)

    def _once(self, case: Case, batches: int, seconds: float) -> float:
        process = self._process(case)
        try:
            return process.round(batches, seconds)
        finally:
            process.close()

    def _try(self, case: Case, action: Callable[..., T], *arguments: Any) -> T | None:
        """Call a function of a loader; if it fails, add a remark and return None."""
        try:
            return action(*arguments)
        except LoaderFailedError as error:
            self.failed.append(case)
            self.remarks.append(f"failed and not measured: {case.name} ({error})")
            click.echo(self.remarks[-1], err=True)
            return None


def unread(records: int, batch_size: int, workers: int) -> int:
    """Return the batches of an epoch after the uncounted ones and the first, which is checked."""
    return records // batch_size - lead_of(workers) - 1


def check_cold(records: int, batch_size: int, workers: int) -> None:
    """Check that a cold round ends before a record is read twice.

    Raises:
        UsageError: the set is too small.
    """
    if unread(records, batch_size, workers) < 1:
        raise UsageError(
            f"--cold needs {(lead_of(workers) + 2) * batch_size:,} records, the set has {records:,}: records that are "
            f"read twice are not cold",
            "choose a smaller --batch-size, or a larger set",
        )


def ratios(rates: Rates) -> dict[str, dict[str, float]]:
    """Return the columns of ratios within a round: to the limit, ours to others, cold to min(warm, disk)."""
    columns: dict[str, dict[str, float]] = {}
    for name, measured in rates.items():
        case = CASES.get(name)
        if case and case.output and case.form == "jpeg" and "limit-decode" in rates:
            columns.setdefault("of the limit", {})[name] = ratio(measured, rates["limit-decode"])
        ours = f"ours-{case.form}-{case.output}" if case and not case.is_ours else ""
        if ours in rates:
            columns.setdefault("ours to it", {})[name] = ratio(rates[ours], measured)
        warm = CASES.get(name.removesuffix("-cold"))
        if warm and name.endswith("-cold"):
            possible = [min(pair) for pair in zip(rates[warm.name], rates[f"disk-{warm.form}"], strict=True)]
            columns.setdefault("of warm or disk", {})[name] = ratio(measured, possible)
    return columns
