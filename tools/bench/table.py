"""`alexnet-bench table`: tables 1 and 2 of the paper with our runs below, and the contribution of each part.

In:  folders of runs and JSON files of alexnet-eval.  Out: text and JSON. Nothing is evaluated here.
"""

import click

from ...model.recipes.published import TABLE_1, TABLE_2, Row
from ...pipeline.errors import UsageError
from ...pipeline.files import write_json
from .. import console, options
from ..output_guard import check_output
from .table_rows import Ours, Part, distinct, parts, read_result

OTHER: tuple[Row, ...] = (("six-conv, 10,184 classes, half of Fall 2009", 67.4, 40.9, None),)
TABLES = (
    ("table1", "Table 1: ILSVRC-2010, test; below, our runs on a split `test`", TABLE_1),
    ("table2", "Table 2: ILSVRC-2012, val; below, our runs on other splits", TABLE_2),
    ("other", "Section 6", OTHER),
)


@click.command("table", context_settings=options.SETTINGS)
@click.argument("results", metavar="RUN...", nargs=-1, required=True, type=options.PATH)
@options.json_file("Also write the tables to this JSON file.")
@options.force
def print_tables(results, json_file, force):
    """Print the paper's tables with our results below: a run's best validation error, one view.

    Results of alexnet-eval --json may be given too: ten views, ensembles, other splits. The contribution of a part is
    the error without it minus that of source2012, for the same shard set, split, number of views and of epochs; with
    several seeds the means are compared.

    \b
    Examples:
      alexnet-bench table runs/source2012 runs/one-gpu runs/no-lrn
      alexnet-bench table runs/source2012 ten-views.json ensemble.json --json table.json
    """
    if json_file:
        check_output(json_file, ".json", force=force)
    if json_file and json_file.absolute() in [path.absolute() for path in results]:
        raise UsageError(f"{json_file}: is an input and would be overwritten", "choose another file for --json")
    ours = distinct([read_result(path) for path in results])
    contributions = parts(ours)
    width = max(len(text) for text in [row[0] for *_, rows in TABLES for row in rows] + [one.name for one in ours])
    for name, title, rows in TABLES:
        click.echo(f"{title}\n{'':<{width}}  top-1  top-5" + ("  top-5 test" if any(row[3] for row in rows) else ""))
        for text, top1, top5, test in rows:
            click.echo(f"{text:<{width}}{_cell(top1)}{_cell(top5)}" + (f"     {_cell(test)}" if test else ""))
        for one in ours:
            if one.table == name:
                top5 = None if one.top5_error is None else 100 * one.top5_error
                line = f"{one.name:<{width}}{_cell(100 * one.top1_error)}{_cell(top5)}  ours: {one.conditions}"
                click.echo(console.plain(line))
        click.echo()
    click.echo(f"Contribution of each part, in points of top-1 / top-5\n{'':<{width}}  {'the paper':>12}  {'ours':>12}")
    for part in contributions:
        mine = _points(part.ours_top1, part.ours_top5)
        click.echo(f"{part.name:<{width}}  {part.published or '-':>12}  {mine:>12}  {part.conditions}".rstrip())
    if json_file:
        write_json(json_file, _as_json(ours, contributions))


def _cell(percent: float | None) -> str:
    return f"  {'-' if percent is None else f'{percent:.1f}':>5}"


def _points(top1: float | None, top5: float | None) -> str:
    if top1 is None:
        return "-"
    return f"{100 * top1:.1f} / " + ("-" if top5 is None else f"{100 * top5:.1f}")


def _as_json(ours: list[Ours], contributions: list[Part]) -> dict:
    """Return all tables as JSON; errors and differences are shares, 0..1."""

    def share(percent: float | None) -> float | None:
        return None if percent is None else round(percent / 100, 4)

    tables = {
        name: {
            "paper": [
                {"row": text, "top1_error": share(top1), "top5_error": share(top5), "test_top5_error": share(test)}
                for text, top1, top5, test in rows
            ],
            "ours": [one.as_json() for one in ours if one.table == name],
        }
        for name, _, rows in TABLES
    }
    return {**tables, "parts": [vars(part) for part in contributions]}
