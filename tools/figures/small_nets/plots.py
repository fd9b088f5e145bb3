"""Two small nets' errors against epochs: the paper's figure 1, and the ablation of its section 3.3 in the same manner.

In:  errors of each epoch, a Look.  Out: a matplotlib Figure.  No files, no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..style import LIGHT, Theme, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DASHED = (0, (5, 2.5))
FEW = 8  # epochs that still get a dot each


@dataclass(frozen=True)
class Line:
    """A net's curve: its name for people, its rate, its error behind epoch 1, 2 and so on, 0..1."""

    name: str
    rate: float
    errors: Sequence[float]


def draw_race(
    relu: Line,
    tanh: Line,
    reached: tuple[float | None, float | None],
    target: float,
    within: int,
    about: str = "",
    look: Theme = LIGHT,
) -> "Figure":
    """Draw figure 1: ReLU solid, tanh dashed, the target, and how many times sooner one is there.

    Args:
        reached: epochs until the target, of ReLU and of tanh; None, not within `within` epochs.
        about: what was trained on, for the small print.
    """
    figure, axes = _frame("Training error", about, look)
    _curves(axes, relu, tanh, look)
    axes.axhline(100 * target, color=look.faint, linewidth=0.9)
    for at, color in zip(reached, look.lines, strict=False):
        if at is not None:
            axes.plot(at, 100 * target, "o", color=color, markersize=7, zorder=4)
    _room(axes, [relu, tanh], 100 * target)
    left = axes.get_xlim()[0]  # where both curves are still high above
    axes.annotate(f"{100 * target:g}%", (left, 100 * target), (3, 4), textcoords="offset points", color=look.faint)
    _says(figure, race_words((relu.name, tanh.name), reached, target, within), look)
    return figure


def draw_norm(without: Line, with_norm: Line, about: str = "", look: Theme = LIGHT) -> "Figure":
    """Draw section 3.3's ablation: validation error without normalisation, dashed, and with it, solid."""
    figure, axes = _frame(f"Validation error, {len(without.errors)} epochs", about, look)
    _curves(axes, with_norm, without, look)
    _room(axes, [without, with_norm])
    _says(figure, norm_words(without.errors[-1], with_norm.errors[-1]), look)
    return figure


def race_words(names: tuple[str, str], reached: tuple[float | None, float | None], target: float, within: int) -> str:
    """The race in a sentence; a ratio only where both arrived.

    Args:
        reached: epochs until the target, None where it was not reached.
    """
    goal, arrived = f"{100 * target:g}%", [at for at in reached if at is not None]
    if not arrived:
        return f"Neither reaches {goal} within {within} epochs"
    if len(arrived) == 2:
        first, last = sorted(zip(arrived, names, strict=True))
        if f"{last[0] / first[0]:.1f}" == "1.0":
            return f"Both reach {goal} after {first[0]:.1f} epochs"
        return (
            f"{first[1]} reaches {goal} {last[0] / first[0]:.1f} times sooner: {first[0]:.1f} epochs, not {last[0]:.1f}"
        )
    there, missing = names if reached[0] is not None else names[::-1]
    return f"{there} reaches {goal} after {arrived[0]:.1f} epochs, {missing} not within {within}"


def norm_words(without: float, with_norm: float) -> str:
    """The ablation in a sentence: the difference at the end, in points."""
    points = 100 * (without - with_norm)
    if abs(points) < 0.05:
        return f"Normalisation makes no difference: {100 * with_norm:.1f}%"
    more = "less" if points > 0 else "more"
    return f"{abs(points):.1f} points {more} error with normalisation: {100 * with_norm:.1f}%, not {100 * without:.1f}%"


def _frame(what: str, about: str, look: Theme):
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure = new_figure(7.2, 4.9, look)
    axes = figure.add_axes((0.095, 0.17, 0.875, 0.69))
    axes.set_facecolor(look.paper)
    axes.set_xlabel("epochs", color=look.ink, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}%"))
    axes.tick_params(colors=look.faint, labelsize=9, length=0, pad=6)
    axes.grid(color=look.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.text(0.025, 0.882, what, color=look.faint, fontsize=9.5)
    figure.text(0.025, 0.025, about, color=look.faint, fontsize=7)
    return figure, axes


def _curves(axes, solid: Line, dashed: Line, look: Theme) -> None:
    marker = "o" if max(len(solid.errors), len(dashed.errors)) <= FEW else None
    for line, style, color in zip((solid, dashed), ("-", DASHED), look.lines, strict=False):
        axes.plot(
            range(1, len(line.errors) + 1),
            [100 * error for error in line.errors],
            color=color,
            linewidth=2.2,
            linestyle=style,
            marker=marker,
            markersize=4,
            label=f"{line.name}, rate {line.rate:g}",
        )
    axes.legend(frameon=False, labelcolor=look.ink, fontsize=10, loc="best", handlelength=3.2)


def _room(axes, lines: Sequence[Line], *others: float) -> None:
    """Limits: from epoch 1 on, and from zero unless all errors are far from it and close together."""
    values = [100 * error for line in lines for error in line.errors] + list(others)
    low, high = min(values), max(values)
    axes.set_ylim(0 if low < 2 * (high - low) else low - 0.15 * (high - low) - 0.5, high + 0.08 * (high - low) + 0.5)
    last = max(len(line.errors) for line in lines)
    axes.set_xlim(1 - 0.02 * last, max(last, 2) * 1.02)


def _says(figure: "Figure", words: str, look: Theme) -> None:
    figure.text(0.025, 0.935, words, color=look.ink, fontsize=12, weight="bold")
