"""The rows of `alexnet-bench loader` as a bar chart.

In:  rows, and a description of machine and versions.  Out: a PNG.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from ....pipeline.files import write_atomically
from ...figures.sheet import MARGIN, Sheet
from ...figures.style import LIGHT
from ..timing import Row
from .cases import CASES

NAMES = {  # of the first prefix that fits
    "ours-jpeg-light": "alexnet-dali, mean image, light",
    "ours-raw-light": "alexnet-dali, mean image, light",
    "ours-photos": "alexnet-dali, prepared shards",
    "ours": "alexnet-dali",
    "native-caffe": "DALI, own Caffe reader",
    "native-photos": "DALI, own file reader",
    "torchvision-pil": "torchvision, Pillow",
    "torchvision-photos": "torchvision",
    "torchvision-decode": "torchvision, decode_jpeg",
    "torchcodec": "TorchCodec",
    "spdl": "SPDL",
    "grain": "Grain",
    "lance": "Lance",
    "webdataset": "WebDataset",
    "litdata": "LitData",
    "streaming": "MosaicML Streaming",
    "ffcv-jpeg": "FFCV, fast DCT",  # libjpeg-turbo's fast, less exact DCT, which FFCV always uses
    "ffcv": "FFCV",
}
BLOCKS = {
    ("jpeg", "f32"): "JPEG → float32",
    ("raw", "f32"): "raw pixels → float32",
    ("jpeg", "u8"): "JPEG → uint8",
    ("raw", "u8"): "raw pixels → uint8",
    ("photos", "f32"): "original photos, or shards prepared from them → float32",
}
OTHERS = "#b9c2c6"
LEFT, ROW, HEAD, GAP, LINE = 2.8, 0.3, 0.33, 0.17, 0.15  # inches: names, a bar, a title, between blocks, small print


def draw(rows: Sequence[Row], about: str, target: Path) -> None:
    """Draw medians and their spread, the fastest first in each block, and the decoder's limit for JPEG.

    Args:
        about: machine, versions and settings, for the small print.
    """
    blocks = _blocks(rows)
    limit = next((one.images_per_second for one in rows if one.case == "limit-decode"), None)
    small = [line for paragraph in about.splitlines() for line in textwrap.wrap(paragraph, 165)]
    scale = 1.1 * max(one.max for one in rows)  # images/s at the right end
    total = sum(HEAD + ROW * len(block) + GAP for _, block in blocks)
    sheet = Sheet(10, 1.0 + total + 0.3 + LINE * len(small) + 0.1, LIGHT)
    sheet.head(
        "Images per second, from stored pictures to a batch",
        "Bars are medians; lines span the slowest and the fastest round.",
    )
    y, width = 1.0, sheet.width - LEFT - MARGIN
    for (form, output), block in blocks:
        sheet.text(LEFT, y + 0.22, BLOCKS[form, output], 10.5, weight="bold")
        y, height = y + HEAD, ROW * len(block)
        axes = sheet.axes(LEFT, y, width, height)
        axes.set(xlim=(0, scale), ylim=(height, 0), yticks=[])
        axes.grid(axis="x", color=LIGHT.grid, linewidth=0.8)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.tick_params(axis="x", labelbottom=block is blocks[-1][1])
        for number, one in enumerate(block):
            ours, middle = CASES[one.case].is_ours, (number + 0.5) * ROW
            weight, baseline = "bold" if ours else "normal", y + middle + 0.04
            axes.barh(middle, one.images_per_second, height=0.2, color=LIGHT.lines[0] if ours else OTHERS)
            axes.plot([one.min, one.max], [middle, middle], color=LIGHT.ink, linewidth=1.1, solid_capstyle="butt")
            name = next(name for prefix, name in NAMES.items() if one.case.startswith(prefix))
            sheet.text(LEFT - 0.1, baseline, name, 9.5, weight=weight, align="right")
            end = LEFT + width * max(one.max, one.images_per_second) / scale
            sheet.text(end + 0.06, baseline, f"{one.images_per_second:,.0f}", 9, weight=weight)
        if form == "jpeg" and limit:
            axes.plot([limit, limit], [0, height], color=LIGHT.right, linewidth=1.4, linestyle=(0, (4, 2)))
            label = f"dashed: libjpeg-turbo alone, {limit:,.0f}"
            sheet.text(sheet.width - MARGIN, y - 0.11, label, 8.5, LIGHT.right, align="right")
        y += height + GAP
    for number, line in enumerate(small):
        sheet.text(MARGIN, y + 0.4 + LINE * number, line, 6.8, LIGHT.faint)
    write_atomically(target, lambda file: sheet.figure.savefig(file, format="png"))


def _blocks(rows: Sequence[Row]) -> list[tuple[tuple[str, str], list[Row]]]:
    """Group rows by stored form and output, the fastest first."""
    blocks = []
    for key in BLOCKS:
        cases = (CASES.get(one.case) for one in rows)
        block = [one for one, case in zip(rows, cases, strict=True) if case and (case.form, case.output) == key]
        if block:
            blocks.append((key, sorted(block, key=lambda one: -one.images_per_second)))
    return blocks
