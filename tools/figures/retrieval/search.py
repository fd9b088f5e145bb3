"""`alexnet-figures search`: find the training photos that a net finds most similar to the user's photos.

In:  photos, a run and its index.  Out: text lines, and a figure in the style of `neighbours`.
A query is decoded, resized, cropped and (in JPEG shard sets) encoded as the build does it: a photo that the set was
built from finds itself at distance 0, except for rounding.
"""

import click

from ....model.analysis import features
from ....model.analysis.nearest import columns_of, nearest, nearest_codes
from ....pipeline.errors import UsageError
from ... import console, options
from .. import open_run
from ..style import DARK_OPTION, write
from . import records, vectors
from .codes import open_codes, rerank
from .neighbours import NEAREST, Neighbours, Shown, draw_neighbours, shown


@click.command(context_settings=options.SETTINGS)
@open_run.RUN
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...", type=options.PATH)
@click.option(
    "--count", type=click.IntRange(1, 100), default=NEAREST, show_default=True, help="Number of photos to find."
)
@click.option("--codes", "by_codes", is_flag=True, help="Search by the binary codes of alexnet-figures codes.")
@click.option("--no-rerank", is_flag=True, help="As --codes, but order by differing bits; read no vectors.")
@click.option("--bits-alone", is_flag=True, hidden=True, help="The name of --no-rerank in version 0.1.")
@open_run.OUT
@options.run_shards
@options.index_folder
@options.device
@DARK_OPTION
def search(run, photos, count, by_codes, no_rerank, bits_alone, out, shards, index_folder, device, dark):
    """Find the training photos that RUN's net finds most similar to each PHOTO, any picture file.

    Prints a line for each: distance, class, file. The figure search.png shows them. --codes searches only the photos
    with the fewest differing bits, 100 or more, and reranks them by their vectors.

    \b
    Examples:
      alexnet-figures search runs/source2012 holiday.jpg
      alexnet-figures search runs/source2012 a.png b.jpg --count 10 --codes
    """
    no_rerank |= bits_alone
    for photo in photos:
        if not photo.is_file():
            raise UsageError(f"{photo}: {'a folder' if photo.is_dir() else 'no such file'}", "name picture files")
    opened = open_run.open_run(run, shards, device, other_classes=True)
    index = vectors.open_index(opened, index_folder)
    codes = open_codes(opened, index) if by_codes or no_rerank else None
    pictures = [records.stored_picture(photo, opened.shard_set) for photo in photos]
    queries = features.of_pictures(opened.trained, pictures, device=opened.device)
    if codes is None:
        found, distances = nearest(index.vectors, queries, count)
    elif no_rerank:
        found, distances = nearest_codes(columns_of(codes.codes), codes.encoder.encode(queries), count)
        click.echo(f"by codes of {codes.encoder.bits} bits, without reranking")
    else:
        found, distances, candidates = rerank(index, codes, queries, count)
        click.echo(f"by codes of {codes.encoder.bits} bits, the best {candidates:,} reranked by their vectors")
    rows = []
    for photo, picture, near, far in zip(photos, pictures, found, distances, strict=True):
        labels = [f"{d} bits" if no_rerank else f"{d:.2f}" for d in far]
        click.echo(f"{photo}:")
        for text, row in zip(labels, records.rows_of(opened.shard_set, vectors.SPLIT, near), strict=True):
            click.echo(console.plain(f"  {text:>9}  {opened.names[row.label]}  {row.source_path}"))
        few = slice(NEAREST)
        rows.append(Neighbours(Shown(picture, photo.name), shown(opened, near[few], labels[few])))
    write(lambda theme: draw_neighbours(rows, theme), open_run.folder_for(run, out), "search", dark)
