"""Named recipes: the program of 2012, the paper's text, and variants that state their difference from the program.

In:  a name.  Out: a frozen, validated Recipe.  No torch, no files.
docs/paper.md lists the layer and parameter files of 2012 that each recipe is taken from.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from ...pipeline.errors import UsageError
from ...pipeline.plan.lighting import LIGHTING_SCALES, Lighting
from ...pipeline.plan.plan import Augmentation
from ...pipeline.plan.resized_crop import ResizedCrop
from ..nets.options import NetOptions
from .diaries import DIARIES
from .schedules import SCHEDULES, OneCycle, Plateau, Schedule, Steps

DECAY = 0.0005  # of weights (section 5)
EPOCHS_OF_PATIENCE = 18  # epochs of a run per epoch of a plateau's patience: 5 in 90


@dataclass(frozen=True)
class Recipe:
    """One way to train a net; docs/paper.md has a row for each field.

    Attributes:
        name, summary: for people.
        net: the variant of AlexNet.
        crop: side of the input window, pixels.
        shared: number of consecutive pictures of an epoch that share crop and flip: the program's 32, or 1.
        mean: what is subtracted: `image`, the central window of the mean image, or `rgb`, the mean colour.
        lighting: scale of the lighting's offsets: `stddev`, `eigenvalue` or `none` (section 4.1).
        divide: whether pixels are divided by 1.1 after the lighting.
        decay, decay_biases: weight decay, and whether it applies to biases.
        schedule: of the learning rates: `diary`, `plateau`, `steps` or `one-cycle`.
        diary, diary_after: names in `DIARIES`; the second is for nets that start with another run's weights
            (--init-from).
        takes: layers that such a net takes from that run; (): all except the last.
        random_crop: whether crops are random; otherwise the centre, still flipped at random.
        resized: whether crops have random size and aspect and are resized.
        rate: initial learning rate; 0: depends on the number of classes, see `first_rate`.
        precision: default precision; "": depends on the device.
        batch_size, epochs: defaults; pictures per global batch, epochs of the run.
        published: the authors' result, in percent: top-1 / top-5 error; "": none.
    Raises:
        UsageError: a value is unknown or out of range.
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
                f"recipe {self.name}: schedule {self.schedule} or lighting {self.lighting} is not among "
                f"{SCHEDULES} and {LIGHTING_SCALES}"
            )
        if self.batch_size < 1 or self.epochs < 1 or self.decay < 0:
            raise UsageError(f"recipe {self.name}: batch {self.batch_size}, epochs {self.epochs}, decay {self.decay}")

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation that the plan draws."""
        resized = ResizedCrop() if self.resized else None
        return Augmentation(crop=self.crop, shared=self.shared, random_crop=self.random_crop, resized=resized)

    def with_weights(self) -> "Recipe":
        """Return the recipe for a net that starts with another run's weights: with the diary `diary_after`."""
        if self.schedule != "diary":
            return self
        return replace(self, diary=self.diary_after, epochs=DIARIES[self.diary_after].epochs)

    def light(self, epochs: int) -> Lighting:
        """Return the lighting for a run of this many epochs: a diary turns it off towards the end."""
        off = DIARIES[self.diary].light_epochs(epochs) if self.schedule == "diary" else None
        return Lighting(self.lighting, self.divide, off)

    def rates(self, epochs: int) -> Schedule:
        """Return the schedule of the learning rates for a run of this many epochs, in its initial state."""
        if self.schedule == "diary":
            return DIARIES[self.diary]
        if self.schedule == "plateau":
            return Plateau(patience=max(1, epochs // EPOCHS_OF_PATIENCE))
        return Steps() if self.schedule == "steps" else OneCycle()

    def described(self) -> dict:
        """Return all fields as plain values, for checkpoints."""
        return {**asdict(self), "takes": list(self.takes)}


def source2012() -> Recipe:
    """Return the recipe of the program of 2012: layers-145 with params 145."""
    return Recipe(
        "source2012",
        "what ran in 2012: layers-145 on ILSVRC-2012, with the author's diary of rates",
        published="40.7 / 18.2 val 2012, ten views",
    )


def paper() -> Recipe:
    """Return the recipe of the paper's text; what the text leaves open is as in the program."""
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
    """Return a function that makes source2012 with changes in its net options and fields."""

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
    """Return a recipe by name; `RECIPES` has the names.

    Raises:
        UsageError: unknown name.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}", f"choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()
