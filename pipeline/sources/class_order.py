"""The order of the classes, which is that of the labels; and what about the classes is doubtful.

In:  class names, and what a layout found.  Out: the names in the order of their labels; warnings for people.
"""

from pathlib import Path

from ..errors import UsageError
from .entries import Found
from .imagenet.devkit import read_devkit

LABEL_ORDERS = {
    "sorted": "sorted class names",
    "number": "class names as whole numbers",
    "source": "as the source numbers them",
    "devkit": "ILSVRC devkit (ILSVRC ID minus 1)",
}


def ordered(root: Path, names: tuple[str, ...], found: Found, label_order: str) -> tuple[str, ...]:
    """Return class names in the order of their labels, one of LABEL_ORDERS.

    Raises:
        UsageError: the names or the source do not have this order.
    """
    if label_order == "number":
        if not all(map(is_number, names)):
            wrong = next(name for name in names if not is_number(name))
            raise UsageError(f"{root}: the class {wrong} is not a whole number", "use --label-order sorted")
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    if label_order == "sorted":  # numbers of a list or table stay in order, names of folders are text: 10 before 2
        numbered = found.classes and all(is_number(name) and (name == "0" or name[0] != "0") for name in names)
        return tuple(sorted(names, key=int) if numbered else sorted(names))
    if label_order == "source" and not found.classes:
        raise UsageError(f"{root}: the source does not number its classes ({found.kind})", "use --label-order sorted")
    if label_order == "source":
        return found.classes
    kit = None if found.devkit_order or not root.is_dir() else read_devkit(root, 2012)
    devkit_order = kit.order if kit else found.devkit_order
    missing = sorted(set(names) - set(devkit_order))
    if not devkit_order or missing:
        raise UsageError(
            f"{root}: "
            + (
                f"{len(missing)} classes are not in the devkit, first {missing[0]}"
                if devkit_order
                else "no devkit found"
            ),
            "put ILSVRC2012_devkit_t12.tar.gz beside the photos, or use --label-order sorted",
        )
    return tuple(name for name in devkit_order if name in set(names))


def is_number(name: str) -> bool:
    """Return whether a class name is a whole number."""
    return name.isascii() and name.isdigit()


def doubts_about(root: Path, classes: tuple[str, ...], counts: dict[str, dict[str, int]]) -> list[str]:
    """Return what is probably wrong with the classes.

    Raises:
        UsageError: a split has none of train's classes.
    """
    warnings = []
    if len(classes) == 1:
        warnings.append(f"there is one class alone, {classes[0]}: alexnet-train refuses such a set")
    alike: dict[str, str] = {}
    for name in classes:
        if (other := alike.setdefault(name.casefold().strip(), name)) != name:
            warnings.append(f"the classes {other!r} and {name!r} differ only in case or blanks")
    train = counts.get("train", {})
    for split in ("val", "test"):
        named = counts.get(split, {}).keys() - {""}
        unknown = sorted(named - train.keys())
        if not train or not named or not unknown:
            continue
        if len(unknown) == len(named):
            raise UsageError(
                f"{root}: {split} has none of the classes of train: {_some(unknown)}; train has {_some(sorted(train))}",
                "give both the same names, or build one alone with --split train",
            )
        warnings.append(f"{len(unknown):,} of the {len(named):,} classes of {split} are not in train: {_some(unknown)}")
    return warnings


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
