# ruff: noqa: F401
"""The nets of 2012 and their training. Import the public names from here: `from alexnet_dali.model import Trainer, ...`

The wings, in the order of use; a wing imports only earlier ones, and `alexnet_dali.pipeline`:

    nets/      the nets: AlexNet in its variants, response normalisation, the columns, other libraries' nets
    recipes/   what a run is: recipes, update rule, learning rates, configuration
    training/  the loop, its processes, checkpoints, evaluation, metrics
    weights/   trained nets: load, export, convert
    analysis/  what a net has learned: features, nearest neighbours, codes, confusions, the small nets of figure 1

Imports pipeline, never tools.
"""

from typing import TYPE_CHECKING

from ..pipeline.front_door import OldModule, offer

_NAMES = {
    "nets.alexnet": "AlexNet",
    "nets.options": "NetOptions",
    "nets.lrn": "AcrossMaps WithinMap",
    "nets.small_net": "SmallNet",
    "nets.factory": "create_net",
    "recipes.recipe": "RECIPES Recipe recipe",
    "recipes.config": "Config",
    "training.distributed": "Team",
    "training.evaluate": "EvalOptions Result evaluate",
    "training.trainer": "Trainer",
    "weights.trained": "Trained load_exported load_trained mean_window",
    "weights.onnx_export": "export_onnx",
}
_OLD = {
    "checkpoint": OldModule(("weights.trained", "training.checkpoint"), {"name_too": "hard_link"}),
    "portable": OldModule(("weights.safetensors_io", "weights.trained")),
}
__getattr__, __dir__, __all__ = offer(__name__, _NAMES, _OLD)

if TYPE_CHECKING:  # the same names, for type checkers and editors; tests/test_house.py compares them
    from .nets.alexnet import AlexNet
    from .nets.factory import create_net
    from .nets.lrn import AcrossMaps, WithinMap
    from .nets.options import NetOptions
    from .nets.small_net import SmallNet
    from .recipes.config import Config
    from .recipes.recipe import RECIPES, Recipe, recipe
    from .training.distributed import Team
    from .training.evaluate import EvalOptions, Result, evaluate
    from .training.trainer import Trainer
    from .weights.onnx_export import export_onnx
    from .weights.trained import Trained, load_exported, load_trained, mean_window
