"""The rows of `alexnet-bench loader` as bars, for people.

In:  rows and a few words about machine and versions.  Out: a PNG. Needs matplotlib, of the extra `bench`.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....pipeline.files import write_atomically
from ..timing import Row
from .cases import CASES

NAMES = {
    "ours": "alexnet-dali",
    "native-caffe": "DALI, own Caffe reader",
    "torchvision-pil": "torchvision, Pillow",
    "torchvision-decode": "torchvision, decode_jpeg",
    "webdataset": "WebDataset",
    "litdata": "LitData",
    "streaming": "MosaicML Streaming",
    "ffcv-jpeg": "FFCV, fast DCT",  # libjpeg-turbo's faster and less exact one, which it always takes
    "ffcv": "FFCV",
}
BLOCKS = {
    ("jpeg", "f32"): "JPEG → float32",
    ("raw", "f32"): "raw pixels → float32",
    ("jpeg", "u8"): "JPEG → uint8",
    ("raw", "u8"): "raw pixels → uint8",
}
OURS, OTHERS, INK, FAINT, LIMIT = "#1f6f5c", "#b9c2c6", "#22292c", "#6b7479", "#c2452d"
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # behind words, so that no grid line crosses them
ROW, HEAD, GAP = 1.0, 1.1, 0.55  # heights in rows: of a bar, of a block's title, between blocks
INCHES = 0.30  # of a row


def draw(rows: Sequence[Row], about: str, target: Path) -> None:
    """Draw medians with their spread, fastest first in each block, and the decoder's limit where JPEG is read.

    Args:
        about: machine, versions and what was measured, for the small print.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    by_case = {one.case: one for one in rows}
    limit = by_case.get("limit-decode")
    blocks = _blocks(rows)
    height = sum(HEAD + GAP + ROW * len(block) for _, block in blocks)
    small = "\n".join(wrapped for line in about.splitlines() for wrapped in textwrap.wrap(line, 165))
    top, bottom = 0.95, 0.62 + 0.15 * (small.count("\n") + 1)
    figure = Figure(figsize=(10, height * INCHES + top + bottom), dpi=160, facecolor="white")
    inches = figure.get_figheight()
    axes = figure.add_axes((0.235, bottom / inches, 0.715, height * INCHES / inches))
    widest = max(one.max for one in rows)
    axes.set_xlim(0, widest * 1.10)
    axes.set_ylim(height, 0)

    at = 0.0
    for (form, output), block in blocks:
        axes.text(0, at + 0.68, BLOCKS[form, output], fontsize=10.5, weight="bold", color=INK, va="center", bbox=PAPER)
        first = at + HEAD
        for number, one in enumerate(block):
            _bar(axes, one, first + (number + 0.5) * ROW, widest)
        at = first + ROW * len(block)
        if form == "jpeg" and limit:
            axes.plot([limit.images_per_second] * 2, [first, at], color=LIMIT, linewidth=1.4, linestyle=(0, (4, 2)))
            axes.text(
                limit.images_per_second,
                first - 0.08,
                f"libjpeg-turbo alone: {limit.images_per_second:,.0f}",
                fontsize=8.5,
                color=LIMIT,
                ha="center",
                va="bottom",
                bbox=PAPER,
            )
        at += GAP

    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(axis="x", colors=FAINT, labelsize=8.5, length=0, pad=6)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.grid(axis="x", color="#e7ebed", linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    left = 0.025
    figure.text(
        left, 1 - 0.36 / inches, "Images a second, from stored crops to a batch", fontsize=15, color=INK, weight="bold"
    )
    figure.text(
        left, 1 - 0.66 / inches, "Bars are medians, lines the slowest and the fastest round.", fontsize=9.5, color=FAINT
    )
    figure.text(left, 0.14 / inches, small, fontsize=6.8, color=FAINT, va="bottom", linespacing=1.45)
    write_atomically(target, lambda file: figure.savefig(file, format="png"))


def _blocks(rows: Sequence[Row]) -> list[tuple[tuple[str, str], list[Row]]]:
    """Rows by what goes in and what comes out, the fastest first."""
    blocks = []
    for key in BLOCKS:
        cases = (CASES.get(one.case) for one in rows)
        block = [one for one, case in zip(rows, cases, strict=True) if case and (case.form, case.output) == key]
        if block:
            blocks.append((key, sorted(block, key=lambda one: -one.images_per_second)))
    return blocks


def _bar(axes: Any, one: Row, middle: float, widest: float) -> None:
    case = CASES[one.case]
    axes.barh(middle, one.images_per_second, height=0.66, color=OURS if case.is_ours else OTHERS)
    axes.plot([one.min, one.max], [middle, middle], color=INK, linewidth=1.1, solid_capstyle="butt")
    weight = "bold" if case.is_ours else "normal"
    axes.text(
        max(one.max, one.images_per_second) + widest * 0.008,
        middle,
        f"{one.images_per_second:,.0f}",
        fontsize=9,
        color=INK,
        va="center",
        weight=weight,
    )
    name = next(words for prefix, words in NAMES.items() if one.case.startswith(prefix))
    axes.text(-widest * 0.012, middle, name, fontsize=9.5, color=INK, ha="right", va="center", weight=weight)
