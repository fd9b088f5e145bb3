"""Where what a command writes may go: said before its work begins, and never over a checkpoint or a shard set.

In:  the path that was asked for, and what it will hold.  Out: nothing, or a UsageError.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ..pipeline.errors import UsageError

MANIFEST = "dataset.json"  # as in pipeline/shardset.py, which needs LMDB; the doctor works without
# What shard sets, runs, exports, indexes and made photos consist of, besides what has a suffix of its own.
OWN = (
    *(MANIFEST, "stats.json", "rejected.csv", "export.json", "job.json", "config.json", "sample.json"),
    *("index.json", "begun.json", "codes.json", "settings.json"),
)


def check_output(file: Path, *suffixes: str, make: bool = False) -> None:
    """Check that a file may be written, or written over.

    What is no file, a pipe or /dev/stdout, is written into; of a symbolic link, what it leads to counts.

    Args:
        suffixes: of what is written: `.json`; a file that is there and has another is taken for something else.
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
    beside_shards = target.suffix == ".csv" and any(target.parent.glob("*.lmdb"))
    if target.name in OWN or beside_shards:
        raise UsageError(f"{file}: belongs to a shard set or a run, and would be lost", "name another file")
    if target.suffix.lower() not in suffixes:
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

    Raises:
        UsageError: it may not.
    """
    _check_no_shard(run, Path(os.path.realpath(run)))
    if (run / MANIFEST).exists() or any(run.glob("*.lmdb")):
        raise UsageError(f"{run}: is a shard set, or a part of one", "choose another --run")
    if not resume and (run / "last.pt").exists():
        raise UsageError(f"{run}: holds a run already", "go on with it by --resume, or choose another --run")


def _check_no_shard(named: Path, target: Path) -> None:
    if any(each.suffix == ".lmdb" for each in (target, *target.parents)):
        raise UsageError(f"{named}: lies in a shard", "choose a place outside of the shard set")
