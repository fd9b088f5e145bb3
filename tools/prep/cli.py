"""`alexnet-prep`: from photos to shards and their statistics. Each command has a file of its own."""

import click

from .. import console, options

COMMANDS = {  # in the order in which a newcomer needs them
    "sample-photos": "prep.sample_photos:sample_photos",
    "build-lmdb": "prep.build_lmdb:build_lmdb",
    "pca-stats": "prep.pca_stats:pca_stats",
    "info": "prep.info:info",
    "verify": "prep.verify:verify",
    "stage": "prep.stage:stage",
    "export": "prep.export:export",
    "doctor": "prep.doctor:doctor",
}


@click.group(cls=console.LazyGroup, commands_at=COMMANDS, context_settings=options.SETTINGS)
@options.version
def prep():
    """Turn photos into LMDB shards that training streams from, once, before any training.

    \b
    Example:
      alexnet-prep build-lmdb /data/imagenet && alexnet-prep pca-stats
    """


def main() -> None:
    """Entry of the console script."""
    console.ensure_utf8()
    console.run(prep)


if __name__ == "__main__":
    main()
