"""What a training or evaluating process does to itself: signals that finish the step, memory that stays.

In:  nothing.  Out: side effects on this process alone; a library must not do these, so they are here.
"""

import ctypes
import os
import signal
from contextlib import contextmanager
from typing import Any

import torch

from ..pipeline.errors import DeviceError

PARENT = "ALEXNET_DALI_LAUNCHER"  # set in the ranks that this file has started

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


class Stop:
    """Becomes true at the first SIGINT or SIGTERM; the second one ends the process as usual.

    Not a rank that a launcher has begun: the launcher passes on what it gets, so that a signal to the whole group, as
    systemd sends it, comes twice. It ends its ranks itself at its own second one.
    """

    def __init__(self):
        self.signal: int = 0

    def __call__(self) -> bool:
        return self.signal != 0

    @property
    def exit_code(self) -> int:
        """As shells have it: 128 and the signal's number."""
        return 128 + self.signal if self.signal else 0


@contextmanager
def stop_on_signals():
    """Yield a Stop that the two signals set."""
    stop = Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: object) -> None:
        stop.signal = int(number)
        for one in before:
            signal.signal(one, signal.SIG_IGN if PARENT in os.environ else signal.SIG_DFL)

    for each in (signal.SIGINT, signal.SIGTERM):
        before[each] = signal.signal(each, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_memory() -> bool:
    """Tell glibc to keep freed memory instead of giving it back to the system.

    Each step allocates and frees gigabytes of activities; fresh pages cost more than the arithmetic on them. Measured
    on two CPU cores, bf16: 62 images/s without, 133 with. Elsewhere than on glibc it does nothing.
    """
    try:
        libc = ctypes.CDLL(None)
        return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, AttributeError):
        return False


def pick_device(asked: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`.

    Raises:
        DeviceError: a GPU was asked for and none is usable.
    """
    usable = torch.cuda.is_available()
    if asked == "cuda" and not usable:
        raise DeviceError(
            "no GPU is usable here, but --device cuda was asked for",
            "see why with alexnet-prep doctor, or use --device cpu",
        )
    if asked == "cpu" or not usable:
        keep_memory()
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
