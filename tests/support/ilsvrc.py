"""Small ImageNets in every layout that its owners give out, made of the same photos: for tests that compare them.

`class_folders` makes the photos, named as ImageNet's; the other functions pack them. Their devkits number the
classes otherwise than the alphabet does and have inner nodes, and their tars hold val in no order, as the real ones.
"""

import gzip
import io
import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
from alexnet_dali.pipeline.sources.find import PhotoSource
from alexnet_dali.pipeline.sources.photo import read_photo
from alexnet_dali.tools.prep.sample_photos import make_photos
from scipy.io import savemat

WNIDS = ("n01440764", "n01443537", "n02099601", "n03000684")
WORDS = ("tench, Tinca tinca", "goldfish, Carassius auratus", "golden retriever", "chain saw, chainsaw")
ORDER = tuple(WNIDS[k] for k in (2, 0, 3, 1))  # as the devkits number them
GROUPS = ("n00015388", "n00001740")  # animal, entity: IDs 5 and 6
TRAIN, VAL, TEST = 16, 7, 5


def class_folders(folder: Path, year: int = 2012) -> Path:
    """Photos in `train`, `val` and, of 2010, `test`, in folders called by their wnid."""
    made = folder / "made"
    make_photos(made, train=TRAIN, val=VAL + TEST, classes=len(WNIDS), seed=4, side=(24, 40))
    photos = folder / "photos"
    figures = sorted(path.name for path in (made / "train").iterdir())
    wnid_of = dict(zip(figures, WNIDS, strict=True))
    for k, path in enumerate(sorted((made / "train").rglob("*.JPEG"))):
        wnid = wnid_of[path.parent.name]
        _copy(path, photos / "train" / wnid / f"{wnid}_{10026 + 7 * k}.JPEG")
    others = sorted((made / "val").rglob("*.JPEG"))
    random.Random(3).shuffle(others)
    splits = {"val": others[:VAL], "test": others[VAL:] if year == 2010 else []}
    for split, paths in splits.items():
        for k, path in enumerate(paths, 1):
            _copy(path, photos / split / wnid_of[path.parent.name] / f"ILSVRC{year}_{split}_{k:08d}.JPEG")
    return photos


def everything(source: PhotoSource) -> list[tuple[str, str, str, bytes]]:
    """Split, class, file name and bytes of every photo, in order, read as the build reads them."""
    return [
        (split, source.classes[photo.label], photo.path.rsplit("/", 1)[-1], read_photo(source.root, photo))
        for split, photos in source.splits.items()
        for photo in photos
    ]


def official_2012(photos: Path, out: Path) -> Path:
    """The three archives of 2012."""
    out.mkdir()
    train_tar(photos / "train", out / "ILSVRC2012_img_train.tar")
    write_tar(out / "ILSVRC2012_img_val.tar", flat(photos / "val"))
    devkit_2012(photos, out)
    return out


def unpacked_2012(photos: Path, out: Path) -> Path:
    """The same, unpacked as most people do: train in class folders, val loose; the devkit as it came."""
    shutil.copytree(photos / "train", out / "train")
    for path in (photos / "val").rglob("*.JPEG"):
        _copy(path, out / "val" / path.name)
    devkit_2012(photos, out)
    return out


def official_2010(photos: Path, out: Path, *, broken: tuple[str, ...] = (), test_truth: bool = True) -> Path:
    """The archives of 2010; the `broken` photos, by name, are empty there and whole in patch_images.tar."""
    out.mkdir()
    train_tar(photos / "train", out / "ILSVRC2010_images_train.tar", broken)
    for split in ("val", "test"):
        write_tar(
            out / f"ILSVRC2010_images_{split}.tar",
            [(f"{split}/{name}", b"gone" if name in broken else data) for name, data in flat(photos / split)],
        )
    patches = [path for path in sorted(photos.rglob("*.JPEG")) if path.name in broken]
    write_tar(
        out / "patch_images.tar",
        [(f"patch_images/{path.relative_to(photos).parts[0]}/{path.name}", path.read_bytes()) for path in patches],
    )
    data = {
        "devkit-1.0/data/meta.mat": meta_mat("ILSVRC2010_ID"),
        "devkit-1.0/data/ILSVRC2010_validation_ground_truth.txt": truth(photos / "val"),
    }
    write_tar_gz(out / "ILSVRC2010_devkit-1.0.tar.gz", data)
    if test_truth:
        (out / "ILSVRC2010_test_ground_truth.txt").write_bytes(truth(photos / "test"))
    return out


def kaggle(photos: Path, out: Path) -> Path:
    """Kaggle's folder."""
    top = out / "ILSVRC/Data/CLS-LOC"
    shutil.copytree(photos / "train", top / "train")
    lines = ["ImageId,PredictionString"]
    for path in sorted((photos / "val").rglob("*.JPEG"), key=lambda path: path.name[::-1]):  # in no order
        _copy(path, top / "val" / path.name)
        lines.append(f"{path.stem},{path.parent.name} 85 1 499 272 {WNIDS[0]} 1 2 3 4 ")
    (out / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    (out / "LOC_synset_mapping.txt").write_text("".join(f"{w} {t}\n" for w, t in zip(WNIDS, WORDS, strict=True)))
    (out / "LOC_train_solution.csv").write_text("ImageId,PredictionString\n")
    return out


def train_tar(train: Path, path: Path, broken: tuple[str, ...] = ()) -> None:
    """Write a tar of class tars."""
    tars = []
    for folder in sorted(train.iterdir(), reverse=True):
        photos = [(file.name, b"gone" if file.name in broken else file.read_bytes()) for file in folder.iterdir()]
        tars.append((f"{folder.name}.tar", tar_bytes(photos)))
    write_tar(path, tars)


def flat(split: Path) -> list[tuple[str, bytes]]:
    """Name and bytes of a split's photos, in no order."""
    photos = sorted((path.name, path.read_bytes()) for path in split.rglob("*.JPEG"))
    random.Random(1).shuffle(photos)
    return photos


def devkit_2012(photos: Path, out: Path) -> None:
    """Write the devkit of 2012 for these photos."""
    data = {
        "ILSVRC2012_devkit_t12/readme.txt": b"read me",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta_mat("ILSVRC2012_ID"),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": truth(photos / "val"),
    }
    write_tar_gz(out / "ILSVRC2012_devkit_t12.tar.gz", data)


def truth(split: Path) -> bytes:
    """A ground truth: the devkit's ID of each photo, in the order of the names."""
    paths = sorted(split.rglob("*.JPEG"), key=lambda path: path.name)
    return "".join(f"{ORDER.index(path.parent.name) + 1}\n" for path in paths).encode()


def synsets(id_field: str = "ILSVRC2012_ID") -> list[dict]:
    """The rows of meta.mat: the classes, then the groups above them."""
    words = dict(zip(WNIDS, WORDS, strict=True))
    rows: list[tuple[str, str, list[int]]] = [(wnid, words[wnid], []) for wnid in ORDER]
    rows += [(GROUPS[0], "animal", [1, 2, 4]), (GROUPS[1], "entity", [3, 5])]
    return [
        {
            id_field: np.int16(k),
            "WNID": wnid,
            "words": text,
            "gloss": f"what {text} is",
            "num_children": np.uint8(len(children)),
            "children": np.array(children, np.uint16),
            "wordnet_height": np.uint8(bool(children)),
            "num_train_images": np.uint16(0 if children else 1300),
        }
        for k, (wnid, text, children) in enumerate(rows, 1)
    ]


def meta_mat(id_field: str = "ILSVRC2012_ID", rows: list[dict] | None = None, form: str = "structs") -> bytes:
    """A meta.mat: an array of structs as the real one's (`structs`), one row of them, or a cell array of structs."""
    rows = synsets(id_field) if rows is None else rows
    table = np.empty(len(rows), [(name, object) for name in rows[0]])
    for k, row in enumerate(rows):
        table[k] = tuple(row.values())
    cells = np.empty(len(rows), object)
    cells[:] = rows
    file = io.BytesIO()
    shapes = {"structs": table.reshape(-1, 1), "row": table.reshape(1, -1), "cells": cells}
    savemat(file, {"synsets": shapes[form], "cost_matrix": np.eye(3)}, do_compression=form != "row")
    return file.getvalue()


def tar_bytes(files: list[tuple[str, bytes]], format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of these files, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def write_tar(path: Path, files: list[tuple[str, bytes]]) -> None:
    """Write a tar of these files, in this order."""
    path.write_bytes(tar_bytes(files))


def write_tar_gz(path: Path, files: dict[str, bytes]) -> None:
    """Write a compressed tar of these files."""
    path.write_bytes(gzip.compress(tar_bytes(list(files.items()))))


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
