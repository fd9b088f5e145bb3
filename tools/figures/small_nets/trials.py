"""Shared by `relu-vs-tanh` and `lrn`: their options, the training with its progress, the folder of the nets.

In:  command-line values.  Out: the curve of each net; nets that are already trained are not trained again.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from ....model.analysis.comparison import Curve, Settings, Variant, check_size
from ....model.analysis.small_net_trainer import SmallNetTrainer, Stopped
from ....model.recipes.config import check_precision, default_precision
from ....pipeline.errors import UsageError
from ....pipeline.files import locked, write_json
from ....pipeline.shards.manifest import ShardSet, open_shard_set
from ....pipeline.shards.stats import load_stats
from ... import console, options
from ...process import pick_device, stop_on_signals
from ..style import DARK_OPTION


class RateList(click.ParamType):
    """Comma-separated learning rates."""

    name = "rates"

    def convert(self, value, param, ctx) -> tuple[float, ...]:
        """Parse the numbers; Settings checks their range."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of comma-separated numbers, such as 0.001,0.003", param, ctx)


def shared(command: Callable) -> Callable:
    """Add the options that both commands have."""
    for decorate in (
        options.shards("The shard set, for example of --size 32."),
        click.option(
            "--rates",
            type=RateList(),
            default="0.001,0.003,0.01,0.03",
            show_default=True,
            help="Learning rates to try.",
        ),
        click.option(
            "--try-epochs",
            type=click.IntRange(1),
            default=2,
            show_default=True,
            help="Epochs at each rate; then the better half gets twice as many, until one rate is left.",
        ),
        click.option(
            "--epochs", type=click.IntRange(1), default=60, show_default=True, help="Most epochs of each net."
        ),
        options.seed("Seed of weights and order."),
        options.path("--out", default="figures", show_default=True, help="Folder of the figure."),
        options.precision(),
        options.device,
        DARK_OPTION,
    )[::-1]:
        command = decorate(command)
    return command


@contextmanager
def compared(
    name: str, shards: Path, out: Path, device: str, variants: Sequence[Variant], precision: str | None, **options
):
    """Train the nets that are not trained yet.

    Args:
        name: of the comparison, and of its folder in `out`.
        options: of Settings.
    Yields:
        The shard set, the settings, the best curve of each variant, and the content of NAME.json.
    Raises:
        UsageError: an option or the folder does not fit.
        click.exceptions.Exit: a signal stopped the training; complete epochs are saved.
    """
    shard_set = open_shard_set(shards)
    check_size(shard_set)
    stats, chosen = load_stats(shard_set), pick_device(device)
    precision = precision or default_precision(chosen)
    check_precision(precision, chosen.type)
    settings = Settings(precision=precision, **options)
    for split in ("train", "val") if settings.validate else ("train",):
        shard_set.split(split)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: a file, not a folder for figures", "choose another folder with --out")
    folder = out / name
    with locked(folder):
        _check_identity(folder, {"shards": _fingerprint(shard_set), "seed": settings.seed, "precision": precision})
        progress = _Progress(len(variants), settings)
        with stop_on_signals() as stop:
            try:
                trainer = SmallNetTrainer(shard_set, stats, folder, settings, chosen, progress, stop)
                chosen_and_tried = trainer.compare(variants)
            except Stopped:
                click.echo("stopped; complete epochs are saved: run the same command again to continue", err=True)
                raise click.exceptions.Exit(stop.exit_code) from None
        best = [curve for curve, _ in chosen_and_tried]
        for curve in best:
            for edge, more in ((max(settings.rates), "larger"), (min(settings.rates), "smaller")):
                if curve.rate == edge and len(settings.rates) > 1:
                    edge_of = f"{curve.kind}: the best rate, {edge:g}, is at the edge of --rates"
                    click.echo(f"{edge_of}; a {more} rate may be better", err=True)
        tried = [vars(curve) for _, curves in chosen_and_tried for curve in curves]
        yield (
            shard_set,
            settings,
            best,
            {
                "settings": vars(settings),
                "photos": shard_set.split("train").records,
                "chosen": {curve.kind: curve.rate for curve in best},
                "curves": tried,
            },
        )


class _Progress:
    """Prints a line for each epoch, with an estimate of the remaining time."""

    def __init__(self, variants: int, settings: Settings):
        self._most = variants * settings.most_epochs
        self._done: dict[tuple[str, float], int] = {}
        self._seconds, self._fresh = 0.0, 0

    def __call__(self, curve: Curve, seconds: float) -> None:
        self._done[curve.kind, curve.rate] = len(curve.errors)
        if not seconds:
            return  # trained in an earlier call
        self._seconds, self._fresh = self._seconds + seconds, self._fresh + 1
        left = max(0, self._most - sum(self._done.values())) * self._seconds / self._fresh
        result = f"training error {100 * curve.errors[-1]:.1f}%" if curve.errors else ""
        if curve.val_errors:
            result += f", validation {100 * curve.val_errors[-1]:.1f}%"
        if curve.broken:
            result = "then the loss became infinite or NaN; this rate is excluded"
        click.echo(
            f"{curve.kind}, rate {curve.rate:g}, epoch {len(curve.errors)}: {result}, {seconds:.1f} s; "
            f"at most {console.duration(left)} left",
            err=True,
        )


def _check_identity(folder: Path, identity: dict) -> None:
    """Check that a folder's nets belong to this comparison; in a new folder, write its settings.json.

    Raises:
        UsageError: they belong to another comparison.
    """
    file = folder / "settings.json"
    if not file.exists():
        write_json(file, identity)
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        other = [name for name, value in identity.items() if before[name] != value]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{file}: damaged", "choose another --out, or delete the folder") from None
    if other:
        raise UsageError(
            f"{folder}: contains nets with other {' and '.join(other)}", "choose another --out, or delete the folder"
        )


def _fingerprint(shard_set: ShardSet) -> str:
    return " ".join(shard_set.splits[name].fingerprint() for name in sorted(shard_set.splits))
