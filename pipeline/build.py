"""Build a shard set: one shard is one unit of work, done by any `concurrent.futures` executor.

In:  a Source.  Out: the folder that `shardset.py` opens.  Neither DALI nor torch is imported.
Each record's place is a seeded permutation's, fixed before a photo is read, so two builds of the same photos give
the same bytes whatever the workers, and a rejected photo shortens its shard and moves no other record.

    out/.build/job.json           what is being built; gone when dataset.json is there
    out/.build/train-00000.json   a receipt: this shard is durable under its final name

A build that was stopped, at any moment, goes on from the receipts.
"""

import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .datum import encode
from .errors import ShardError, SourceError, UsageError
from .files import locked, read_csv, write_csv, write_json
from .plan import BUILD, permutation
from .resize import PhotoError, prepare
from .shards import ShardFile, key, write_shard
from .shardset import ENCODINGS, FITS, FORMAT, MANIFEST, VERSION, ShardSet, is_complete, open_shard_set
from .sources import Photo, Source

SHARD_RECORDS = 5000  # 160 MB as JPEG: large enough to stream, small enough to copy, and to build in seconds
FEWEST_SHARDS = 16  # of a small set, so that all cores of most machines have work
SMALLEST_SHARD = 256  # records; below that a shard is not worth its file


@dataclass(frozen=True)
class BuildOptions:
    """What a build makes of the photos.

    Attributes:
        size: pixels of the short side (paper, section 2).
        fit: `crop`, the central square, or `short-side`, the whole picture.
        encoding: `jpeg` or `raw`.
        quality: of JPEG, 1..100; the authors used 95.
        seed: of the order in the shards and of the hold-out.
        shard_records: photos a shard; 0 chooses by the number of photos, never by the machine.
    """

    size: int = 256
    fit: str = "crop"
    encoding: str = "jpeg"
    quality: int = 95
    seed: int = 0
    shard_records: int = 0

    def __post_init__(self):
        if not 8 <= self.size <= 4096:
            raise UsageError(f"--size {self.size} is not between 8 and 4096 pixels", "the paper's is 256")
        if self.fit not in FITS or self.encoding not in ENCODINGS:
            raise UsageError(f"--fit {self.fit} --encoding {self.encoding}: not one of {FITS} and {ENCODINGS}")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality {self.quality} is not between 1 and 100", "the authors' is 95")
        if not 0 <= self.seed < 1 << 64 or not 0 <= self.shard_records <= 99_999_999:
            raise UsageError(f"--seed {self.seed}, --shard-records {self.shard_records}: not sensible numbers")


@dataclass(frozen=True)
class ShardJob:
    """One shard to be built: where from, where to, and its photos in key order."""

    root: Path
    out: Path
    split: str
    number: int
    photos: tuple[Photo, ...]
    options: BuildOptions

    @property
    def path(self) -> str:
        """The shard's folder, below out."""
        return f"{self.split}/{self.number:05d}.lmdb"

    @property
    def receipt(self) -> Path:
        """Written when the shard is durable."""
        return self.out / ".build" / f"{self.split}-{self.number:05d}.json"


def build(
    source: Source,
    out: Path,
    options: BuildOptions,
    executor: Executor,
    advance: Callable[..., None] = lambda photos, fresh=True: None,
) -> tuple[ShardSet, int]:
    """Build what is missing of a shard set; where nothing is missing, do nothing.

    Args:
        advance: called with the number of photos done; with fresh=False for those of an earlier run.
    Returns:
        The finished set, and how many photos were read for it this time.
    Raises:
        UsageError: `out` holds something else, or another build.
        ShardError: another process is building there, or a worker died.
        SourceError: not one photo could be read.
    """
    with locked(out):
        jobs = _jobs(source, out, options)
        job_key = {"source": {"kind": source.kind, "fingerprint": source.fingerprint()}, "options": asdict(options)}
        receipts = _start_or_go_on(out, job_key, jobs)
        done = {path for path, receipt in receipts.items() if _is_there(out / path, receipt)}
        waiting = [job for job in jobs if job.path not in done]
        if done:
            advance(sum(len(job.photos) for job in jobs if job.path in done), fresh=False)
        if not waiting and (out / MANIFEST).exists():
            shutil.rmtree(out / ".build", ignore_errors=True)
            return open_shard_set(out), 0
        try:
            futures = {executor.submit(build_shard, job): job for job in waiting}
            for future in as_completed(futures):
                receipts[futures[future].path] = future.result()
                advance(len(futures[future].photos))
        except BrokenExecutor as error:  # a worker was killed, as a rule by the kernel when memory is short
            raise ShardError(
                f"{out}: a worker process died ({error})",
                "run the same command again, it goes on where it stopped; with fewer --workers if memory was short",
            ) from None
        shard_set = _finish(source, out, options, job_key, {job.path: receipts[job.path] for job in jobs})
        return shard_set, sum(len(job.photos) for job in waiting)


def build_shard(job: ShardJob) -> dict:
    """Build one shard and its CSV, then leave the receipt; runs in any process.

    Returns:
        The receipt: records, bytes, sha256 and the rejected photos with their reasons.
    """
    rows: list[tuple] = []
    rejected: list[tuple[str, str]] = []
    written = write_shard(job.out / job.path, _values(job, rows, rejected))
    write_csv(
        (job.out / job.path).with_suffix(".csv"), ("key", "label", "source_path", "source_width", "source_height"), rows
    )
    receipt = {**asdict(written), "rejected": rejected}
    write_json(job.receipt, receipt)
    return receipt


def _values(job: ShardJob, rows: list, rejected: list) -> Iterator[bytes]:
    options = job.options
    for photo in job.photos:
        try:
            picture = prepare(
                (job.root / photo.path).read_bytes(),
                size=options.size,
                fit=options.fit,
                encoding=options.encoding,
                quality=options.quality,
            )
        except PhotoError as error:
            rejected.append((photo.path, str(error)))
        except OSError as error:
            rejected.append((photo.path, error.strerror or str(error)))
        else:
            rows.append((key(len(rows)).decode(), photo.label, photo.path, picture.source_width, picture.source_height))
            yield encode(
                picture.data,
                height=picture.height,
                width=picture.width,
                label=photo.label,
                encoded=options.encoding == "jpeg",
            )


def _jobs(source: Source, out: Path, options: BuildOptions) -> list[ShardJob]:
    jobs = []
    for split, photos in source.splits.items():
        each = options.shard_records or min(SHARD_RECORDS, max(SMALLEST_SHARD, -(-len(photos) // FEWEST_SHARDS)))
        order = permutation(len(photos), options.seed, purpose=BUILD)
        for number, start in enumerate(range(0, len(photos), each)):
            chosen = tuple(photos[k] for k in order[start : start + each])
            jobs.append(ShardJob(source.root, out, split, number, chosen, options))
    return jobs


def _start_or_go_on(out: Path, job_key: dict, jobs: list[ShardJob]) -> dict[str, dict]:
    """The receipts of the shards that are built, by path; starts the build where there is none."""
    record = out / (MANIFEST if (out / MANIFEST).exists() else ".build")
    try:
        return _of_a_finished_set(out, job_key, jobs) if record.name == MANIFEST else _of_a_build(out, job_key, jobs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(
            f"{record}: damaged: {type(error).__name__} {error}", "remove the folder, or choose another --out"
        ) from None


def _of_a_finished_set(out: Path, job_key: dict, jobs: list[ShardJob]) -> dict[str, dict]:
    """The receipts as dataset.json and rejected.csv have them; the photos and options are known to be the same."""
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    there = {"source": {name: manifest["source"][name] for name in job_key["source"]}}
    there["options"] = {name: manifest[name] for name in job_key["options"]}
    _compare(out, there, job_key)
    if not (out / "rejected.csv").exists():
        raise ShardError(f"{out}: rejected.csv is gone", "remove the folder and build again")
    reasons = dict(read_csv(out / "rejected.csv"))
    shards = {shard["path"]: shard for split in manifest["splits"].values() for shard in split["shards"]}
    (out / ".build").mkdir(exist_ok=True)
    return {
        job.path: {
            **asdict(_file(shards[job.path])),
            "rejected": [(p.path, reasons[p.path]) for p in job.photos if p.path in reasons],
        }
        for job in jobs
    }


def _of_a_build(out: Path, job_key: dict, jobs: list[ShardJob]) -> dict[str, dict]:
    """The receipts that a stopped build left; writes down what is being built where nothing is there yet."""
    started = out / ".build" / "job.json"
    if started.exists():
        _compare(out, json.loads(started.read_text()), job_key)
    else:
        if any(entry.name != ".build" for entry in out.iterdir()):
            raise UsageError(f"{out}: holds something that is not a shard set", "choose an empty folder with --out")
        started.parent.mkdir(exist_ok=True)
        write_json(started, job_key)
    receipts = {job.path: json.loads(job.receipt.read_text()) for job in jobs if job.receipt.exists()}
    return {path: {**asdict(_file(one)), "rejected": list(one["rejected"])} for path, one in receipts.items()}


def _compare(out: Path, there: dict, wanted: dict) -> None:
    if there == wanted:
        return
    differences = [
        f"{name} {there['options'].get(name)} there, {value} now"
        for name, value in wanted["options"].items()
        if there["options"].get(name) != value
    ]
    if there["source"] != wanted["source"]:
        differences.append("the photos, or their split, are others")
    raise UsageError(
        f"{out}: holds another build: {'; '.join(differences)}", "choose another --out, or remove that folder"
    )


def _finish(source: Source, out: Path, options: BuildOptions, job_key: dict, receipts: dict[str, dict]) -> ShardSet:
    rejected = sorted(tuple(pair) for receipt in receipts.values() for pair in receipt["rejected"])
    splits = {}
    for split in source.splits:
        shards = [
            {"path": path, **asdict(_file(receipt))}
            for path, receipt in receipts.items()
            if path.startswith(f"{split}/")
        ]
        splits[split] = {"records": sum(shard["records"] for shard in shards), "shards": shards}
    if not any(split["records"] for split in splits.values()):
        for made in (out / ".build", *(out / split for split in splits)):
            shutil.rmtree(made, ignore_errors=True)
        examples = "; ".join([f"{path}: {reason}" for path, reason in rejected[:3]] + ["..."] * (len(rejected) > 3))
        raise SourceError(
            f"{source.root}: none of {len(rejected):,} photos could be read ({examples})",
            "look at these files: are they photos?",
        )
    write_csv(out / "rejected.csv", ("source_path", "reason"), rejected)
    write_json(
        out / MANIFEST,
        {
            "format": FORMAT,
            "version": VERSION,
            **asdict(options),
            "resampling": "area (shrinking), cubic (enlarging)",
            "classes": [{"name": name} for name in source.classes],
            "label_order": "sorted class names",
            "splits": splits,
            "rejected": len(rejected),
            "source": {**job_key["source"], "path": str(source.root.resolve())},
            "versions": _versions(),
        },
    )
    shutil.rmtree(out / ".build", ignore_errors=True)
    return open_shard_set(out)


def _versions() -> dict[str, str]:
    """Of what makes the bytes; a package that came under another name is left out."""
    versions = {}
    for name in ("alexnet-dali", "lmdb", "numpy", "opencv-python-headless", "pillow", "simplejpeg"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _is_there(folder: Path, receipt: dict) -> bool:
    return is_complete(folder, _file(receipt)) and folder.with_suffix(".csv").exists()


def _file(entry: dict) -> ShardFile:
    return ShardFile(entry["records"], entry["bytes"], entry["sha256"])
