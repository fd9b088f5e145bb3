"""What `alexnet-bench loader` measures: every case's name, its form of the crops, what it gives and what it needs.

In:  the folder of forms (loader_sets.py).  Out: loaders, each an iterable of batches; ours, DALI's own reader and the
limit are here, other people's in rivals.py. All cut a random 224x224 window and flip half of the pictures; `f32` less
the mean RGB, float32 (n, 3, 224, 224) of -255..255; `u8` as they are, uint8. Whether the channels lie last in memory
is each loader's own choice.
"""

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ....pipeline.shards.manifest import ShardSet, open_shard_set
from ....pipeline.stream.record_reader import RecordReader
from .data import SPLIT

CROP = 224


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: as scripts rely on it.
        form: `jpeg` or `raw`, what is stored.
        output: `f32`, `u8`, or nothing: the limit decodes and that is all.
        make: `module:function` of this package, from a Job to an iterable of batches.
        files: the form on disk that it reads; the same as `form` where its own program writes one from that.
        module: what must be importable, and `package`: what pip calls that.
    """

    name: str
    form: str
    output: str
    make: str
    files: str = ""
    module: str = ""
    package: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether it is this project's."""
        return self.name.startswith("ours-")

    @property
    def is_installed(self) -> bool:
        """Whether it can be measured here."""
        return not self.module or importlib.util.find_spec(self.module) is not None

    def loader(self, job: "Job") -> Iterable[Any]:
        """Make it, in the process in which it is measured."""
        module, name = self.make.split(":")
        return getattr(importlib.import_module(f".{module}", __package__), name)(job)


@dataclass(frozen=True)
class Job:
    """A case, the folder of forms, images a batch, how many threads or processes may work, and who decodes in ours."""

    case: Case
    folder: Path
    batch_size: int
    workers: int
    decode: str = "auto"

    def crops(self) -> ShardSet:
        """Our shard set of the case's form."""
        return open_shard_set(self.folder / self.case.form)

    def mean(self) -> np.ndarray:
        """What is subtracted: float64 (3,), RGB, 0..255."""
        from ....pipeline.shards import stats

        return stats.load_stats(self.crops()).mean_rgb


def _table() -> Iterator[Case]:
    for output in ("f32", "u8"):
        for form in ("jpeg", "raw"):
            yield Case(f"ours-{form}-{output}", form, output, "cases:ours")
    yield Case("native-caffe-f32", "jpeg", "f32", "cases:native_caffe")
    yield Case("torchvision-pil-f32", "jpeg", "f32", "competitors:torchvision_pil", files="files")
    yield Case("torchvision-decode-f32", "jpeg", "f32", "competitors:torchvision_decode", files="files")
    yield Case("webdataset-f32", "jpeg", "f32", "competitors:webdataset", "tars", "webdataset", "webdataset")
    yield Case("litdata-f32", "jpeg", "f32", "competitor_litdata:loader", "files", "litdata", "litdata")
    yield Case("streaming-f32", "jpeg", "f32", "competitor_streaming:loader", "jpeg", "streaming", "mosaicml-streaming")
    for output in ("f32", "u8"):
        for form in ("jpeg", "raw"):
            yield Case(f"ffcv-{form}-{output}", form, output, "competitor_ffcv:loader", form, "ffcv", "ffcv")
    yield Case("limit-decode", "jpeg", "", "cases:limit_decode")


CASES = {case.name: case for case in _table()}


def ours(job: Job) -> Iterable[Any]:
    """Our stream as a training loop has it, without the lighting, which the others do not do."""
    from ....pipeline.plan.lighting import Lighting
    from ....pipeline.plan.plan import Plan
    from ....pipeline.shards import stats
    from ....pipeline.stream.streams import train_stream

    crops = job.crops()
    return train_stream(
        crops,
        stats.load_stats(crops),
        Plan(crops.split(SPLIT).records, job.batch_size, size=crops.size),
        light=Lighting("none"),
        mean="rgb",
        dtype={"f32": "float32", "u8": "uint8"}[job.case.output],
        threads=job.workers,
        decode=job.decode,
    )


def native_caffe(job: Job) -> Iterator[Any]:
    """DALI's own Caffe reader over the same shards, then crop_mirror_normalize, as its documentation has it.

    Ours cuts bytes and has `fn.normalize` go over whole rows; behind this reader that is no faster (measured).

    Its shuffle is a buffer of 1,024 records, the default; shards are read from the first to the last.
    """
    import torch

    dali: Any = importlib.import_module("nvidia.dali")  # of whose operators and constants mypy knows nothing
    fn, types = dali.fn, dali.types
    crops = job.crops()

    @dali.pipeline_def(batch_size=job.batch_size, num_threads=job.workers, device_id=None, seed=1)
    def graph():
        data, label = fn.readers.caffe(
            path=[str(path) for path, _ in crops.split(SPLIT).shards], random_shuffle=True, name="caffe"
        )
        pictures = fn.decoders.image(data, device="cpu", output_type=types.RGB, adjust_orientation=False)
        windows = fn.crop_mirror_normalize(
            pictures,
            mean=job.mean().tolist(),
            std=[1.0] * 3,
            mirror=fn.random.coin_flip(),
            crop=(CROP, CROP),
            crop_pos_x=fn.random.uniform(range=(0.0, 1.0)),
            crop_pos_y=fn.random.uniform(range=(0.0, 1.0)),
            dtype=types.FLOAT,
            output_layout="HWC",
        )
        return windows, label

    pipeline = graph()
    pipeline.build()
    while True:  # it has no epochs
        windows, labels = pipeline.run()
        images = torch.from_dlpack(windows.as_tensor())  # without a copy, as ours
        yield images.permute(0, 3, 1, 2), torch.from_dlpack(labels.as_tensor())


def limit_decode(job: Job) -> Iterator[int]:
    """libjpeg-turbo alone, a process for each core, every record into the same memory: no loader decodes faster."""
    crops = job.crops()
    records = crops.split(SPLIT).records
    starts = [start % records for start in range(0, records * job.batch_size, job.batch_size)]
    jobs = [(crops.root, np.arange(start, start + job.batch_size) % records) for start in starts]
    with ProcessPoolExecutor(job.workers) as pool:
        ahead = [pool.submit(_decode, *jobs[k % len(jobs)]) for k in range(2 * job.workers)]
        number = len(ahead)
        while True:
            yield ahead.pop(0).result()
            ahead.append(pool.submit(_decode, *jobs[number % len(jobs)]))
            number += 1


def _decode(root: Path, records: np.ndarray) -> int:
    import simplejpeg

    feed, pixels = _opened(root)
    for payload in feed.read(records).data:
        simplejpeg.decode_jpeg(payload, colorspace="RGB", buffer=pixels)
    return len(records)


@lru_cache(maxsize=1)
def _opened(root: Path) -> tuple[RecordReader, np.ndarray]:
    """The set, opened once in each process, and the memory for a picture."""
    crops = open_shard_set(root)
    return RecordReader(crops, SPLIT), np.empty((crops.size, crops.size, 3), np.uint8)


def images_of(batch: Any) -> Any:
    """The pictures of a batch of ours, or of a pair of pictures and labels."""
    return batch.images if hasattr(batch, "images") else batch[0]
