"""Snapshots of the first layer's kernels after each epoch, for figures of how they develop.

In:  a net's weights.  Out: RUN/kernels/00003.npy, float32 (kernels, 3, height, width), after epoch 3; 00000 is before
the first step. 140 kB per epoch, in the layout of the whole net, however it is split.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from ...pipeline.files import write_atomically
from .run_files import write_errors

FOLDER = "kernels"


def first_kernels(weights: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """Return the first parameter with three input channels, by name; {} if there is none."""
    for name, tensor in weights.items():
        if tensor is not None and tensor.ndim == 4 and tensor.shape[1] == 3:
            return {name: tensor}
    return {}


def keep(run: Path, epoch: int, weights: Mapping[str, Tensor | None]) -> None:
    """Write the first layer's kernels after so many epochs; nothing if there is no such layer.

    Raises:
        TrainingError: the file cannot be written.
    """
    for tensor in first_kernels(weights).values():
        assert tensor is not None, "first_kernels returns no missing tensor"
        values, file = io.BytesIO(), run / FOLDER / f"{epoch:05}.npy"
        np.save(values, tensor.detach().float().cpu().contiguous().numpy())
        with write_errors(file):
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, values.getvalue())


def drop_after(run: Path, epoch: int) -> None:
    """Remove the snapshots after a checkpoint of so many epochs.

    Raises:
        TrainingError: a file cannot be removed.
    """
    for number, file in _files(run).items():
        if number > epoch:
            with write_errors(file):
                file.unlink(missing_ok=True)


def read(run: Path) -> dict[int, np.ndarray]:
    """Return all snapshots by epoch, in ascending order; damaged files are left out."""
    kept = {}
    for epoch, file in _files(run).items():
        try:
            kept[epoch] = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
    return kept


def _files(run: Path) -> dict[int, Path]:
    named = ((path.stem, path) for path in sorted((run / FOLDER).glob("*.npy")))
    return {int(stem): path for stem, path in named if stem.isdecimal()}
