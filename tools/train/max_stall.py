"""`--max-stall`: a run that waited too long for its data fails, and says which stage it was and what to change.

In:  a limit in percent, a trainer at its end.  Out: nothing, or an error; everything has been saved by then.
"""

import click

from ...model.training.trainer import Trainer
from ...pipeline.errors import TrainingError
from ...pipeline.stream.bottleneck import verdict
from ...pipeline.workers import available_cores


class Percent(click.ParamType):
    """A share of the time: `1%`, `1` and `0.5%` are meant alike, in percent, 0..100."""

    name = "percent"

    def convert(self, value, param, ctx) -> float:
        """The number."""
        if isinstance(value, float):
            return value
        try:
            share = float(value.strip().removesuffix("%"))
        except ValueError:
            self.fail(f"{value!r} is no percentage such as 1% or 0.5%", param, ctx)
        if not 0 <= share <= 100:
            self.fail(f"{value} is not between 0% and 100%", param, ctx)
        return share


def check_stall(trainer: Trainer, limit: float) -> None:
    """Compare the steps of this process, start-up and evaluations left out, with a limit in percent.

    Raises:
        TrainingError: they waited longer.
    """
    total = trainer.meter.total()
    if total.stall_percent <= limit:
        return
    found = verdict(
        total,
        trainer.meter.stages(),
        available_cores(),
        on_gpu=trainer.device.type == "cuda",
        encoded=trainer.shard_set.encoding == "jpeg",
    )
    raise TrainingError(
        f"stalled {total.stall_percent:.2f}% of the time, more than --max-stall {limit:g}%: {found.sentence}",
        found.remedy,
    )
