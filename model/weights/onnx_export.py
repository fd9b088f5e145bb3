"""Export of a trained net as ONNX, compared with torch before the file gets its final name.

In:  a Trained.  Out: model.onnx: `pictures`, float (n, 3, crop, crop), RGB, 0..255, to `logits` (n, classes), any n.
The mean is subtracted inside the model, so that the file is self-contained. torch's exporter does not support custom
autograd functions: the response normalisation is replaced by the same arithmetic in standard operators.
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

TOLERANCE = 1e-4  # relative to the largest logit; float32 sums in another order differ by 1e-6
CHECKED = (1, 3)  # batch sizes, both different from that of the export


def export_onnx(trained: Trained, path: Path) -> float:
    """Write a net as an ONNX file, atomically.

    The input is `pictures`, float32 (n, 3, crop, crop), RGB, 0..255; the output is `logits`, float32 (n, classes).

    Args:
        trained: the net.
        path: the .onnx file.
    Returns:
        The largest absolute difference between the logits of onnxruntime and torch, on random pictures.
    Raises:
        UsageError: onnx, onnxscript or onnxruntime is not installed.
        TrainingError: the net cannot be exported, or its logits differ by more than rounding.
        OSError: the file cannot be written.
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
    """Check that onnx, onnxruntime and onnxscript are installed.

    Raises:
        UsageError: one of them is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed", INSTALL) from None


@torch.no_grad()
def compare(net: nn.Module, file: Path, crop: int) -> float:
    """Return the largest absolute difference of logits between torch and onnxruntime, on random pictures.

    Args:
        net: takes float32 (n, 3, crop, crop), RGB, 0..255.
        file: the same net as ONNX.
    Raises:
        TrainingError: the difference is more than rounding.
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
                "use model.safetensors, and report this with your versions of onnx, onnxruntime and torch",
            )
        largest = max(largest, difference)
    return largest


class Portable(nn.Module):
    """A net that subtracts the mean itself and consists of operators that ONNX has."""

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
        """Compute logits (n, classes) of float32 (n, 3, crop, crop), RGB, 0..255."""
        return self.net((pictures - self.mean) * self.scale)


class PlainNorm(nn.Module):
    """The response normalisation of lrn.py in standard operators.

    Args:
        norm: the module to replace.
        widths: numbers of maps of its inputs.
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


def _write(net: nn.Module, example: Tensor, file: Path, source: Path) -> None:
    log = logging.getLogger("torch.onnx")
    level = log.level
    try:
        log.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
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
    except OSError:  # from the disk
        raise
    except Exception as error:  # unsupported layers raise many kinds
        raise TrainingError(
            f"{source}: cannot be exported as ONNX ({type(error).__name__}: {' '.join(str(error).split())[:160]})",
            "omit --onnx: model.safetensors works for every net",
        ) from None
    finally:
        log.setLevel(level)
