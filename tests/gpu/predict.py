"""What a training step should cost on an H200, from counted operations, bytes and launches; nothing here is measured.

    python tests/gpu/predict.py

A step of the program's net in bf16 is run without data (torch's fake tensors, on the CPU, so that the list of kernels
is an approximation), and every operation is listed with its arithmetic and the bytes that it reads and writes. Its time
is the longest of three: the arithmetic at a share of the card's matrix peak, the bytes at a share of its memory's rate,
and the shortest time of a kernel. The step takes as long as all of them, or as the host needs to launch them.
"""

import math
from dataclasses import dataclass
from itertools import repeat
from unittest import mock

import numpy as np
import torch
from alexnet_dali.model.nets import lrn
from alexnet_dali.model.nets.alexnet import AlexNet
from alexnet_dali.pipeline.stream.stream import Batch
from alexnet_dali.tools.bench.train_cases import Case, Steps
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

IMAGENET, EPOCHS = 1_281_167, 90
PEAK, MEMORY = 989e12, 4.8e12  # of an H200 by its data sheet: dense bf16 operations a second, bytes a second
# Assumed. Grouped convolutions and the eleven-pixel one of three colours use the matrix units badly.
SHARES = {"conv1": 0.10, "conv2": 0.25, "conv3": 0.45, "conv4": 0.25, "conv5": 0.25, "fc": 0.60, "normalisation": 0.05}
MEMORY_SHARE = 0.80
KERNEL, LAUNCH = 2.5e-6, 6e-6  # seconds: the shortest kernel, and one launch by Python and autograd
PIXELS = 224 * 224 * 3


@dataclass(frozen=True)
class Kernel:
    """One launch: its part of the step, its arithmetic in floating-point operations, its bytes, its matrix share."""

    part: str
    flops: float
    bytes: float
    share: float = 1.0

    @property
    def seconds(self) -> float:
        """The predicted time."""
        return max(self.flops / (PEAK * self.share), self.bytes / (MEMORY * MEMORY_SHARE), KERNEL)


class OnePass(torch.autograd.Function):
    """In place of a normalisation: what one kernel forward and one backward read and write, 4 and 6 bytes in bf16."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient + ctx.saved_tensors[0]


class OnePassNorm(nn.Module):
    """A module of `OnePass`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return OnePass.apply(x)


class Kernels(TorchDispatchMode):
    """Lists the kernels of what runs, `found`; an operation belongs to the layer whose weights it last met."""

    def __init__(self):
        super().__init__()
        self.found: list[Kernel] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if (
            func.is_view
            or func.namespace != "aten"
            or name.startswith(("empty", "new_empty", "detach", "_local_scalar"))
        ):
            return out
        read, written = (tensors(value) for value in ((args, kwargs or {}), out))
        size = sum(bytes_of(each) for each in read) + sum(bytes_of(each) for each in written)
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:
            self.found.append(Kernel(part_of(name, [*read, *written]), 0.0, size))
            return out
        flops = formula(*args, **(kwargs or {}), out_val=out)
        if name == "convolution_backward":  # gradients of the input, of the weights and of the bias: one kernel each
            gradient, x, weight = args[:3]
            part, share = convolution(weight)
            products = 2 * math.prod(weight.shape[1:]) * gradient.numel()
            if args[-1][0]:
                self.found.append(Kernel(part, products, sum(map(bytes_of, (gradient, weight, x))), share))
            self.found.append(Kernel(part, products, sum(map(bytes_of, (gradient, x, weight))), share))
            if args[-1][2]:
                self.found.append(Kernel("biases", 0.0, bytes_of(gradient)))
        elif name == "convolution":  # cuDNN's product, then the bias
            part, share = convolution(args[1])
            self.found.append(Kernel(part, flops, size, share))
            if args[2] is not None:
                self.found.append(Kernel("biases", 0.0, 2 * bytes_of(out)))
        else:
            self.found.append(Kernel("fc", flops, size, SHARES["fc"]))
        return out


def convolution(weight: Tensor) -> tuple[str, float]:
    """Return the name of the layer with these weights, and its share of the matrix peak."""
    shapes = {(96, 3): "conv1", (256, 48): "conv2", (384, 256): "conv3", (384, 192): "conv4", (256, 192): "conv5"}
    name = shapes.get(tuple(weight.shape[:2]), "normalisation")  # its sums are convolutions in the torch form
    return name, SHARES[name]


def part_of(name: str, touched: list[Tensor]) -> str:
    """Return the part of the step that an operation without matrix products belongs to."""
    if "pool" in name:
        return "pooling"
    if "threshold" in name or name == "relu":
        return "ReLU"
    if name == "_to_copy":
        return "casts"
    maps = bool(touched) and touched[0].dim() == 4 and touched[0].shape[1] > 3
    return "normalisation" if maps else "other"


def tensors(value: object) -> list[Tensor]:
    """List the tensors in arguments or results."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for each in value for tensor in tensors(each)] if isinstance(value, list | tuple) else []


def bytes_of(tensor: Tensor) -> float:
    """Return the bytes of a tensor, of its memory if it is expanded."""
    return min(tensor.numel(), tensor.untyped_storage().nbytes() / tensor.itemsize) * tensor.itemsize


def step(batch_size: int, form: str) -> list[Kernel]:
    """List the kernels of forward and backward pass, without the update, with a form of normalisation."""
    lrn._band.cache_clear()  # a tensor with data, or of another step without
    with FakeTensorMode():
        net = AlexNet(1000)
        for module in net.modules():  # to channels last; `net.to` cannot do it to tensors without data
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.dim() == 4:
                    last = parameter.detach().contiguous(memory_format=torch.channels_last)
                    setattr(module, name, nn.Parameter(last))
        no_update = mock.Mock()
        if form == lrn.TORCH:
            net.norm.form = net.norm_within.form = form
        else:
            net.norm = net.norm_within = OnePassNorm()
        images = torch.empty(batch_size, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        batch = Batch(images, torch.zeros(batch_size, dtype=torch.int64), False, np.arange(batch_size), None)
        keep = torch.ones(batch_size, *net.dropout_shape, dtype=torch.bool)
        work = Steps(Case("source2012", "bf16"), net, no_update, repeat(batch), 1, torch.device("cpu"))
        # Without counters the net pads and casts pictures in one copy, and so it does here.
        with mock.patch("alexnet_dali.model.nets.alexnet.is_traced", lambda: False), Kernels() as kernels:
            work._step(batch, (keep,))
        return kernels.found


@dataclass(frozen=True)
class Code:
    """A state of the code, beside what `step` counts.

    Attributes:
        form: of response normalisation.
        update: launches of the update, and bytes of it for each parameter.
        masks: bytes of dropout masks that go up for each picture.
        unpacking: bytes for each picture of the kernels that make masks of them.
        host: milliseconds of the main thread in a step of 128 beside launches: the batch, its masks, the meter.
    """

    form: str
    update: tuple[int, int]
    masks: int
    unpacking: tuple[int, ...]
    host: float


PARAMETERS = 60_965_224
CODES = {
    # Four operations for each of 16 tensors: v*0.9, v + w, v + g, w + v, which read and write 8, 12, 12 and 12 bytes.
    "before": Code(lrn.TORCH, (64, 44), 8192, (), 2.4),
    # torch's fused kernel, three launches for the weights and one for the biases: v, w, g read, v, w written.
    "after": Code("one pass", (4, 20), 1024, (9 * 1024, 16 * 1024), 2.0),
}


def kernels_of(code: Code, batch_size: int) -> list[Kernel]:
    """List all kernels of a step."""
    launches, size = code.update
    update = [Kernel("update", 0.0, size * PARAMETERS / launches)] * launches
    masks = [Kernel("masks", 0.0, batch_size * float(size)) for size in code.unpacking]
    # DALI's graph: cut pictures less mean, less residual, times gain, in float32.
    pictures = [Kernel("pictures", 0.0, batch_size * PIXELS * size) for size in (5.0, 8.0, 8.0)]
    return [*step(batch_size, code.form), *update, *masks, *pictures]


def parts(kernels: list[Kernel]) -> dict[str, list[Kernel]]:
    """Group kernels by the part of the step, the longest first."""
    names = dict.fromkeys(kernel.part for kernel in kernels)
    grouped = {name: [kernel for kernel in kernels if kernel.part == name] for name in names}
    return dict(sorted(grouped.items(), key=lambda part: -seconds(part[1])))


def seconds(kernels: list[Kernel]) -> float:
    """Return the time of kernels one after the other."""
    return sum(kernel.seconds for kernel in kernels)


def main() -> None:
    """Print the tables for docs/gpu.md."""
    listed = {(name, n): kernels_of(code, n) for name, code in CODES.items() for n in (128, 1024)}
    print("| part of the step, batch of 1,024 | kernels | GFLOP | GB | ms | before: kernels | GB | ms |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    before, after = (parts(listed[name, 1024]) for name in CODES)
    for name, own in after.items():
        old, flops, size = before.get(name, []), sum(k.flops for k in own), sum(k.bytes for k in own)
        cells = [len(own), f"{flops / 1e9:,.0f}", f"{size / 1e9:.2f}", f"{1000 * seconds(own):.2f}"]
        cells += [len(old), f"{sum(k.bytes for k in old) / 1e9:.2f}", f"{1000 * seconds(old):.2f}"]
        print(f"| {name} | {' | '.join(map(str, cells))} |")
    print()
    print("| | batch | kernels | kB an image on the card | kB an image sent up | GPU ms | host ms | images/s | limit |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    for (name, n), kernels in listed.items():
        code, own = CODES[name], seconds(kernels)
        host = LAUNCH * len(kernels) + code.host / 1000 * n / 128
        size = sum(kernel.bytes for kernel in kernels) / n / 1000
        rate, limit = n / max(own, host), "card" if own > host else "host"
        sent = (PIXELS + code.masks) / 1000
        cells = [n, len(kernels), f"{size:,.0f}", f"{sent:.0f}", f"{1000 * own:.2f}", f"{1000 * host:.2f}"]
        print(f"| {name} | {' | '.join(map(str, cells))} | {rate:,.0f} | {limit} |")


def flops_of_a_picture() -> float:
    """Count the matrix operations of a step for one picture, without those of response normalisation."""
    return sum(kernel.flops for kernel in step(1, "one pass"))


if __name__ == "__main__":
    main()
