"""`relu-vs-tanh` and `lrn`: two small nets trained on small photos and compared (figure 1, section 3.3).

In:  a shard set.  Out: NAME.png, NAME.svg, NAME.json with all curves, and NAME/ with the nets.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ....model.analysis.comparison import Settings, Variant, epochs_to
from ....pipeline.files import write_json
from ....pipeline.shards.manifest import ShardSet
from ...options import SETTINGS
from ..style import DARK, LIGHT, Theme, save
from .plots import Line, draw_norm, draw_race, norm_words, race_words
from .trials import compared, shared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RACE = "relu-vs-tanh"
NAMES = {"relu": "ReLU", "tanh": "tanh"}  # display names of the variants
RELU, TANH = Variant("relu"), Variant("tanh", activation="tanh")
WITHOUT, WITH = Variant("without", decay=True), Variant("with", norm=True, decay=True)


@click.command(RACE, context_settings=SETTINGS)
@shared
@click.option("--target", type=float, default=0.25, show_default=True, help="Training error to reach, 0 to 1.")
def relu_vs_tanh(shards, out, device, dark, **options):
    """Draw figure 1: a four-layer net trained with ReLUs and with tanh, each at its own best learning rate.

    Each rate is tried for --try-epochs, the better half for twice as many, and so on; the last one left is trained
    until the training error reaches the target. Ctrl-C keeps complete epochs, and the same command continues; when all
    is trained, it only draws.

    \b
    Examples:
      alexnet-prep build-lmdb PHOTOS --size 32 --out small && alexnet-prep pca-stats --shards small
      alexnet-figures relu-vs-tanh --shards small
      alexnet-figures relu-vs-tanh --shards small --rates 0.003,0.01 --target 0.4
    """
    with compared(RACE, shards, out, device, (RELU, TANH), **options) as (shard_set, settings, best, results):
        target = settings.target
        reached = epochs_to(best[0].errors, target), epochs_to(best[1].errors, target)
        words = race_words((NAMES["relu"], NAMES["tanh"]), reached, target, settings.epochs)
        ratio = reached[1] / reached[0] if reached[0] and reached[1] else None
        results |= {"target": target, "epochs_to_target": dict(zip(NAMES, reached, strict=True))}
        results |= {"ratio": ratio, "words": words, "about": _about(shard_set, settings)}
        _finish(out, RACE, partial(draw_results, results), results, dark)


def draw_results(results: dict, theme: Theme = LIGHT) -> "Figure":
    """Draw figure 1 from the content of relu-vs-tanh.json."""
    lines = [
        Line(name, curve["rate"], curve["errors"])
        for variant, name in NAMES.items()
        for curve in results["curves"]
        if (curve["kind"], curve["rate"]) == (variant, results["chosen"][variant])
    ]
    relu, tanh = lines
    reached = results["epochs_to_target"]["relu"], results["epochs_to_target"]["tanh"]
    return draw_race(relu, tanh, reached, results["target"], results["settings"]["epochs"], results["about"], theme)


@click.command("lrn", context_settings=SETTINGS)
@shared
def lrn(shards, out, device, dark, **options):
    """Draw section 3.3's ablation: the four-layer net with and without response normalisation.

    Like relu-vs-tanh, but with the 2012 layer file's weight decay and by validation error; both nets train all epochs.

    \b
    Example:
      alexnet-figures lrn --shards small --epochs 30
    """
    nets = (WITHOUT, WITH)
    with compared("lrn", shards, out, device, nets, validate=True, **options) as (shard_set, settings, best, results):
        names = ("without normalisation", "with normalisation")
        bare, normed = (Line(name, curve.rate, curve.val_errors) for name, curve in zip(names, best, strict=True))
        ends = bare.errors[-1], normed.errors[-1]
        results |= {"difference": ends[0] - ends[1], "words": norm_words(*ends)}
        _finish(out, "lrn", partial(draw_norm, bare, normed, _about(shard_set, settings)), results, dark)


def _about(shard_set: ShardSet, settings: Settings) -> str:
    return (
        f"{shard_set.split('train').records:,} photos of {shard_set.size}×{shard_set.size} in "  # noqa: RUF001
        f"{len(shard_set.classes)} classes, batches of 128, seed {settings.seed}, {settings.precision}; "
        f"best of the rates {', '.join(f'{rate:g}' for rate in settings.rates)}"
    )


def _finish(out: Path, name: str, draw: Callable[[Theme], "Figure"], results: dict, dark: bool) -> None:
    files = save(draw(DARK if dark else LIGHT), out, name + "-dark" * dark)
    write_json(out / f"{name}.json", results)
    click.echo(results["words"])
    click.echo(f"written: {', '.join(str(file) for file in [*files, out / f'{name}.json'])}")
