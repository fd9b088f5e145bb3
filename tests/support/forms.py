"""The same photos in other layouts: lists, parquet, WebDataset; from `photos/{train,val}/CLASS/*.JPEG`.

And what a source shows of them: split, class, name and bytes of every photo, in order.
"""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
from alexnet_dali.pipeline.shards.manifest import ShardSet
from alexnet_dali.pipeline.sources.find import PhotoSource
from alexnet_dali.pipeline.sources.photo import is_sequential, read_photo, stem_of
from alexnet_dali.pipeline.sources.sequential import read_in_order

SPLITS = ("train", "val")
IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def make_tree(folder: Path) -> Path:
    """Make class folders of 3 wnids, 11 files to train on and 7 to validate with; photos by name only."""
    for split, count in (("train", 11), ("val", 7)):
        for k in range(count):
            wnid = ("n02085620", "n01440764", "n03000247")[k % 3]
            name = f"{wnid}_{k}" if split == "train" else f"ILSVRC2012_val_{k:08d}"
            path = folder / split / wnid / f"{name}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\xff\xd8" + bytes([k]) * (10 + 3 * k))
    return folder


def photos_of(folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """Class and file of every photo by split, in another order than sorted, as other layouts have it."""
    found = {}
    for split in SPLITS:
        paths = sorted((folder / split).glob("*/*"), key=lambda path: (path.name[::-1], path))
        found[split] = [(path.parent.name, path) for path in paths]
    return found


def numbers_of(photos: dict[str, list[tuple[str, Path]]]) -> dict[str, int]:
    """The classes as they are usually numbered."""
    return {name: k for k, name in enumerate(sorted({name for some in photos.values() for name, _ in some}))}


def left_out(source: PhotoSource) -> list[tuple[str, int, str]]:
    """What a source leaves out: path, number of photos and reason."""
    return [(one.path, one.photos, one.why) for one in source.account.left_out]


def shown(source: PhotoSource) -> list[tuple[str, str, str, bytes]]:
    """Split, class, name without ending and class, and bytes of every photo of a source, in order."""
    rows = []
    for split, photos in source.splits.items():
        for photo in photos:
            if is_sequential(photo.archive):
                [(_, data)] = read_in_order(source.root / photo.archive, [photo.offset], [photo.bytes])
            else:
                data = read_photo(source.root, photo)
            name = source.classes[photo.label] if photo.label >= 0 else ""
            rows.append((split, name, stem_of(photo.path).removesuffix(f"_{name}"), data))
    return rows


def hashes(shard_set: ShardSet) -> dict[str, list[str]]:
    """SHA-256 of every data.mdb, by split; the CSVs beside them name the photos as their layout does."""
    return {name: [file.sha256 for _, file in split.shards] for name, split in shard_set.splits.items()}


def make_lists(photos: Path, by_name: bool = False, newline: str = "\n") -> Path:
    """Write train.txt and val.txt beside the class folders, as Caffe has them: paths below train/ and val/."""
    found = photos_of(photos)
    numbers = numbers_of(found)
    for split, some in found.items():
        lines = [f"{name}/{path.name} {name if by_name else numbers[name]}" for name, path in some]
        (photos / f"{split}.txt").write_text(newline.join([*lines, ""]), newline="")
    return photos


def make_parquet(photos: Path, out: Path, shards: int = 2, words: list[str] | None = None, group: int = 7) -> Path:
    """Write data/train-00000-of-00002.parquet and so on, as Hugging Face does, the class at the end of the name."""
    found = photos_of(photos)
    numbers = numbers_of(found)
    for split, some in found.items():
        called = {"val": "validation"}.get(split, split)
        for k in range(shards):
            rows = [
                ({"bytes": path.read_bytes(), "path": f"{path.stem}_{name}{path.suffix}"}, numbers[name])
                for name, path in some[k::shards]
            ]
            write_parquet(out / f"data/{called}-{k:05d}-of-{shards:05d}.parquet", rows, words or sorted(numbers), group)
    return out


def write_parquet(path: Path, rows: list[tuple], words: list[str] | None = None, group: int = 7, **types) -> Path:
    """Write one file of rows (image, label); types: of the columns, by name, Hugging Face's by default."""
    types = types or {"image": IMAGE, "label": pyarrow.int64()}
    features = {"label": {"names": words, "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})} if words else None
    schema = pyarrow.schema(list(types.items()), metadata=about)
    columns = {name: [row[k] for row in rows] for k, name in enumerate(types)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), path, row_group_size=group)
    return path


def make_webdataset(photos: Path, out: Path, shards: int = 2) -> Path:
    """Write imagenet-train-000000.tar and so on, with keys such as `n01440764_10026` and labels in .cls."""
    found = photos_of(photos)
    numbers = numbers_of(found)
    for split, some in found.items():
        for k in range(shards):
            content = {}
            for name, path in some[k::shards]:
                key = f"{name}/{path.stem}"
                content |= {f"{key}.jpeg": path.read_bytes(), f"{key}.cls": b"%d" % numbers[name]}
            write_tar(out / f"imagenet-{split}-{k:06d}.tar", content)
    return out


def write_tar(path: Path, content: dict[str, bytes]) -> Path:
    """Write one tar of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def make_tars(photos: Path, out: Path) -> Path:
    """Write train.tar.gz with class folders, and a folder val with a tar for each class."""
    found = photos_of(photos)
    content = {f"./photos/{name}/{path.name}": path.read_bytes() for name, path in found["train"]}
    packed = write_tar(out / "train.tar", content)
    (out / "train.tar.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    for name in {name for name, _ in found["val"]}:
        paths = [path for class_name, path in found["val"] if class_name == name]
        write_tar(out / f"val/{name}.tar", {path.name: path.read_bytes() for path in paths})
    return out
