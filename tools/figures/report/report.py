"""`alexnet-figures report`: a run on one page: what was trained, its result beside the paper's, every figure.

In:  a run and its shard set.  Out: one HTML file that asks the network for nothing. One pass over the photos.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ....model.analysis.confusion import Confusion, Tally
from ....model.training.evaluate import Result
from ....model.weights import trained as trained_nets
from ....pipeline.errors import TrainingError, UsageError
from ....pipeline.files import write_atomically
from ...output_guard import check_output
from .. import curves, open_run
from ..answers import Answers, evaluate_run
from ..confusion import all_pairs
from ..open_run import Opened
from ..small_nets.command import RACE
from . import facts as report_parts
from . import pictures
from .pictures import Drawn, Missing

NAME = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
ROWS = 1000  # classes of the table, the worst first


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@open_run.RUN
@click.option("--out", type=open_run.FOLDER, help="The page.  [default: RUN/report.html]")
@open_run.SHARDS
@open_run.SPLIT
@click.option(
    "--views", type=click.Choice(["1", "10"]), default="1", show_default=True, help="Averaged, as alexnet-eval."
)
@click.option("--figure1", type=open_run.FOLDER, help="Folder of relu-vs-tanh's figure.  [default: RUN/figures]")
@open_run.DEVICE
@click.pass_context
def report(context, run, out, shards, split, views, figure1, device):
    """Write RUN as one HTML page: the result beside the paper's, all figures, how fast it was, how to repeat it.

    The page is a single file that needs no network. What a run lacks, an index or photos held out, is said in the
    figure's place.

    \b
    Examples:
      alexnet-figures report runs/source2012
      alexnet-figures report runs/source2012 --views 10 --out run.html
      alexnet-figures report runs/source2012 --figure1 figures
    """
    target = out or (run if run.is_dir() else run.parent) / NAME
    check_output(target, ".html", ".htm", make=not out)
    race = (figure1 or open_run.folder_for(run, None)) / f"{RACE}.json"
    if figure1 and not race.exists():
        raise UsageError(
            f"{figure1}: no finished {RACE} there (no {race.name})", f"train it with: alexnet-figures {RACE}"
        )
    opened = open_run.open_run(run, shards, device)
    asked = context.get_parameter_source("split") != ParameterSource.DEFAULT
    if asked:
        opened.shard_set.split(split)  # says so where there is none
    page = page_of(opened, split, int(views), race if race.exists() else None)
    write_atomically(target, page.encode("utf-8", "backslashreplace"))
    click.echo(str(target))


def page_of(opened: Opened, split: str = "val", views: int = 1, race: Path | None = None) -> str:
    """A run's page; of a set without that split, a page without answers.

    Args:
        race: what relu-vs-tanh has written down, of nets that are not the run's.
    Raises:
        ShardError, TrainingError: the photos or the checkpoint are damaged; photos without a label.
    """
    saved = trained_nets.load(opened.trained.file)
    config = report_parts.config_of(opened, saved)
    answers, tally = Answers(), Tally(len(opened.shard_set.classes), opened.device)
    result: Result | None = None
    if opened.shard_set.has(split):

        def see(*batch) -> None:
            answers.see(*batch)
            tally.see(*batch)

        result = evaluate_run(opened, split, see, views)
    course = course_of(opened)
    measured = None if isinstance(course, Missing) else report_parts.speed(course.lines, config.batch_size)
    unseen = f"{opened.shard_set.root.name} has no photos in {split}, so nothing was measured."
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
        "views": report_parts.views_in_words(views),
        "comparison": report_parts.comparison(opened, config, result, views),
        "rows": report_parts.results(opened, config, result, split, views),
        "facts": report_parts.facts(opened, saved, config, split),
        "differences": report_parts.differences(saved, config),
        "speed": measured,
        "took": report_parts.duration(measured),
        "course": [pictures.of_course(course)],
        "kernels": pictures.of_kernels(opened),
        "answers": answered,
        "classes": classes,
        "table": rows_of(tally, opened) if result is not None else [],
        "count": len(opened.shard_set.classes),
        "augmentation": [pictures.of_augmentation(opened, config.seed)],
        "neighbours": [near],
        "race": [pictures.of_race(race)] if race else [],
        "train": report_parts.train_command(opened, config, saved),
        "evaluate": report_parts.evaluate_command(opened, split, views) if result is not None else (),
        "versions": report_parts.versions(),
        "today": datetime.date.today().isoformat(),
    }
    return render(values)


def render(values: dict[str, Any]) -> str:
    """The page of some values; every word of theirs is escaped."""
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
    """How the run went, or why that is not known."""
    folder = opened.run if opened.run.is_dir() else opened.run.parent
    try:
        return curves.read(folder / curves.FILE)
    except (UsageError, TrainingError) as error:
        return Missing("curves", f"{error.message}: no curves, no speed.")
    except (TypeError, ValueError, KeyError) as error:  # lines of JSON, but not what a run writes
        return Missing("curves", f"{folder / curves.FILE}: damaged: {error}: no curves, no speed.")


def title_of(opened: Opened, recipe_name: str, model: str) -> str:
    """`modern on imagenette`."""
    name = recipe_name if model == "alexnet" else model
    return f"{name} on {opened.shard_set.root.name}"


def rows_of(tally: Tally, opened: Opened) -> list[dict[str, Any]]:
    """The table of classes, the worst first: names, photos, errors in percent, the most frequent wrong answer."""
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
