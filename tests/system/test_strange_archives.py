"""Archives and tables that mean harm, through the real command: nothing is written outside --out, nothing is run.

Every source lies some folders down in a tree whose files, sizes and times are compared before and after; and wherever
else Python might write, run or unpickle, an audit hook sees it (watched.py). The present folder is the tree's top.
"""

import csv
import gzip
import io
import os
import pickle
import shutil
import tarfile
from functools import partial
from pathlib import Path

import forms
import ilsvrc
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import stored
import watched
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.shards.verify import verify_shards
from alexnet_dali.tools.prep.cli import prep
from ilsvrc import WNIDS, tar_bytes
from pictures import saved, scene
from scipy.io import savemat
from stored import Here

GOOD = saved(scene(40, 50), quality=90)
TWICE = gzip.compress(gzip.compress(bytes(1 << 28), mtime=0), mtime=0)  # 1.5 kB that are 268 MB, within 260 kB
SMALL = ["--size", "32", "--shard-records", "4", "--workers", "1"]


class Bomb:
    """Once unpickled, a folder is there."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.mkdir, (str(self.flag),)


class Tree:
    """A tree of folders with the source in its depth, and what lies in it."""

    def __init__(self, top):
        self.top, self.source, self.out = top, top / "a/b/c/source", top / "a/b/c/out"
        self.flag = top / "pwned"
        self.bomb = pickle.dumps(Bomb(self.flag))
        self.source.mkdir(parents=True)
        (top / "precious.JPEG").write_bytes(GOOD)
        (top / "a/precious.JPEG").write_bytes(GOOD)
        # Names by which an unpacking program would come to these, or make others of their kind.
        self.names = [
            *("../" * k + "precious.JPEG" for k in range(1, 6)),
            *(
                f"{top}/precious.JPEG",
                f"{top}/new.JPEG",
                "x/../../../newer.JPEG",
                "//new.JPEG",
                "..",
                "../..",
                "/",
                ".",
            ),
            *("../out/dataset.json", "../out/train/00000.lmdb/data.mdb", "C:\\new.JPEG", "..\\..\\new.JPEG"),
            *("a\nb.JPEG", "\x1b[2J.JPEG", os.fsdecode(b"\xff.JPEG")),
        ]

    def snapshot(self):
        """Everything but what lies in --out."""
        found = {}
        for path in [self.top, *self.top.rglob("*")]:
            if self.out not in (path, *path.parents):
                status = path.lstat()
                found[str(path)] = (status.st_mode, status.st_size, path.is_dir() or status.st_mtime_ns)
        return found


@pytest.fixture
def tree(tmp_path):
    made = Tree(tmp_path / "top")
    pickle.loads(made.bomb)
    assert made.flag.exists()  # it would go off
    made.flag.rmdir()
    return made


@pytest.fixture
def build(tree, in_process, threads_for_workers, monkeypatch):
    """Run build-lmdb; whatever comes of it, only --out may differ. Returns exit code, output and error output."""
    threads_for_workers("prep.build_lmdb")
    monkeypatch.chdir(tree.top)

    def building(source=None, *options):
        before = tree.snapshot()
        with watched.watch() as deeds:
            answer = partial(in_process, prep)("build-lmdb", source or tree.source, "--out", tree.out, *SMALL, *options)
        assert not watched.outside(deeds, tree.out)
        assert not [deed for deed in deeds if deed[0] in (*watched.RUN, *watched.NETWORK, watched.UNPICKLED)]
        assert not tree.flag.exists() and tree.snapshot() == before
        if answer[0] == 0:
            shard_set = open_shard_set(tree.out)
            report = verify_shards(shard_set, Here())
            assert report.whole and not report.notes  # and in --out there is nothing but the set
        elif tree.out.exists():
            assert not (tree.out / "dataset.json").exists()
        return answer

    return building


def hostile_tar(tree, more=()):
    """Members by every name, links, devices, a pickle, tars within tars; then an honest photo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def put(name, data=b"", kind=tarfile.REGTYPE, target=""):
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, target
            info.devmajor, info.devminor, info.mode = 1, 5, 0o6777  # of /dev/zero, and to run as root
            tar.addfile(info, io.BytesIO(data))

        for name in tree.names:
            put(name, GOOD)
        links = {"way.JPEG": str(tree.top), "up": "../..", "passwd.JPEG": "/etc/passwd"}
        for name, target in links.items():
            put(name, kind=tarfile.SYMTYPE, target=target)
            put(f"hard {name}", kind=tarfile.LNKTYPE, target=target)
        put("up/new.JPEG", GOOD)  # through the link before it
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            put(f"special {kind!r}.JPEG", kind=kind)
        for name in ("photo.JPEG", "photo.pkl", "photo.pyd", "x.npy", "conftest.py", "setup.py"):
            put(f"pickles/{name}", tree.bomb)
        bomb = tar_bytes([("0.JPEG", bytes(1 << 20))])
        for k in range(30):
            bomb = tar_bytes([(f"{k}.tar", bomb), ("../up.JPEG", b"u")])
        put("bomb.tar", bomb)
        put("bomb.JPEG", bomb)
        put("compressed bomb.JPEG", TWICE)
        put("bomb.tar.gz", TWICE)
        for name, data in more:
            put(name, data)
    return out.getvalue()


def rows(path):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def account(tree):
    """Photos that stand in the set, and rejected ones, by path."""
    stand = [row["source_path"] for path in tree.out.rglob("*.csv") if path.name[0].isdigit() for row in rows(path)]
    return stand, {row["source_path"]: row["reason"] for row in rows(tree.out / "rejected.csv")}


@pytest.mark.parametrize("layout", ["imagenet2012", "imagenet2010"])
def test_imagenets_archives(tree, build, layout):
    year = layout[-4:]
    photos = ilsvrc.class_folders(tree.top / "made", int(year))
    shutil.rmtree(tree.source)
    (ilsvrc.official_2012 if year == "2012" else ilsvrc.official_2010)(photos, tree.source)
    train = next(tree.source.glob("*train.tar"))
    inner = hostile_tar(tree, [("honest.JPEG", GOOD)])
    others = [(f"../../{wnid}.tar", tar_bytes([(f"{wnid}_1.JPEG", GOOD)])) for wnid in WNIDS[1:]]
    train.write_bytes(tar_bytes([(f"{WNIDS[0]}.tar", inner), *others, ("../new.txt", b"x"), ("n.pkl", tree.bomb)]))
    code, said, aside = build()
    assert code == 0, aside
    stand, rejected = account(tree)
    assert any(path.endswith("/honest.JPEG") for path in stand)
    assert {path.rsplit("/", 1)[-1] for path in rejected} >= {"photo.JPEG", "bomb.JPEG", "compressed bomb.JPEG"}
    assert not any("passwd" in path or "special" in path for path in (*stand, *rejected))
    assert f"{len(stand) + len(rejected)} photos in = {len(stand)} records + {len(rejected)} rejected" in said


def test_tars_of_photos_and_labels(tree, build):
    path = tree.source / "x-train-0.tar"
    honest = [("../../../honest.JPEG", GOOD), ("../../../honest.cls", b"1"), ("other.JPEG", GOOD), ("other.cls", b"0")]
    path.write_bytes(hostile_tar(tree, honest))
    code, said, aside = build(None, "--split", "train", "--layout", "webdataset")
    assert (code, said) == (1, "") and aside.startswith(f"error: {path}: ") and ": no label" in aside
    labels = [
        (f"{os.path.splitext(name)[0]}.cls", b"0")
        for name in (*tree.names, "up/new", "pickles/photo", "bomb", "compressed bomb")
    ]
    path.write_bytes(hostile_tar(tree, [*honest, *labels]))
    code, said, aside = build(None, "--split", "train", "--layout", "webdataset")
    assert code == 0, aside
    stand, rejected = account(tree)
    assert {path.rsplit("/", 1)[-1] for path in stand} >= {"honest.JPEG", "other.JPEG", "precious.JPEG"}
    assert {path.rsplit("/", 1)[-1] for path in rejected} == {"photo.JPEG", "bomb.JPEG", "compressed bomb.JPEG"}


def coloured(*colour):
    return saved(np.full((40, 40, 3), colour, np.uint8), quality=90)


def colours(tree):
    """Each record's label and the colour of its middle, by the name of its photo."""
    found = {}
    for folder in sorted((tree.out / "train").glob("*.lmdb")):
        for row, value in zip(rows(folder.with_suffix(".csv")), stored.values(folder), strict=True):
            found[row["source_path"]] = int(row["label"]), stored.pixels(value)[16, 16].astype(int)
    return found


def test_tars_in_any_order_and_with_two_of_a_name(tree, build):
    """Labels before, behind and far from their photos; names that are the same in two folders; one that comes twice."""
    colour = {"a/1": (200, 30, 30), "b/1": (30, 200, 30), "2": (30, 30, 200), "3": (200, 200, 30)}
    photos = [(f"{key}.JPEG", coloured(*value)) for key, value in colour.items()]
    labels = [(f"{key}.cls", str(number).encode()) for number, key in enumerate(colour)]
    first = [("2.JPEG", coloured(9, 9, 9)), ("3.cls", b"0")]  # tar itself would leave the last of a name
    (tree.source / "x-train-0.tar").write_bytes(tar_bytes([*first, *reversed(labels), *photos[1:], photos[0]]))
    code, said, aside = build(None, "--split", "train")
    assert code == 0 and "4 photos in = 4 records + 0 rejected" in said, aside
    found = colours(tree)
    assert len(found) == 4
    for number, (key, value) in enumerate(colour.items()):
        label, middle = found[f"x-train-0.tar/{key}.JPEG"]
        assert label == number and np.abs(middle - value).max() < 12, key


@pytest.mark.parametrize("data", [TWICE, gzip.compress(tar_bytes([("1.JPEG", GOOD), ("1.cls", b"0")]))])
def test_a_tar_that_is_compressed_is_no_tar(tree, build, data):
    (tree.source / "x-train-0.tar").write_bytes(data)
    code, said, aside = build(None, "--layout", "webdataset")
    assert (code, said) == (1, "") and "x-train-0.tar: is compressed" in aside and not tree.out.exists()


@pytest.mark.parametrize("name", ["honest.cls", "honest.json"])
def test_a_label_that_is_a_pickle(tree, build, name):
    (tree.source / "x-train-0.tar").write_bytes(tar_bytes([("honest.JPEG", GOOD), (name, tree.bomb)]))
    code, _, aside = build()
    assert code == 1 and aside.startswith(f"error: {tree.source}/x-train-0.tar: {name}: ")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_tars_cut_short(tree, build, share):
    whole = tar_bytes([(f"{k}.{ending}", data) for k in range(20) for ending, data in (("jpg", GOOD), ("cls", b"0"))])
    (tree.source / "x-train-0.tar").write_bytes(whole[: int(share * len(whole.rstrip(b"\0")))])
    code, said, aside = build()
    assert (code, said) == (1, "") and "is truncated" in aside and not tree.out.exists()


def test_a_devkit_that_means_harm(tree, build):
    photos = ilsvrc.class_folders(tree.top / "made")
    shutil.rmtree(tree.source)
    ilsvrc.official_2012(photos, tree.source)
    kit = tree.source / "ILSVRC2012_devkit_t12.tar.gz"
    truth = {"d/data/ILSVRC2012_validation_ground_truth.txt": ilsvrc.truth(photos / "val")}
    pickled, npy = io.BytesIO(), io.BytesIO()
    savemat(pickled, {"synsets": np.frombuffer(tree.bomb, np.uint8)})
    np.save(npy, np.array([Bomb(tree.flag)], object), allow_pickle=True)
    for meta in (tree.bomb, pickled.getvalue(), npy.getvalue(), bytes(100)):
        ilsvrc.write_tar_gz(kit, {"../../../precious.JPEG": b"u", "d/data/meta.mat": meta, **truth})
        code, _, aside = build()
        assert code == 1 and f"{kit}: meta.mat cannot be read" in aside
    names = dict.fromkeys(tree.names, b"u") | {"d/../../data/meta.mat": ilsvrc.meta_mat(), **truth}
    ilsvrc.write_tar_gz(kit, names)
    assert build()[0] == 0


# Tables


def image(data, path="x.JPEG"):
    return {"bytes": data, "path": path}


def test_parquet_with_names_that_lead_out_and_photos_that_are_none(tree, build):
    data = [(image(GOOD, name), 0) for name in tree.names if "\udcff" not in name]
    data += [(image(tree.bomb, "pickle.JPEG"), 0), (image(None), 0), (None, 0), (image(b""), 0)]
    forms.write_parquet(tree.source / "train.parquet", data)
    code, _, aside = build(None, "--split", "train")
    assert code == 0, aside
    stand, rejected = account(tree)
    assert len(stand) == len(data) - 4 and len(rejected) == 4
    assert sorted(set(rejected.values())) == ["not a photo in a known format", "the file is empty"]
    assert all(path.startswith("train.parquet/") and "/../" not in path for path in (*stand, *rejected))


@pytest.mark.parametrize("column", ["image", "label"])
def test_parquet_whose_types_are_pickles(tree, build, column):
    """Arrow once unpickled what a file called an extension type of Python's (CVE-2023-47248)."""
    about = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": tree.bomb}
    types = {"image": pyarrow.binary(), "label": pyarrow.int64()}
    fields = [pyarrow.field(name, kind, metadata=about if name == column else None) for name, kind in types.items()]
    schema = pyarrow.schema(fields, metadata={b"pandas": tree.bomb, b"huggingface": tree.bomb})
    table = pyarrow.table({"image": [GOOD] * 3, "label": [0, 1, 1]}, schema=schema)
    pyarrow.parquet.write_table(table, tree.source / "train.parquet")
    code, _, aside = build(None, "--split", "train")
    assert code == 0, aside


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": [0]}, "no column is named image"),
        ({"image": [GOOD]}, "row 0: no label"),
        ({"image": ["../../precious.JPEG"], "label": [0]}, "has paths of photos, not their bytes"),
        ({"image": [None], "label": [0]}, "column image is null"),
        ({"image": [b"\0" * 1000], "label": [0]}, "none of 1 photos could be read"),
        ({"image": [GOOD], "label": [b"\x80"]}, "the column label is binary"),
        ({"image": [GOOD, GOOD], "label": ["../../x", "/etc"]}, ""),
        ({"image": [GOOD, GOOD], "label": ["a\0b", "\n"]}, ""),
    ],
)
def test_parquet_with_other_columns(tree, build, columns, said):
    pyarrow.parquet.write_table(pyarrow.table(columns), tree.source / "train.parquet")
    code, _, aside = build(None, "--split", "train")
    assert code == bool(said) and said in aside


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_csv_with_a_mark_and_other_line_ends_and_names_that_lead_out(tree, build, mark, end):
    (tree.source / "cat").mkdir()
    (tree.source / "cat/a.JPEG").write_bytes(GOOD)
    (tree.source / "cat/=cmd|' -C calc'!A0.JPEG").write_bytes(GOOD)
    lines = ["path,label", "cat/a.JPEG,n1", "cat/=cmd|' -C calc'!A0.JPEG,=1+1"]
    lines += ["../../../precious.JPEG,../../..", f"{tree.top}/precious.JPEG,{tree.top}", "/etc/passwd,$(touch pwned)"]
    table = tree.source / "list.csv"
    table.write_bytes((mark + end.join(lines) + end).encode())
    code, _, aside = build(table, "--split", "train")
    assert code == 0, aside
    stand, rejected = account(tree)
    assert len(stand) == 4 and rejected == {"/etc/passwd": "not a photo in a known format"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: ["\ufeff" + lines[0], *lines[1:]], ""),
        (lambda lines: [*lines[:-1], lines[-1].split(",")[0] + ",n99999999 1 2 3 4"], "'n99999999' is not a class"),
        (lambda lines: [*lines[:-1], "../../../precious," + WNIDS[0]], "precious"),
        (lambda lines: lines[:-1], ""),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_kaggles_table(tree, build, change, said, end):
    photos = ilsvrc.class_folders(tree.top / "made")
    ilsvrc.kaggle(photos, tree.source)
    table = tree.source / "LOC_val_solution.csv"
    lines = table.read_text().splitlines()
    changed = change(lines)
    table.write_bytes((end.join(changed) + end).encode())
    code, _, aside = build()
    whole = len(changed) == len(lines) and not said
    assert code == (0 if whole else 1) and said in aside
    assert whole or str(table) in aside or str(tree.source) in aside


def test_a_pickle_by_any_name_is_no_source(tree, build):
    for name in ("list.txt", "x.parquet", "x.tar", "dataset.csv", "LOC_val_solution.csv", "meta.mat"):
        path = Path(tree.source / name)
        path.write_bytes(tree.bomb)
        code, said, aside = build(path)
        assert code in (1, 2) and said == "" and aside.startswith(f"error: {tree.source}"), name
        path.unlink()
