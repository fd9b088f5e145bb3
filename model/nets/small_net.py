"""The four-layer net of 2012 for small pictures: three convolutions and a softmax (paper, figure 1 and section 3.3).

In:  float (n, 3, side, side), pixels minus the mean.  Out: logits (n, classes).  No DALI, no files.
The paper does not describe the net of its figure 1. This is `layers-18pct` of the authors' example files for CIFAR-10,
the only one with four layers: 18% test error with its normalisation and weight decay. 89,578 parameters at 32x32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .alexnet import ACTIVATIONS
from .lrn import WithinMap
from .pool import max_pool

SIDE = 32  # of the layer file's pictures
SIDES = (16, 64)  # accepted: below, the last map is a pixel or two; above, the dense layer outgrows the net
MAPS = (32, 32, 64)
STDS = {"conv1": 0.0001, "conv2": 0.01, "conv3": 0.01, "fc10": 0.01}
DECAYS = {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004, "fc10": 1.0}  # of weights; biases have none
NORM_SIZE = 3
NORM_SCALE = 0.00005 / NORM_SIZE**2  # the program divides the file's value by the pixels of the square


class SmallNet(nn.Module):
    """The net of the layer file `layers-18pct` of 2012, for small pictures (paper, figure 1).

    Args:
        classes: number of classes.
        side: of the pictures, pixels; `SIDES` has the least and the greatest.
        activation: `relu`, as in the file, or `tanh`.
        norm: whether to use the file's two response normalisations, within each map.
        seed: of the initial weights, which are the same for both activations, with and without norms.
    """

    def __init__(
        self, classes: int = 10, side: int = SIDE, activation: str = "relu", norm: bool = False, seed: int = 0
    ):
        super().__init__()
        last = pooled(pooled(pooled(side)))
        self.conv1 = nn.Conv2d(3, MAPS[0], 5, padding=2)
        self.conv2 = nn.Conv2d(MAPS[0], MAPS[1], 5, padding=2)
        self.conv3 = nn.Conv2d(MAPS[1], MAPS[2], 5, padding=2)
        self.fc10 = nn.Linear(MAPS[2] * last * last, classes)
        self.activation = ACTIVATIONS[activation]
        self.norm: nn.Module = WithinMap(NORM_SCALE, NORM_SIZE) if norm else nn.Identity()
        self.reset_parameters(seed)

    @torch.no_grad()
    def reset_parameters(self, seed: int) -> None:
        """Draw the weights by the seed from N(0, `STDS` of the layer); set biases to 0."""
        generator = torch.Generator().manual_seed(seed)
        for name, std in STDS.items():
            layer = self.get_submodule(name)
            assert isinstance(layer, nn.Conv2d | nn.Linear), "all four layers are"
            assert layer.bias is not None, "every layer has a bias"
            layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0, std, generator=generator))
            layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float (n, classes), of x: float (n, 3, side, side), RGB pixels of 0..255 minus the mean."""
        x = max_pool(self.activation(self.conv1(x)), 3)  # (n, 32, 16, 16)
        x = self._average(self.activation(self.conv2(self.norm(x))))  # (n, 32, 8, 8)
        x = self._average(self.activation(self.conv3(self.norm(x))))  # (n, 64, 4, 4)
        return self.fc10(x.flatten(1))

    def _average(self, x: Tensor) -> Tensor:
        """Average pooling; a window over the edge averages only the pixels inside, as in the program."""
        return F.avg_pool2d(x, 3, stride=2, ceil_mode=True)


def pooled(side: int) -> int:
    """Return the side of a map after 3x3 pooling with stride 2; the last window may extend over the edge."""
    return -(-(side - 3) // 2) + 1
