"""The epoch as a pure function of (seed, epoch, place). NumPy only: no files, no DALI, no torch.

    philox.py        words of the Philox generator, of which every draw is made; permutations
    plan.py          order, batches, ranks; crops, flips, Gaussians and dropout of each place
    resized_crop.py  windows of random area and aspect ratio
    views.py         the windows of evaluation: centre, five, ten, k x k
    lighting.py      RGB offsets along the eigenvectors of the colour covariance

docs/plan.md has the same in words, enough to write it in another language.
"""

import warnings
from typing import Any

from ..front_door import OldModule, old_name

_MOVED = (  # public names of the module `plan` of version 0.1
    "Augmentation BatchPlan LIGHT_WORDS Plan SLOW_ORDER crop_and_flip dropout_keeps evaluation_batches "
    "lighting_gaussians rank_share resized_draws words"
)


def __getattr__(name: str) -> Any:
    if name not in _MOVED.split():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    package = __name__.rpartition(".")[0]
    message = f"{__name__}.{name} has moved: import public names from {package} (docs/migration.md)"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    moved = old_name(package, "plan", OldModule(("plan.plan", "plan.philox"), {"words": "philox_words"}), name)
    globals()[name] = moved  # warn once: an import asks twice
    return moved
