"""Where what a command writes may go: said before its work begins, and never over a checkpoint or a shard set.

In:  the path that was asked for, and what it will hold.  Out: nothing, or a UsageError.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from ..pipeline.errors import UsageError

MANIFEST = "dataset.json"  # as in pipeline/shards/manifest.py, which needs LMDB; the doctor works without
# What shard sets, runs, exports, indexes and made photos consist of, and what is beside it there: elsewhere these are
# names like any other.
OWN = {
    MANIFEST: ("*/*.lmdb", "*.lmdb", "stats.npz", "rejected.csv"),
    "stats.json": ("stats.npz", MANIFEST),
    "rejected.csv": (MANIFEST, "*/*.lmdb", ".build"),
    "export.json": ("*.tar", "*/*.tar", "train", "val", "test", ".export"),
    "config.json": ("last.pt", "best.pt", "metrics.jsonl"),
    "sample.json": ("train",),
    "index.json": ("vectors.npy", "begun.npy"),
    "begun.json": ("vectors.npy", "begun.npy"),
    "codes.json": ("codes.npy", "encoder.pt", "vectors.npy"),
    "settings.json": ("*.pt", "*/*.pt"),
}
WORK = ("job.json", (".build", ".export"))  # of a build or an export that is under way, and the folders of such
OTHERS = (".jsonl", ".ipynb")  # may be one JSON as a whole, and are no result
LARGEST = 1 << 26  # bytes of a result that is read to know it again; ours have thousands
# How a result is known again that was given a name of another suffix, or none.
WRITTEN: dict[str, Callable[[bytes], object]] = {
    ".json": lambda whole: isinstance(json.loads(whole), dict | list),
    ".csv": lambda whole: whole.startswith((b"class,words,images,", b"true,predicted,count,")),
    ".txt": lambda whole: re.fullmatch(rb"(\d+( \d+)*\n)+", whole),
    ".png": lambda whole: whole.startswith(b"\x89PNG\r\n"),
    ".html": lambda whole: whole.lstrip()[:14].lower() == b"<!doctype html",
}


def check_output(file: Path, *suffixes: str, make: bool = False) -> None:
    """Check that a file may be written, or written over.

    What is no file, a pipe or /dev/stdout, is written into; of a symbolic link, what it leads to counts.

    Args:
        suffixes: of what is written: `.json`; a file that is there and has another must look like an earlier result.
        make: its folder is made where there is none.
    Raises:
        UsageError: it may not.
    """
    try:
        mode = os.stat(file).st_mode
    except OSError:
        mode = 0
    if stat.S_ISDIR(mode):
        raise UsageError(f"{file}: a folder, not a file to write", "name a file")
    if mode and not stat.S_ISREG(mode):
        return
    target = Path(os.path.realpath(file))
    if not make and not target.parent.is_dir():
        raise UsageError(f"{file}: no such folder to write it to", "make the folder first")
    _check_no_shard(file, target)
    if not mode:
        return
    if _belongs(target):
        raise UsageError(f"{file}: belongs to a shard set or a run, and would be lost", "name another file")
    if target.suffix.lower() not in suffixes and not _is_result(target, suffixes[0]):
        raise UsageError(
            f"{file}: is there already, is no {' or '.join(suffixes)} file, and would be lost",
            "name another file, or remove that one",
        )


def check_outputs(files: Sequence[tuple[Path | None, str]]) -> None:
    """Check several files of one command, each with its suffix; None, of an option that was not given.

    Raises:
        UsageError: one may not be written, or two are one.
    """
    asked = [(file, suffix) for file, suffix in files if file is not None]
    for file, suffix in asked:
        check_output(file, suffix)
    named = [os.path.realpath(file) for file, _ in asked if file.is_file() or not file.exists()]
    if len(set(named)) < len(named):
        raise UsageError("two results would be written to one file", "name a file for each")


def check_folder(folder: Path, names: Sequence[str]) -> None:
    """Check that files of these names may be put into a folder, which need not be there yet.

    Raises:
        UsageError: it is a file, or lies in a shard, or one of them is there.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{folder}: a file, not a folder", "choose another --to")
    _check_no_shard(folder, Path(os.path.realpath(folder)))
    for name in names:
        if os.path.lexists(folder / name):
            raise UsageError(f"{folder}: holds a {name} already", "choose another --to")


def check_run_folder(run: Path, resume: bool) -> None:
    """Check that a run may be in a folder: none of a shard set, its own or a split's, and a new one in a new folder.

    What a run has left that was killed before its first checkpoint is begun again; another program's is not lost.

    Raises:
        UsageError: it may not.
        TrainingError: what is there cannot be read.
    """
    _check_no_shard(run, Path(os.path.realpath(run)))
    if (run / MANIFEST).exists() or any(run.glob("*.lmdb")):
        raise UsageError(f"{run}: is a shard set, or a part of one", "choose another --run")
    if not resume and (run / "last.pt").exists():
        raise UsageError(f"{run}: holds a run already", "go on with it by --resume, or choose another --run")
    if not resume:
        _check_no_strangers(run)


def _check_no_strangers(run: Path) -> None:
    from ..model.recipes.config import Config  # here: the doctor works without torch
    from ..model.training.metrics import is_foreign

    config, needed = run / "config.json", {field.name for field in fields(Config) if field.default is MISSING}
    found = [run / "metrics.jsonl"] if is_foreign(run / "metrics.jsonl") else []
    if config.is_file():
        try:
            whole = config.read_bytes()
            ours = not whole.strip(b"\0") or needed <= json.loads(whole).keys()
        except (OSError, ValueError, RecursionError, AttributeError):
            ours = False
        found += [] if ours else [config]
    if found:
        raise UsageError(
            f"{found[0]}: is no file of a run of alexnet-train, and would be lost", "choose another --run, or move it"
        )


def _belongs(target: Path) -> bool:
    """Whether a file that is there is a part of a shard set, a run, an export or the like."""
    folder = target.parent
    if target.name == WORK[0] and folder.name in WORK[1]:
        return True
    if any(any(folder.glob(beside)) for beside in OWN.get(target.name, ())):
        return True
    listing = target.suffix == ".csv" and (target.stem.isdigit() or target.with_suffix(".lmdb").exists())
    return listing and any(folder.glob("*.lmdb"))


def _is_result(target: Path, suffix: str) -> bool:
    """Whether a file of another name is what a command writes as `suffix`."""
    if target.suffix.lower() in OTHERS or suffix not in WRITTEN:
        return False
    try:
        if target.stat().st_size > LARGEST:
            return False
        return bool(WRITTEN[suffix](target.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return False


def _check_no_shard(named: Path, target: Path) -> None:
    if any(each.suffix == ".lmdb" and os.path.lexists(each / "data.mdb") for each in (target, *target.parents)):
        raise UsageError(f"{named}: lies in a shard", "choose a place outside of the shard set")
