"""`alexnet-figures index`: write the vectors of a run's training photos once, for `search` and `neighbours`."""

import time

import click

from ... import console, options
from ...process import keep_memory
from .. import open_run
from . import vectors


@click.command(context_settings=options.SETTINGS)
@open_run.RUN
@options.path("--out", help="Folder of the index.  [default: RUN/index]")
@options.run_shards
@options.device
def index(run, out, shards, device):
    """Write the last hidden layer's activations of RUN's net for each training photo, for search and neighbours.

    16 kB per photo with the net of 2012. An existing index of the same checkpoint and shard set is kept.

    \b
    Example:
      alexnet-figures index runs/source2012
    """
    keep_memory()
    opened = open_run.open_run(run, shards, device, other_classes=True)
    folder = vectors.folder_of(opened, out)
    started = time.monotonic()
    written = vectors.write_index(opened, folder)
    about = vectors.open_index(opened, out).about
    click.echo(
        f"{folder / vectors.VECTORS}: {about['records']:,} vectors of {about['dimensions']:,} numbers, "
        f"{console.size(about['bytes'])}"
        + (f", in {console.duration(time.monotonic() - started)}" if written else "; up to date, nothing to do")
    )
