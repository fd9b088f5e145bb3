"""A contact sheet: 64 pictures of a shard set on one page, each with its class below it.

In:  a shard set and a seed.  Out: an image; the same for the same set and seed.
"""

import unicodedata
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import ShardError
from .datum import record_pixels
from .lmdb_shard import Shard, repair_hint
from .manifest import ShardSet
from .records_csv import class_counts

ROWS = COLUMNS = 8
CELL = 128  # pixels of a picture's longer side
GAP, MARGIN, CAPTION, TITLE = 20, 40, 24, 64  # pixels
INK, GREY, PAPER, FRAME = (32, 32, 36), (112, 112, 120), (255, 255, 255), (222, 222, 226)


@dataclass(frozen=True)
class RecordRef:
    """A record: the number of its shard in the split, its index there, its label."""

    shard: int
    index: int
    label: int


def contact_sheet(shard_set: ShardSet, split: str, seed: int = 0) -> Image.Image:
    """Draw up to 8x8 records, spread evenly over the classes.

    Args:
        seed: of the choice.
    Returns:
        an RGB image.
    Raises:
        ShardError: the split has no records, or a chosen one is damaged.
    """
    places = choose(shard_set, split, seed)
    columns = min(COLUMNS, len(places))
    rows = -(-len(places) // columns)
    width = 2 * MARGIN + columns * CELL + (columns - 1) * GAP
    height = MARGIN + TITLE + rows * (CELL + CAPTION) + (rows - 1) * GAP + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    title, subtitle, caption = (ImageFont.load_default(size) for size in (22, 13, 13))
    room = width - 2 * MARGIN
    heading = f"{shard_set.root.resolve().name} / {split}"
    _write(draw, (MARGIN, MARGIN - 12), heading, title, INK, room, "la")
    shape = f"{shard_set.size}x{shard_set.size}" if shard_set.fit == "crop" else f"short side {shard_set.size}"
    about = (
        f"{shard_set.splits[split].records:,} records, {len(shard_set.classes):,} classes, {shape}, "
        f"{shard_set.encoding}; seed {seed}"
    )
    _write(draw, (MARGIN, MARGIN + 20), about, subtitle, GREY, room, "la")
    for k, place in enumerate(places):
        left = MARGIN + k % columns * (CELL + GAP)
        top = MARGIN + TITLE + k // columns * (CELL + CAPTION + GAP)
        picture = _picture(shard_set, split, place)
        corner = left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2
        sheet.paste(picture, corner)
        edges = (corner[0] - 1, corner[1] - 1, corner[0] + picture.width, corner[1] + picture.height)
        draw.rectangle(edges, outline=FRAME)
        name = class_title(shard_set, place.label)
        _write(draw, (left + CELL // 2, top + CELL + 6), name, caption, INK, CELL + GAP // 4, "ma")
    return sheet


def choose(shard_set: ShardSet, split: str, seed: int) -> list[RecordRef]:
    """Choose up to 64 records, spread evenly over the classes as far as their records allow; sorted by label.

    Raises:
        ShardError: the split has no records.
    """
    labels = class_counts(shard_set, shard_set.split(split).name).labels
    starts = np.cumsum([0] + [file.records for _, file in shard_set.splits[split].shards])
    if len(labels) != starts[-1]:
        raise ShardError(
            f"{shard_set.root}: {len(labels):,} rows in the CSVs of {split}, {starts[-1]:,} records",
            f"alexnet-prep verify --shards {shard_set.root}",
        )
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    # In shuffled order the k-th record of each class belongs to round k: take whole rounds, then a part of one.
    round_of, seen = np.empty(len(labels), np.int64), dict[int, int]()
    for place in shuffled:
        label = int(labels[place])
        round_of[place] = seen[label] = seen.get(label, -1) + 1
    first = shuffled[np.argsort(round_of[shuffled], kind="stable")][: ROWS * COLUMNS]
    chosen = sorted(first.tolist(), key=lambda place: (labels[place], place))
    shards = np.searchsorted(starts, chosen, side="right") - 1
    return [
        RecordRef(int(shard), int(place - starts[shard]), int(labels[place]))
        for place, shard in zip(chosen, shards, strict=True)
    ]


def class_title(shard_set: ShardSet, label: int) -> str:
    """Return a short name of a class: the first of its words, or its name."""
    if not 0 <= label < len(shard_set.classes):
        return "no label"
    words = str(shard_set.manifest["classes"][label].get("words") or "")
    return words.split(",")[0].strip() or shard_set.classes[label]


def _picture(shard_set: ShardSet, split: str, place: RecordRef) -> Image.Image:
    folder, file = shard_set.splits[split].shards[place.shard]
    shard = Shard(folder, file)
    try:
        pixels = record_pixels(shard.value(place.index))
    except (ShardError, ValueError) as error:
        raise ShardError(f"{folder}, record {place.index}: {error}", repair_hint(folder)) from None
    picture = Image.fromarray(pixels)
    scale = CELL / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, font, color, room: int, anchor: str) -> None:
    """Write a line, shortened to its room; Pillow's bitmap fonts have no anchors and few letters."""
    text = text.encode("utf-8", "replace").decode()  # file names may hold bytes that are not UTF-8
    # Pillow's default font has no accents: e instead of é is better than a box.
    text = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    if not isinstance(font, ImageFont.FreeTypeFont):
        text = text.encode("latin-1", "replace").decode("latin-1")
    whole, end = text, len(text)
    while end > 1 and font.getlength(text) > room:
        end -= 1
        text = whole[:end].rstrip() + "..."
    if isinstance(font, ImageFont.FreeTypeFont):
        draw.text(place, text, fill=color, font=font, anchor=anchor)
    else:
        left = place[0] - int(font.getlength(text)) // 2 if anchor[0] == "m" else place[0]
        draw.text((left, place[1]), text, fill=color, font=font)
