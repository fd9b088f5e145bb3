"""`alexnet-figures kernels`: what the first layer has learned to see (paper, figure 3).

In:  a run, or several checkpoints.  Out: one sheet of kernels, or a strip of sheets, as PNG, SVG and animation.

Zero is middle grey. A kernel's value of greatest magnitude is black or white in its channel, and one factor scales all
three channels: hues are true, faint kernels are as well seen as strong ones. `--scale net`: one factor for all
kernels, so that their strengths can be compared.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from ...pipeline.errors import UsageError
from ...pipeline.files import write_atomically
from .first_layer import Kernels, learned, of_checkpoint, of_epochs, smoothness
from .open_run import FOLDER, OUT, folder_for
from .sheet import MARGIN, Sheet
from .style import DARK, DARK_OPTION, DPI, LIGHT, Theme, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCALES = ("kernel", "net")
WIDE = 1528  # pixels of a sheet: 16 kernels of 11 and the lines between them, 8 pixels a weight
ACROSS, ACROSS_STRIP, STRIP = 16, 8, 5  # kernels in a row of a single sheet and of a strip's; sheets in a row
NOISE = 0.2  # smoothness; Kaiming's weights after seven epochs of Imagenette: 0.02, what was learned of them: 0.8
LABEL, APART, BELOW = 0.2, 0.14, 0.3  # inches: a column's label, between columns, between rows of sheets


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@OUT
@click.option("--epochs", help="Of one run that kept its kernels: after these epochs, 0,1,5 say; `some`, five of them.")
@click.option("--scale", type=click.Choice(SCALES), default="kernel", show_default=True, help="What is black or white.")
@click.option("--learned", "change", is_flag=True, help="What training has added to the weights it began with.")
@click.option("--animation", is_flag=True, help="Write an animated PNG too, a frame for each checkpoint.")
@DARK_OPTION
def kernels(runs, out, epochs, scale, change, animation, dark):
    """Draw the first layer's kernels of RUNS, folders or .pt files: figure 3 of the paper.

    The two columns stand apart. Several checkpoints make a strip.

    \b
    Examples:
      alexnet-figures kernels runs/source2012
      alexnet-figures kernels runs/modern --learned
      alexnet-figures kernels a/last.pt b/last.pt --animation
      alexnet-figures kernels runs/source2012 --epochs 0,1,5,20
    """
    if epochs and len(runs) > 1:
        raise UsageError(f"--epochs {epochs} of {len(runs)} runs", "name one run")
    layers = of_epochs(runs[0], _numbers(epochs)) if epochs else [of_checkpoint(run) for run in runs]
    if change:
        groups = [layers] if epochs else [[one] for one in layers]
        layers = [one for run, group in zip(runs, groups, strict=True) for one in learned(run, group)]
    elif min(smoothness(one.weights) for one in layers) < NOISE:
        click.echo("most of what is seen is the noise that training began with; see also --learned", err=True)
    if len(runs) > 1:
        layers = [
            Kernels(one.weights, one.columns, f"{_called(run)}, {one.title}")
            for run, one in zip(runs, layers, strict=True)
        ]
    if animation and len(layers) < 2:
        raise UsageError("--animation of one checkpoint stands still", "name several, or --epochs some")
    folder = folder_for(runs[0], out)
    name = "kernels" + "-learned" * change
    write(lambda look: draw(layers, look, scale, change), folder, name, dark)
    if animation:
        look = DARK if dark else LIGHT
        target = folder / f"{name}-animation{'-dark' * dark}.png"
        write_atomically(target, animated([draw([one], look, scale, change) for one in layers]))
        click.echo(str(target))


def draw(layers: Sequence[Kernels], look: Theme = LIGHT, scale: str = "kernel", change: bool = False) -> "Figure":
    """One sheet of kernels, or a strip of them.

    Args:
        layers: at least one; they may differ in number and size.
        change: they are what training has added.
    """
    per_row = min(len(layers), STRIP)
    across = ACROSS if len(layers) == 1 else ACROSS_STRIP
    room = (WIDE - (per_row - 1) * round(0.25 * DPI)) // per_row
    sheets = [_blocks(one, across, room, look, scale) for one in layers]
    widest = max(block.shape[1] for blocks in sheets for block in blocks) / DPI
    heights = [sum(len(block) / DPI + LABEL + APART for block in blocks) for blocks in sheets]
    tallest = max(heights)
    rows = -(-len(layers) // STRIP)
    head, titles = 0.85, 0.0 if len(layers) == 1 else BELOW
    width = 2 * MARGIN + per_row * widest + (per_row - 1) * 0.25
    sheet = Sheet(width, head + rows * (tallest + titles) + MARGIN - APART, look)
    one = layers[0]
    count, side = len(one.weights), one.weights.shape[-1]
    title = ("What training added to the" if change else "The") + f" first layer's {count} kernels, {side}x{side}x3"
    sheet.head(f"{title}, {one.title}" if len(layers) == 1 and one.title else title, _about(scale, width))
    for place, (layer, blocks) in enumerate(zip(layers, sheets, strict=True)):
        x = MARGIN + place % STRIP * (widest + 0.25)
        y = head + place // STRIP * (tallest + titles)
        if titles:
            sheet.text(x, y + 0.14, layer.title, 9, weight="bold", room=widest)
        _sheet_of(sheet, blocks, x, y + titles)
    return sheet.figure


def colours(weights: np.ndarray, scale: str = "kernel") -> np.ndarray:
    """Weights as colours, see the module: float (n, 3, k, k) to uint8 (n, k, k, 3)."""
    largest = np.abs(weights).max(axis=(1, 2, 3) if scale == "kernel" else None, keepdims=True)
    shares = weights / np.where(largest > 0, largest, 1)
    return np.rint(127.5 + 127.5 * shares).astype(np.uint8).transpose(0, 2, 3, 1)


def mosaic(pictures: np.ndarray, across: int, paper: str, times: int = 1) -> np.ndarray:
    """Pictures row by row with a line of one of their pixels between, each pixel as a square of `times` pixels.

    Args:
        pictures: uint8 (n, k, k, 3).
        paper: colour of the lines.
    Returns:
        uint8 (height, width, 3).
    """
    count, side = pictures.shape[:2]
    across = min(across, count)
    down, step = -(-count // across), side + 1
    out = np.empty((down * step - 1, across * step - 1, 3), np.uint8)
    out[:] = [int(paper[k : k + 2], 16) for k in (1, 3, 5)]
    for place, picture in enumerate(pictures):
        y, x = place // across * step, place % across * step
        out[y : y + side, x : x + side] = picture
    return out.repeat(times, axis=0).repeat(times, axis=1)


def animated(figures: Sequence["Figure"], seconds: float = 0.8):
    """A function that writes an animated PNG: browsers show it, and it has all colours, which a GIF has not."""
    from PIL import Image

    frames = []
    for figure in figures:
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None}, facecolor=figure.get_facecolor())
        frames.append(Image.open(file).convert("RGB"))
    return lambda target: frames[0].save(
        target, format="PNG", save_all=True, append_images=frames[1:], duration=round(1000 * seconds), loop=0
    )


def _blocks(layer: Kernels, across: int, room: int, look: Theme, scale: str) -> list[np.ndarray]:
    """A mosaic for each column, at most `room` pixels wide where that is possible."""
    parts = np.array_split(colours(layer.weights, scale), layer.columns)
    across = across if len(layer.weights) <= 256 else 2 * across  # a vision transformer's 768
    narrow = min(across, len(parts[0])) * (layer.weights.shape[-1] + 1) - 1
    return [mosaic(part, across, look.paper, max(1, min(room // narrow, 24))) for part in parts]


def _sheet_of(sheet: Sheet, blocks: list[np.ndarray], x: float, y: float) -> None:
    for number, block in enumerate(blocks):
        if len(blocks) > 1:
            if number:
                sheet.bar(x, y - 0.03, block.shape[1] / DPI, 0.008, sheet.look.grid)
            sheet.text(x, y + 0.13, f"column {number + 1}", 8, color=sheet.look.faint)
            y += LABEL
        sheet.picture(x, y, block, block.shape[1] / DPI)
        y += len(block) / DPI + APART


def _about(scale: str, width: float) -> str:
    """How weights became colours, as long as there is room for it."""
    what = "each kernel's" if scale == "kernel" else "all kernels'"
    return f"Grey is zero; {what} greatest weight is black or white." + (
        " One factor for all three channels." if width > 8 else ""
    )


def _called(run: Path) -> str:
    return run.resolve().name if run.is_dir() else f"{run.resolve().parent.name}/{run.stem}"


def _numbers(text: str) -> list[int]:
    if text == "some":
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--epochs {text}: not numbers", "say --epochs 0,1,5, or --epochs some") from None
