"""Settings of a training or evaluating process: signal handlers, the memory allocator, the device.

In:  nothing.  Out: side effects on this process, which a library must not have: so they are here.
"""

import ctypes
import os
import signal
from contextlib import contextmanager
from typing import Any

import torch

from ..pipeline.errors import DeviceError

PARENT = "ALEXNET_DALI_LAUNCHER"  # set in ranks that launch.py started: its process id

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


class Stop:
    """Becomes true at the first SIGINT or SIGTERM; the second one ends the process as usual.

    A launcher's rank ignores the second one: a signal to the whole control group, as systemd sends it, arrives twice,
    since the launcher passes its own on. At its second signal the launcher kills its ranks.
    """

    def __init__(self):
        self.signal: int = 0

    def __call__(self) -> bool:
        return self.signal != 0

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as in shells; 0 without a signal."""
        return 128 + self.signal if self.signal else 0


@contextmanager
def stop_on_signals():
    """Handle SIGINT and SIGTERM in the block; yields the Stop that they set."""
    stop = Stop()
    before: dict[int, Any] = {}

    def handle(number: int, frame: object) -> None:
        stop.signal = int(number)
        for one in before:
            signal.signal(one, signal.SIG_IGN if PARENT in os.environ else signal.SIG_DFL)

    for each in (signal.SIGINT, signal.SIGTERM):
        before[each] = signal.signal(each, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_memory() -> bool:
    """Let glibc keep freed memory instead of returning it to the system.

    Each step allocates and frees gigabytes of activations; new pages cost more than the arithmetic on them. Measured
    on two CPU cores, bf16: 62 images/s without, 133 with.

    Returns:
        Whether it was set; without glibc it is not.
    """
    try:
        libc = ctypes.CDLL(None)
        return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, AttributeError):
        return False


def pick_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu` or `cuda`; on the CPU, `keep_memory` is set.

    Raises:
        DeviceError: `cuda` was requested and no GPU is usable.
    """
    usable = torch.cuda.is_available()
    if name == "cuda" and not usable:
        raise DeviceError(
            "--device cuda: no usable GPU on this machine",
            "find the reason with alexnet-prep doctor, or use --device cpu",
        )
    if name == "cpu" or not usable:
        keep_memory()
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
