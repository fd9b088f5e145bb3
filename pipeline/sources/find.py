"""Find photos in any layout: files, classes and splits.

In:  a path.  Out: a PhotoSource.  Each layout's module lists photos with class names; this module assigns labels,
holds out a validation share where there are no splits, and sorts photos, so that the same photos give the same list
in every layout and in any order on disk.  Reads names and sizes, no pixels.

Labels follow the sorted class names, for wnids the order of torchvision, Caffe, timm and Hugging Face. The devkit's
order differs; evaluating with the other order gives 0.1% accuracy without an error.
"""

import hashlib
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from ..errors import ShardError, UsageError
from ..plan.philox import share_of
from ..shards.datum import NO_LABEL
from ..shards.manifest import SPLITS
from .devkit import read_devkit
from .photo import Entry, Found, Photo

LAYOUTS = {  # module by layout, in the order of detection; each has looks_like(root) and find(root, split)
    "kaggle": "kaggle",
    "imagenet2012": "imagenet2012",
    "imagenet2010": "imagenet2010",
    "parquet": "parquet",
    "webdataset": "webdataset",
    "list": "image_list",
    "folders": "class_folders",
}
WHAT = "choose a folder of class folders, ImageNet's archives, parquet files or tars; or a list (docs/layouts.md)"
REQUEST = ("layout", "split", "val_share", "seed", "label_order")  # arguments of find_photos, kept in dataset.json
LABEL_ORDERS = {
    "sorted": "sorted class names",
    "source": "as the source numbers them",
    "devkit": "ILSVRC devkit (ILSVRC ID minus 1)",
}


@dataclass(frozen=True)
class PhotoSource:
    """All photos of a source, with labels and splits.

    Attributes:
        root: the folder that all paths are relative to.
        kind: description of the layout.
        classes: class names in label order.
        splits: photos by split name, each list sorted by `Entry.place`.
        ignored: number of files without a photo's suffix.
        label_order: description of the label order, one of the values of LABEL_ORDERS.
        words: human-readable class names by class name.
        notes: messages for the user.
        request: the arguments of `find_photos`, to find the same photos again.
        requested: the path that was given; for a list a file.
    """

    root: Path
    kind: str
    classes: tuple[str, ...]
    splits: dict[str, list[Photo]]
    ignored: int
    label_order: str = LABEL_ORDERS["sorted"]
    words: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
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
        shown = {photo.label for photo in self.splits.get("train", [])}
        return [name for label, name in enumerate(self.classes) if label not in shown]


def find_photos(
    root: Path,
    *,
    layout: str = "auto",
    split: str | None = None,
    val_share: float = 0.1,
    seed: int = 0,
    label_order: str = "sorted",
) -> PhotoSource:
    """List the photos of a source.

    Args:
        root: a folder, or a file: a list, a parquet file or a tar.
        layout: one of LAYOUTS, or `auto` to detect it.
        split: list only this split; photos without splits all go into it.
        val_share: the share of photos without splits that is held out as `val`, 0..0.9.
        seed: seed of the hold-out.
        label_order: one of LABEL_ORDERS.
    Returns:
        The photos with their labels, by split.
    Raises:
        UsageError: the path does not exist or has no photos, an argument is invalid, or labels are missing.
        SourceError: an archive or table of the source is damaged.
    """
    if not root.exists():
        raise UsageError(f"{root}: no such file or folder", WHAT)
    if layout not in ("auto", *LAYOUTS):
        raise UsageError(f"unknown layout {layout!r}", f"choose one of auto, {', '.join(LAYOUTS)}")
    if split not in (None, *SPLITS):
        raise UsageError(f"unknown split {split!r}", f"choose one of {', '.join(SPLITS)}")
    if not 0 <= val_share <= 0.9:  # also rejects NaN
        raise UsageError(f"a share of {val_share} cannot be held out", "choose --val-share between 0 and 0.9")
    name = layout if layout != "auto" else _detect(root)
    found = _module(name).find(root, split)
    request = {"layout": name, "split": split, "val_share": val_share, "seed": seed, "label_order": label_order}
    return _source(root, found, request)


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
        path, request = Path(made_from["path"]), dict(made_from["request"])
    except (KeyError, TypeError, ValueError):
        raise ShardError("dataset.json does not record the source of the set", "build the set again") from None
    if unknown := sorted(request.keys() - set(REQUEST)):
        raise ShardError(f"dataset.json: unknown source options: {', '.join(unknown)}", "update alexnet-dali")
    return find_photos(root or path, **request)


def _module(layout: str) -> ModuleType:
    return importlib.import_module(f".{LAYOUTS[layout]}", __package__)


def _detect(root: Path) -> str:
    for layout in LAYOUTS:
        if _module(layout).looks_like(root):
            return layout
    raise UsageError(f"{root}: not a folder, list, parquet file or tar of photos", WHAT)


def _source(root: Path, found: Found, request: dict) -> PhotoSource:
    split, label_order = request["split"], request["label_order"]
    chosen = {name: entries for name, entries in found.entries.items() if name == "" or split in (None, name)}
    if split and "" in chosen:
        chosen, kind = {split: chosen[""]}, f"{found.kind.removesuffix(', flat')}, all {split}"
    else:
        kind = found.kind
    if not any(chosen.values()):
        others = ", ".join(name for name, entries in found.entries.items() if entries)
        hint = f"choose --split {others}" if others else ""
        raise UsageError(f"{root}: no photos for the split {split} ({kind})", hint)
    names = found.classes or tuple(
        sorted({entry.class_name for entries in found.entries.values() for entry in entries} - {""})
    )
    classes = _ordered(root, names, found, label_order)
    labels = {name: label for label, name in enumerate(classes)} | {"": NO_LABEL}
    splits = {}
    found.entries.clear()  # saves memory: there may be millions
    for name in list(chosen):
        entries = chosen.pop(name)
        if name != "test" and any(entry.class_name == "" for entry in entries):
            raise UsageError(
                f"{root}: photos of {name or 'no split'} have no label", "only a test split may be without labels"
            )
        entries.sort(key=Entry.place)
        splits[name] = [
            Photo(entry.path, labels[entry.class_name], entry.bytes, entry.archive, entry.offset) for entry in entries
        ]
    if "" in splits:
        photos = splits.pop("")
        held_out = set(share_of(len(photos), request["val_share"], request["seed"]).tolist())
        splits["train"] = [photo for k, photo in enumerate(photos) if k not in held_out]
        splits["val"] = [photo for k, photo in enumerate(photos) if k in held_out]
    words = {name: found.words[name] for name in classes if name in found.words}
    notes = list(found.notes)
    if label_order == "sorted" and found.classes and found.classes != classes:
        notes.append("labels follow the sorted class names, not the source's numbers (see --label-order source)")
    base = found.root or root
    return PhotoSource(
        base, kind, classes, splits, found.ignored, LABEL_ORDERS[label_order], words, tuple(notes), request, root
    )


def _ordered(root: Path, names: tuple[str, ...], found: Found, label_order: str) -> tuple[str, ...]:
    if label_order == "sorted":
        numbered = found.classes and all(_is_number(name) for name in names)  # not in class folders: 2 before 10
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


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and (name == "0" or name[0] != "0")
