"""A trained net as ONNX, checked against torch before it gets its name.

In:  a Trained.  Out: model.onnx: `pictures`, float (n, 3, crop, crop), RGB, 0..255, to `logits` (n, classes), any n.
The mean is subtracted inside, so that the file is all that a stranger needs. The exporter does not follow autograd
functions of our own: the response normalisation is replaced by the same arithmetic in plain operators.
"""

import contextlib
import copy
import io
import logging
import os
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipeline.errors import TrainingError, UsageError
from ...pipeline.files import writing_to
from ..nets.factory import NormalizedNet
from ..nets.lrn import AcrossMaps, WithinMap
from .safetensors_io import INSTALL
from .trained import Trained, mean_window

TOLERANCE = 1e-4  # of the largest logit; float32 sums in another order differ by 1e-6
CHECKED = (1, 3)  # batch sizes: neither is the one that it was exported with


def export_onnx(trained: Trained, path: Path) -> float:
    """Write a net as ONNX.

    Returns:
        The largest difference between a logit by onnxruntime and by torch, on random pictures.
    Raises:
        UsageError: onnx, onnxscript or onnxruntime is not installed.
        TrainingError: the net cannot be written as ONNX, or gives other logits there.
    """
    check_installed()
    net = Portable(trained).eval()
    beside = path.with_name(f".{path.name}.part")
    try:
        with writing_to(path):
            _write(net, torch.zeros(2, 3, trained.recipe.crop, trained.recipe.crop), beside, trained.file)
        difference = compare(net, beside, trained.recipe.crop)
        with writing_to(path):
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return difference


def check_installed() -> None:
    """See that the libraries are there.

    Raises:
        UsageError: one is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed", INSTALL) from None


@torch.no_grad()
def compare(net: nn.Module, file: Path, crop: int) -> float:
    """The largest difference of logits, torch against onnxruntime, on random pictures.

    Raises:
        TrainingError: it is more than rounding.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for n in CHECKED:
        pictures = torch.rand(n, 3, crop, crop, generator=generator) * 255
        ours = net(pictures)
        theirs = torch.from_numpy(session.run(["logits"], {"pictures": pictures.numpy()})[0])
        difference = float((ours - theirs).abs().max()) if theirs.shape == ours.shape else float("inf")
        if not difference <= TOLERANCE * max(1.0, float(ours.abs().max())):  # a NaN is not
            raise TrainingError(
                f"{file.name.removeprefix('.').removesuffix('.part')}: onnxruntime's logits differ from torch's by "
                f"{difference:.3g} on {n} random pictures",
                "use model.safetensors, and report this with the versions of onnx, onnxruntime and torch",
            )
        largest = max(largest, difference)
    return largest


class Portable(nn.Module):
    """A net that takes pixels as they are, of operators that ONNX has."""

    mean: Tensor
    scale: Tensor

    def __init__(self, trained: Trained):
        super().__init__()
        net = copy.deepcopy(trained.net).cpu().float()
        if isinstance(net, NormalizedNet):
            scale, self.net = net.scale, net.net
        else:
            scale, self.net = torch.ones(1), net
            for name, part in list(net.named_children()):
                if isinstance(part, AcrossMaps | WithinMap):
                    maps = net.conv1.out_channels if name == "norm" else net.conv2.out_channels
                    setattr(net, name, PlainNorm(part, {maps, net.conv2.out_channels}))
        self.register_buffer("mean", mean_window(trained))
        self.register_buffer("scale", scale)

    def forward(self, pictures: Tensor) -> Tensor:
        """Compute logits of (n, 3, crop, crop), RGB, 0..255."""
        return self.net((pictures - self.mean) * self.scale)


class PlainNorm(nn.Module):
    """What lrn.py computes, without its own gradient.

    Args:
        norm: to take the place of.
        widths: numbers of maps that it is given.
    """

    def __init__(self, norm: AcrossMaps | WithinMap, widths: set[int]):
        super().__init__()
        self.constant, self.scale = norm.constant, norm.scale
        across = isinstance(norm, AcrossMaps)
        self.padding = 0 if across else norm.size // 2
        for maps in sorted(widths):
            if isinstance(norm, AcrossMaps):
                near = torch.arange(maps // norm.columns)
                band = ((near[:, None] - near[None, :]).abs() <= norm.size // 2).float()
                kernel = band.repeat(norm.columns, 1)[:, :, None, None]
            else:
                kernel = torch.ones(maps, 1, norm.size, norm.size)
            self.register_buffer(f"kernel{maps}", kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, maps, height, width)."""
        kernel = getattr(self, f"kernel{x.shape[1]}")
        around = F.conv2d(x * x, kernel, padding=self.padding, groups=x.shape[1] // kernel.shape[1])
        root = (around * self.scale + self.constant).rsqrt()
        return x * (root * root.sqrt())


def _write(net: nn.Module, example: Tensor, file: Path, told: Path) -> None:
    log = logging.getLogger("torch.onnx")
    level = log.level
    try:
        log.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # its progress is not our result
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net,
                (example,),
                str(file),
                input_names=["pictures"],
                output_names=["logits"],
                dynamo=True,
                external_data=False,
                dynamic_shapes={"pictures": {0: torch.export.Dim("n", min=1)}},
                verbose=False,
            )
    except OSError:  # the disk's
        raise
    except Exception as error:  # each layer that ONNX lacks has its own
        raise TrainingError(
            f"{told}: cannot be written as ONNX ({type(error).__name__}: {' '.join(str(error).split())[:160]})",
            "leave out --onnx: model.safetensors holds every net",
        ) from None
    finally:
        log.setLevel(level)
