"""The net of a layer file of 2012 (definition.py), layer by layer as the program computed it.

In:  float (n, 3, crop, crop), pixels minus the mean.  Out: logits (n, classes).  No DALI, no files.
Sources: computerhistory/AlexNet-Source-Code, `layer.py` (shapes) and `src/layer.cu`, `src/neuron.cu` (functions).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ....pipeline.errors import UsageError
from .definition import Definition, Layer
from .layers import NEURONS, PARTS, Dropout, Plain, Weighted

PICTURES = 0  # of dataIdx; 1 are the labels


class FileNet(nn.Module):
    """A net as a layer file defines it.

    Args:
        definition: see `read_definition`.
        classes: number of classes, which the layer below the softmax must have as outputs.
        crop: side of the input window, pixels.
        seed: of the initial weights; every array is drawn from N(0, initW), biases are initB. So are those of layers
            with an initWFunc, which took them from another net in 2012: load them afterwards.
    Attributes:
        dropout_shape: shape of one picture's mask in `keep`: the units of all `hs` layers in their order; () without
            dropout, and where a layer does not keep half of its units: then torch draws.
    Raises:
        UsageError: the sizes of the layers do not fit together, or not the input or the classes; with file and line.

    The parameters of a layer NAME are `NAME.weight0`, `NAME.weight1` and so on, one for each input, and `NAME.bias`:
        conv   (filters, channels / groups, side, side);  bias (filters,), or (filters, rows, columns) if not shared
        local  (rows * columns, filters, channels / groups, side, side), row by row;  bias (filters, rows, columns)
        fc     (outputs, inputs), inputs by channel, row, column;  bias (outputs,)
    """

    def __init__(self, definition: Definition, classes: int, crop: int, seed: int = 0):
        super().__init__()
        self.definition = definition
        self.parts = nn.ModuleDict()
        units: dict[str, int] = {}
        drops = []
        for layer in definition.layers:
            with _located(definition, layer):
                if layer.type == "data":
                    units[layer.name] = 3 * crop * crop if layer.options["dataidx"] == PICTURES else 1
                    continue
                part = PARTS.get(layer.type, Plain)(layer, [units[name] for name in layer.inputs])
            units[layer.name] = part.outputs
            self.parts[layer.name.replace(".", "_")] = part
            if isinstance(part, Dropout) and part.enabled:
                drops.append(part)
        if units[definition.output] != classes:
            (last,) = (layer for layer in definition.layers if layer.name == definition.output)
            raise UsageError(
                f"{definition.file}, line {last.line}: [{last.name}] has {units[last.name]} outputs, but the set has "
                f"{classes} classes",
                f"write outputs={classes}",
            )
        halves = all(part.keep == 0.5 for part in drops)
        self.dropout_shape = (sum(part.outputs for part in drops),) if drops and halves else ()
        self.reset_parameters(seed)

    @torch.no_grad()
    def reset_parameters(self, seed: int) -> None:
        """Draw the weights of all layers in their order, by the seed."""
        generator = torch.Generator().manual_seed(seed)
        for part in self.parts.values():
            if isinstance(part, Weighted):
                for weight, std in zip(part.weights(), part.layer.options["initw"], strict=True):
                    weight.copy_(torch.empty(weight.shape).normal_(0, std, generator=generator))
                part.bias.fill_(part.layer.options["initb"])

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Compute logits, float (n, classes).

        Args:
            x: float (n, 3, crop, crop), RGB pixels of 0..255 minus the mean.
            keep: bool (n, *dropout_shape), in training: the units that dropout keeps; without it torch draws. Kept
                units are divided by `keep` of their layer; the program multiplied all by it at test time, which is
                equivalent.
        """
        masks, done = keep, {}
        for layer in self.definition.layers:
            if layer.type == "data":
                done[layer.name] = x
                continue
            part = self.parts[layer.name.replace(".", "_")]
            inputs = [done[name] for name in layer.inputs]
            if isinstance(part, Dropout) and part.enabled and masks is not None:
                mask, masks = masks[:, : part.outputs], masks[:, part.outputs :]
                y = part(inputs, mask)
            else:
                y = part(inputs)
            if layer.neuron:
                name, numbers = layer.neuron
                y = NEURONS[name](y, *numbers)
            done[layer.name] = y
            if layer.name == self.definition.output:
                return y
        raise AssertionError("the output is one of the layers")

    def named_parameters(self, *arguments, **options):
        """Iterate over the parameters by the names of the layer file."""
        for name, parameter in super().named_parameters(*arguments, **options):
            yield name.removeprefix("parts."), parameter

    def state_dict(self, *arguments, **options):
        """Return the weights by the names of the layer file."""
        return {name.removeprefix("parts."): value for name, value in super().state_dict(*arguments, **options).items()}

    def load_state_dict(self, state_dict, *arguments, **options):
        """Load weights by the names of the layer file."""
        return super().load_state_dict({f"parts.{name}": v for name, v in state_dict.items()}, *arguments, **options)


@contextmanager
def _located(definition: Definition, layer: Layer) -> Iterator[None]:
    """Add file, line and layer to a UsageError."""
    try:
        yield
    except UsageError as error:
        place = f"{definition.file}, line {layer.line}: [{layer.name}] "
        raise UsageError(place + error.message, error.hint) from None
