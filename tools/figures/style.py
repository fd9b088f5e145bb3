"""The style of all figures, and how they are saved: one set of colours for light paper, one for dark.

In:  a matplotlib Figure.  Out: NAME.png and NAME.svg.
Figures are made without pyplot: no global state, no display.
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
DARK_OPTION = click.option("--dark", is_flag=True, help="Draw on a dark background; the files are NAME-dark.")


@dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Attributes:
        paper, ink, faint, grid: background, text, small text, grid lines.
        right, wrong: bars of the correct label, and of other labels.
        lines: curves of several runs, in order; distinguishable with red-green colour blindness.
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


def new_figure(width: float, height: float, theme: Theme = LIGHT) -> "Figure":
    """Return an empty figure; width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor=theme.paper)


def save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write folder/name.png and folder/name.svg atomically; create the folder.

    Text stays text in the SVG. The same figure gives the same bytes: no dates, no random ids.

    Returns:
        The two files.
    Raises:
        UsageError: `folder` is a file.
        NotWrittenError: the folder or a figure cannot be written.
    """
    import matplotlib
    from matplotlib.text import Text

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file, not a folder for figures", "choose another folder with --out")
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for text in figure.findobj(Text):  # names of runs and folders may not be valid Unicode
        if (shown := printable(text.get_text())) != text.get_text():
            text.set_text(shown)
    files = []
    for form, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": "alexnet-figures"})):
        target = folder / f"{name}.{form}"
        draw = partial(figure.savefig, format=form, metadata=metadata, facecolor=figure.get_facecolor())
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
            write_atomically(target, draw, part=f"{os.getpid()}.part")  # two commands may draw the same figure
        files.append(target)
    return files


def write(draw: Callable[[Theme], "Figure"], folder: Path, name: str, dark: bool) -> None:
    """Draw a figure, save it as NAME.png and NAME.svg (NAME-dark if `dark`) and print the files' names."""
    for file in save(draw(DARK if dark else LIGHT), folder, name + "-dark" * dark):
        click.echo(str(file))
