"""Commands under strange conditions, and photos of strange names for them: what the tests of homes share.

Each home is the whole way from photos to a tested net and what people make of it, in processes of their own. As root,
other users and mounts are real (`setpriv`, `unshare`); elsewhere the tests are another user already, and namespaces
are asked for without root.
"""

import csv
import json
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import alexnet_dali.tools
import torch
from alexnet_dali.tools.prep.sample_photos import make_photos
from faults import SMALL

ROOT = os.geteuid() == 0
STEP = ("--epochs", "1", "--steps", "1", "--batch-size", "4", "--rate", "0.001")
BUILD = ("--size", "64", "--shard-records", "4", "--val-share", "0")
# Nobody, with no right that root has and they have not.
NONE = ("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs")
NOBODY = ["setpriv", *(["--reuid=65534", "--regid=65534", "--clear-groups"] if ROOT else []), *NONE]
SPACE = ["unshare"] if ROOT else ["unshare", "--map-root-user"]
NAMES = ("plain", os.fsdecode(b"caf\xe9"), "猫 ü", "a,b 'c' $x")  # of classes: no encoding has the second
FIGURES = "from alexnet_dali.tools.figures.cli import main; main()"
# Where Python takes names in ASCII, and has none of its own ways out of it.
ASCII = {"LC_ALL": "C", "LANG": None, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


class Home:
    """Commands that run under the same strange conditions.

    Args:
        before: the words before the interpreter's name.
        options: the interpreter's.
        limits: resource and number.
        keywords: of subprocess.run.
        environment: what differs in it; None, not there.
    """

    def __init__(self, place: Path, *, before=(), options=(), limits=(), umask=-1, keywords=None, **environment):
        self.place, self.before, self.options, self.limits, self.umask = place, before, options, limits, umask
        self.keywords = keywords or {}
        together = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self.environment = {name: value for name, value in together.items() if value is not None}

    def words(self, tool: str, *arguments) -> list[str]:
        """The command line."""
        at = ("-c", FIGURES) if tool == "figures" else ("-m", f"alexnet_dali.tools.{tool}")
        return [*self.before, sys.executable, *self.options, *at, *map(str, arguments)]

    def run(self, tool: str, *arguments, code=0) -> tuple[str, str]:
        """Run a command to its exit code; what it said on both outputs. Never a traceback."""
        done = subprocess.run(
            self.words(tool, *arguments),
            check=False,
            timeout=300,
            env=self.environment,
            umask=self.umask,
            preexec_fn=partial(_limit, self.limits) if self.limits else None,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **self.keywords},
        )
        out, err = ((said or b"").decode(errors="replace") for said in (done.stdout, done.stderr))
        assert "Traceback" not in err and "Exception ignored" not in err and "Warning" not in err, err
        assert done.returncode == code, (done.returncode, out, err)
        return out, err

    def build(self, photos: Path, workers=2) -> Path:
        """Photos to shards with statistics."""
        out = self.place / "shards"
        said, _ = self.run("prep", "build-lmdb", photos, "--out", out, *BUILD, "--workers", workers)
        assert "12 photos in = 12 records + 0 rejected" in said
        said, _ = self.run("prep", "pca-stats", "--shards", out)
        assert "stats.npz" in said
        return out

    def train(self, shards: Path, *options) -> Path:
        """A step, and what it is worth."""
        run = self.place / "run"
        said, _ = self.run("train", "--shards", shards, "--run", run, *SMALL, *STEP, *options)
        assert "last checkpoint" in said
        files = [f"--{name}={run / name}" for name in ("per-class", "confusion", "predictions", "json")]
        said, _ = self.run("evaluate", run, "--shards", shards, "--device", "cpu", *files)
        assert "top-1 error" in said
        rows = list(csv.DictReader(read(run / "per-class").splitlines()))
        assert {row["class"] for row in rows} == set(NAMES)
        return run

    def copy(self, shards: Path) -> None:
        """What people make of a set: copies, archives, a sheet."""
        place = self.place
        assert "12 records" in self.run("prep", "stage", "--shards", shards, "--to", place / "copy")[0]
        assert data(place / "copy") == data(shards)
        told = ("--to", place / "export", "--format", "folder", "--workers", 2)
        self.run("prep", "export", "--shards", shards, *told)
        classes = {os.fsdecode(path.name) for path in (place / "export" / "train").iterdir()}
        assert classes == set(NAMES)
        self.run("prep", "info", "--shards", shards, "--contact-sheet", place / "sheet.png")

    def show(self, shards: Path, run: Path) -> None:
        """What people make of a run: weights with a card, figures."""
        self.run("weights", "export", run, "--to", self.place / "weights")
        assert "caf\ufffd" in (self.place / "weights" / "README.md").read_text(encoding="utf-8")
        self.environment["PYTHONWARNINGS"] = "ignore:Glyph"  # that matplotlib's font has no 猫, and draws a box
        self.run("figures", "per-class", run, "--shards", shards, "--device", "cpu")
        assert "caf\ufffd" in (run / "figures" / "per-class.svg").read_text(encoding="utf-8")

    def report(self, shards: Path, run: Path) -> None:
        """A run as one page, with all figures."""
        self.run("figures", "report", run, "--shards", shards, "--device", "cpu")
        page = (run / "report.html").read_text(encoding="utf-8")
        assert "猫 ü" in page and "caf\ufffd" in page


def _limit(limits) -> None:
    for which, number in limits:
        resource.setrlimit(which, (number, number))


def read(path: Path) -> str:
    """A file of ours that names photos or classes."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def strange_photos(folder: Path) -> Path:
    """Eight photos to train on and four to test, of classes that are called what no ASCII, or no encoding, has."""
    make_photos(folder, train=8, val=4, classes=len(NAMES), seed=2, side=(60, 90))
    for split in ("train", "val"):
        for made, name in zip(sorted((folder / split).iterdir()), NAMES, strict=True):
            made.rename(folder / split / name)
            for photo in (folder / split / name).iterdir():
                photo.rename(photo.with_name(f"ñ{photo.name}"))
    return folder


def data(shards: Path) -> dict[str, object]:
    """What a set holds, without the name of the place it was built from."""
    kinds = (".mdb", ".npz", ".csv")
    files: dict[str, object] = {
        str(path.relative_to(shards)): path.read_bytes() for path in shards.rglob("*") if path.suffix in kinds
    }
    assert len([name for name in files if name.endswith("data.mdb")]) == 3 and "stats.npz" in files
    manifest = json.loads((shards / "dataset.json").read_text())
    del manifest["source"]["path"]
    return files | {"dataset.json": manifest}


def reached(place: Path) -> list[str]:
    """Words before a command of nobody's, in a space of mounts of its own: the interpreter is where they can reach it.

    Where it lies in root's own home, that is hidden by an empty folder of the same name, with nothing but the
    interpreter in it.
    """
    wanted = {sys.base_prefix, sys.prefix, str(Path(torch.__file__).parent), *alexnet_dali.tools.__path__}
    hidden = {path: closed for path in sorted(wanted) if (closed := _closed(Path(path)))}
    steps = ["set -e", "before=$(umask)", "umask 022"]
    for number, path in enumerate(hidden):
        steps += [f"mkdir -p '{place}/{number}'", f"mount --rbind '{path}' '{place}/{number}'"]
    steps += [f"mount -t tmpfs -o mode=755 none '{closed}'" for closed in sorted(set(hidden.values()))]
    for number, path in enumerate(hidden):
        steps += [f"mkdir -p '{path}'", f"mount --move '{place}/{number}' '{path}'"]
    return ["sh", "-c", "; ".join([*steps, "umask $before", 'exec "$0" "$@"'])] if hidden else []


def _closed(path: Path) -> str:
    """The first folder on the way that others may not enter; empty, none."""
    return next((str(one) for one in (*reversed(path.parents), path) if not one.stat().st_mode & 0o001), "")
