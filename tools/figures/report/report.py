"""`alexnet-figures report`: a run as one HTML page: configuration, result beside the paper's, all figures.

In:  a run and its shard set.  Out: one HTML file that needs no network. The photos are evaluated once.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ....model.analysis.confusion import Confusion, Tally
from ....model.training.evaluate import Result
from ....model.weights.trained import load
from ....pipeline.errors import TrainingError, UsageError
from ....pipeline.files import write_atomically
from ... import options
from ...output_guard import check_output
from .. import curves, open_run
from ..answers import Answers, evaluate_run
from ..confusion import all_pairs
from ..open_run import Opened, run_folder
from ..predictions import VIEWS
from ..small_nets.command import RACE
from . import facts, pictures
from .pictures import Drawn, Missing

NAME = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
ROWS = 1000  # most classes in the table, the worst first


@click.command(context_settings=options.SETTINGS)
@open_run.RUN
@options.path("--out", help="The page.  [default: RUN/report.html]")
@options.run_shards
@open_run.SPLIT
@VIEWS
@options.path("--figure1", help="Folder of relu-vs-tanh's results.  [default: RUN/figures]")
@options.device
@options.force
@click.pass_context
def report(context, run, out, shards, split, views, figure1, device, force):
    """Write RUN as one HTML page: result beside the paper's, all figures, throughput, commands to repeat it.

    The page is a single file that needs no network. Where a figure cannot be drawn, for example without an index, the
    page says why.

    \b
    Examples:
      alexnet-figures report runs/source2012
      alexnet-figures report runs/source2012 --views 10 --out run.html
      alexnet-figures report runs/source2012 --figure1 figures
    """
    target = out or run_folder(run) / NAME
    check_output(target, ".html", ".htm", make=not out, force=force)
    race = (figure1 or open_run.folder_for(run, None)) / f"{RACE}.json"
    if figure1 and not race.exists():
        raise UsageError(
            f"{figure1}: no {RACE} results found ({race.name} is missing)", f"create them with: alexnet-figures {RACE}"
        )
    opened = open_run.open_run(run, shards, device)
    if context.get_parameter_source("split") != ParameterSource.DEFAULT:
        opened.shard_set.split(split)  # raises if the requested split does not exist
    page = page_of(opened, split, int(views), race if race.exists() else None)
    write_atomically(target, page.encode("utf-8", "backslashreplace"))
    click.echo(str(target))


def page_of(opened: Opened, split: str = "val", views: int = 1, race: Path | None = None) -> str:
    """Return a run's page as HTML; without predictions if the set lacks the split.

    Args:
        views: test views per photo, 1 or 10.
        race: the JSON file of relu-vs-tanh, whose nets are not the run's.
    Raises:
        ShardError, TrainingError: the photos or the checkpoint are damaged, or photos are unlabelled.
    """
    saved = load(opened.trained.file)
    config = facts.config_of(opened, saved)
    answers, tally = Answers(), Tally(len(opened.shard_set.classes), opened.device)
    result: Result | None = None
    if opened.shard_set.has(split):

        def see(*batch) -> None:
            answers.see(*batch)
            tally.see(*batch)

        result = evaluate_run(opened, split, see, views)
    course = course_of(opened)
    measured = None if isinstance(course, Missing) else facts.speed(course.lines, config.batch_size)
    unseen = f"{opened.shard_set.root.name} has no photos in split {split}, so nothing was measured."
    answered: list[Drawn] = [Missing("predictions", unseen)]
    classes: list[Drawn] = [Missing("confusion", unseen)]
    near: Drawn = Missing("neighbours", unseen)
    if result is not None:
        near = pictures.of_neighbours(opened, split)
        answered = [pictures.of_answers(opened, answers, result, split, views)]
        classes = pictures.of_classes(opened, tally, split)
    values: dict[str, Any] = {
        "title": title_of(opened, config.recipe, config.model),
        "result": result,
        "split": split,
        "views": facts.views_in_words(views),
        "comparison": facts.comparison(opened, config, result, views),
        "rows": facts.results(opened, config, result, split, views),
        "facts": facts.facts(opened, saved, config, split),
        "differences": facts.differences(saved, config),
        "speed": measured,
        "took": facts.duration(measured),
        "course": [pictures.of_course(course)],
        "kernels": pictures.of_kernels(opened),
        "answers": answered,
        "classes": classes,
        "table": rows_of(tally, opened) if result is not None else [],
        "count": len(opened.shard_set.classes),
        "augmentation": [pictures.of_augmentation(opened, config.seed)],
        "neighbours": [near],
        "race": [pictures.of_race(race)] if race else [],
        "train": facts.train_command(opened, config, saved),
        "evaluate": facts.evaluate_command(opened, split, views) if result is not None else (),
        "versions": facts.versions(),
        "today": datetime.date.today().isoformat(),
    }
    return render(values)


def render(values: dict[str, Any]) -> str:
    """Render the page; all values are escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(values)


def course_of(opened: Opened) -> curves.Course | Missing:
    """Return the run's metrics, or the reason why they cannot be read."""
    file = opened.folder / curves.FILE
    try:
        return curves.read(file)
    except (UsageError, TrainingError) as error:
        return Missing("curves", f"{error.message}; curves and throughput are left out.")
    except (TypeError, ValueError, KeyError) as error:  # valid JSON, but not a run's metrics
        return Missing("curves", f"{file}: damaged: {error}; curves and throughput are left out.")


def title_of(opened: Opened, recipe_name: str, model: str) -> str:
    """Return the page's title, for example `modern on imagenette`."""
    name = recipe_name if model == "alexnet" else model
    return f"{name} on {opened.shard_set.root.name}"


def rows_of(tally: Tally, opened: Opened) -> list[dict[str, Any]]:
    """Return the table of classes, worst first: names, photos, errors in percent, the most frequent error."""
    first: dict[int, Confusion] = {}
    for one in all_pairs(tally):
        first.setdefault(one.label, one)
    names: Sequence[str] = opened.names
    ranked = sorted((one for one in tally.errors() if one.images), key=lambda one: (-one.top1_error, one.label))
    return [
        {
            "name": names[one.label],
            "folder": opened.shard_set.classes[one.label],
            "images": one.images,
            "top1": 100 * one.top1_error,
            "top5": 100 * one.top5_error,
            "answer": names[first[one.label].answer] if one.label in first else "",
            "share": 100 * first[one.label].share if one.label in first else 0.0,
        }
        for one in ranked[:ROWS]
    ]
