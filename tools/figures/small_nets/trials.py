"""What `relu-vs-tanh` and `lrn` share: their options, the training with its progress, the folder of their nets.

In:  what the user typed.  Out: each net's curve; what is trained already is not trained again.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from ....model.analysis.comparison import Curve, Settings, Variant, check_size
from ....model.analysis.small_net_trainer import SmallNetTrainer, Stopped
from ....model.recipes.config import PRECISIONS, check_precision, default_precision
from ....pipeline.errors import UsageError
from ....pipeline.files import locked, write_json
from ....pipeline.shards import stats as statistics
from ....pipeline.shards.manifest import ShardSet, open_shard_set
from ... import console
from ...process import pick_device, stop_on_signals
from ..open_run import DEVICE, FOLDER
from ..style import DARK_OPTION


class RateList(click.ParamType):
    """Numbers with commas between them."""

    name = "rates"

    def convert(self, value, param, ctx) -> tuple[float, ...]:
        """Read them; what they may be, Settings says."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them, such as 0.001,0.003", param, ctx)


def shared(command: Callable) -> Callable:
    """Give a command the options that both have."""
    for decorate in (
        click.option("--shards", type=FOLDER, default="out", show_default=True, help="A set of --size 32, say."),
        click.option("--rates", type=RateList(), default="0.001,0.003,0.01,0.03", show_default=True, help="To try."),
        click.option("--try-epochs", type=click.IntRange(1), default=2, show_default=True, help="Of each rate."),
        click.option("--epochs", type=click.IntRange(1), default=60, show_default=True, help="Of each net, at most."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights and order."),
        click.option("--out", type=FOLDER, default="figures", show_default=True, help="Folder of the figure."),
        click.option("--precision", type=click.Choice(PRECISIONS), help="[default: fp32 on the CPU, tf32 on a GPU]"),
        DEVICE,
        DARK_OPTION,
    )[::-1]:
        command = decorate(command)
    return command


@contextmanager
def compared(
    name: str, shards: Path, out: Path, device: str, kinds: Sequence[Variant], precision: str | None, **options
):
    """Train what is not trained yet; yield the set, the settings, each kind's best curve, and what to write down."""
    shard_set = open_shard_set(shards)
    check_size(shard_set)
    stats, chosen = statistics.load_stats(shard_set), pick_device(device)
    precision = precision or default_precision(chosen)
    check_precision(precision, chosen.type)
    settings = Settings(precision=precision, **options)
    for split in ("train", "val") if settings.validate else ("train",):
        shard_set.split(split)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: a file, not a folder for figures", "name another with --out")
    folder = out / name
    with locked(folder):
        _same(folder, {"shards": _fingerprint(shard_set), "seed": settings.seed, "precision": precision})
        progress = _Progress(len(kinds), settings)
        with stop_on_signals() as stop:
            try:
                laboratory = SmallNetTrainer(shard_set, stats, folder, settings, chosen, progress, stop)
                chosen_and_tried = laboratory.compare(kinds)
            except Stopped:
                click.echo("stopped; whole epochs are kept: the same command goes on", err=True)
                raise click.exceptions.Exit(stop.exit_code) from None
        best = [curve for curve, _ in chosen_and_tried]
        for curve in best:
            for edge, more in ((max(settings.rates), "larger"), (min(settings.rates), "smaller")):
                if curve.rate == edge and len(settings.rates) > 1:
                    said = f"{curve.kind}: best at {edge:g}, the last of --rates; a {more} one may be better still"
                    click.echo(said, err=True)
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
    """Says each epoch, and how long all may still take."""

    def __init__(self, kinds: int, settings: Settings):
        self._most = kinds * (len(settings.rates) * settings.try_epochs + max(0, settings.epochs - settings.try_epochs))
        self._have: dict[tuple[str, float], int] = {}
        self._seconds, self._fresh = 0.0, 0

    def __call__(self, curve: Curve, seconds: float) -> None:
        self._have[curve.kind, curve.rate] = len(curve.errors)
        if not seconds:
            return  # of an earlier call
        self._seconds, self._fresh = self._seconds + seconds, self._fresh + 1
        left = max(0, self._most - sum(self._have.values())) * self._seconds / self._fresh
        said = f"training error {100 * curve.errors[-1]:.1f}%" if curve.errors else ""
        if curve.val_errors:
            said += f", validation {100 * curve.val_errors[-1]:.1f}%"
        if curve.broken:
            said = "and then not finite any more: out"
        click.echo(
            f"{curve.kind}, rate {curve.rate:g}, epoch {len(curve.errors)}: {said}, {seconds:.1f} s; "
            f"at most {console.duration(left)} left",
            err=True,
        )


def _same(folder: Path, identity: dict) -> None:
    """Check that a folder's nets are of this comparison; of a new folder, write down whose they are.

    Raises:
        UsageError: they are of another.
    """
    file = folder / "settings.json"
    if not file.exists():
        write_json(file, identity)
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        other = [name for name, value in identity.items() if before[name] != value]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{file}: damaged", "choose another --out, or remove the folder") from None
    if other:
        raise UsageError(
            f"{folder}: holds nets of other {' and '.join(other)}", "choose another --out, or remove the folder"
        )


def _fingerprint(shard_set: ShardSet) -> str:
    return " ".join(shard_set.splits[name].fingerprint() for name in sorted(shard_set.splits))
