"""`alexnet-prep`: from photos to shards and their statistics. Each command has a file of its own."""

import importlib

import click

from . import console

COMMANDS = {  # in the order in which a newcomer needs them
    "sample-photos": "sample_photos:sample_photos",
    "build-lmdb": "build_lmdb:build_lmdb",
    "pca-stats": "pca_stats:pca_stats",
    "doctor": "doctor:doctor",
}


class LazyGroup(click.Group):
    """Imports a command when it is asked for, so that `doctor` runs where the others cannot be imported."""

    def list_commands(self, ctx):
        """The commands' names."""
        return list(COMMANDS)

    def get_command(self, ctx, cmd_name):
        """The command, or None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        return getattr(importlib.import_module(f".{module}", __package__), name)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="alexnet-dali")
def prep():
    """Turn photos into LMDB shards that training streams from, once, before any training.

    \b
    Example:
      alexnet-prep build-lmdb /data/imagenet && alexnet-prep pca-stats
    """


def main() -> None:
    """Entry of the console script."""
    console.run(prep)


if __name__ == "__main__":
    main()
