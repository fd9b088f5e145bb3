"""Short binary codes of the vectors, by an auto-encoder: alike photos have alike codes (the paper's section 6.1).

In:  float32 vectors (n, dimensions).  Out: an Encoder, and packed bits.

The encoder is one linear layer and a threshold, the decoder one linear layer. Both begin as the best linear ones: the
principal components, turned so that signs lose least (Gong and Lazebnik 2011, ITQ). Training then lowers the error of
what is decoded, from units of tanh that grow steeper with every epoch until they are bits; the layers count whose bits
left least error, also where those are the first.
Krizhevsky and Hinton (2011) stacked layers of Boltzmann machines for the same purpose.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import UsageError

SAMPLE = 20_000  # vectors to train on, 330 MB: a linear layer needs no more
TURNS = 30  # of the rotation
BATCH, RATE = 256, 0.01  # the rate as a share of a weight, a step
STEEP = (4.0, 20.0)  # of tanh, in the first epoch and in the last: almost a threshold
ROWS = 4096  # encoded at once


@dataclass(frozen=True)
class Encoder:
    """Turns vectors into bits: where `(x - mean) @ weight.T` is above zero.

    Attributes:
        mean: float32 (dimensions,).
        weight: float32 (bits, dimensions).
    """

    mean: Tensor
    weight: Tensor

    @property
    def bits(self) -> int:
        """Of a code."""
        return len(self.weight)

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Codes of vectors, which may be memory-mapped: uint8 (n, bits / 8), the first bit the highest of its byte."""
        codes = np.empty((len(vectors), self.bits // 8), np.uint8)
        mean, weight = self.mean.numpy(), self.weight.numpy().T
        for top in range(0, len(vectors), ROWS):
            codes[top : top + ROWS] = np.packbits((vectors[top : top + ROWS] - mean) @ weight > 0, axis=1)
        return codes


def check_bits(bits: int, dimensions: int) -> None:
    """Check a code's length.

    Raises:
        UsageError: not a multiple of 8, or longer than a linear layer can make sense of.
    """
    if bits % 8 or not 8 <= bits <= dimensions:
        raise UsageError(
            f"--bits {bits}: codes have a multiple of 8 bits, up to the vectors' {dimensions:,} numbers",
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
    """Train the auto-encoder on a sample of vectors; the same seed gives the same codes.

    Args:
        vectors: float32 (n, dimensions), may be memory-mapped.
        epochs: over the sample; 0 leaves the codes that training begins with.
        advance: called after each epoch.
    Returns:
        The encoder, and the share of the sample's variance that its codes do not explain, 0..1.
    Raises:
        UsageError: no such code.
    """
    check_bits(bits, vectors.shape[1])
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(vectors), generator=generator)[:SAMPLE].sort().values.numpy()
    x = torch.from_numpy(np.array(vectors[chosen], np.float32))  # (s, dimensions)
    mean = x.mean(dim=0)
    x -= mean
    weight = _turned(x, _directions(x, bits, generator))  # (bits, dimensions), rows of length one
    units = x @ weight.T
    weight = weight / units.std(dim=0, correction=0).clamp_min(1e-12)[:, None]  # where tanh bends
    back = _best_decoder(_signs(units), x)  # (bits, dimensions)
    del units
    bias = torch.zeros_like(mean)
    # Adam's steps are as long as its rate whatever the gradient: a share of each layer's own size.
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
    """The share of the variance that the bits themselves do not explain."""
    left = (_signs(x @ weight.T) @ back + bias - x).square().sum()
    return float(left / x.square().sum().clamp_min(1e-30))


def _signs(units: Tensor) -> Tensor:
    """1 above zero, else -1: as the bits are packed."""
    return torch.where(units > 0, 1.0, -1.0)


def _directions(x: Tensor, bits: int, generator: torch.Generator) -> Tensor:
    """The first principal components, (dimensions, bits), columns orthonormal; beyond the rank, others at random."""
    wide = min(bits + 16, *x.shape)
    basis = torch.linalg.qr(x.T @ torch.randn(len(x), wide, generator=generator)).Q
    for _ in range(4):  # subspace iteration: a few passes over x in place of all of its components
        basis = torch.linalg.qr(x.T @ (x @ basis)).Q
    _, turn = torch.linalg.eigh((x @ basis).T @ (x @ basis))  # ascending
    components = (basis @ turn.flip(1))[:, :bits]
    more = torch.randn(x.shape[1], bits - components.shape[1], generator=generator)
    return torch.linalg.qr(torch.cat([components, more], dim=1)).Q


def _turned(x: Tensor, directions: Tensor) -> Tensor:
    """Turn the directions among themselves until the units are as near to -1 and 1 as a turn can bring them (ITQ)."""
    units, bits = x @ directions, directions.shape[1]
    turn = torch.linalg.qr(torch.randn(bits, bits, generator=torch.Generator().manual_seed(bits))).Q
    for _ in range(TURNS):
        left, _, right = torch.linalg.svd(units.T @ _signs(units @ turn))
        turn = left @ right
    return (directions @ turn).T.contiguous()


def _best_decoder(signs: Tensor, x: Tensor) -> Tensor:
    """The linear decoder of least error: (bits, dimensions)."""
    bits = signs.shape[1]
    ridge = 1e-3 * len(x) * torch.eye(bits)  # signs may agree on all photos
    return torch.linalg.solve(signs.T @ signs + ridge, signs.T @ x)
