"""A run looks at a split once, for figures of its answers.

In:  an opened run.  Out: the errors; each batch goes to `see`, as in model/training/evaluate.py.
"""

from ...model.recipes.precision import default_precision, set_precision
from ...model.training.evaluate import Result, See, evaluate
from .. import console
from .open_run import Opened


def look_at(opened: Opened, split: str, see: See, views: int = 1, without_labels: bool = False) -> Result:
    """Look at every photo of a split.

    Args:
        without_labels: a split without labels will do; it has no errors.
    Raises:
        ShardError: no such split, or photos without a label where they are needed.
    """
    precision = default_precision(opened.device)
    set_precision(precision)
    recipe = opened.trained.recipe
    with console.progress("looking at photos", opened.shard_set.split(split).records) as advance:
        result = evaluate(
            [opened.trained.net],
            opened.shard_set,
            opened.trained.stats,
            split=split,
            views=views,
            crop=recipe.crop,
            mean=recipe.mean,
            device=opened.device,
            precision=precision,
            see=see,
            without_labels=without_labels,
            advance=advance,
        )
    assert result is not None, "nobody asked the pass to stop"
    return result
