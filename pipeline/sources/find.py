"""Find the photos: which files, of which class, in which split, whatever way they are laid out.

In:  a path.  Out: a Source. Each layout has a finder of its own, that names what it found; here labels are given,
a share is held out where there are no splits, and photos are sorted, so that the same photos give the same list in
every layout and whatever the order on disk. Reads names and sizes, no photo.

Class order is the sorted class names, which for wnids is what torchvision, Caffe, timm and Hugging Face use; the
devkit's own order is another, and mixing them gives 0.1% accuracy without a message.
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

LAYOUTS = {  # in the order in which they are asked; each module has looks_like(root) and find(root, split)
    "kaggle": "kaggle",
    "imagenet2012": "imagenet2012",
    "imagenet2010": "imagenet2010",
    "parquet": "parquet",
    "webdataset": "webdataset",
    "list": "image_list",
    "folders": "class_folders",
}
WHAT = "name a folder of class folders, of ImageNet's archives, of parquet files or tars; or a list (docs/layouts.md)"
REQUEST = ("layout", "split", "val_share", "seed", "label_order")  # arguments of find_photos, kept in dataset.json
LABEL_ORDERS = {
    "sorted": "sorted class names",
    "source": "as the source numbers them",
    "devkit": "ILSVRC devkit (ILSVRC ID minus 1)",
}


@dataclass(frozen=True)
class PhotoSource:
    """All photos of a source.

    Attributes:
        root: the folder all paths are relative to.
        kind: how it is laid out, in words.
        classes: names, in label order.
        splits: photos by split name, each list in the order of `Entry.place`.
        ignored: files that are no photo by their name.
        label_order: how the classes are numbered, in words.
        words: what people call a class, by its name.
        notes: sentences for the user.
        request: the arguments of `find_photos`, to find the same again.
        asked: the path that was given, which for a list is a file.
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
    asked: Path | None = None

    def fingerprint(self) -> str:
        """SHA-256 over split, path, class and size of every photo: the same for a copy elsewhere."""
        digest = hashlib.sha256("\0".join(self.classes).encode("utf-8", "surrogatepass"))
        for split, photos in sorted(self.splits.items()):
            for photo in photos:
                line = f"{split}\0{photo.path}\0{photo.label}\0{photo.bytes}\0{photo.archive}\0{photo.offset}\n"
                digest.update(line.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def classes_without_training(self) -> list[str]:
        """The classes that no training photo shows: they can only be got wrong."""
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
        root: a folder, or a file that lists photos.
        layout: one of LAYOUTS, or `auto`: found by looking.
        split: build this split alone; photos without splits go there as a whole.
        val_share: of photos without splits, the share held out as `val`, 0..0.9.
        seed: of the hold-out.
        label_order: one of LABEL_ORDERS.
    Raises:
        UsageError: no such path, no photos in it, no such split, or labels are missing.
        SourceError: an archive or a table of it is damaged.
    """
    if not root.exists():
        raise UsageError(f"{root}: no such file or folder", WHAT)
    if layout not in ("auto", *LAYOUTS):
        raise UsageError(f"no layout is called {layout!r}", f"choose one of auto, {', '.join(LAYOUTS)}")
    if split not in (None, *SPLITS):
        raise UsageError(f"no split is called {split!r}", f"choose one of {', '.join(SPLITS)}")
    if not 0 <= val_share <= 0.9:  # NaN is neither
        raise UsageError(f"a share of {val_share} cannot be held out", "choose --val-share between 0 and 0.9")
    name = layout if layout != "auto" else _detect(root)
    found = _module(name).find(root, split)
    request = {"layout": name, "split": split, "val_share": val_share, "seed": seed, "label_order": label_order}
    return _source(root, found, request)


def find_again(manifest: dict, root: Path | None = None) -> PhotoSource:
    """List the photos that a shard set was made from, as it was asked for then.

    Args:
        manifest: the set's dataset.json.
        root: where the photos are now; by default where they were.
    Raises:
        ShardError: the manifest does not say how it was asked for.
        UsageError, SourceError: as `find_photos`.
    """
    try:
        made_from = manifest["source"]
        path, request = Path(made_from["path"]), dict(made_from["request"])
    except (KeyError, TypeError, ValueError):
        raise ShardError("dataset.json does not say what the set was made from", "build the set again") from None
    if unknown := sorted(request.keys() - set(REQUEST)):
        raise ShardError(f"dataset.json: not known how to ask for {', '.join(unknown)}", "update alexnet-dali")
    return find_photos(root or path, **request)


def _module(layout: str) -> ModuleType:
    return importlib.import_module(f".{LAYOUTS[layout]}", __package__)


def _detect(root: Path) -> str:
    for layout in LAYOUTS:
        if _module(layout).looks_like(root):
            return layout
    raise UsageError(f"{root}: neither a folder, nor a list, a table or a tar of photos", WHAT)


def _source(root: Path, found: Found, request: dict) -> PhotoSource:
    split, label_order = request["split"], request["label_order"]
    chosen = {name: entries for name, entries in found.entries.items() if name == "" or split in (None, name)}
    if split and "" in chosen:
        chosen, kind = {split: chosen[""]}, f"{found.kind.removesuffix(', flat')}, all {split}"
    else:
        kind = found.kind
    if not any(chosen.values()):
        there = ", ".join(name for name, entries in found.entries.items() if entries)
        raise UsageError(f"{root}: no photos for the split {split} ({kind})", f"there is {there}" if there else "")
    names = found.classes or tuple(
        sorted({entry.class_name for entries in found.entries.values() for entry in entries} - {""})
    )
    classes = _ordered(root, names, found, label_order)
    labels = {name: label for label, name in enumerate(classes)} | {"": NO_LABEL}
    splits = {}
    found.entries.clear()  # millions of photos are not kept twice
    for name in list(chosen):
        entries = chosen.pop(name)
        if name != "test" and any(entry.class_name == "" for entry in entries):
            raise UsageError(f"{root}: photos of {name or 'no split'} have no label", "only a test split may have none")
        entries.sort(key=Entry.place)
        splits[name] = [Photo(entry.path, labels[entry.class_name], *entry[2:]) for entry in entries]
    if "" in splits:
        photos = splits.pop("")
        held_out = set(share_of(len(photos), request["val_share"], request["seed"]).tolist())
        splits["train"] = [photo for k, photo in enumerate(photos) if k not in held_out]
        splits["val"] = [photo for k, photo in enumerate(photos) if k in held_out]
    words = {name: found.words[name] for name in classes if name in found.words}
    notes = list(found.notes)
    if label_order == "sorted" and found.classes and found.classes != classes:
        notes.append("the labels are numbered by sorted class names, not as in the source (--label-order source)")
    base = found.root or root
    return PhotoSource(
        base, kind, classes, splits, found.ignored, LABEL_ORDERS[label_order], words, tuple(notes), request, root
    )


def _ordered(root: Path, names: tuple[str, ...], found: Found, label_order: str) -> tuple[str, ...]:
    if label_order == "sorted":
        numbered = found.classes and all(_is_number(name) for name in names)  # in a list, not folders: 2 before 10
        return tuple(sorted(names, key=int) if numbered else sorted(names))
    if label_order == "source" and not found.classes:
        raise UsageError(f"{root}: this source does not number its classes ({found.kind})", "use --label-order sorted")
    if label_order == "source":
        return found.classes
    kit = None if found.devkit_order or not root.is_dir() else read_devkit(root, 2012)
    devkit_order = kit.order if kit else found.devkit_order
    missing = sorted(set(names) - set(devkit_order))
    if not devkit_order or missing:
        raise UsageError(
            f"{root}: the devkit's order is not known"
            + (f" for {len(missing)} classes, {missing[0]} among them" if devkit_order else " here"),
            "put ILSVRC2012_devkit_t12.tar.gz beside the photos, or use --label-order sorted",
        )
    return tuple(name for name in devkit_order if name in set(names))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and (name == "0" or name[0] != "0")
