"""The configuration of a run: frozen, validated, stored in the run's folder and in every checkpoint. No torch.

In:  the user's options.  Out: a Config; on --resume the Config to continue with; the command line of a Config.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import UsageError
from ..nets.options import ALEXNET
from .recipe import RECIPES

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "tf32", "bf16")
PARALLEL = ("columns", "data")
TIMEOUT = 600.0  # seconds to wait for the other processes: a first batch from a slow disk, a checkpoint of rank 0
# What --resume may change, since it does not alter the steps done so far.
CHANGEABLE = (
    *("shards", "epochs", "steps", "log_every", "save_every", "device", "decode"),
    *("processes", "parallel", "early_stop", "deterministic"),
)


@dataclass(frozen=True)
class Config:
    """The configuration of one run, as `alexnet-train` stores it.

    Attributes:
        shards: path of the shard set's folder.
        recipe: name of a recipe, see `RECIPES`.
        epochs: total number of epochs, over all resumes.
        batch_size: pictures per global batch, over all processes.
        rate: initial learning rate of the weights, above 0 and below 100.
        precision: `fp32`, `tf32` (GPU only) or `bf16`.
        device: `cpu` or `cuda`.
        steps: total number of steps after which the run ends even if epochs are left; 0: no limit.
        decode: `fused`, `threads`, `dali`, or `auto`: one of them by a rule (pipeline/stream/autotune.py).
        seed: of weights, order, augmentation and dropout, 0..2**63-1.
        log_every: steps between lines of metrics.
        save_every: steps between checkpoints within an epoch; each epoch ends with one anyway.
        model: name of the net, as `nets.factory.resolve` returns it.
        crop: side of the input window, pixels.
        processes: number of processes that share the work.
        parallel: how they share it: `columns` or `data`; `alone` for one process.
        schedule: of the learning rates: `diary`, `plateau`, `steps` or `one-cycle`; "": the recipe's.
        early_stop: number of epochs without a lower validation error after which the run ends; 0: never.
        init_from: path of the checkpoint whose weights the run started with; "": none.
        deterministic: on a GPU, only operations that repeat bit for bit; see `set_precision`.
    Raises:
        UsageError: a value is out of range, or the device lacks the precision.
    """

    shards: str
    recipe: str
    epochs: int
    batch_size: int
    rate: float
    precision: str
    device: str
    steps: int = 0
    decode: str = "auto"
    seed: int = 0
    log_every: int = 20
    save_every: int = 1000
    model: str = ALEXNET
    crop: int = 224
    processes: int = 1
    parallel: str = "alone"
    schedule: str = ""
    early_stop: int = 0
    init_from: str = ""
    deterministic: bool = False

    def __post_init__(self):
        if self.recipe not in RECIPES:
            raise UsageError(f"unknown recipe {self.recipe!r}", f"choose one of {', '.join(RECIPES)}")
        for name in ("epochs", "batch_size", "log_every", "save_every", "crop", "processes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{option(name)} {getattr(self, name)} is less than 1")
        if self.steps < 0 or not 0 <= self.seed < 1 << 63:  # the range of torch's generator
            raise UsageError(f"--steps {self.steps}, --seed {self.seed}: out of range")
        if not 0 < self.rate < 100:
            raise UsageError(f"--rate {self.rate} is not between 0 and 100", "the paper's is 0.01 for 1,000 classes")
        check_precision(self.precision, self.device)

    def described(self) -> dict:
        """Return all fields as plain values, by name."""
        return asdict(self)


def resumed(saved: dict, requested: dict) -> Config:
    """Return the configuration to continue a run with: the checkpoint's, with the changes that --resume allows.

    Args:
        saved: the checkpoint's configuration.
        requested: the options that the user gave, by field name.
    Raises:
        UsageError: a requested option must not change; the message names it.
    """
    known = {field.name for field in fields(Config)}
    config = Config(**{name: value for name, value in saved.items() if name in known})
    refused = [name for name, value in requested.items() if name not in CHANGEABLE and value != getattr(config, name)]
    if refused:
        changes = "; ".join(
            f"{option(name)} was {'none' if getattr(config, name) == '' else getattr(config, name)}, "
            f"not {requested[name]}"
            for name in refused
        )
        raise UsageError(
            f"--resume cannot change these options of the run: {changes}",
            "omit them, or start a new run with another --run",
        )
    if requested.get("device") == "cpu" and config.precision == "tf32":
        requested = {**requested, "precision": "fp32"}  # the same number format, without the GPU's shortcut
    return replace(config, **requested)


def config_command(config: Mapping[str, Any], run: str = "") -> list[str]:
    """Return the words of the `alexnet-train` command that repeats a run, with every option whose default may change.

    Args:
        config: as `Config.described` returns it; fields that a checkpoint of an older version lacks have defaults.
        run: the new run's folder; "": the default.
    """
    defaults = {field.name: field.default for field in fields(Config) if field.default is not MISSING}
    values = {**defaults, **config, "device": config.get("device", "").split(":")[0]}
    names = ["recipe", *(("model", "crop") if values["model"] != ALEXNET else ())]
    names += ["epochs", "batch_size", "rate", "schedule", "precision", "seed", "device", "decode", "processes"]
    names += ["parallel"] if values["processes"] > 1 else []
    names += [
        name
        for name in ("steps", "early_stop", "init_from", "log_every", "save_every")
        if values[name] != defaults[name]
    ]
    words = ["alexnet-train", "--shards", values["shards"], *(("--run", run) if run else ())]
    for name in names:
        if values.get(name, "") != "":  # an older version may not have stored it
            words += [option(name), str(values[name])]
    return words + [option("deterministic")] * values["deterministic"]


def option(name: str) -> str:
    """Return the option of a field: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")


def check_precision(precision: str, device: str) -> None:
    """Check that a device supports a precision.

    Args:
        device: `cpu`, or another type of torch device.
    Raises:
        UsageError: unknown precision, or tf32 on the CPU.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision} is not one of {', '.join(PRECISIONS)}")
    if precision == "tf32" and device == "cpu":
        raise UsageError("--precision tf32 needs a GPU", "on the CPU choose fp32 or bf16")


def default_precision(device: "torch.device") -> str:
    """Return the precision to use without --precision: `tf32` on a GPU, `fp32` elsewhere."""
    return "tf32" if device.type == "cuda" else "fp32"
