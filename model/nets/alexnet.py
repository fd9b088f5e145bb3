"""The net of 2012: five convolutions, three fully connected layers, two columns (paper, section 3).

In:  float (n, 3, 224, 224), pixels minus the mean.  Out: logits (n, classes).  No DALI, no files.
The program of 2012 differs from the paper's text: `NetOptions` has an option for each difference, and for each of the
other nets that the paper measures.

On one device each tensor holds both columns, the first half of the maps and the second: their separation is `groups=2`
in conv2, conv4 and conv5 and in the response normalisation; conv3, conv6 and the fully connected layers take both
(figure 2). With one column in each of two processes (columns.py) the same code runs on half of the maps, and
`place.meet` exchanges them where both are needed.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .columns import WholeNet
from .lrn import AcrossMaps, WithinMap, is_traced
from .options import COLUMNS, NetOptions
from .pool import max_pool

HIDDEN = 4096  # units of fc6 and fc7
CONV1_EDGE = 3  # zeros on the right and below, for the last of 1 + ceil((224 - 11) / 4) = 55 windows
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "tanh": torch.tanh}

# Section 5: biases of 1 give the ReLUs positive inputs in the first steps.
BIAS_ONE = ("conv2", "conv4", "conv5", "conv6", "fc6", "fc7")
DEEP = ("conv3", "conv4", "conv5", "conv6")


class AlexNet(nn.Module):
    """The net of 2012; 60,965,224 parameters with 1,000 classes and the default options (paper, section 3).

    Args:
        classes: number of classes.
        options: the variant: the program's net, the text's, or another recipe's.
        seed: of the initial weights, which are the same on every device and in every split.
        place: the part of the net in this process: all of it, or one column.
    Attributes:
        units: numbers of units of fc6 and fc7, over all columns.
        dropout_shape: shape of one picture's mask in `keep`: the units of fc6, then those of fc7; () without dropout.
    """

    def __init__(
        self, classes: int = 1000, options: NetOptions = NetOptions(), seed: int = 0, place: WholeNet = WholeNet()
    ):
        super().__init__()
        self.options, self.place = options, place
        self.units = HIDDEN if options.talk else COLUMNS * HIDDEN, HIDDEN
        self.dropout_shape = (sum(self.units),) if options.dropout else ()
        columns = options.columns // place.places  # in this process
        apart = 1 if options.talk else columns  # groups of the layers that otherwise take both columns
        whole = options.maps
        own = [maps // place.places for maps in whole]
        seen = whole if options.talk else own  # input maps of conv3, conv6 and fc6
        overlap = options.pool == 3  # otherwise the program's paddings lead to the same 6x6

        self.conv1 = nn.Conv2d(3, own[0], 11, stride=4)
        self.conv2 = nn.Conv2d(own[0], own[1], 5, padding=2 if overlap else 1, groups=columns)
        self.conv3 = nn.Conv2d(seen[1], own[2], 3, padding=1, groups=apart)
        self.conv4 = nn.Conv2d(own[2], own[3], 3, padding=1, groups=columns)
        self.conv5 = nn.Conv2d(own[3], own[4], 3, padding=1 if overlap else 0, groups=columns)
        if options.conv6:
            self.conv6 = nn.Conv2d(seen[4], own[5], 3, padding=1, groups=apart)
        fc6, fc7 = (units // place.places for units in self.units)
        self.fc6 = ColumnLinear(seen[4] * 6 * 6, fc6, apart)
        self.fc7 = ColumnLinear(self.units[0] if options.talk else fc6, fc7, apart)
        if options.low:
            self.low = nn.Linear(self.units[1], options.low // place.places)
        self.fc8 = nn.Linear((options.low or self.units[1]) // place.places, classes)

        self.activation = ACTIVATIONS[options.activation]
        self.norm: nn.Module = AcrossMaps(options.lrn_scale, columns=columns)
        self.norm_within: nn.Module = WithinMap() if options.within_map else nn.Identity()
        if options.norm != "lrn":
            self.norm = self.norm_within = nn.Identity()
        if options.norm == "batch":
            self.batch_norms = nn.ModuleList(nn.BatchNorm2d(maps) for maps in own[: 5 + options.conv6])
        self.reset_parameters(seed)

    @torch.no_grad()
    def reset_parameters(self, seed: int) -> None:
        """Draw weights by the seed from N(0, 0.01), in conv3 to conv6 N(0, deep_std); biases are 1 or 0 (section 5).

        The whole net is drawn in every process, which keeps its part, so that every split starts with the same net.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, layer in self.named_children():
            if not isinstance(layer, nn.Conv2d | nn.Linear):
                continue
            shape = self.place.whole_shape(f"{name}.weight", layer.weight)
            std = self.options.deep_std if name in DEEP else 0.01
            if self.options.init == "kaiming":
                std = (2 / shape[1:].numel()) ** 0.5
            whole = torch.empty(shape).normal_(0, std, generator=generator)
            layer.weight.copy_(self.place.part(f"{name}.weight", whole))
            one = name in BIAS_ONE and self.options.init == "2012"
            assert layer.bias is not None, "every layer has a bias"
            layer.bias.fill_(1.0 if one else 0.0)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Compute logits.

        Args:
            x: float (n, 3, 224, 224), RGB pixels of 0..255 minus the mean.
            keep: bool (n, *dropout_shape), in training: the units of fc6 and fc7 that dropout keeps, as the plan draws
                them; without it torch draws. Kept units are doubled, which is equivalent to the paper's halving of all
                units at test time (section 4.2).
        Returns:
            float (n, classes).
        """
        x = self.hidden(x, keep)  # (n, 4096), or a column's half
        if self.options.low:
            x = self.low(self.place.meet(x))  # (n, 2048), or a column's half: linear
        logits = self.place.add(F.linear(x, self.fc8.weight))  # each column multiplies its half
        return logits + self.fc8.bias

    def hidden(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the last hidden layer, float (n, 4096) or a column's half, for x and keep as in `forward`."""
        x = self._meet(self.convolutions(x)).flatten(1)  # (n, 9216)
        x = self._drop(self.activation(self.fc6(x)), keep, 0)  # (n, 4096), or half
        return self._drop(self.activation(self.fc7(self._meet(x))), keep, 1)  # (n, 4096), or half

    def convolutions(self, x: Tensor) -> Tensor:
        """Return the last pooling layer, (n, 256, 6, 6) or a column's half, for x, float (n, 3, 224, 224)."""
        x = self._batch_norm(self.conv1(_padded(x)), 0)  # (n, 96, 55, 55)
        if self.options.pool_before_relu:
            x = self.activation(self._pool(self.norm(x)))  # (n, 96, 27, 27)
        else:
            x = self._pool(self.norm(self.activation(x)))
        x = self.activation(self._batch_norm(self.conv2(x), 1))  # (n, 256, 27, 27)
        x = self._pool(self.norm_within(self.norm(x)))  # (n, 256, 13, 13)
        x = self.activation(self._batch_norm(self.conv3(self._meet(x)), 2))  # (n, 384, 13, 13)
        x = self.activation(self._batch_norm(self.conv4(x), 3))  # (n, 384, 13, 13)
        x = self.activation(self._pool(self._batch_norm(self.conv5(x), 4)))  # (n, 256, 6, 6)
        if self.options.conv6:
            x = self.activation(self._batch_norm(self.conv6(self._meet(x)), 5))  # (n, 256, 6, 6)
        return x

    def _meet(self, x: Tensor) -> Tensor:
        """Return both columns' maps or units, unless the columns are separate."""
        return self.place.meet(x) if self.options.talk else x

    def _pool(self, x: Tensor) -> Tensor:
        return max_pool(x, self.options.pool)

    def _batch_norm(self, x: Tensor, layer: int) -> Tensor:
        return self.batch_norms[layer](x) if self.options.norm == "batch" else x

    def _drop(self, x: Tensor, keep: Tensor | None, layer: int) -> Tensor:
        if not self.options.dropout:
            return x
        if keep is None or not self.training:
            return F.dropout(x, 0.5, self.training)
        kept = keep.split(self.units, dim=1)[layer]
        return x * self.place.own(kept) * 2.0


def _padded(x: Tensor) -> Tensor:
    """Return x, float (n, 3, height, width), with zeros on the right and below; what conv1 takes.

    In training that is one copy, in autocast's dtype: padding first and casting then takes twice as long.
    """
    if x.requires_grad or is_traced():
        return F.pad(x, (0, CONV1_EDGE, 0, CONV1_EDGE))
    n, channels, height, width = x.shape
    device, cast = x.device.type, x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type)
    last = x.is_contiguous(memory_format=torch.channels_last)
    padded = torch.empty(
        (n, channels, height + CONV1_EDGE, width + CONV1_EDGE),
        dtype=torch.get_autocast_dtype(device) if cast else x.dtype,
        device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
    padded[:, :, :height, :width] = x
    padded[:, :, height:] = 0
    padded[:, :, :height, width:] = 0
    return padded


class ColumnLinear(nn.Linear):
    """A linear layer in which each column takes only its own inputs; with one column, torch's own layer.

    Args:
        inputs, outputs: numbers of units, over all columns.
        columns: number of columns.
    """

    def __init__(self, inputs: int, outputs: int, columns: int):
        super().__init__(inputs // columns, outputs)
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        """Compute (n, outputs) from (n, inputs)."""
        if self.columns == 1:
            return super().forward(x)
        parts = zip(*(t.chunk(self.columns, dim) for t, dim in ((x, 1), (self.weight, 0), (self.bias, 0))), strict=True)
        return torch.cat([F.linear(*part) for part in parts], dim=1)
