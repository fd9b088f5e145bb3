"""What alexnet-dali 0.1 may have read wrongly when it built a shard set, from dataset.json alone.

In:  the content of dataset.json.  Out: sentences for `info` and `verify`, and the command that compares the set with
its photos.  Version 0.1 took splits for classes, or did not see them, without an error.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ...pipeline.prepare.against_source import RULES, check_command, rules_of
from ...pipeline.shards.manifest import ShardSet
from ...pipeline.sources.class_order import LABEL_ORDERS, doubts_about, is_number
from ...pipeline.sources.class_tree import IMAGE_FOLDERS
from ...pipeline.sources.inventory import Inventory, no_part
from ...pipeline.sources.splits import split_of

NAMED = 3  # classes named in a sentence


def doubts(manifest: dict) -> list[str]:
    """Return what alexnet-dali 0.1 may have read wrongly, one sentence each.

    Args:
        manifest: the content of dataset.json.
    Returns:
        Sentences; none for a set that was built by today's rules, or if its source is not recorded.
    """
    source = manifest.get("source")
    if not isinstance(source, dict) or rules_of(manifest) >= RULES:
        return []
    kind = str(source.get("kind", ""))
    names = [str(entry["name"]) for entry in manifest.get("classes", [])]
    return [
        *(_about_folders(kind, names) if kind.startswith("class folders") else ()),
        *_about_order(names, manifest.get("label_order")),
        *doubts_about(Path(), tuple(names), {}),
        *_about_tables(kind),
        *_about_depth(manifest),
    ]


def lines_of(shard_set: ShardSet) -> list[str]:
    """Return the doubts about a set as lines for people, with the command that checks; none without doubts."""
    found = doubts(shard_set.manifest)
    if not found:
        return []
    return [
        *(f"built by the rules of alexnet-dali 0.1: {one}" for one in found),
        f"compare the set with its photos: {check_command(shard_set.manifest, shard_set.root)}",
    ]


def _about_folders(kind: str, names: list[str]) -> Iterator[str]:
    if named := [name for name in names if split_of(name)]:
        yield f"classes have names of splits, which were perhaps taken for classes: {_some(named)}"
    if names and all(len(name) == 1 and name.isalpha() for name in names):
        yield f"all classes are single letters, which perhaps only sort the classes below them: {_some(names)}"
    if images := [name for name in names if name.lower() in IMAGE_FOLDERS]:
        yield f"classes have names of folders of photos, perhaps one level too high or too deep: {_some(images)}"
    if system := [name for name in names if no_part(name, name, Inventory(Path(), Path()))]:
        yield f"classes have names of folders that systems leave behind: {_some(system)}"
    numbers = [name for name in names if is_number(name)]
    if "train and val" in kind and numbers and len(numbers) < len(names):
        other = next(name for name in names if not is_number(name))
        yield f"some classes are numbers ({_some(numbers)}) and some are not ({other}): perhaps val has other names"
    yield (
        "folders of splits by names other than train, val and test (valid, Testing; beside train alone any) and photos "
        "with other endings (.jfif, no ending) were not looked for"
    )


def _about_order(names: list[str], label_order: object) -> Iterator[str]:
    if label_order == LABEL_ORDERS["sorted"] and len(names) > 1 and all(map(is_number, names)):
        by_number = sorted(names, key=int)
        wrong = next((label for label, name in enumerate(names) if by_number[label] != name), None)
        if wrong is not None:
            yield (
                f"all classes are whole numbers, but labels follow their text, 10 before 2: label {wrong} is the class "
                f"{names[wrong]}"
            )


def _about_tables(kind: str) -> Iterator[str]:
    if kind.startswith("list"):
        yield "a column of splits was ignored, and so was test.txt without val.txt: photos of test may be in train"
    if kind.startswith("parquet"):
        yield "files and folders named partial-train were left out"


def _about_depth(manifest: dict) -> Iterator[str]:
    shards = [shard for split in manifest.get("splits", {}).values() for shard in split.get("shards", ())]
    forms = sum((Counter(shard.get("forms") or {}) for shard in shards), Counter())
    deep = {form: count for form, count in forms.items() if form.endswith(" bit")}
    if deep:
        yield (
            f"{sum(deep.values()):,} photos have more than 8 bits a sample ({_some(sorted(deep))}) and may be stored "
            "black: see alexnet-prep info --contact-sheet, or build the set again"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
