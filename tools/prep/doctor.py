"""`alexnet-prep doctor`: a table of what works on this machine, what is missing, and the command that fixes it."""

from dataclasses import asdict
from pathlib import Path

import click

from ...pipeline.files import write_json
from .. import options
from ..output_guard import check_output
from .doctor_checks import checks
from .machine import inspect_machine


@click.command("doctor", context_settings=options.SETTINGS)
@options.path("--out", default="out", show_default=True, help="Folder for the shards, whose disk is checked.")
@options.json_file("Also write the checks to this JSON file.")
@options.force
def doctor(out: Path, json_file: Path | None, force: bool) -> None:
    """Check that the installed packages, drivers and GPUs work together; name the command that fixes what does not.

    Works without DALI, torch or a GPU. Exit code 0: ready to train; 1: not ready.

    \b
    Example:
      alexnet-prep doctor --out /data/shards
    """
    if json_file:
        check_output(json_file, ".json", force=force)
    machine = inspect_machine()
    lines = checks(out, machine)
    width = max(len(line.name) for line in lines) + 2
    for line in lines:
        click.echo(f"{line.name:{width}}{line.state:9}{line.found}")
        if line.remedy:
            click.echo(f"{'':{width + 9}}try: {line.remedy}")
    if json_file:
        write_json(json_file, [asdict(line) for line in lines])
    if stops := [line.name for line in lines if line.stops]:
        click.echo(f"not ready to train; fix {', '.join(stops)}")
        raise click.exceptions.Exit(1)
    click.echo(f"ready to train on {f'{len(machine.gpus)} GPU(s)' if machine.gpus else 'the CPU'}")
