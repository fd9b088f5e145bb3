"""Random trees of folders whose right reading the test knows: every photo is used with its label, or accounted for.

A tree is drawn from a seed: splits by many names, wrappers, classes of one or two levels, odd endings, links, junk of
systems, masks, stray folders. Where it can be read in two ways it must be refused, and only there.
"""

import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from alexnet_dali.pipeline.errors import UsageError
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.shards.records_csv import read_listing
from alexnet_dali.pipeline.sources.find import find_photos
from coloured import photo

SPELLINGS = {
    "train": ["train", "Train", "training", "seg_train", "ILSVRC2012_img_train", "train2017", "TRAIN", "imagesTrain"],
    "val": ["val", "valid", "Validation", "dev", "ILSVRC2012_img_val", "val_256", "seg_valid"],
    "test": ["test", "Testing", "eval", "seg_test", "test-images"],
}
CLASSES = [
    "cat",
    "Dog",
    "n01440764",
    "n01443537",
    "ice cream",
    "café",
    "001.Bird",
    "7",
    "12",
    "train",
    "test",
    "x",
]
PHOTO_ENDINGS = [".jpg", ".JPEG", ".jfif", "", ".jpg?itok=4", ".png", ".jpg_large", ".bin.jpeg", ".Jpe"]
JUNK = ["notes.txt", ".DS_Store", "Thumbs.db", "._1.jpg", "labels", "movie.mp4", "page.html", ".nomedia", "a.jpg.bak"]
SYSTEM = ["@eaDir", "lost+found", ".thumbnails", "__MACOSX", "$RECYCLE.BIN", "#recycle", ".git"]


@dataclass
class Tree:
    """A tree on disk: the right answer by path, photos that must be left out, and why it must be refused."""

    root: Path
    seed: int
    right: dict[str, tuple[str, str]] = field(default_factory=dict)
    left: Counter = field(default_factory=Counter)
    refused: str = ""


def draw(root: Path, seed: int) -> Tree:
    """Draw a tree below root."""
    rng = random.Random(seed)
    tree = Tree(root, seed)
    top = root
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        top = top / rng.choice(["data", "photos", "archive (1)", "images"])
    splits = rng.choice([[""], [""], ["train"], ["train", "val"], ["train", "test"], ["train", "val", "test"], ["val"]])
    names = rng.sample(CLASSES, rng.randint(2, 5))
    if splits == [""]:
        names = [name for name in names if name not in ("train", "test")] or ["cat"]
        if len(names) < 2:
            names += ["fish"]
    shape = rng.choice(["plain", "plain", "images", "letters", "deep", "ambiguous"])
    for split in splits:
        place = top
        if split:
            place = place / rng.choice(SPELLINGS[split])
            if rng.random() < 0.2:
                place = place / place.name
        for name in names:
            for folder in folders_of(shape, name, rng):
                photos(tree, place / folder, split, label_of(shape, name, folder), rng)
    if shape == "ambiguous":
        tree.refused = "classes of two levels"
    clutter(tree, top, splits, rng)
    return tree


def folders_of(shape: str, name: str, rng: random.Random) -> list[str]:
    """Where the photos of a class lie."""
    if shape == "images":
        return [f"{name}/images"]
    if shape == "letters":
        return [f"{'abc'[hash_of(name) % 3]}/{name}"]
    if shape == "deep":
        return [name, f"{name}/more"] if rng.random() < 0.5 else [name]
    return [f"{name}/one", f"{name}/two"] if shape == "ambiguous" else [name]


def label_of(shape: str, name: str, folder: str) -> str:
    """The class of photos in a folder."""
    return folder if shape == "letters" else name


def hash_of(name: str) -> int:
    """The same number in every process."""
    return sum(name.encode())


def photos(tree: Tree, folder: Path, split: str, name: str, rng: random.Random) -> None:
    """Write a few photos, of the class's colour, with any ending; or links to such."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(rng.randint(1, 4)):
        path = folder / f"{split}{k}{rng.choice(PHOTO_ENDINGS)}"
        data = photo(hash_of(name) % 12, k)
        if rng.random() < 0.1:
            store = tree.root.parent / f"{tree.root.name}-store"
            store.mkdir(exist_ok=True)
            target = store / f"{len(tree.right)}.jpg"
            target.write_bytes(data)
            path = path.with_name(f"{split}{k}.jpg")
            os.symlink(target, path)
        else:
            path.write_bytes(data)
        tree.right[path.relative_to(tree.root).as_posix()] = (split, name)


def clutter(tree: Tree, top: Path, splits: list[str], rng: random.Random) -> None:
    """Write what else lies there."""
    folders = [tree.root, *sorted(path for path in tree.root.rglob("*") if path.is_dir())]
    for _ in range(rng.randint(0, 4)):
        (rng.choice(folders) / rng.choice(JUNK)).write_bytes(b"not a photo")
    for _ in range(rng.choice([0, 0, 1, 2])):
        junk = rng.choice(folders) / rng.choice(SYSTEM)
        junk.mkdir(exist_ok=True)
        (junk / "thumb.jpg").write_bytes(photo(1))
        tree.left[junk.relative_to(tree.root).as_posix()] = 1
    if rng.random() < 0.2:
        (tree.root / "banner.jpg").write_bytes(photo(2))
        tree.left[""] += 1
        if tree.root != top:  # a wrapper with a photo of its own may be a class
            tree.refused = tree.refused or "a photo beside a wrapper"
    if splits != [""] and rng.random() < 0.15:
        stray = top / "extra"
        stray.mkdir()
        (stray / "1.jpg").write_bytes(photo(3))
        tree.refused = "a folder of photos beside the splits"


def check(tree: Tree) -> bool:
    """Look at a tree, and return whether it was refused."""
    try:
        source = find_photos(tree.root)
    except UsageError as error:
        assert tree.refused, f"seed {tree.seed}: refused: {error}"
        assert error.hint and "Traceback" not in str(error)
        return True
    assert tree.refused in ("", "a photo beside a wrapper"), f"seed {tree.seed}: {tree.refused}, but not refused"
    found = {
        photo.path: (split, source.classes[photo.label]) for split, some in source.splits.items() for photo in some
    }
    assert found.keys() == tree.right.keys(), f"seed {tree.seed}"
    splits = {split for split, _ in tree.right.values()}
    for path, (split, name) in found.items():
        right, label = tree.right[path]
        assert name == label, f"seed {tree.seed}: {path}"
        assert split == right or (len(splits) == 1 and right in ("", "train") and split in ("train", "val"))
    left = Counter({one.path: one.photos for one in source.account.left_out})
    assert left == tree.left, f"seed {tree.seed}"
    assert sum(map(len, source.splits.values())) == len(tree.right)
    return False


@pytest.mark.parametrize("seed", range(50))
def test_a_random_tree_is_read_rightly_or_refused(tmp_path, seed):
    check(draw(tmp_path / "tree", seed))


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(1, 21))
def test_two_thousand_random_trees(tmp_path, hundred):
    refused = sum(check(draw(tmp_path / str(seed), seed)) for seed in range(100 * hundred, 100 * (hundred + 1)))
    assert 10 < refused < 60  # some of each kind


@pytest.mark.parametrize("first", [3000, 3100, 3200])
def test_photos_in_are_records_and_rejected(tmp_path, first):
    trees = (draw(tmp_path / str(seed), seed) for seed in range(first, first + 100))
    tree = next(one for one in trees if not one.refused)
    broken = next(iter(tree.right))
    (tree.root / broken).resolve().write_bytes(b"\xff\xd8\xff and nothing more")
    with ThreadPoolExecutor(1) as executor:
        shard_set, fresh = build_shards(find_photos(tree.root), tmp_path / "out", BuildOptions(size=16), executor)
    records = [
        (row.source_path, shard_set.classes[row.label])
        for split in shard_set.splits.values()
        for folder, _ in split.shards
        for row in read_listing(folder)
    ]
    assert fresh == len(tree.right) and len(records) + shard_set.manifest["rejected"] == fresh
    assert dict(records) == {path: name for path, (_, name) in tree.right.items() if path != broken}
