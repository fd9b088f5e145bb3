"""How all figures look, and how they are saved: one set of colours for light paper, one for dark.

In:  a matplotlib Figure.  Out: NAME.png and NAME.svg.
Figures are drawn without pyplot: nothing is kept between two of them, and no display is needed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...pipeline.errors import UsageError
from ...pipeline.files import printable, write_atomically, writing_to

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 160


@dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Attributes:
        paper, ink, faint, grid: background, words, small words, grid lines.
        right, wrong: of a label that is the photo's, and of others.
        lines: of the curves of several runs, in order; told apart by those who see no red or green too.
    """

    paper: str
    ink: str
    faint: str
    grid: str
    right: str
    wrong: str
    lines: tuple[str, ...]


LIGHT = Theme(
    "#ffffff",
    "#22292c",
    "#6b7479",
    "#e7ebed",
    "#c2452d",
    "#8fa3ad",
    ("#1f6f5c", "#c2452d", "#2f5fa8", "#a8741a", "#7a4a9e", "#4d5a60"),
)
DARK = Theme(
    "#15191b",
    "#e6eaec",
    "#99a4a9",
    "#2b3235",
    "#f0806a",
    "#6f858f",
    ("#5cc4a8", "#f0806a", "#84aef0", "#e0b35c", "#c39ae3", "#b7c2c7"),
)


def new_figure(width: float, height: float, look: Theme = LIGHT) -> "Figure":
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor=look.paper)


def save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write folder/name.png and folder/name.svg, whole or not at all; the folder is made.

    Words stay words in the SVG, and two drawings of one run are one file: no date, no random ids.

    Returns:
        The two files.
    Raises:
        UsageError: `folder` is a file.
        NotWrittenError: it, or a figure, cannot be written.
    """
    import matplotlib
    from matplotlib.text import Text

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file, not a folder for figures", "name another with --out")
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for words in figure.findobj(Text):  # names of runs and folders may be what no encoding has
        if (shown := printable(words.get_text())) != words.get_text():
            words.set_text(shown)
    files = []
    for form, about in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": "alexnet-figures"})):
        target = folder / f"{name}.{form}"
        draw = partial(figure.savefig, format=form, metadata=about, facecolor=figure.get_facecolor())
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
            write_atomically(target, draw, part=f"{os.getpid()}.part")  # two commands may draw one figure
        files.append(target)
    return files


# --- from tools/figures/saved.py

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK_OPTION = click.option("--dark", is_flag=True, help="For a dark page; the files are called NAME-dark.")


def write(draw: Callable[[Theme], "Figure"], folder: Path, name: str, dark: bool) -> None:
    """Draw, save as PNG and SVG, and say so."""
    for file in save(draw(DARK if dark else LIGHT), folder, name + "-dark" * dark):
        click.echo(str(file))
