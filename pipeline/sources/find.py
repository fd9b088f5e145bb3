"""Find photos in any layout: files, classes and splits, and an account of everything else.

In:  a path.  Out: a PhotoSource.  Each layout's module lists photos with class names; this module assigns labels,
holds out a validation share where there are no splits, and sorts photos, so that the same photos give the same list
in every layout and in any order on disk.  Reads names and sizes, no pixels.

Labels follow the sorted class names, for wnids the order of torchvision, Caffe, timm and Hugging Face. The devkit's
order differs; evaluating with the other order gives 0.1% accuracy without an error.
"""

import hashlib
import importlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from ..errors import ShardError, UsageError
from ..plan.philox import share_of
from ..shards.datum import NO_LABEL
from ..shards.manifest import SPLITS
from .account import Account, account_for
from .class_order import LABEL_ORDERS, doubts_about, is_number, ordered
from .entries import CLASS_FOLDERS, Declined, Found, Photos, Request, in_words
from .inventory import Inventory, ending_of, take_inventory
from .lists.photo_lookup import relative_root

LAYOUTS = {  # module by layout, in the order of detection; each has declines(look, ask) and find(look, ask)
    "kaggle": "imagenet.kaggle",
    "imagenet2012": "imagenet.imagenet2012",
    "imagenet2010": "imagenet.imagenet2010",
    "named": "named_sets",
    "cifar": "cifar",
    "coco": "lists.coco",
    "parquet": "parquet",
    "webdataset": "tars.webdataset",
    "tars": "tars.tars",
    "list": "lists.image_list",
    "folders": "class_folders",
}
WHAT = "choose a folder of class folders, ImageNet's archives, parquet files or tars; or a list (docs/layouts.md)"
DEFAULT_SHARE = 0.1  # held out as val where there is no split, or train alone


@dataclass(frozen=True)
class PhotoSource:
    """All photos of a source, with labels and splits.

    Attributes:
        root: the folder that all paths are relative to.
        kind: description of the layout.
        classes: class names in label order.
        splits: photos by split name, sorted by `Entry.place`.
        label_order: description of the label order, one of the values of LABEL_ORDERS.
        words: human-readable class names by class name.
        notes: messages for the user.
        warnings: messages on what is probably wrong.
        account: what was used and what was left out.
        request: what was asked for, to find the same photos again.
        requested: the path that was given; for a list a file.
    """

    root: Path
    kind: str
    classes: tuple[str, ...]
    splits: Mapping[str, Photos]
    label_order: str = LABEL_ORDERS["sorted"]
    words: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    account: Account = field(default_factory=Account)
    request: dict = field(default_factory=dict)
    requested: Path | None = None

    def fingerprint(self) -> str:
        """Return the SHA-256 of class names and of every photo's split, path, label and size; a copy has the same."""
        digest = hashlib.sha256("\0".join(self.classes).encode("utf-8", "surrogatepass"))
        for split, photos in sorted(self.splits.items()):
            for photo in photos:
                line = f"{split}\0{photo.path}\0{photo.label}\0{photo.bytes}\0{photo.archive}\0{photo.offset}\n"
                digest.update(line.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def classes_without_training(self) -> list[str]:
        """Return the names of classes without training photos, which a net cannot learn."""
        shown = self.splits["train"].class_counts() if "train" in self.splits else {}
        return [name for label, name in enumerate(self.classes) if label not in shown]


def find_photos(
    root: Path,
    *,
    layout: str = "auto",
    split: str | None = None,
    val_share: float | None = None,
    seed: int = 0,
    label_order: str | None = None,
    class_folders: str = "auto",
    paths_root: str | Path | None = None,
    ignore: tuple[str, ...] = (),
) -> PhotoSource:
    """List the photos of a source, and account for everything else below it.

    Args:
        root: a folder, or a file: a list, a parquet file or a tar.
        layout: one of LAYOUTS, or `auto` to detect it.
        split: list only this split; photos without splits all go into it.
        val_share: the share that is held out as `val`, 0..0.9. None: 0.1 of photos without splits, or of train if
            there is no other split; nothing if there is a test split.
        seed: seed of the hold-out.
        label_order: one of LABEL_ORDERS. None: `sorted`, or `number` if all class names are whole numbers.
        class_folders: which folders are classes, one of CLASS_FOLDERS.
        paths_root: the folder that the paths in lists are relative to; None to look for it.
        ignore: patterns of names, or of paths below root, to leave out, as of a shell.
    Returns:
        The photos with their labels, by split.
    Raises:
        UsageError: the path does not exist or has no photos, an argument is invalid, labels are missing, photos
            fit no reading or several, or val has none of train's classes.
        SourceError: an archive or table of the source is damaged.
    """
    where = None if paths_root is None else relative_root(root, Path(paths_root))
    return _find(
        root,
        Request(
            layout,
            split,
            val_share,
            seed,
            label_order,
            class_folders,
            where,
            tuple(one.removeprefix("./").rstrip("/") for one in ignore),
        ),
    )


def find_again(manifest: dict, root: Path | None = None) -> PhotoSource:
    """List the photos that a shard set was built from, with the same arguments of `find_photos`.

    Args:
        manifest: the content of the set's dataset.json.
        root: the current path of the photos; by default the recorded one.
    Returns:
        The photos with their labels, by split.
    Raises:
        ShardError: the manifest does not record the source or its arguments.
        UsageError, SourceError: as `find_photos`.
    """
    try:
        made_from = manifest["source"]
        path, request = Path(made_from["path"]), {"rules": 1} | made_from["request"]
    except (KeyError, TypeError, ValueError):
        raise ShardError("dataset.json does not record the source of the set", "build the set again") from None
    if unknown := sorted(request.keys() - asdict(Request()).keys()):
        raise ShardError(f"dataset.json: unknown source options: {', '.join(unknown)}", "update alexnet-dali")
    return _find(root or path, Request(**(request | {"ignore": tuple(request.get("ignore", ()))})))


def _find(root: Path, ask: Request) -> PhotoSource:
    _check(root, ask)
    look = take_inventory(root, ask.ignore)
    there = ask if ask.paths_root is None else replace(ask, paths_root=str((look.root / ask.paths_root).resolve()))
    layout, declined = (ask.layout, []) if ask.layout != "auto" else _detect(look, there)
    near = [one for one in declined if one.found]
    try:
        found = _module(layout).find(look, there)
        if ask.paths_root is not None and layout not in ("list", "coco"):
            why = f"--root is for lists; this source was read as {found.kind}, which has none"
            raise UsageError(why, "leave out --root, or --layout list")
    except UsageError as error:
        if not near:
            raise
        raise UsageError(error.message, error.hint, _in_lines(near)) from None
    return _source(look, found, replace(ask, layout=layout))


def _check(root: Path, ask: Request) -> None:
    if not root.exists():
        raise UsageError(f"{root}: no such file or folder", WHAT)
    for what, value, allowed in (
        ("layout", ask.layout, ("auto", *LAYOUTS)),
        ("split", ask.split, (None, *SPLITS)),
        ("label order", ask.label_order, (None, *LABEL_ORDERS)),
        ("reading of class folders", ask.class_folders, (*CLASS_FOLDERS,)),
    ):
        if value not in allowed:
            names = ", ".join(name for name in allowed if name)
            raise UsageError(f"unknown {what} {value!r}", f"choose one of {names}")
    if ask.val_share is not None and not 0 <= ask.val_share <= 0.9:  # also rejects NaN
        raise UsageError(f"a share of {ask.val_share} cannot be held out", "choose --val-share between 0 and 0.9")


def _module(layout: str) -> ModuleType:
    return importlib.import_module(f".{LAYOUTS[layout]}", __package__)


def _detect(look: Inventory, ask: Request) -> tuple[str, list[Declined]]:
    """Return the first layout that fits, and why those before it do not.

    Raises:
        UsageError: none fits; says of each what was looked for, those first of which something was found.
    """
    declined: list[Declined] = []
    for layout in LAYOUTS:
        reason = _module(layout).declines(look, ask)
        if reason is None:
            return layout, declined
        declined.append(reason)
    near = [one for one in declined if one.found]
    hint = next((one.hint for one in near if one.hint), WHAT)
    photos = f"{in_words(look.top.total)}, " if look.top.total else ""
    kinds = Counter({ending: count for ending, (count, _) in look.others.items()})
    kinds.update(map(ending_of, look.archives))
    others = ", ".join(f"{count:,} {ending}" for ending, count in sorted(kinds.items()))
    there = (photos + others).removesuffix(", ") or "nothing" if look.source.is_dir() else "a file of another kind"
    raise UsageError(
        f"{look.source}: no photos in a known layout; there is: {there}",
        hint,
        _in_lines([*near, *(one for one in declined if not one.found)]),
    )


def _in_lines(declined: list[Declined]) -> list[str]:
    return [f"not {one.wanted}: {one.found or 'none there'}" for one in declined]


def _source(look: Inventory, found: Found, ask: Request) -> PhotoSource:
    account = account_for(look, found, ask)
    root = look.source
    splits = {name: entries for name, entries in found.entries.items() if name == "" or ask.split in (None, name)}
    kind = found.kind
    if ask.split and "" in splits:
        splits, kind = {ask.split: splits[""]}, f"{found.kind.removesuffix(', flat')}, all {ask.split}"
    if not any(map(len, splits.values())):
        others = ", ".join(name for name, entries in found.entries.items() if len(entries))
        raise UsageError(
            f"{root}: no photos for the split {ask.split} ({kind})", f"choose --split {others}" if others else ""
        )
    counts = {name: entries.class_counts() for name, entries in splits.items()}
    for name, some in counts.items():
        if name != "test" and "" in some:
            raise UsageError(
                f"{root}: photos of {name or 'no split'} have no label", "only a test split may be without labels"
            )
    names = found.classes or tuple(
        sorted({one for entries in found.entries.values() for one in entries.class_counts()} - {""})
    )
    order = ask.label_order or ("number" if all(map(is_number, names)) else "sorted")
    classes = ordered(root, names, found, order)
    labels = {name: label for label, name in enumerate(classes)} | {"": NO_LABEL}
    notes, warnings = list(found.notes), doubts_about(root, classes, counts)
    if order == "number" and ask.label_order is None:
        notes.append("all class names are whole numbers: labels follow the numbers, 2 before 10 (--label-order)")
    elif order != "source" and found.classes and found.classes != classes:
        notes.append("labels follow the sorted class names, not the source's numbers (see --label-order source)")
    photos = {name: Photos(entries, entries.sorted(), labels) for name, entries in splits.items()}
    photos = _held_out(photos, ask, notes)
    if "train" not in photos and not ask.split:
        warnings.append(f"there are no training photos: all are {' or '.join(photos)}")
    for pattern in sorted(look.unmatched):
        warnings.append(f"--ignore {pattern!r} matches nothing")
    return PhotoSource(
        found.root or look.root,
        kind,
        classes,
        photos,
        LABEL_ORDERS[order],
        {name: found.words[name] for name in classes if name in found.words},
        tuple(notes),
        tuple(warnings),
        account,
        asdict(replace(ask, label_order=order)),
        root,
    )


def _held_out(photos: dict[str, Photos], ask: Request, notes: list[str]) -> dict[str, Photos]:
    """Hold out a share as val where there is no val: of photos without splits, or of train."""
    flat = "" in photos
    if ask.val_share and ask.split:
        notes.append(f"--val-share {ask.val_share:g} is not used: --split {ask.split} takes all photos of a split")
    if not flat and (set(photos) != {"train", "test"} or ask.split or ask.rules < 2):
        if ask.val_share and not ask.split and "val" in photos:
            notes.append(f"--val-share {ask.val_share:g} is not used: there is a val")
        return photos
    share = (DEFAULT_SHARE if flat else 0.0) if ask.val_share is None else ask.val_share
    if not flat and not share:
        notes.append("there is no val, and nothing is held out of train beside test (--val-share 0.1 would)")
        return photos
    whole = photos.pop("" if flat else "train")
    numbers = np.arange(len(whole))
    chosen = np.zeros(len(whole), dtype=bool)
    chosen[share_of(len(whole), share, ask.seed)] = True
    return {"train": whole.take(numbers[~chosen]), "val": whole.take(numbers[chosen]), **photos}
