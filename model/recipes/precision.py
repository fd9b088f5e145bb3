"""fp32, tf32 or bf16: what a step computes in. Weights, gradients and updates are float32 in all three.

In:  a name.  Out: torch told so.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from ...pipeline.errors import UsageError

PRECISIONS = ("fp32", "tf32", "bf16")


def check_precision(precision: str, device: str) -> None:
    """Check that a device has a precision.

    Raises:
        UsageError: it has not.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision} is not one of {', '.join(PRECISIONS)}")
    if precision == "tf32" and device == "cpu":
        raise UsageError("--precision tf32 needs a GPU", "on the CPU choose fp32 or bf16")


def default_precision(device: torch.device) -> str:
    """Where nobody asked: fp32 on the CPU, tf32 on a GPU."""
    return "tf32" if device.type == "cuda" else "fp32"


def set_precision(precision: str) -> None:
    """Let a GPU's matrix products use TF32, or not; bf16 is autocast's."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Where bf16 was asked for, its context; fp32 and tf32 need none (see set_precision)."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
