"""Named recipes: what ran in 2012, what the text says, and whatever states its difference from them.

In:  a name.  Out: a frozen Recipe that checks itself.  No torch tensor, no file.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from ..pipeline.errors import UsageError
from ..pipeline.loader import Light
from ..pipeline.plan import Augmentation
from ..pipeline.stats import LIGHTING_SCALES
from .alexnet import NetOptions
from .optim import DECAY, DIARY_EPOCHS, diary_epochs

SCHEDULES = ("diary", "plateau")


@dataclass(frozen=True)
class Recipe:
    """One way to train the net; docs/paper.md has a row for each field.

    Attributes:
        name, summary: for people.
        net: program or text.
        crop: pixels of the window.
        shared: consecutive places of an epoch that share crop and flip.
        mean: `image`, the mean image's central window, or `rgb`.
        lighting: `stddev`, `eigenvalue` or `none`.
        divide: by 1.1 after the lighting.
        decay, decay_biases: of weights, and whether of biases too.
        schedule: `diary` or `plateau`.
        batch_size, epochs: where the user says nothing.
    """

    name: str
    summary: str
    net: NetOptions = NetOptions()
    crop: int = 224
    shared: int = 32
    mean: str = "image"
    lighting: str = "stddev"
    divide: bool = True
    decay: float = DECAY
    decay_biases: bool = False
    schedule: str = "diary"
    batch_size: int = 128
    epochs: int = DIARY_EPOCHS

    def __post_init__(self):
        if self.schedule not in SCHEDULES or self.lighting not in LIGHTING_SCALES:
            raise UsageError(
                f"recipe {self.name}: schedule {self.schedule}, lighting {self.lighting}: "
                f"not among {SCHEDULES} and {LIGHTING_SCALES}"
            )
        if self.batch_size < 1 or self.epochs < 1 or self.decay < 0:
            raise UsageError(f"recipe {self.name}: batch {self.batch_size}, epochs {self.epochs}, decay {self.decay}")

    @property
    def augmentation(self) -> Augmentation:
        """What the plan draws."""
        return Augmentation(crop=self.crop, shared=self.shared)

    def light(self, epochs: int) -> Light:
        """The lighting over a run of this many epochs: the diary turns it off towards the end."""
        off = diary_epochs(epochs)["conv1_and_light"] if self.schedule == "diary" else None
        return Light(self.lighting, self.divide, off)

    def described(self) -> dict:
        """All fields as plain values, for checkpoints and metrics."""
        return asdict(self)


def source2012() -> Recipe:
    """The program of 2012, layers-145 with params 145."""
    return Recipe("source2012", "what ran in 2012: layers-145 on ILSVRC-2012, with the author's diary of rates")


def paper() -> Recipe:
    """The paper's text; where it is silent, the program's choice."""
    return replace(
        source2012(),
        name="paper",
        summary="what the text says; where it is silent, as source2012",
        net=NetOptions(pool_before_relu=False, lrn_scale=1e-4, within_map=False, deep_std=0.01),
        shared=1,
        lighting="eigenvalue",
        divide=False,
        decay_biases=True,
        schedule="plateau",
        epochs=90,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"source2012": source2012, "paper": paper}


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        raise UsageError(f"no recipe is called {name!r}", f"choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()
