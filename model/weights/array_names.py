"""The names of a file's arrays without the prefixes that wrappers of a net leave in them.

In:  arrays by name, and which names are known.  Out: the same arrays under known names, and what was changed.

    module.features.0.weight        DataParallel, DistributedDataParallel
    _orig_mod.features.0.weight     torch.compile
    features.module.0.weight        DataParallel around a part of the net, as in torchvision's AlexNet and VGG
    model.features.0.weight         a net inside a larger one, such as a Lightning module
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from ...pipeline.errors import TrainingError

# Parts of a name that a wrapper adds, of one net or of a part of it.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
MOST = 3  # changes to list


def plain_names(
    arrays: Mapping[str, Tensor], known: Callable[[str], bool], file: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename arrays whose names have parts of wrappers, or a prefix that all names share.

    Args:
        arrays: by the file's names.
        known: whether a name is one of the net's; such names are not changed.
        file: for messages.
    Returns:
        The arrays by their new names, and notes for the user.
    Raises:
        TrainingError: two arrays would have one name.
    """
    new = {name: name if known(name) else _unwrapped(name) for name in arrays}
    while not any(map(known, new.values())) and (first := _common(new.values())):
        new = {name: changed.removeprefix(first) for name, changed in new.items()}
    if not any(map(known, new.values())):  # not this net: the file's own names are clearer in an error
        return dict(arrays), []
    renamed: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    for name, changed in new.items():
        if changed in renamed:
            raise TrainingError(
                f"{file}: has {changed} twice, as {sources[changed]} and as {name}", "remove one of them"
            )
        renamed[changed], sources[changed] = arrays[name], name
    return renamed, _notes(new)


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _common(names) -> str:
    """The first part that all names share, with its dot; "" if there is none."""
    firsts = {name.split(".", 1)[0] + "." if "." in name else "" for name in names}
    return firsts.pop() if len(firsts) == 1 else ""


def _notes(new: Mapping[str, str]) -> list[str]:
    """One sentence on the prefixes that were removed."""
    changes = dict.fromkeys(_prefixes(name, changed) for name, changed in new.items() if name != changed)
    if not changes:
        return []
    texts = [f"{old!r} as {kept!r}" if kept else f"without {old!r}" for old, kept in changes]
    more = f", and {len(texts) - MOST} other prefixes" if len(texts) > MOST else ""
    return [f"the arrays' names are read {', '.join(texts[:MOST])}{more}"]


def _prefixes(old: str, new: str) -> tuple[str, str]:
    """What stands before the part that both names share at their end."""
    before, after = old.split("."), new.split(".")
    while before and after and before[-1] == after[-1]:
        before.pop()
        after.pop()
    return "".join(f"{part}." for part in before), "".join(f"{part}." for part in after)
