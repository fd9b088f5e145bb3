"""A classifier of another library, as the trainer and the evaluation see a net.

In:  float (n, 3, crop, crop), pixels of 0..255 less the mean.  Out: logits (n, classes).
Parameters and buffers keep the names that the library gave them, so that a checkpoint's `model` loads there.
"""

from typing import Any

from torch import Tensor, nn


class Other(nn.Module):
    """Divides each channel by its deviation, as other nets' rates and weights expect, and passes on.

    Args:
        net: gives logits.
        deviations: float (3,), of pixels of 0..255.
    """

    scale: Tensor
    dropout_shape: tuple[int, ...] = ()  # it takes no masks: torch draws what its dropout drops

    def __init__(self, net: nn.Module, deviations: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("scale", (1.0 / deviations.clamp_min(1.0)).float().view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits."""
        return self.net(x * self.scale)

    def named_parameters(self, *arguments: Any, **options: Any):
        """Parameters under the library's names."""
        return self.net.named_parameters(*arguments, **options)

    def state_dict(self, *arguments: Any, **options: Any):
        """Weights and buffers under the library's names."""
        return self.net.state_dict(*arguments, **options)

    def load_state_dict(self, *arguments: Any, **options: Any):
        """Take weights and buffers under the library's names."""
        return self.net.load_state_dict(*arguments, **options)
