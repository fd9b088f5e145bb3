"""fp32, tf32 and bf16 as torch settings (`PRECISIONS` in recipes/config.py); arithmetic that repeats bit for bit."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from ...pipeline.errors import DeviceError

BF16 = (8, 0)  # compute capability of the first GPUs that multiply bfloat16 numbers; torch emulates it on older ones


def set_precision(precision: str, device: torch.device, deterministic: bool = False) -> None:
    """Prepare this process for a precision.

    A GPU's matrix products and convolutions may use TF32 for `tf32` alone.

    Args:
        device: where it computes.
        deterministic: on a GPU, use only operations that give the same bits each time; torch raises a RuntimeError
            where there is none. On the CPU all do, for one number of threads.
    Raises:
        DeviceError: the GPU has no such numbers.
    """
    if lacks(precision, device):
        major, minor = torch.cuda.get_device_capability(device)
        raise DeviceError(
            f"--precision {precision}: {torch.cuda.get_device_name(device)} cannot compute in it "
            f"(compute capability {major}.{minor}; {BF16[0]}.{BF16[1]} or later can)",
            "choose --precision fp32",
        )
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first product; torch requires it
        # Nothing here reads memory before it is written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(True)


def lacks(precision: str, device: torch.device) -> bool:
    """Return whether a GPU cannot compute in a precision: bf16 before 2020, as on a V100 or a T4."""
    return precision == "bf16" and device.type == "cuda" and torch.cuda.get_device_capability(device) < BF16


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return torch's autocast context for `bf16`, and an empty one for fp32 and tf32 (see `set_precision`)."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
