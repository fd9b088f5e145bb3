"""`alexnet-figures`: a group of commands, each imported when it is asked for."""

import click

from .. import console

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


@click.group(
    cls=console.LazyGroup,
    commands_at=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="alexnet-dali")
def figures():
    """Draw what a run learned, as PNG and SVG; search among its training photos; write a report.

    \b
    Examples:
      alexnet-figures kernels runs/source2012
      alexnet-figures curves runs/source2012 runs/modern
      alexnet-figures report runs/source2012
    """


def main() -> None:
    """Entry of the console script."""
    console.ensure_utf8()
    console.run(figures)
