"""`relu-vs-tanh` and `lrn`: two small nets trained on small photos and compared (figure 1, section 3.3).

In:  a shard set.  Out: NAME.png, NAME.svg, NAME.json with all curves, and NAME/ with the nets.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ....model.analysis.comparison import Settings, Variant, epochs_to
from ....pipeline.errors import UsageError
from ....pipeline.files import write_json
from ....pipeline.shards.manifest import ShardSet
from ...options import PATH, SETTINGS
from ..style import DARK, LIGHT, Theme, save
from .plots import Line, Race, draw_norm, draw_race, norm_words, race_words
from .trials import compared, shared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RACE = "relu-vs-tanh"
NAMES = {"relu": "ReLU", "tanh": "tanh"}  # display names of the variants
RELU, TANH = Variant("relu"), Variant("tanh", activation="tanh")
WITHOUT, WITH = Variant("without", decay=True), Variant("with", norm=True, decay=True)


@click.command(RACE, context_settings=SETTINGS)
@click.argument("results", metavar="[RESULTS]...", nargs=-1, type=PATH)
@shared
@click.option("--target", type=float, default=0.25, show_default=True, help="Training error to reach, 0 to 1.")
def relu_vs_tanh(results, shards, out, device, dark, **options):
    """Draw figure 1: a four-layer net trained with ReLUs and with tanh, each at its own best learning rate.

    Each rate is tried for --try-epochs, the better half for twice as many, and so on; the last one left is trained
    until the training error reaches the target. Ctrl-C keeps complete epochs, and the same command continues; when all
    is trained, it only draws.

    With RESULTS, relu-vs-tanh.json files of several seeds, it draws them together and trains nothing.

    \b
    Examples:
      alexnet-prep build-lmdb PHOTOS --size 32 --out small && alexnet-prep pca-stats --shards small
      alexnet-figures relu-vs-tanh --shards small
      alexnet-figures relu-vs-tanh --shards small --rates 0.003,0.01 --target 0.4
      alexnet-figures relu-vs-tanh results/figure1-cifar10/*.json --out figures
    """
    if results:
        read = read_races(results)
        words = draw_words(read)
        spread = {"words": words, "ratios": [one["ratio"] for one in read], "seeds": read}
        _finish(out, f"{RACE}-seeds", partial(draw_results, *read), spread, dark)
        return
    with compared(RACE, shards, out, device, (RELU, TANH), **options) as (shard_set, settings, best, content):
        target = settings.target
        reached = epochs_to(best[0].errors, target), epochs_to(best[1].errors, target)
        ratio = reached[1] / reached[0] if reached[0] and reached[1] else None
        content |= {"target": target, "epochs_to_target": dict(zip(NAMES, reached, strict=True))}
        content |= {"ratio": ratio, "about": _about(shard_set, settings)}
        content |= {"words": draw_words([content])}
        _finish(out, RACE, partial(draw_results, content), content, dark)


def read_races(files: Sequence[Path]) -> list[dict]:
    """Read relu-vs-tanh.json files of several seeds, in the order of the seeds.

    Raises:
        UsageError: a file is missing or not one of relu-vs-tanh, two are of one seed, or of different comparisons.
    """
    read: dict[int, dict] = {}
    for file in files:
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
            seed = results["settings"]["seed"]
            draw_words([results])
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise UsageError(f"{file}: not a result of {RACE}: {type(error).__name__}: {error}") from None
        if seed in read:
            raise UsageError(f"{file}: seed {seed} is already given", "name one file for each seed")
        read[seed] = results
    first = next(iter(read.values()))
    for seed, other in read.items():
        unlike = [name for name in first["settings"] if name != "seed" and _set_of(other, name) != _set_of(first, name)]
        unlike += ["photos"] * (other["photos"] != first["photos"])
        if unlike:
            raise UsageError(
                f"the results of seeds {first['settings']['seed']} and {seed} differ in {', '.join(unlike)}",
                "draw together only what differs in the seed alone",
            )
    return [read[seed] for seed in sorted(read)]


def _set_of(results: dict, name: str) -> object:
    return results["settings"].get(name)


def draw_words(all_results: Sequence[dict]) -> str:
    """Describe the contents of relu-vs-tanh.json files, one for each seed, in a sentence."""
    reached = [_race_of(results).reached for results in all_results]
    first = all_results[0]
    return race_words((NAMES["relu"], NAMES["tanh"]), reached, first["target"], first["settings"]["epochs"])


def draw_results(*all_results: dict, theme: Theme = LIGHT) -> "Figure":
    """Draw figure 1 from the contents of relu-vs-tanh.json files, one for each seed."""
    first, seeds = all_results[0], [str(results["settings"]["seed"]) for results in all_results]
    about = first["about"].replace(
        f"seed {seeds[0]}", f"seeds {', '.join(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}"
    )
    races = [_race_of(results) for results in all_results]
    return draw_race(races, first["target"], first["settings"]["epochs"], about, theme)


def _race_of(results: dict) -> Race:
    relu, tanh = (
        Line(name, curve["rate"], curve["errors"])
        for variant, name in NAMES.items()
        for curve in results["curves"]
        if (curve["kind"], curve["rate"]) == (variant, results["chosen"][variant])
    )
    return Race(relu, tanh, (results["epochs_to_target"]["relu"], results["epochs_to_target"]["tanh"]))


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


def _finish(out: Path, name: str, draw: Callable[..., "Figure"], results: dict, dark: bool) -> None:
    files = save(draw(theme=DARK if dark else LIGHT), out, name + "-dark" * dark)
    write_json(out / f"{name}.json", results)
    click.echo(results["words"])
    click.echo(f"written: {', '.join(str(file) for file in [*files, out / f'{name}.json'])}")
