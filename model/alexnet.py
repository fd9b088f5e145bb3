"""The net of 2012: five convolutions, three fully connected layers, two columns (paper, section 3).

In:  float (n, 3, 224, 224), pixels less the mean.  Out: logits (n, classes).  No DALI, no files.
What the program did stands beside what the text says: `NetOptions` names each difference.

Both columns are held on one device: their separation is `groups=2` in conv2, conv4 and conv5 and inside the
response normalisation; conv3 and the fully connected layers see both (figure 2).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lrn import AcrossMaps, WithinMap

COLUMNS = 2
HIDDEN = 4096  # units of fc6 and fc7
CONV1_EDGE = 3  # the last window hangs over the right and lower edge: 1 + ceil((224 - 11) / 4) = 55 windows

# Section 5: biases of one give the ReLUs something to work with in the first steps.
BIAS_ONE = ("conv2", "conv4", "conv5", "fc6", "fc7")
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


@dataclass(frozen=True)
class NetOptions:
    """What distinguishes the net of the program from the net of the text.

    Attributes:
        pool_before_relu: layer 1 is conv, LRN, pool, ReLU (the program); otherwise conv, ReLU, LRN, pool (the text).
        lrn_scale: of the sum of squares over five maps: 1e-4 / 5 (the program divides by n) or 1e-4 (the text).
        within_map: layer 2 is normalised a second time, within each map (the program).
        deep_std: of the initial weights of conv3, conv4 and conv5: 0.03 (the program) or 0.01 (the text).
    """

    pool_before_relu: bool = True
    lrn_scale: float = 1e-4 / 5
    within_map: bool = True
    deep_std: float = 0.03


class AlexNet(nn.Module):
    """60,965,224 parameters at 1,000 classes.

    Args:
        classes: of the softmax.
        options: program or text.
        seed: of the initial weights, which are the same on every device.
    Attributes:
        dropout_shape: of a picture's mask, `keep`.
    """

    def __init__(self, classes: int = 1000, options: NetOptions = NetOptions(), seed: int = 0):
        super().__init__()
        self.options = options
        self.dropout_shape = (2, HIDDEN)  # fc6 and fc7
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=COLUMNS)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=COLUMNS)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=COLUMNS)
        self.fc6 = nn.Linear(256 * 6 * 6, HIDDEN)
        self.fc7 = nn.Linear(HIDDEN, HIDDEN)
        self.fc8 = nn.Linear(HIDDEN, classes)
        self.norm = AcrossMaps(options.lrn_scale, columns=COLUMNS)
        self.norm_within = WithinMap() if options.within_map else nn.Identity()
        self.reset_parameters(seed)

    @torch.no_grad()
    def reset_parameters(self, seed: int) -> None:
        """Draw all weights from N(0, 0.01), conv3 to conv5 from N(0, deep_std); biases 1 or 0 (section 5)."""
        generator = torch.Generator().manual_seed(seed)
        for name in LAYERS:
            layer = getattr(self, name)
            std = self.options.deep_std if name in ("conv3", "conv4", "conv5") else 0.01
            layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0, std, generator=generator))
            layer.bias.fill_(1.0 if name in BIAS_ONE else 0.0)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Compute logits.

        Args:
            x: (n, 3, 224, 224).
            keep: bool (n, 2, 4096), the units of fc6 and fc7 that dropout keeps, as the plan draws them; without it
                torch draws. Kept units are doubled in training, which equals halving all at test time.
        """
        return self.fc8(self.hidden(x, keep))

    def hidden(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """The last hidden layer's activities, (n, 4096)."""
        x = self.convolutions(x).flatten(1)  # (n, 9216)
        x = self._drop(F.relu(self.fc6(x)), keep, 0)  # (n, 4096)
        return self._drop(F.relu(self.fc7(x)), keep, 1)  # (n, 4096)

    def convolutions(self, x: Tensor) -> Tensor:
        """The five convolutional layers, pooled: (n, 256, 6, 6)."""
        x = self.conv1(F.pad(x, (0, CONV1_EDGE, 0, CONV1_EDGE)))  # (n, 96, 55, 55)
        if self.options.pool_before_relu:
            x = F.relu(_pool(self.norm(x)))  # (n, 96, 27, 27)
        else:
            x = _pool(self.norm(F.relu(x)))
        x = F.relu(self.conv2(x))  # (n, 256, 27, 27)
        x = _pool(self.norm_within(self.norm(x)))  # (n, 256, 13, 13)
        x = F.relu(self.conv3(x))  # (n, 384, 13, 13)
        x = F.relu(self.conv4(x))  # (n, 384, 13, 13)
        return F.relu(_pool(self.conv5(x)))  # (n, 256, 6, 6)

    def _drop(self, x: Tensor, keep: Tensor | None, layer: int) -> Tensor:
        if keep is None or not self.training:
            return F.dropout(x, 0.5, self.training)
        return x * keep[:, layer] * 2.0


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)
