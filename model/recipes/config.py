"""What a run is: a frozen, self-checking configuration, kept in its folder and in every checkpoint.

In:  what the user said.  Out: the same, checked and completed; and on `--resume`, what may change and what may not.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

from ...pipeline.errors import UsageError
from .recipe import RECIPES

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "tf32", "bf16")
PARALLEL = ("columns", "data")
TIMEOUT = 600.0  # seconds to wait for the other processes: a first batch from a slow disk, a checkpoint of rank 0

# What --resume may change: none of these alters what was done so far.
CHANGEABLE = (
    *("shards", "epochs", "steps", "log_every", "save_every", "device", "decode"),
    *("processes", "parallel", "early_stop"),
)


@dataclass(frozen=True)
class Config:
    """A run.

    Attributes:
        shards: the shard set's folder.
        recipe: its name.
        epochs: in all, also counted across resumes.
        steps: in all; 0, as many as the epochs have.
        batch_size: of the global batch.
        rate: of weights, to begin with.
        precision: `fp32`, `tf32` (GPU) or `bf16`.
        decode: `threads`, `dali`, or `auto`: the faster one here, measured.
        seed: of weights and plan.
        device: `cpu` or `cuda`.
        log_every, save_every: steps between lines and between checkpoints; each epoch has both anyway.
        model: the net, as `registry.resolve` names it.
        crop: side of the window that it looks at, pixels.
        processes, parallel: how many share the work, and how: `columns` or `data`; one, `alone`.
        schedule: of the rates: `diary`, `plateau`, `steps` or `one-cycle`; "", the recipe's.
        early_stop: epochs without a better validation error after which the run ends; 0, never.
        init_from: the checkpoint whose weights it began with; "", none.
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
    model: str = "alexnet"
    crop: int = 224
    processes: int = 1
    parallel: str = "alone"
    schedule: str = ""
    early_stop: int = 0
    init_from: str = ""

    def __post_init__(self):
        if self.recipe not in RECIPES:
            raise UsageError(f"no recipe is called {self.recipe!r}", f"choose one of {', '.join(RECIPES)}")
        for name in ("epochs", "batch_size", "log_every", "save_every", "crop", "processes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{option(name)} {getattr(self, name)} is not 1 or more")
        if self.steps < 0 or not 0 <= self.seed < 1 << 63:  # torch's generator takes no more
            raise UsageError(f"--steps {self.steps}, --seed {self.seed}: out of range")
        if not 0 < self.rate < 100:
            raise UsageError(f"--rate {self.rate} is not a sensible rate", "the paper's is 0.01 for 1,000 classes")
        check_precision(self.precision, self.device)

    def described(self) -> dict:
        """All fields as plain values."""
        return asdict(self)


def resumed(saved: dict, asked: dict) -> Config:
    """The configuration to go on with: the checkpoint's, with what was asked for and may change.

    Raises:
        UsageError: something was asked for that may not change; by name.
    """
    known = {field.name for field in fields(Config)}
    config = Config(**{name: value for name, value in saved.items() if name in known})
    refused = [name for name, value in asked.items() if name not in CHANGEABLE and value != getattr(config, name)]
    if refused:
        told = "; ".join(
            f"{option(name)} was {'none' if getattr(config, name) == '' else getattr(config, name)}, not {asked[name]}"
            for name in refused
        )
        raise UsageError(
            f"--resume goes on with the run as it was: {told}",
            "leave these options out, or begin a new run with another --run",
        )
    if asked.get("device") == "cpu" and config.precision == "tf32":
        asked = {**asked, "precision": "fp32"}  # the same format without a GPU's short cut
    return replace(config, **asked)


def option(name: str) -> str:
    """A field as the user types it."""
    return "--" + name.replace("_", "-")


def check_precision(precision: str, device: str) -> None:
    """Check that a device has a precision.

    Raises:
        UsageError: it has not.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision} is not one of {', '.join(PRECISIONS)}")
    if precision == "tf32" and device == "cpu":
        raise UsageError("--precision tf32 needs a GPU", "on the CPU choose fp32 or bf16")


def default_precision(device: "torch.device") -> str:
    """Where nobody asked: fp32 on the CPU, tf32 on a GPU."""
    return "tf32" if device.type == "cuda" else "fp32"
