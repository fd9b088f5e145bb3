"""`alexnet-figures search`: the training photos that a net finds most like photos of yours.

In:  photos, a run and its index.  Out: lines, and a figure as that of the neighbours.
A photo takes the whole way of the set's own: decoded, resized, cut and, where the shards are JPEG, encoded as the build
did it; so a photo that the set was built from finds itself at distance 0, but for rounding.
"""

import io
from pathlib import Path

import click
import numpy as np
from PIL import Image

from ....model.analysis import features
from ....model.analysis.nearest import columns_of, nearest, nearest_codes
from ....pipeline.errors import SourceError, UsageError
from ....pipeline.prepare.decode import PhotoError
from ....pipeline.prepare.options import options_of
from ....pipeline.prepare.resize import prepare
from ....pipeline.shards.manifest import ShardSet
from ... import console
from .. import open_run
from ..style import DARK_OPTION, write
from . import index as vectors
from .codes import open_codes, put_in_order
from .neighbours import NEAREST, Neighbours, Shown, draw_neighbours, shown


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@open_run.RUN
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...", type=open_run.FOLDER)
@click.option("--count", type=click.IntRange(1, 100), default=NEAREST, show_default=True, help="Of photos to find.")
@click.option("--codes", "by_codes", is_flag=True, help="Search by the binary codes of alexnet-figures codes.")
@click.option("--bits-alone", is_flag=True, help="As --codes, but in the order of different bits.")
@open_run.OUT
@open_run.SHARDS
@click.option("--index", "index_folder", type=open_run.FOLDER, help="The index.  [default: RUN/index]")
@open_run.DEVICE
@DARK_OPTION
def search(run, photos, count, by_codes, bits_alone, out, shards, index_folder, device, dark):
    """Find the training photos that RUN sees as most like each PHOTO, any picture file.

    A line for each: distance, class, file. The figure search.png shows them. With --codes the nearest are looked for
    among the photos of fewest different bits alone, a hundred or more, and these are put in order by their vectors.

    \b
    Examples:
      alexnet-figures search runs/source2012 holiday.jpg
      alexnet-figures search runs/source2012 a.png b.jpg --count 10 --codes
    """
    for photo in photos:
        if not photo.is_file():
            raise UsageError(f"{photo}: {'a folder' if photo.is_dir() else 'no such file'}", "name picture files")
    opened = open_run.open_run(run, shards, device)
    index = vectors.open_index(opened, index_folder)
    codes = open_codes(opened, index) if by_codes or bits_alone else None
    pictures = [stored_picture(photo, opened.shard_set) for photo in photos]
    queries = features.of_pictures(opened.trained, pictures, device=opened.device)
    if codes is None:
        found, distances = nearest(index.vectors, queries, count)
    elif bits_alone:
        found, distances = nearest_codes(columns_of(codes.codes), codes.encoder.encode(queries), count)
        click.echo(f"by codes of {codes.encoder.bits} bits alone")
    else:
        found, distances, asked = put_in_order(index, codes, queries, count)
        click.echo(f"by codes of {codes.encoder.bits} bits, the best {asked:,} put in order by their vectors")
    rows = []
    for photo, picture, near, far in zip(photos, pictures, found, distances, strict=True):
        said = [f"{d} bits" if bits_alone else f"{d:.2f}" for d in far]
        click.echo(f"{photo}:")
        for text, row in zip(said, vectors.rows_of(opened.shard_set, vectors.SPLIT, near), strict=True):
            click.echo(console.plain(f"  {text:>9}  {opened.names[row.label]}  {row.source_path}"))
        few = slice(NEAREST)
        rows.append(Neighbours(Shown(picture, photo.name), shown(opened, near[few], said[few])))
    write(lambda look: draw_neighbours(rows, look), open_run.folder_for(run, out), "search", dark)


def stored_picture(photo: Path, shard_set: ShardSet) -> np.ndarray:
    """A photo's pixels as they would come out of the set's shards: uint8 (height, width, 3).

    Raises:
        UsageError: no such file.
        SourceError: it is not a picture, or cannot be decoded.
    """
    try:
        data = photo.read_bytes()
    except OSError as error:
        raise UsageError(f"{photo}: {error.strerror}", "name a picture file") from None
    return as_stored(data, str(photo), shard_set)


def as_stored(data: bytes, name: str, shard_set: ShardSet) -> np.ndarray:
    """The same of a photo's bytes; `name` is what errors call it."""
    try:
        made = prepare(data, **options_of(shard_set.manifest).of_a_picture())
    except PhotoError as error:
        raise SourceError(f"{name}: {error}", "choose a photo: JPEG, PNG, GIF, BMP, WebP or TIFF") from None
    if shard_set.encoding == "raw":
        return np.frombuffer(made.data, np.uint8).reshape(made.height, made.width, 3)
    return np.asarray(Image.open(io.BytesIO(made.data)).convert("RGB"))
