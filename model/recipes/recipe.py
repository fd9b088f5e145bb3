"""Named recipes: what ran in 2012, what the text says, and whatever states its difference from them.

In:  a name.  Out: a frozen Recipe that checks itself.  No torch tensor, no file.
The layer files that each is read from: docs/paper.md.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from ...pipeline.errors import UsageError
from ...pipeline.plan.lighting import LIGHTING_SCALES, Lighting
from ...pipeline.plan.plan import Augmentation
from ...pipeline.plan.resized_crop import ResizedCrop
from ..nets.options import NetOptions
from .diaries import DIARIES, Diary
from .schedules import SCHEDULES, OneCycle, Plateau, Schedule, Steps

DECAY = 0.0005  # of weights (section 5)
EPOCHS_OF_PATIENCE = 18  # epochs of a run for each epoch that a plateau waits: 5 of 90


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
        schedule: `diary`, `plateau`, `steps` or `one-cycle`.
        diary, diary_after: which one; and which, where the net goes on from another run's weights (--init-from).
        takes: layers that such a net takes from there; (), all but the last.
        random_crop: whether windows are drawn; otherwise the centre, still flipped.
        resized: whether windows of any size and shape are drawn, and resized.
        rate: to begin with; 0, what belongs to the number of classes.
        precision: where the user says nothing; "", what belongs to the device.
        batch_size, epochs: where the user says nothing.
        published: what the authors reached: a row of docs/paper.md, for --list-recipes.
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
    diary: str = "145"
    diary_after: str = "146-2012"
    takes: tuple[str, ...] = ()
    random_crop: bool = True
    resized: bool = False
    rate: float = 0.0
    precision: str = ""
    batch_size: int = 128
    epochs: int = 91
    published: str = ""

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
        resized = ResizedCrop() if self.resized else None
        return Augmentation(crop=self.crop, shared=self.shared, random_crop=self.random_crop, resized=resized)

    def with_weights(self) -> "Recipe":
        """What it is where the net begins with another run's weights: slower where they come from there."""
        if self.schedule != "diary":
            return self
        return replace(self, diary=self.diary_after, epochs=DIARIES[self.diary_after].epochs)

    def light(self, epochs: int) -> Lighting:
        """The lighting over a run of this many epochs: the diary turns it off towards the end."""
        off = DIARIES[self.diary].light_epochs(epochs) if self.schedule == "diary" else None
        return Lighting(self.lighting, self.divide, off)

    def rates(self, epochs: int) -> Schedule:
        """The schedule of its rates, at the beginning of a run of so many epochs."""
        made: dict[str, Callable[[], Schedule]] = {
            "diary": lambda: self._diary,
            "plateau": lambda: Plateau(patience=max(1, epochs // EPOCHS_OF_PATIENCE)),
            "steps": Steps,
            "one-cycle": OneCycle,
        }
        return made[self.schedule]()

    @property
    def _diary(self) -> Diary:
        return DIARIES[self.diary]

    def described(self) -> dict:
        """All fields as plain values, for checkpoints and metrics."""
        return {**asdict(self), "takes": list(self.takes)}


def source2012() -> Recipe:
    """The program of 2012, layers-145 with params 145."""
    return Recipe(
        "source2012",
        "what ran in 2012: layers-145 on ILSVRC-2012, with the author's diary of rates",
        published="40.7 / 18.2 val 2012, ten views",
    )


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
        published="",
    )


def _variant(name: str, summary: str, net: dict | None = None, **changes) -> Callable[[], Recipe]:
    """source2012 but for what is said."""

    def make() -> Recipe:
        base = source2012()
        diary = DIARIES[changes.get("diary", base.diary)]
        options = replace(base.net, **(net or {}))
        return replace(
            base,
            **{"published": "", "epochs": diary.epochs, "net": options, **changes, "name": name, "summary": summary},
        )

    return make


_CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")
_VARIANTS = (
    _variant(
        "one-gpu",
        "one column, half of the kernels of conv1 to conv4 (layers-145-half, footnote 2)",
        {"columns": 1},
        diary="145-half",
        published="39.2 / 18.2 test 2010, ten views",
    ),
    _variant(
        "six-conv",
        "a sixth convolution over the last pooling layer (layers-146); with --init-from, fine-tuned",
        {"conv6": True},
        published="39.0 / 16.6 val 2012, ten views, pre-trained",
    ),
    _variant(
        "six-conv-2009",
        "six-conv for the 10,184 classes of 2009; --init-from a source2012 run gives conv1 to conv5",
        {"conv6": True},
        diary_after="146-2009",
        takes=_CONVOLUTIONS,
        published="67.4 / 40.9 half of Fall 2009",
    ),
    _variant(
        "six-conv-2011",
        "six-conv for 21,843 classes, 2 x 1024 linear units before them; --init-from gives the convolutions",
        {"conv6": True, "low": 2048},
        diary_after="146-2011",
        takes=(*_CONVOLUTIONS, "conv6"),
    ),
    _variant(
        "no-lrn",
        "without response normalisation (layers-148, section 3.3)",
        {"norm": "none", "within_map": False},
        diary="148",
        published="42.0 / 19.4 val 2012, ten views",
    ),
    _variant(
        "pool-2x2",
        "pooling without overlap (layers-147, section 3.4)",
        {"pool": 2},
        diary="147",
        published="41.1 / 18.5 val 2012, ten views",
    ),
    _variant(
        "no-talk",
        "columns that meet in the softmax alone (layers-150)",
        {"talk": False},
        diary="150",
        published="41.8 / 19.3 val 2012, ten views",
    ),
    _variant(
        "no-lighting",
        "without the lighting (section 4.1)",
        lighting="none",
        divide=False,
        published="over 1 top-1 worse",
    ),
    _variant(
        "no-dropout",
        "without dropout (section 4.2)",
        {"dropout": False},
        published="substantial overfitting",
    ),
    _variant(
        "no-crops",
        "the central window alone, flipped or not (section 4.1)",
        random_crop=False,
        published="substantial overfitting",
    ),
    _variant("tanh", "tanh for every ReLU (section 3.1)", {"activation": "tanh"}),
    _variant(
        "modern",
        "batch norm, Kaiming's weights, one cycle of the rate; the pictures of the text",
        {
            "norm": "batch",
            "within_map": False,
            "pool_before_relu": False,
            "init": "kaiming",
        },
        shared=1,
        lighting="eigenvalue",
        divide=False,
        mean="rgb",
        schedule="one-cycle",
        rate=0.01,
        precision="bf16",
        epochs=90,
    ),
    _variant(
        "torchvision",
        "torchvision's reference settings, for --model NET: resized crops, a tenth of the rate after each third",
        {"pool_before_relu": False, "within_map": False},
        shared=1,
        mean="rgb",
        lighting="none",
        divide=False,
        resized=True,
        decay=1e-4,
        decay_biases=True,
        schedule="steps",
        batch_size=256,
        epochs=90,
    ),
)
RECIPES: dict[str, Callable[[], Recipe]] = {made().name: made for made in (source2012, paper, *_VARIANTS)}


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        raise UsageError(f"no recipe is called {name!r}", f"choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()
