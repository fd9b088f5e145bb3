"""Which folders of a tree are the classes.

Folders that only wrap others are passed: `a/train/train/`.
Where class folders have no photos of their own but several folders that have, there are two readings: the upper
folders are the classes, or the lower ones. It is the lower ones in `a/abbey/`, `b/bakery/` (SUN397, Places365) and
below the kingdoms of iNaturalist; else the user is asked.

In:  folders of an Inventory.  Out: the folder of the class folders; whether the classes are the folders directly in it
or those that have photos of their own.
"""

from ..errors import UsageError
from .entries import Found, LeftOut, Request
from .inventory import Folder, Inventory
from .splits import split_of

IMAGE_FOLDERS = frozenset(["images", "image", "imgs", "img", "photos", "pictures", "jpegs", "jpg", "jpegimages"])
_MASKS = frozenset(
    "masks mask segmentation segmentations annotations labels groundtruth ground_truth gt trimaps".split()
)
_KINGDOMS = frozenset(  # iNaturalist's, above its species
    """actinopterygii amphibia animalia arachnida aves bacteria chromista fungi insecta mammalia mollusca plantae
    protozoa reptilia""".split()
)


def unwrapped(folder: Folder, found: Found) -> Folder:
    """Return the folder with the class folders or splits: passes folders that have no photos but in one folder."""
    place, masks = folder, list[Folder]()
    while not place.photos and len(inside := without_masks(place.classes(), masks)) == 1:
        if inside[0].photos or split_of(inside[0].name) or _is_letter(inside[0]):
            break
        place = inside[0]
    inside = place.classes()
    if len(inside) <= 1 and not any(split_of(one.name) or _is_letter(one) for one in inside):
        return folder
    found.left_out += [LeftOut(one.path, -1, "masks beside photos") for one in masks]
    return place


def without_doubling(folder: Folder) -> Folder:
    """Return the folder with the class folders of a split, `train/train`, `val/images`."""
    while not folder.photos and len(inside := folder.classes()) == 1 and not _is_letter(inside[0]):
        doubled = split_of(inside[0].name) == split_of(folder.name) != ""
        if not doubled and (inside[0].photos or len(inside[0].classes()) < 2):
            break
        folder = inside[0]
    return folder


def _is_letter(folder: Folder) -> bool:
    """Return whether a folder only sorts classes by their first letter."""
    splits = any(split_of(inside.name) and inside.classes() for inside in folder.classes())
    return len(folder.name) == 1 and folder.name.isalpha() and not folder.photos and not splits


def leaves_are_classes(look: Inventory, tops: list[Folder], ask: Request, found: Found) -> bool:
    """Return whether the classes are the folders that have photos of their own, instead of those directly in `tops`.

    Raises:
        UsageError: both are possible, and would give other labels.
    """
    if ask.class_folders != "auto":
        return ask.class_folders == "leaf"
    below: dict[str, set[str]] = {}  # the folders with photos of each candidate, relative to it, over all splits
    letters = True
    for top in tops:
        for folder in without_masks(top.classes(), []):
            letters = letters and _is_letter(folder)
            inside = below.setdefault(folder.name, set())
            inside.update(leaf.path[len(folder.path) :] for leaf in leaves_without_masks(folder))
    lower = sorted(name + path for name, paths in below.items() for path in paths)
    if letters and (len(below) == 1 or len({frozenset(paths) for paths in below.values()}) > 1):
        return True  # not A/images, B/images
    questioned = {name for name, paths in below.items() if "" not in paths and len(paths) > 1}
    if not questioned:
        deeper = sorted(name for name, paths in below.items() if paths - {""} and "" in paths)
        if deeper:
            found.notes.append(
                f"folders below those of {len(deeper):,} class{'es' * (len(deeper) > 1)} have photos, which belong to "
                f"the class, first {deeper[0]}{min(below[deeper[0]] - {''})}"
            )
        return False
    if letters or {name.lower() for name in below} <= _KINGDOMS:
        return True
    first = min(questioned)
    if inner := sorted(path for path in below[first] if any(map(split_of, path.split("/")))):
        raise UsageError(
            f"{look.root / tops[0].path}: {first}{inner[0]} is named after a split, below a folder that is not",
            "arrange them as SPLIT/CLASS/photo.jpg, or write a table with the columns path, label and split",
        )
    shown = [path for path in lower if path.startswith(f"{first}/")][:2]
    raise UsageError(
        f"{look.root / tops[0].path}: {first} has no photos of its own, but {len(below[first]):,} folders that have. "
        f"Is {first} one class (one of {len(below):,}), or are {' and '.join(shown)} classes ({len(lower):,} in all)?",
        "--class-folders top for the first, --class-folders leaf for the second",
    )


def leaves_without_masks(folder: Folder) -> list[Folder]:
    """Return the folders with photos of their own, without masks."""
    own = [folder] if folder.photos else []
    return own + [leaf for inside in without_masks(folder.classes(), []) for leaf in leaves_without_masks(inside)]


def without_masks(folders: list[Folder], masks: list[Folder]) -> list[Folder]:
    """Return folders without those of masks beside a folder of images; `masks` receives these."""
    if not any(folder.name.lower() in IMAGE_FOLDERS for folder in folders):
        return folders
    masks += [folder for folder in folders if folder.name.lower() in _MASKS]
    return [folder for folder in folders if folder.name.lower() not in _MASKS]
