"""Well-known sets whose labels or splits are in files beside the photos, read as they are unpacked.

    Tiny ImageNet      train/WNID/images/, val/images/ and val/val_annotations.txt, test/images/ without labels
    CUB-200-2011       images/CLASS/, images.txt, image_class_labels.txt, train_test_split.txt; also NABirds
    Stanford Dogs      Images/CLASS/, and train_list.mat, test_list.mat here or in lists/
    Oxford-IIIT Pet    images/BREED_1.jpg, and trainval.txt, test.txt in annotations/
    Oxford Flowers     jpg/image_00001.jpg, imagelabels.mat, setid.mat

In:  an Inventory of such a folder, or of one that contains it.  Out: Found.  The tables and the photos must
correspond: a photo that a table names but that is missing is an error, as are two classes for one photo.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import SourceError, UsageError
from .class_folders import add_test, walk_classes
from .entries import Declined, Found, LeftOut, Request
from .imagenet.matfile import read_numbers, read_texts
from .inventory import Inventory
from .label_names import read_words
from .photo_tables import (
    COMPLETE,
    Row,
    add_rows,
    below,
    has_file,
    numbered_lines,
    one_to_one,
    pairs_of,
    places,
    read_mat,
)

_MASKS = "masks beside photos"


@dataclass(frozen=True)
class NamedSet:
    """A well-known set.

    Attributes:
        name: its name.
        tables: files that must be there, each with its alternatives, relative to the set's folder.
        photos: the folder with photos, relative to the set's folder.
        find: adds the photos of a set in a folder, given by its path.
        masks: folders with pictures that are not photos.
        archives: names of the archives that it was unpacked from, which may still be there.
    """

    name: str
    tables: tuple[tuple[str, ...], ...]
    photos: str
    find: Callable[[Inventory, str, Request, Found], None]
    masks: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()


def declines(look: Inventory, ask: Request) -> Declined | None:
    """Return None if a folder has all tables and photos of a set; or some tables, which `find` refuses."""
    near = _places_of_sets(look)
    if any(one.complete or one.lacks_table for one in near):
        return None
    return Declined(_wanted(), near[0].missing if near else "")


def find(look: Inventory, ask: Request) -> Found:
    """List the photos of the set.

    Raises:
        UsageError: there is no such set, an incomplete one, or two.
        SourceError: photos and tables are inconsistent, or a table cannot be read.
    """
    near = sorted(_places_of_sets(look), key=lambda one: not one.lacks_table)
    complete = [(one.base, one.named) for one in near if one.complete]
    if near and not complete:
        raise UsageError(
            f"{look.root / near[0].base}: {near[0].missing}: {near[0].named.name} is incomplete",
            "unpack the rest of the set; or, if the folders are the classes, read them alone: --layout folders",
        )
    if not complete:
        raise UsageError(f"{look.source}: not {_wanted()}", "choose the folder that the archive was unpacked to")
    if len(complete) > 1:
        (one, _), (two, _) = complete[:2]
        raise UsageError(
            f"{look.source}: {one or 'the folder itself'} and {two} are two sets", "choose one of these folders"
        )
    base, named = complete[0]
    found = Found(named.name, {})
    found.left_out += [LeftOut(below(base, name), -1, _MASKS) for name in named.masks]
    found.left_out += [
        LeftOut(path, -1, f"an archive of {named.name}, which is unpacked here")
        for path in look.archives
        if path.rpartition("/")[2] in named.archives
    ]
    named.find(look, base, ask, found)
    names = [name for name in ("train", "val", "test") if name in found.entries]
    found.kind = f"{named.name}, {', '.join(names)}"
    return found


def _wanted() -> str:
    return f"{', '.join(one.name for one in SETS[:-1])} or {SETS[-1].name}: photos with these sets' own tables"


class _Place(NamedTuple):
    """A folder with tables of a set, and what is missing there in words; empty if it is complete."""

    base: str
    named: NamedSet
    missing: str
    lacks_table: bool

    @property
    def complete(self) -> bool:
        return not self.missing


def _places_of_sets(look: Inventory) -> list[_Place]:
    """Return the folders that have most tables of a set."""
    found = []
    for base in places(look):
        for one in SETS:
            there = [next((name for name in names if has_file(look, base, name)), "") for names in one.tables]
            lacks = [names[0] for names, name in zip(one.tables, there, strict=True) if not name]
            if len(lacks) > len(there) // 2:
                continue
            no_photos = not look.at(below(base, one.photos)).total
            missing = lacks[0] if lacks else f"photos in {one.photos}" if no_photos else ""
            words = f"{', '.join(filter(None, there))}, but no {missing}" if missing else ""
            found.append(_Place(base, one, words, bool(lacks)))
    return found


def _tiny_imagenet(look: Inventory, base: str, ask: Request, found: Found) -> None:
    train = look.at(below(base, "train"))
    known, origin = {folder.name for folder in train.classes()}, f"{look.root / train.path} has no such class"
    if train.total:
        found.entries["train"] = walk_classes(look, train, found)
    if has_file(look, base, "wnids.txt"):
        path = look.root / below(base, "wnids.txt")
        found.classes = tuple(dict.fromkeys(numbered_lines(path).values()))
        if absent := sorted(known - {*found.classes}):
            raise SourceError(f"{path}: has no {absent[0]}, a class of train", "complete that file, or remove it")
        known, origin = {*found.classes}, "wnids.txt has no such class"
    found.words = read_words(look.root / base)
    table = look.root / below(base, "val/val_annotations.txt")
    rows = []
    for number, line in numbered_lines(table).items():
        name, wnid = [*line.split("\t"), ""][:2] if "\t" in line else [*line.split(), ""][:2]
        if wnid not in known:
            raise SourceError(f"{table}, line {number}: {wnid[:40]!r}: {origin}", COMPLETE)
        rows.append(Row(f"{table}, line {number}", name, wnid, "val"))
    add_rows(look, look.at(below(base, "val/images")), rows, found)
    add_test(look, look.at(below(base, "test")), ask, found)


def _cub(look: Inventory, base: str, ask: Request, found: Found) -> None:
    folder = look.root / base
    images, labels, splits = (
        folder / name for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt")
    )
    paths, label_of, is_train = (pairs_of(path) for path in (images, labels, splits))
    for table, pairs in ((labels, label_of), (splits, is_train)):
        if other := sorted(paths.keys() ^ pairs.keys()):
            missing = other[0] in paths
            wrong = f"no line for the photo {other[0]}" if missing else f"{other[0]} is no photo"
            raise SourceError(f"{table}: {wrong} of images.txt", COMPLETE)
    rows = []
    for number, path in paths.items():
        if is_train[number] not in ("0", "1"):
            raise SourceError(f"{splits}: photo {number}: {is_train[number][:40]!r} is neither 0 nor 1", COMPLETE)
        split = "train" if is_train[number] == "1" else "test"
        rows.append(Row(f"{images}, photo {number}", path, path.rpartition("/")[0], split))
    by_label = one_to_one(((label_of[number], row) for number, row in zip(paths, rows, strict=True)), labels)
    if has_file(look, base, "classes.txt"):
        words = pairs_of(folder / "classes.txt")
        found.words = {name: words[label] for label, name in by_label.items() if words.get(label, name) != name}
    _number(by_label, found)
    add_rows(look, look.at(below(base, "images")), rows, found)


def _pets(look: Inventory, base: str, ask: Request, found: Found) -> None:
    rows, labels = [], []
    for name, split in (("trainval.txt", "train"), ("test.txt", "test")):
        table = look.root / below(base, f"annotations/{name}")
        for number, line in numbered_lines(table).items():
            photo, label = [*line.split(), ""][:2]
            if not label.isdigit():
                raise SourceError(f"{table}, line {number}: no class ID in {line[:60]!r}", COMPLETE)
            rows.append(Row(f"{table}, line {number}", f"{photo}.jpg", photo.rpartition("_")[0], split))
            labels.append(label)
    _number(one_to_one(zip(labels, rows, strict=True), look.root / below(base, "annotations")), found)
    add_rows(look, look.at(below(base, "images")), rows, found, "in neither trainval.txt nor test.txt")


def _dogs(look: Inventory, base: str, ask: Request, found: Found) -> None:
    rows = []
    for split in ("train", "test"):
        name = f"{split}_list.mat"
        table = look.root / below(base, name if has_file(look, base, name) else f"lists/{name}")
        names = read_mat(table, read_texts, "file_list")
        rows += [Row(f"{table}, photo {k}", path, path.partition("/")[0], split) for k, path in enumerate(names, 1)]
    add_rows(look, look.at(below(base, "Images")), rows, found, "in neither train_list.mat nor test_list.mat")


def _flowers(look: Inventory, base: str, ask: Request, found: Found) -> None:
    table, ids = (look.root / below(base, name) for name in ("imagelabels.mat", "setid.mat"))
    labels = read_mat(table, read_numbers, "labels")
    rows = []
    for split, name in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
        for number in read_mat(ids, read_numbers, name):
            if not 1 <= number <= len(labels) or number % 1 or labels[int(number) - 1] % 1:
                raise SourceError(f"{ids}: {name}: {number:g} is not one of the {len(labels):,} photos", COMPLETE)
            label = f"{labels[int(number) - 1]:.0f}"
            rows.append(Row(f"{ids}, {name}", f"image_{number:05.0f}.jpg", label, split))
    add_rows(look, look.at(below(base, "jpg")), rows, found, "in no split of setid.mat")


SETS = (
    NamedSet(
        "Tiny ImageNet",
        (("val/val_annotations.txt",),),
        "val/images",
        _tiny_imagenet,
        archives=("tiny-imagenet-200.zip",),
    ),
    NamedSet(
        "CUB-200-2011",
        (("images.txt",), ("image_class_labels.txt",), ("train_test_split.txt",)),
        "images",
        _cub,
        ("segmentations", "../segmentations"),
        ("CUB_200_2011.tgz", "CUB_200_2011.tar.gz", "segmentations.tgz", "nabirds.tar.gz"),
    ),
    NamedSet(
        "Stanford Dogs",
        (("train_list.mat", "lists/train_list.mat"), ("test_list.mat", "lists/test_list.mat")),
        "Images",
        _dogs,
        archives=("images.tar", "annotation.tar", "lists.tar"),
    ),
    NamedSet(
        "Oxford-IIIT Pet",
        (("annotations/list.txt",), ("annotations/trainval.txt",), ("annotations/test.txt",)),
        "images",
        _pets,
        ("annotations",),
        ("images.tar.gz", "annotations.tar.gz"),
    ),
    NamedSet(
        "Oxford Flowers",
        (("imagelabels.mat",), ("setid.mat",)),
        "jpg",
        _flowers,
        ("segmim",),
        ("102flowers.tgz", "102segmentations.tgz"),
    ),
)


def _number(by_label: dict[str, str], found: Found) -> None:
    """Set the order of the classes to that of their labels, which `--label-order source` takes."""
    found.classes = tuple(by_label[label] for label in sorted(by_label, key=lambda label: (len(label), label)))
