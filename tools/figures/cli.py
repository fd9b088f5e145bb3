"""`alexnet-figures`: a group of commands, each imported when it is called."""

import click

from .. import console, options

COMMANDS = {
    "kernels": "figures.kernels:kernels",
    "predictions": "figures.predictions:predictions",
    "neighbours": "figures.retrieval.neighbours:neighbours",
    "curves": "figures.curves:curves",
    "relu-vs-tanh": "figures.small_nets.command:relu_vs_tanh",
    "lrn": "figures.small_nets.command:lrn",
    "augmentation": "figures.augmentation:augmentation",
    "confusion": "figures.confusion:confusion",
    "per-class": "figures.per_class:per_class",
    "index": "figures.retrieval.index:index",
    "search": "figures.retrieval.search:search",
    "codes": "figures.retrieval.codes:codes",
    "report": "figures.report.report:report",
}


@click.group(cls=console.LazyGroup, commands_at=COMMANDS, context_settings=options.SETTINGS)
@options.version
def figures():
    """Draw figures of a run as PNG and SVG, search its training photos, write a report.

    \b
    Examples:
      alexnet-figures kernels runs/source2012
      alexnet-figures curves runs/source2012 runs/modern
      alexnet-figures report runs/source2012
    """


def main() -> None:
    """Run the console script."""
    console.ensure_utf8()
    console.run(figures)
