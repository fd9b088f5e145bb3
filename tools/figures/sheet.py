"""A sheet: a figure laid out in inches from its upper left corner.

In:  text, pixels, positions.  Out: a matplotlib Figure.
Pictures are resized beforehand and placed on whole pixels of the PNG, so that they are resampled only once; the SVG
embeds the same pixels.
"""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...pipeline.files import printable
from .style import DPI, Theme, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN = 0.3  # inches


class Sheet:
    """A figure of `width` x `height` inches.

    Attributes:
        figure: the matplotlib Figure.
    """

    def __init__(self, width: float, height: float, theme: Theme):
        self.width, self.height, self.theme = _whole(width), _whole(height), theme
        self.figure = new_figure(self.width, self.height, theme)

    def head(self, title: str, about: str = "") -> None:
        """Draw the title and a sentence below it; they take 0.85 inches."""
        room = self.width - 2 * MARGIN
        self.text(MARGIN, 0.42, title, 13, weight="bold", room=room)
        if about:
            self.text(MARGIN, 0.66, about, 8, color=self.theme.faint, room=room)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        points: float = 8,
        color: str = "",
        weight: str = "normal",
        align: str = "left",
        room: float = 0,
    ) -> None:
        """Draw text with its baseline at y; shortened to `room` inches unless that is 0."""
        text = printable(text)  # matplotlib cannot draw or measure invalid Unicode
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            shorten(text, room, points, weight) if room else text,
            fontsize=points,
            color=color or self.theme.ink,
            weight=weight,
            ha=align,
            va="baseline",
            parse_math=False,  # a class name may contain $
        )

    def axes(self, x: float, y: float, width: float, height: float) -> "Axes":
        """Return axes without frame and tick marks, in the paper's colour."""
        x, y, width, height = (_whole(one) for one in (x, y, width, height))
        box = x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height
        axes = self.figure.add_axes(box, facecolor=self.theme.paper)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, labelsize=7.5, colors=self.theme.faint)
        axes.set_axisbelow(True)
        return axes

    def picture(self, x: float, y: float, pixels: np.ndarray, width: float) -> "Axes":
        """Draw a picture, uint8 (height, width, 3), `width` inches wide; returns its axes, in the picture's pixels."""
        tall, wide = pixels.shape[:2]
        target = round(width * DPI), max(1, round(width * DPI * tall / wide))
        axes = self.axes(x, y, target[0] / DPI, target[1] / DPI)
        resized = np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.LANCZOS))
        axes.imshow(resized, interpolation="none", aspect="auto", extent=(0, wide, tall, 0))
        axes.set_axis_off()
        return axes

    def bar(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Draw a filled rectangle."""
        from matplotlib.patches import Rectangle

        self.figure.add_artist(
            Rectangle(
                (x / self.width, 1 - (y + height) / self.height),
                width / self.width,
                height / self.height,
                facecolor=color,
                edgecolor="none",
                linewidth=0,
            )
        )


def text_width(text: str, points: float, weight: str = "normal") -> float:
    """Return the width of a text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="sans-serif", size=points, weight=weight)
    return text_to_path.get_text_width_height_descent(printable(text), font, ismath=False)[0] / 72


def shorten(text: str, room: float, points: float, weight: str = "normal") -> str:
    """Return the text, or as many of its letters as fit into `room` inches and an ellipsis."""
    room += 1e-6  # the room may have been measured from this very text
    if text_width(text, points, weight) <= room:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest prefix that fits
        middle = (low + high + 1) // 2
        if text_width(text[:middle].rstrip() + "…", points, weight) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def rgb(color: str) -> list[int]:
    """Return the red, green and blue of a colour `#rrggbb`, 0..255."""
    return [int(color[k : k + 2], 16) for k in (1, 3, 5)]


def _whole(inches: float) -> float:
    """Round inches to whole pixels."""
    return round(inches * DPI) / DPI
