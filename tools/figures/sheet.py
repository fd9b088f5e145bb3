"""A sheet to lay a figure out on, in inches from its upper left corner, as a person would with a ruler.

In:  words, pixels, places.  Out: a matplotlib Figure.
Pictures lie on whole pixels of the PNG and are resized beforehand, so that nothing blurs them a second time; the SVG
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
    """An empty figure of `width` x `height` inches; `figure` is what was drawn."""

    def __init__(self, width: float, height: float, look: Theme):
        self.width, self.height, self.look = _whole(width), _whole(height), look
        self.figure = new_figure(self.width, self.height, look)

    def head(self, title: str, about: str = "") -> None:
        """The title, and a sentence below it; they take 0.85 inches."""
        room = self.width - 2 * MARGIN
        self.text(MARGIN, 0.42, title, 13, weight="bold", room=room)
        if about:
            self.text(MARGIN, 0.66, about, 8, color=self.look.faint, room=room)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        points: float = 8,
        color: str = "",
        weight: str = "normal",
        align: str = "left",
        room: float = 0,
    ) -> None:
        """Words with their baseline at y; shortened to `room` inches where that is not 0."""
        words = printable(words)  # matplotlib cannot draw, nor measure, what no encoding has
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            shorten(words, room, points, weight) if room else words,
            fontsize=points,
            color=color or self.look.ink,
            weight=weight,
            ha=align,
            va="baseline",
            parse_math=False,  # a class may be called $100
        )

    def axes(self, x: float, y: float, width: float, height: float) -> "Axes":
        """Axes without frame and ticks, on the paper's colour."""
        x, y, width, height = (_whole(one) for one in (x, y, width, height))
        place = x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height
        axes = self.figure.add_axes(place, facecolor=self.look.paper)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, labelsize=7.5, colors=self.look.faint)
        axes.set_axisbelow(True)
        return axes

    def picture(self, x: float, y: float, pixels: np.ndarray, width: float) -> "Axes":
        """A picture, uint8 (height, width, 3), so many inches wide; its axes count its own pixels."""
        tall, wide = pixels.shape[:2]
        target = round(width * DPI), max(1, round(width * DPI * tall / wide))
        axes = self.axes(x, y, target[0] / DPI, target[1] / DPI)
        resized = np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.LANCZOS))
        axes.imshow(resized, interpolation="none", aspect="auto", extent=(0, wide, tall, 0))
        axes.set_axis_off()
        return axes

    def bar(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """A filled rectangle."""
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


def text_width(words: str, points: float, weight: str = "normal") -> float:
    """How many inches words take."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="sans-serif", size=points, weight=weight)
    return text_to_path.get_text_width_height_descent(printable(words), font, ismath=False)[0] / 72


def shorten(words: str, room: float, points: float, weight: str = "normal") -> str:
    """The words, or as many of their letters as there is room for, in inches, and an ellipsis."""
    room += 1e-6  # where the room was measured by these very words
    if text_width(words, points, weight) <= room:
        return words
    low, high = 0, len(words)
    while low < high:  # the longest that fits
        middle = (low + high + 1) // 2
        if text_width(words[:middle].rstrip() + "…", points, weight) <= room:
            low = middle
        else:
            high = middle - 1
    return words[:low].rstrip() + "…"


def _whole(inches: float) -> float:
    """Inches of a whole number of pixels."""
    return round(inches * DPI) / DPI
