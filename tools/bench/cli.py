"""`alexnet-bench`: a group of commands, each imported when it is called."""

import click

from .. import console, options

COMMANDS = {
    "prep": "bench.prep:bench_prep",
    "loader": "bench.loader.command:bench_loader",
    "train": "bench.train:bench_train",
    "table": "bench.table:print_tables",
}


@click.group(cls=console.LazyGroup, commands_at=COMMANDS, context_settings=options.SETTINGS)
@options.version
def bench():
    """Measure against the limit and against other programs, in interleaved rounds of one run.

    \b
    Examples:
      alexnet-bench prep /data/imagenet --json prep.json
      alexnet-bench loader --shards out --json loader.json --plot loader.png
    """


def main() -> None:
    """Run the console script."""
    console.ensure_utf8()
    console.run(bench)


if __name__ == "__main__":
    main()
