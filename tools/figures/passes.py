"""A run looks at a split once, for figures of its answers.

In:  an opened run.  Out: the errors; each batch goes to `see`, as in model/evaluate.py.
"""

from ...model.evaluate import Result, See, evaluate
from ...model.precision import default_precision, set_precision
from .. import console
from .runs import Opened


def look_at(opened: Opened, split: str, see: See, views: int = 1) -> Result:
    """Look at every photo of a split.

    Raises:
        ShardError: no such split, or photos without a label in it.
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
            advance=advance,
        )
    assert result is not None, "nobody asked the pass to stop"
    return result
