"""What all commands of figures do with a figure: save it for light or dark pages, say where it is.

In:  a function that draws with a Look.  Out: two files, their names on standard output.  No torch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .style import DARK, LIGHT, Look, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK_OPTION = click.option("--dark", is_flag=True, help="For a dark page; the files are called NAME-dark.")


def write(draw: Callable[[Look], "Figure"], folder: Path, name: str, dark: bool) -> None:
    """Draw, save as PNG and SVG, and say so."""
    for file in save(draw(DARK if dark else LIGHT), folder, name + "-dark" * dark):
        click.echo(str(file))
