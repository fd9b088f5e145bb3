"""Short binary codes of feature vectors, from an auto-encoder: similar photos have similar codes (paper, section 6.1).

In:  float32 vectors (n, dimensions).  Out: an Encoder, and packed bits.

The encoder is a linear layer and a threshold, the decoder a linear layer. Both are initialised with the principal
components, rotated to minimise the error of their signs (Gong and Lazebnik 2011, ITQ). Training then lowers the
reconstruction error; its units are tanh, steeper with every epoch, until they are nearly bits. The result is the
encoder whose bits had the least error, which may be the initial one.
Krizhevsky and Hinton (2011) stacked Boltzmann machines for the same purpose.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import UsageError

SAMPLE = 20_000  # vectors to train on, 330 MB: enough for a linear layer
TURNS = 30  # iterations of the rotation
BATCH, RATE = 256, 0.01  # the rate is relative to the size of the weights
STEEP = (4.0, 20.0)  # of tanh, in the first epoch and in the last: almost a threshold
ROWS = 4096  # vectors encoded at once


@dataclass(frozen=True)
class Encoder:
    """Encodes vectors as bits: whether `(x - mean) @ weight.T` is above zero.

    Attributes:
        mean: float32 (dimensions,).
        weight: float32 (bits, dimensions).
    """

    mean: Tensor
    weight: Tensor

    @property
    def bits(self) -> int:
        """Number of bits of a code."""
        return len(self.weight)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Encode vectors.

        Args:
            vectors: float32 (n, dimensions), may be memory-mapped.
        Returns:
            uint8 (n, bits / 8); the first bit is the highest of its byte.
        """
        codes = np.empty((len(vectors), self.bits // 8), np.uint8)
        mean, weight = self.mean.numpy(), self.weight.numpy().T
        for top in range(0, len(vectors), ROWS):
            codes[top : top + ROWS] = np.packbits((vectors[top : top + ROWS] - mean) @ weight > 0, axis=1)
        return codes


def check_bits(bits: int, dimensions: int) -> None:
    """Check the length of codes.

    Raises:
        UsageError: it is not a multiple of 8, or is more than the vectors' dimensions.
    """
    if bits % 8 or not 8 <= bits <= dimensions:
        raise UsageError(
            f"--bits {bits} is not a multiple of 8 from 8 to {dimensions:,}, the vectors' dimensions",
            f"try --bits {min(128, dimensions // 8 * 8)}",
        )


def train(
    vectors: np.ndarray,
    bits: int,
    *,
    epochs: int = 10,
    seed: int = 0,
    advance: Callable[[int], Any] = lambda epochs: None,
) -> tuple[Encoder, float]:
    """Train the auto-encoder on a sample of vectors; the same seed gives the same codes on the same machine.

    Args:
        vectors: float32 (n, dimensions), may be memory-mapped.
        bits: length of the codes, a multiple of 8.
        epochs: over the sample; 0: only the initialisation.
        seed: of the sample, its order and the initialisation.
        advance: called with 1 after each epoch.
    Returns:
        The encoder, and the fraction of the sample's variance that its codes do not explain, 0..1.
    Raises:
        UsageError: see `check_bits`.
    """
    check_bits(bits, vectors.shape[1])
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(vectors), generator=generator)[:SAMPLE].sort().values.numpy()
    x = torch.tensor(vectors[chosen], dtype=torch.float32)  # (s, dimensions); aligned: MKL rounds as before
    mean = x.mean(dim=0)
    x -= mean
    weight = _turned(x, _directions(x, bits, generator))  # (bits, dimensions), rows of length one
    units = x @ weight.T
    weight = weight / units.std(dim=0, correction=0).clamp_min(1e-12)[:, None]  # deviations of 1: where tanh bends
    back = _best_decoder(_signs(units), x)  # (bits, dimensions)
    del units
    bias = torch.zeros_like(mean)
    # Adam's steps have the size of its rate whatever the gradient, so rates are relative to each layer's size.
    sizes = [float(layer.square().mean().sqrt()) for layer in (weight, back, back)]
    layers = [layer.requires_grad_() for layer in (weight, back, bias)]
    rule = torch.optim.Adam([{"params": [layer], "lr": RATE * size} for layer, size in zip(layers, sizes, strict=True)])
    falling = torch.optim.lr_scheduler.LambdaLR(rule, lambda epoch: 1 - epoch / max(epochs, 1))
    best, least = weight.detach().clone(), _unexplained(weight, back, bias, x)
    for epoch in range(epochs):
        steep = STEEP[0] * (STEEP[1] / STEEP[0]) ** ((epoch + 1) / epochs)
        for some in torch.randperm(len(x), generator=generator).split(BATCH):
            picked = x[some]
            loss = (torch.tanh(steep * (picked @ weight.T)) @ back + bias - picked).square().sum(dim=1).mean()
            rule.zero_grad()
            loss.backward()
            rule.step()
        falling.step()
        now = _unexplained(weight, back, bias, x)
        if now < least:
            best, least = weight.detach().clone(), now
        advance(1)
    return Encoder(mean, best), least


@torch.no_grad()
def _unexplained(weight: Tensor, back: Tensor, bias: Tensor, x: Tensor) -> float:
    """Return the fraction of the variance that the bits themselves do not explain."""
    left = (_signs(x @ weight.T) @ back + bias - x).square().sum()
    return float(left / x.square().sum().clamp_min(1e-30))


def _signs(units: Tensor) -> Tensor:
    """Return 1 above zero, otherwise -1, as the bits are packed."""
    return torch.where(units > 0, 1.0, -1.0)


def _directions(x: Tensor, bits: int, generator: torch.Generator) -> Tensor:
    """Return the first principal components, (dimensions, bits), orthonormal; random directions beyond the rank."""
    wide = min(bits + 16, *x.shape)
    basis = torch.linalg.qr(x.T @ torch.randn(len(x), wide, generator=generator)).Q
    for _ in range(4):  # subspace iteration: a few passes over x instead of a full decomposition
        basis = torch.linalg.qr(x.T @ (x @ basis)).Q
    _, turn = torch.linalg.eigh((x @ basis).T @ (x @ basis))  # ascending
    components = (basis @ turn.flip(1))[:, :bits]
    more = torch.randn(x.shape[1], bits - components.shape[1], generator=generator)
    return torch.linalg.qr(torch.cat([components, more], dim=1)).Q


def _turned(x: Tensor, directions: Tensor) -> Tensor:
    """Rotate the directions so that the units are as close to -1 and 1 as possible (ITQ): (bits, dimensions)."""
    units, bits = x @ directions, directions.shape[1]
    turn = torch.linalg.qr(torch.randn(bits, bits, generator=torch.Generator().manual_seed(bits))).Q
    for _ in range(TURNS):
        left, _, right = torch.linalg.svd(units.T @ _signs(units @ turn))
        turn = left @ right
    return (directions @ turn).T.contiguous()


def _best_decoder(signs: Tensor, x: Tensor) -> Tensor:
    """Return the linear decoder with the least error: (bits, dimensions)."""
    bits = signs.shape[1]
    ridge = 1e-3 * len(x) * torch.eye(bits)  # a bit may be the same for all photos
    return torch.linalg.solve(signs.T @ signs + ridge, signs.T @ x)
