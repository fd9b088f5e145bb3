"""`alexnet-figures kernels`: the first layer's learned kernels (paper, figure 3).

In:  a run, or several checkpoints.  Out: one sheet of kernels, or a strip of sheets, as PNG, SVG and animation.

Zero is middle grey. Each kernel is scaled by one factor for its three channels, so that its value of greatest magnitude
is black or white: hues are true, weak kernels are as visible as strong ones. `--scale net` uses one factor for all
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
from .. import options
from .first_layer import Kernels, learned, of_checkpoint, of_epochs, smoothness
from .open_run import OUT, folder_for
from .sheet import MARGIN, Sheet, rgb
from .style import DARK, DARK_OPTION, DPI, LIGHT, Theme, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCALES = ("kernel", "net")
WIDE = 1528  # pixels of a sheet: 16 kernels of 11 weights and the lines between them, 8 pixels per weight
ACROSS, ACROSS_STRIP, STRIP = 16, 8, 5  # kernels per row of a single sheet, and of a strip's sheet; sheets per row
NOISE = 0.2  # smoothness; after 7 epochs on Imagenette, Kaiming's weights have 0.02, their change 0.8
LABEL, APART, BELOW = 0.2, 0.14, 0.3  # inches: a column's label, between columns, between rows of sheets


@click.command(context_settings=options.SETTINGS)
@click.argument("runs", nargs=-1, required=True, type=options.PATH)
@OUT
@click.option("--epochs", help="One run's kept epochs, for example 0,1,5; or `some`, five of them.")
@click.option(
    "--scale", type=click.Choice(SCALES), default="kernel", show_default=True, help="One factor per kernel or per net."
)
@click.option("--learned", "change", is_flag=True, help="Draw the change since the initialisation.")
@click.option("--animation", is_flag=True, help="Also write an animated PNG, a frame per checkpoint.")
@DARK_OPTION
def kernels(runs, out, epochs, scale, change, animation, dark):
    """Draw the first layer's kernels of RUNS, folders or .pt files: figure 3 of the paper.

    The two columns are drawn separately. Several checkpoints are drawn side by side.

    \b
    Examples:
      alexnet-figures kernels runs/source2012
      alexnet-figures kernels runs/modern --learned
      alexnet-figures kernels a/last.pt b/last.pt --animation
      alexnet-figures kernels runs/source2012 --epochs 0,1,5,20
    """
    if epochs and len(runs) > 1:
        raise UsageError(f"--epochs {epochs} is given with {len(runs)} runs", "name one run")
    layers = of_epochs(runs[0], _parse_epochs(epochs)) if epochs else [of_checkpoint(run) for run in runs]
    if change:
        groups = [layers] if epochs else [[one] for one in layers]
        layers = [one for run, group in zip(runs, groups, strict=True) for one in learned(run, group)]
    elif min(smoothness(one.weights) for one in layers) < NOISE:
        click.echo("most of these weights are initialisation noise; see also --learned", err=True)
    if len(runs) > 1:
        layers = [
            Kernels(one.weights, one.columns, f"{_name_of(run)}, {one.title}")
            for run, one in zip(runs, layers, strict=True)
        ]
    if animation and len(layers) < 2:
        raise UsageError("--animation needs more than one checkpoint", "name several, or use --epochs some")
    folder = folder_for(runs[0], out)
    name = "kernels" + "-learned" * change
    write(lambda theme: draw(layers, theme, scale, change), folder, name, dark)
    if animation:
        theme = DARK if dark else LIGHT
        target = folder / f"{name}-animation{'-dark' * dark}.png"
        write_atomically(target, animated([draw([one], theme, scale, change) for one in layers]))
        click.echo(str(target))


def draw(layers: Sequence[Kernels], theme: Theme = LIGHT, scale: str = "kernel", change: bool = False) -> "Figure":
    """Draw one sheet of kernels, or a strip of sheets.

    Args:
        layers: at least one; they may differ in number and size of kernels.
        scale: `kernel` or `net`, see the module.
        change: the weights are changes since the initialisation.
    """
    per_row = min(len(layers), STRIP)
    across = ACROSS if len(layers) == 1 else ACROSS_STRIP
    room = (WIDE - (per_row - 1) * round(0.25 * DPI)) // per_row
    sheets = [_blocks(one, across, room, theme, scale) for one in layers]
    widest = max(block.shape[1] for blocks in sheets for block in blocks) / DPI
    heights = [sum(len(block) / DPI + LABEL + APART for block in blocks) for blocks in sheets]
    tallest = max(heights)
    rows = -(-len(layers) // STRIP)
    head, titles = 0.85, 0.0 if len(layers) == 1 else BELOW
    width = 2 * MARGIN + per_row * widest + (per_row - 1) * 0.25
    sheet = Sheet(width, head + rows * (tallest + titles) + MARGIN - APART, theme)
    one = layers[0]
    count, side = len(one.weights), one.weights.shape[-1]
    title = ("Learned change of the" if change else "The") + f" first layer's {count} kernels, {side}x{side}x3"
    sheet.head(f"{title}, {one.title}" if len(layers) == 1 and one.title else title, _about(scale, width))
    for number, (layer, blocks) in enumerate(zip(layers, sheets, strict=True)):
        x = MARGIN + number % STRIP * (widest + 0.25)
        y = head + number // STRIP * (tallest + titles)
        if titles:
            sheet.text(x, y + 0.14, layer.title, 9, weight="bold", room=widest)
        _draw_blocks(sheet, blocks, x, y + titles)
    return sheet.figure


def colours(weights: np.ndarray, scale: str = "kernel") -> np.ndarray:
    """Map weights to colours, see the module: float (n, 3, k, k) to uint8 (n, k, k, 3)."""
    largest = np.abs(weights).max(axis=(1, 2, 3) if scale == "kernel" else None, keepdims=True)
    shares = weights / np.where(largest > 0, largest, 1)
    return np.rint(127.5 + 127.5 * shares).astype(np.uint8).transpose(0, 2, 3, 1)


def mosaic(pictures: np.ndarray, across: int, paper: str, times: int = 1) -> np.ndarray:
    """Arrange pictures row by row, separated by lines one pixel wide, and enlarge each pixel `times` times.

    Args:
        pictures: uint8 (n, k, k, 3).
        across: pictures per row.
        paper: colour of the lines, `#rrggbb`.
    Returns:
        uint8 (height, width, 3).
    """
    count, side = pictures.shape[:2]
    across = min(across, count)
    down, step = -(-count // across), side + 1
    out = np.empty((down * step - 1, across * step - 1, 3), np.uint8)
    out[:] = rgb(paper)
    for number, picture in enumerate(pictures):
        y, x = number // across * step, number % across * step
        out[y : y + side, x : x + side] = picture
    return out.repeat(times, axis=0).repeat(times, axis=1)


def animated(figures: Sequence["Figure"], seconds: float = 0.8):
    """Return a function that writes an animated PNG to a file; unlike a GIF it has all colours.

    Args:
        seconds: per frame.
    """
    from PIL import Image

    frames = []
    for figure in figures:
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None}, facecolor=figure.get_facecolor())
        frames.append(Image.open(file).convert("RGB"))
    return lambda target: frames[0].save(
        target, format="PNG", save_all=True, append_images=frames[1:], duration=round(1000 * seconds), loop=0
    )


def _blocks(layer: Kernels, across: int, room: int, theme: Theme, scale: str) -> list[np.ndarray]:
    """Return a mosaic for each column, at most `room` pixels wide if possible."""
    parts = np.array_split(colours(layer.weights, scale), layer.columns)
    across = across if len(layer.weights) <= 256 else 2 * across  # a vision transformer's 768
    narrow = min(across, len(parts[0])) * (layer.weights.shape[-1] + 1) - 1
    return [mosaic(part, across, theme.paper, max(1, min(room // narrow, 24))) for part in parts]


def _draw_blocks(sheet: Sheet, blocks: list[np.ndarray], x: float, y: float) -> None:
    for number, block in enumerate(blocks):
        if len(blocks) > 1:
            if number:
                sheet.bar(x, y - 0.03, block.shape[1] / DPI, 0.008, sheet.theme.grid)
            sheet.text(x, y + 0.13, f"column {number + 1}", 8, color=sheet.theme.faint)
            y += LABEL
        sheet.picture(x, y, block, block.shape[1] / DPI)
        y += len(block) / DPI + APART


def _about(scale: str, width: float) -> str:
    """Describe the mapping from weights to colours, in `width` inches."""
    what = "each kernel's" if scale == "kernel" else "the net's"
    return f"Grey is zero; {what} greatest weight is black or white." + " One factor for RGB." * (width > 8)


def _name_of(run: Path) -> str:
    return run.resolve().name if run.is_dir() else f"{run.resolve().parent.name}/{run.stem}"


def _parse_epochs(text: str) -> list[int]:
    if text == "some":
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--epochs {text}: not numbers", "for example --epochs 0,1,5, or --epochs some") from None
