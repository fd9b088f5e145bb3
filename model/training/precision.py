"""fp32, tf32 and bf16 as torch settings (`PRECISIONS` in recipes/config.py)."""

from contextlib import AbstractContextManager, nullcontext

import torch


def set_precision(precision: str) -> None:
    """Allow TF32 in a GPU's matrix products and convolutions for `tf32`, and forbid it otherwise, process-wide."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return torch's autocast context for `bf16`, and an empty one for fp32 and tf32 (see `set_precision`)."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
