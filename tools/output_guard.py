"""Checks of where a command may write its output, made before its work begins.

In:  the path that the user named, and the suffix of what will be written.  Out: nothing, or a UsageError.

An existing file is overwritten if its suffix says that it is an earlier result of the same kind. Every other file needs
`--force`; weights, records and files with the names of a shard set, run, export or index are kept even then.
"""

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from ..pipeline.errors import UsageError

MANIFEST = "dataset.json"  # as in pipeline/shards/manifest.py, which needs LMDB; the doctor works without
# Files that this program reads again, in shard sets, builds, exports, runs, indexes and sample photos.
RESERVED = {MANIFEST, "stats.json", "rejected.csv", "job.json", "export.json", "config.json", "sample.json"}
RESERVED |= {"index.json", "begun.json", "codes.json", "settings.json"}
DATA = (".pt", ".npz", ".npy", ".safetensors", ".onnx", ".mdb", ".jsonl", ".tar")  # hours of work may be in one


def check_output(file: Path, *suffixes: str, make: bool = False, force: bool = False) -> None:
    """Check that an output file can be written, or may be overwritten.

    A pipe or a device such as /dev/stdout is written into. A symbolic link is followed.

    Args:
        suffixes: of an earlier result of the same kind, such as `.json`; an existing file with another is kept.
        make: the command makes missing folders.
        force: overwrite a file of another kind, unless it is one of weights or records.
    Raises:
        UsageError: it is a folder, lies in a missing folder or in a shard, or exists and must not be overwritten.
    """
    try:
        mode = os.stat(file).st_mode
    except OSError:
        mode = 0
    if stat.S_ISDIR(mode):
        raise UsageError(f"{file}: a folder, not a file", "name a file")
    if mode and not stat.S_ISREG(mode):
        return
    target = Path(os.path.realpath(file))
    if not make and not target.parent.is_dir():
        raise UsageError(f"{file}: its folder does not exist", "make the folder first")
    _check_outside_shards(file, target)
    if not mode:
        return
    named = f"{file}, a link to {target}," if file.is_symlink() else f"{file}:"
    if target.name in RESERVED or _is_record_list(target):
        message = f"{named} exists and has the name of a file of a shard set or a run; refusing to overwrite"
        raise UsageError(message, "choose another name, or remove that file")
    is_data = target.suffix.lower() in DATA
    if target.suffix.lower() not in suffixes and (is_data or not force):
        message = f"{named} exists and is not a {' or '.join(suffixes)} file; refusing to overwrite"
        raise UsageError(message, "choose another name" if is_data else "choose another name, or pass --force")


def check_outputs(files: Sequence[tuple[Path | None, str]], force: bool = False) -> None:
    """Check the output files of one command, each with its suffix; None for an option that was not given.

    Raises:
        UsageError: one cannot or must not be written, or two are the same file.
    """
    requested = [(file, suffix) for file, suffix in files if file is not None]
    for file, suffix in requested:
        check_output(file, suffix, force=force)
    targets = [os.path.realpath(file) for file, _ in requested if file.is_file() or not file.exists()]
    if len(set(targets)) < len(targets):
        raise UsageError("two results would be written to one file", "name a file for each")


def check_folder(folder: Path, names: Sequence[str]) -> None:
    """Check that files of these names can be written into a folder, which need not exist.

    Raises:
        UsageError: it is a file, lies in a shard, or holds one of the names.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{folder}: a file, not a folder", "choose another --to")
    _check_outside_shards(folder, Path(os.path.realpath(folder)))
    for name in names:
        if os.path.lexists(folder / name):
            raise UsageError(f"{folder}: already holds a {name}", "choose another --to")


def check_run_folder(run: Path, resume: bool) -> None:
    """Check that a run can use a folder: no part of a shard set; for a new run, no other run's or foreign files.

    What a run left that was killed before its first checkpoint is overwritten.

    Raises:
        UsageError: it cannot.
        TrainingError: a file in it cannot be read.
    """
    _check_outside_shards(run, Path(os.path.realpath(run)))
    if (run / MANIFEST).exists() or any(run.glob("*.lmdb")):
        raise UsageError(f"{run}: is a shard set or a part of one", "choose another --run")
    if not resume and (run / "last.pt").exists():
        raise UsageError(f"{run}: already holds a run", "continue it with --resume, or choose another --run")
    if not resume:
        _check_no_foreign_files(run)


def _check_no_foreign_files(run: Path) -> None:
    from ..model.recipes.config import Config  # here: the doctor works without NumPy and torch
    from ..model.training.metrics import is_foreign

    config, required = run / "config.json", {field.name for field in fields(Config) if field.default is MISSING}
    found = [run / "metrics.jsonl"] if is_foreign(run / "metrics.jsonl") else []
    if config.is_file():
        try:
            content = config.read_bytes()
            ours = not content.strip(b"\0") or required <= json.loads(content).keys()
        except (OSError, ValueError, RecursionError, AttributeError):
            ours = False
        found += [] if ours else [config]
    if found:
        raise UsageError(
            f"{found[0]}: exists and is not a file of alexnet-train; refusing to overwrite",
            "choose another --run, or move the file",
        )


def _is_record_list(target: Path) -> bool:
    """Whether a file is the CSV beside a shard, such as 00003.csv, which is needed without its shard too."""
    listing = target.suffix == ".csv" and (target.stem.isdigit() or target.with_suffix(".lmdb").exists())
    return listing and any(target.parent.glob("*.lmdb"))


def _check_outside_shards(named: Path, target: Path) -> None:
    if any(each.suffix == ".lmdb" and os.path.lexists(each / "data.mdb") for each in (target, *target.parents)):
        raise UsageError(f"{named}: lies in a shard", "choose a path outside the shard set")
