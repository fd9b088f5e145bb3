"""What every check gets: a device, made photos, a place to write, and a record of its figures.

On a GPU the sizes are those of training; with `--device cpu` the same code runs on small ones, so that the checks
themselves are checked where there is no GPU. There a busy GPU is a sleep, and a kernel is an operation of torch.
"""

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from alexnet_dali.pipeline.shards.manifest import ShardSet, open_shard_set
from alexnet_dali.pipeline.shards.stats import Stats, load_stats
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")


class SkippedError(Exception):
    """The check cannot run here; the message says why."""


@dataclass
class Setting:
    """Where a check runs.

    Attributes:
        device: a GPU, or the CPU.
        data: the folder that `gpu_data.make` has filled.
        scratch: a folder for the check's own files.
        reduced: run few cases, for the ordinary tests.
        large: whether sizes are those of training; by default on a GPU.
        write: called with all figures after each `record`.
    """

    device: torch.device
    data: Path
    scratch: Path
    reduced: bool = False
    large: bool | None = None
    write: Callable[[dict[str, Any]], None] = lambda figures: None
    figures: dict[str, Any] = field(default_factory=dict)
    _cycles: float = 0.0  # of the GPU's clock, per millisecond

    def __post_init__(self):
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.large = self.on_gpu if self.large is None else self.large

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def size(self, gpu: T, cpu: T) -> T:
        """Choose between the size for a GPU and the one for a rehearsal on the CPU."""
        return gpu if self.large else cpu

    def record(self, **figures: Any) -> None:
        """Add figures; they are kept even if the check fails or hangs later."""
        self.figures.update(figures)
        self.write(self.figures)

    def shards(self, name: str, classes: int = 0) -> tuple[ShardSet, Stats]:
        """Open a shard set of `gpu_data`; with `classes`, it has that many, of which most have no photos."""
        found = open_shard_set(self.data / name)
        extra = tuple(f"empty{k}" for k in range(classes - len(found.classes)))
        return replace(found, classes=(*found.classes, *extra)), load_stats(found)

    def busy(self, milliseconds: float) -> None:
        """Queue a kernel that does nothing for about this long; on the CPU, sleep."""
        if not self.on_gpu:
            time.sleep(milliseconds / 1000)
            return
        if not self._cycles:
            torch.cuda._sleep(10**6)  # the clock rises with work
            self._cycles = 10**7 / self.milliseconds(lambda: torch.cuda._sleep(10**7), 3)
        torch.cuda._sleep(int(milliseconds * self._cycles))

    def milliseconds(self, work: Callable[[], Any], repeats: int) -> float:
        """Return the median time of some work, after one run that is not counted."""
        work()
        return sorted(self.timed(work)() for _ in range(repeats))[repeats // 2]

    def timed(self, work: Callable[[], Any]) -> Callable[[], float]:
        """Start some work; returns a function that returns its milliseconds, on a GPU by its own clock."""
        if not self.on_gpu:
            began = time.perf_counter()
            work()
            passed = 1000 * (time.perf_counter() - began)
            return lambda: passed
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()

        def wait() -> float:
            last.synchronize()
            return first.elapsed_time(last)

        return wait

    def kernels(self, work: Callable[[], Any]) -> dict[str, float]:
        """Return milliseconds on the GPU by kernel, one entry a launch; on the CPU, operations of torch, 0 ms each."""
        work()
        if not self.on_gpu:
            with Operations() as operations:
                work()
            return {f"{k} {name}": 0.0 for k, name in enumerate(operations.names)}
        torch.cuda.synchronize()
        with torch.profiler.profile() as profile:  # of all that is there, CPU and GPU
            work()
            torch.cuda.synchronize()
        on_gpu = [each for each in profile.events() if each.device_type == torch.autograd.DeviceType.CUDA]
        events = [each for each in on_gpu if not getattr(each, "is_user_annotation", False)]
        return {f"{k} {each.name}": each.time_range.elapsed_us() / 1000 for k, each in enumerate(events)}

    def synchronize(self) -> None:
        """Wait until the device has done all work."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


class Operations(TorchDispatchMode):
    """Lists torch's operations that compute, by name: about the kernels that a GPU would launch.

    Args:
        forbidden: names that raise an AssertionError.
    """

    def __init__(self, forbidden: tuple[str, ...] = ()):
        super().__init__()
        self.names: list[str] = []
        self._forbidden = forbidden

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self._forbidden, f"{name} would wait for the GPU"
        if not func.is_view and name not in ("empty", "empty_like", "empty_strided", "new_empty", "detach"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def has_dali() -> bool:
    """Whether DALI is installed."""
    return importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None


def need_dali() -> None:
    """Skip the check where DALI is missing."""
    if not has_dali():
        raise SkippedError("no DALI")


def close(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the greatest difference, relative to the largest expected value."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).abs().max() / expected.abs().max())


def agree(failures: list[str]) -> None:
    """Raise an AssertionError with the first of several failures, and their number."""
    more = f" (and {len(failures) - 5} more)" if len(failures) > 5 else ""
    assert not failures, "; ".join(failures[:5]) + more


def environment(scratch: Path) -> dict[str, str]:
    """Return the environment of a command whose nets, in every process, have few hidden units (tiny.py)."""
    folder = scratch / "python"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import sys\nif 'train' in ' '.join(sys.orig_argv):\n"
        "    import alexnet_dali.model.nets.alexnet as alexnet\n    alexnet.HIDDEN = 64\n"
    )
    return {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
