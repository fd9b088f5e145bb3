"""Whether the last layer of imported weights is for the classes of a shard set: kept, put into order, or left out.

In:  arrays, the names of those with a row for each class, the file's class names if they are known, a shard set.
Out: the arrays to store, the classes of the net, and a sentence on what was done.
A last layer is kept only where its classes are known to be the set's: an equal number of other classes would give
wrong names without any error.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...pipeline.errors import TrainingError, UsageError
from ...pipeline.shards.manifest import ShardSet
from ..nets.heads import layers_of

# SHA-256 over the 1,000 sorted wnids of ILSVRC 2012, a line each: the order of torchvision, timm and Caffe.
IMAGENET, IMAGENET_CLASSES = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd", 1000


@dataclass(frozen=True)
class Fitted:
    """Weights whose last layer fits the classes, or that have none.

    Attributes:
        arrays: by name; without the last layer if it is for other classes.
        classes: names, by row of the last layer; empty if it was left out.
        left: names of the arrays that were left out.
        note: for the user.
    """

    arrays: dict[str, Tensor]
    classes: list[str]
    left: tuple[str, ...]
    note: str


def fit_head(
    arrays: dict[str, Tensor], head: tuple[str, ...], names: Sequence[str] | None, shard_set: ShardSet, file: Path
) -> Fitted:
    """Keep the last layer of a net if its classes are those of a shard set; otherwise leave it out.

    Args:
        arrays: of the whole net, by name; the last layer may be missing.
        head: names of the arrays that have a row for each class.
        names: of the file's classes, by row; None: not known. Of 1,000 they are then taken to be ImageNet's if those
            are the set's classes.
        shard_set: its classes are those of the new net.
        file: for messages.
    Raises:
        TrainingError: the arrays of the last layer have different numbers of rows.
        UsageError: there are not as many names as rows, or one twice.
    """
    classes, layer = list(shard_set.classes), layers_of(head)
    rows = {len(arrays[name]) if arrays[name].dim() else 0 for name in head if name in arrays}
    if not rows:
        return Fitted(arrays, [], head, f"the file has no last layer ({layer})")
    if len(rows) > 1 or not all(name in arrays for name in head):
        raise TrainingError(f"{file}: its last layer ({layer}) is not whole", "use another file")
    (count,) = rows
    note = f"the last layer ({layer}) is kept: its {count:,} classes are those of {shard_set.root}"
    if names is not None:
        _check_names(names, count, layer, file)
    elif count == IMAGENET_CLASSES and is_imagenet(classes):
        names, note = sorted(classes), f"{note}, taken as ImageNet's in the order of their wnids"
    if names is not None and set(names) == set(classes):
        if list(names) != classes:
            order = [list(names).index(name) for name in classes]
            arrays = {name: array[order] if name in head else array for name, array in arrays.items()}
            note += "; its rows were put into the set's order"
        return Fitted(arrays, classes, (), note)
    kept = {name: array for name, array in arrays.items() if name not in head}
    return Fitted(kept, [], head, f"the last layer ({layer}) is left out: {_difference(names, count, shard_set)}")


def is_imagenet(classes: Sequence[str]) -> bool:
    """Whether classes are the 1,000 of ILSVRC 2012 by their wnids, in any order."""
    return hashlib.sha256("\n".join(sorted(classes)).encode("utf-8", "surrogateescape")).hexdigest() == IMAGENET


def read_classes(path: Path) -> list[str]:
    """Read names of classes from a text file, one a line, in the order of the rows of a last layer.

    Raises:
        UsageError: the file cannot be read, or has no names.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text in UTF-8"
        raise UsageError(f"--classes {path}: {reason}", "name a text file with a class a line") from None
    if not names:
        raise UsageError(f"--classes {path}: no names in it", "write the name of a class on each line")
    return names


def _check_names(names: Sequence[str], count: int, layer: str, file: Path) -> None:
    twice = sorted(name for name in set(names) if list(names).count(name) > 1) if len(set(names)) < len(names) else []
    if len(names) != count or twice:
        wrong = f"the class {twice[0]} is named twice" if twice else f"{len(names):,} classes are named"
        raise UsageError(
            f"{file}: its last layer ({layer}) has {count:,} classes, but {wrong}",
            "name the class of each row once, in their order",
        )


def _difference(names: Sequence[str] | None, count: int, shard_set: ShardSet) -> str:
    """Why the last layer does not fit."""
    classes = shard_set.classes
    if count != len(classes):
        return f"it has {count:,} classes, {shard_set.root} has {len(classes):,}"
    if names is None:
        return (
            f"it has {count:,} classes like {shard_set.root}, but the file does not name them, and they may be others; "
            "if you know their names, give them with --classes"
        )
    foreign = [name for name in names if name not in set(classes)]
    return f"{len(foreign):,} of its {count:,} classes are not in {shard_set.root}, such as {foreign[0]}"
