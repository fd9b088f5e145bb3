"""Errors of two small nets over epochs: the paper's figure 1, and section 3.3's ablation in the same style.

In:  errors of each epoch, a Theme.  Out: a matplotlib Figure.  No files, no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..style import LIGHT, Theme, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DASHED = (0, (5, 2.5))
FEW = 8  # most epochs that are drawn as dots


@dataclass(frozen=True)
class Line:
    """A net's curve: its display name, learning rate, and error after epochs 1, 2 and so on, 0..1."""

    name: str
    rate: float
    errors: Sequence[float]


@dataclass(frozen=True)
class Race:
    """The two nets of one seed.

    Attributes:
        relu, tanh: their curves.
        reached: epochs until the target, of ReLU and of tanh; None if not reached.
    """

    relu: Line
    tanh: Line
    reached: tuple[float | None, float | None]


def draw_race(races: Sequence[Race], target: float, within: int, about: str = "", theme: Theme = LIGHT) -> "Figure":
    """Draw figure 1: ReLU solid, tanh dashed, the target error, and the ratio of the epochs to reach it.

    Args:
        races: of one or several seeds.
        target: training error, 0..1.
        within: epochs at most.
        about: a description of the data, for the small print.
    """
    figure, axes = _frame("Training error", about, theme)
    labels = _label([race.relu for race in races]), _label([race.tanh for race in races])
    for race in races:
        _curves(axes, race.relu, race.tanh, theme, labels, width=2.2 if len(races) == 1 else 1.4)
        labels = "", ""
        for at, color in zip(race.reached, theme.lines, strict=False):
            if at is not None:
                axes.plot(at, 100 * target, "o", color=color, markersize=7, zorder=4)
    axes.axhline(100 * target, color=theme.faint, linewidth=0.9)
    _set_limits(axes, [line for race in races for line in (race.relu, race.tanh)], 100 * target)
    left = axes.get_xlim()[0]  # at the left both curves are far above the target
    axes.annotate(f"{100 * target:g}%", (left, 100 * target), (3, 4), textcoords="offset points", color=theme.faint)
    names = races[0].relu.name, races[0].tanh.name
    _title(figure, race_words(names, [race.reached for race in races], target, within), theme)
    return figure


def draw_norm(without: Line, with_norm: Line, about: str = "", theme: Theme = LIGHT) -> "Figure":
    """Draw section 3.3's ablation: validation error without normalisation, dashed, and with it, solid."""
    figure, axes = _frame(f"Validation error, {len(without.errors)} epochs", about, theme)
    _curves(axes, with_norm, without, theme)
    _set_limits(axes, [without, with_norm])
    _title(figure, norm_words(without.errors[-1], with_norm.errors[-1]), theme)
    return figure


def race_words(
    names: tuple[str, str], reached: Sequence[tuple[float | None, float | None]], target: float, within: int
) -> str:
    """Describe the comparison in a sentence, with a ratio only if both nets reached the target.

    Args:
        reached: for each seed the epochs until the target, of each name; None if it was not reached.
    """
    if len(reached) > 1:
        return _words_of_seeds(names, reached, target, within)
    goal, epochs = f"{100 * target:g}%", [at for at in reached[0] if at is not None]
    if not epochs:
        return f"Neither reaches {goal} within {within} epochs"
    if len(epochs) == 2:
        first, last = sorted(zip(epochs, names, strict=True))
        if f"{last[0] / first[0]:.1f}" == "1.0":
            return f"Both reach {goal} after {first[0]:.1f} epochs"
        return (
            f"{first[1]} reaches {goal} {last[0] / first[0]:.1f} times sooner: {first[0]:.1f} epochs, not {last[0]:.1f}"
        )
    faster, slower = names if reached[0][0] is not None else names[::-1]
    return f"{faster} reaches {goal} after {epochs[0]:.1f} epochs, {slower} not within {within}"


def _words_of_seeds(
    names: tuple[str, str], reached: Sequence[tuple[float | None, float | None]], target: float, within: int
) -> str:
    goal, seeds = f"{100 * target:g}%", len(reached)
    if any(first is None for first, _ in reached):
        counts = [sum(at is not None for at in side) for side in zip(*reached, strict=True)]
        return f"Of {seeds} seeds {names[0]} reaches {goal} within {within} epochs with {counts[0]}, " + (
            f"{names[1]} with {counts[1]}"
        )
    ratios = [(second or within) / first for first, second in reached if first is not None]
    if any(second is None for _, second in reached):  # as far as is known
        return f"{names[0]} reaches {goal} at least {min(ratios):.1f} times sooner, with each of {seeds} seeds"
    mean = sum(ratios) / seeds
    return f"{names[0]} reaches {goal} {mean:.1f} times sooner ({min(ratios):.1f} to {max(ratios):.1f}, {seeds} seeds)"


def norm_words(without: float, with_norm: float) -> str:
    """Describe the ablation in a sentence: the difference of the final errors, in percentage points."""
    points = 100 * (without - with_norm)
    if abs(points) < 0.05:
        return f"Normalisation makes no difference: {100 * with_norm:.1f}%"
    more = "less" if points > 0 else "more"
    return f"{abs(points):.1f} points {more} error with normalisation: {100 * with_norm:.1f}%, not {100 * without:.1f}%"


def _frame(what: str, about: str, theme: Theme):
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure = new_figure(7.2, 4.9, theme)
    axes = figure.add_axes((0.095, 0.17, 0.875, 0.69))
    axes.set_facecolor(theme.paper)
    axes.set_xlabel("epochs", color=theme.ink, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}%"))
    axes.tick_params(colors=theme.faint, labelsize=9, length=0, pad=6)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.text(0.025, 0.882, what, color=theme.faint, fontsize=9.5)
    figure.text(0.025, 0.025, about, color=theme.faint, fontsize=7)
    return figure, axes


def _label(lines: Sequence[Line]) -> str:
    """A name with the learning rates of one or several seeds."""
    return f"{lines[0].name}, rate {' or '.join(f'{rate:g}' for rate in sorted({line.rate for line in lines}))}"


def _curves(
    axes, solid: Line, dashed: Line, theme: Theme, labels: tuple[str, str] | None = None, width: float = 2.2
) -> None:
    marker = "o" if max(len(solid.errors), len(dashed.errors)) <= FEW else None
    labels = labels or (_label([solid]), _label([dashed]))
    for line, style, color, label in zip((solid, dashed), ("-", DASHED), theme.lines, labels, strict=False):
        axes.plot(
            range(1, len(line.errors) + 1),
            [100 * error for error in line.errors],
            color=color,
            linewidth=width,
            linestyle=style,
            marker=marker,
            markersize=4,
            label=label or None,
        )
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=10, loc="best", handlelength=3.2)


def _set_limits(axes, lines: Sequence[Line], *others: float) -> None:
    """Set the axes' limits: from epoch 1, and from zero unless all errors are close together and far from zero."""
    values = [100 * error for line in lines for error in line.errors] + list(others)
    low, high = min(values), max(values)
    axes.set_ylim(0 if low < 2 * (high - low) else low - 0.15 * (high - low) - 0.5, high + 0.08 * (high - low) + 0.5)
    last = max(len(line.errors) for line in lines)
    axes.set_xlim(1 - 0.02 * last, max(last, 2) * 1.02)


def _title(figure: "Figure", text: str, theme: Theme) -> None:
    figure.text(0.025, 0.935, text, color=theme.ink, fontsize=12, weight="bold")
