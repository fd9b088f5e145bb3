"""`alexnet-figures index`: the training photos' vectors of a run, written once, for search and neighbours."""

import time

import click

from ... import console
from ...process import keep_memory
from .. import open_run as runs
from . import vectors


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@runs.RUN
@click.option("--out", type=runs.FOLDER, help="Folder of the index.  [default: RUN/index]")
@runs.SHARDS
@runs.DEVICE
def index(run, out, shards, device):
    """Write the last hidden layer's activities of each training photo of RUN: what search and neighbours look in.

    16 kB a photo in the net of 2012. Where they are there already, of this checkpoint and this set, nothing is done.

    \b
    Example:
      alexnet-figures index runs/source2012
    """
    keep_memory()
    opened = runs.open_run(run, shards, device)
    folder = vectors.folder_of(opened, out)
    started = time.monotonic()
    written = vectors.write_index(opened, folder)
    about = vectors.open_index(opened, out).about
    click.echo(
        f"{folder / vectors.VECTORS}: {about['records']:,} vectors of {about['dimensions']:,} numbers, "
        f"{console.size(about['bytes'])}"
        + (f", in {console.duration(time.monotonic() - started)}" if written else "; up to date, nothing to do")
    )
