"""The cases of `alexnet-bench loader`: names, input formats, outputs, requirements.

In:  the folder of crops that data.py writes.  Out: loaders, each an iterable of batches; ours, DALI's own reader and
the limit are here, the others in competitors.py. All crop a random 224x224 window and flip half of the pictures:
`f32`, minus the mean RGB, float32 (n, 3, 224, 224), -255..255; `u8`, unchanged, uint8 (n, 3, 224, 224), 0..255. The
memory layout, channels first or last, is each loader's choice. `light`, ours alone, is `f32` as it was trained on in
2012: minus the mean image, with the lighting noise.
The `photos` cases read original photos instead, and first shrink the short side to 256 pixels (photos.py).
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....pipeline.shards.manifest import ShardSet, open_shard_set
from ....pipeline.stream.record_reader import RecordReader
from .data import SPLIT

if TYPE_CHECKING:
    from ....pipeline.plan.lighting import Lighting

CROP = 224


@dataclass(frozen=True)
class Case:
    """One case, a row of the table.

    Attributes:
        name: scripts rely on it.
        form: stored format: `jpeg` or `raw` crops, or `photos` in their original sizes.
        output: `f32`, `u8`, or "" for the limit, which only decodes.
        make: `module:function` of this package, from a Job to an iterable of batches.
        files: the format on disk that it reads; `form` if its own writer converts that.
        module, package: the module that must be importable, and its name for pip.
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
        """Whether it is this project's loader."""
        return self.name.startswith("ours-")

    @property
    def is_installed(self) -> bool:
        """Whether its module is installed."""
        return not self.module or importlib.util.find_spec(self.module) is not None

    def loader(self, job: "Job") -> Iterable[Any]:
        """Make the loader, in the process that measures it."""
        module, name = self.make.split(":")
        return getattr(importlib.import_module(f".{module}", __package__), name)(job)


@dataclass(frozen=True)
class Job:
    """A case with its settings.

    Attributes:
        folder: of the crops in all formats.
        batch_size: images per batch.
        workers: threads or processes of the loader.
        decode: decoder of our cases.
    """

    case: Case
    folder: Path
    batch_size: int
    workers: int
    decode: str = "auto"

    def crops(self) -> ShardSet:
        """Open our shard set of the case's format."""
        return open_shard_set(self.folder / self.case.form)

    def mean(self) -> np.ndarray:
        """Return the mean colour that is subtracted: float64 (3,), RGB, 0..255."""
        from ....pipeline.shards import stats

        return stats.load_stats(self.crops()).mean_rgb


def _table() -> Iterator[Case]:
    for output in ("f32", "u8"):
        for form in ("jpeg", "raw"):
            yield Case(f"ours-{form}-{output}", form, output, "cases:ours")
    for form in ("jpeg", "raw"):
        yield Case(f"ours-{form}-light", form, "f32", "cases:ours_light")
    yield Case("native-caffe-f32", "jpeg", "f32", "cases:native_caffe")
    yield Case("torchvision-pil-f32", "jpeg", "f32", "competitors:torchvision_pil", files="files")
    yield Case("torchvision-decode-f32", "jpeg", "f32", "competitors:torchvision_decode", files="files")
    yield Case("torchcodec-f32", "jpeg", "f32", "competitors:torchcodec", "files", "torchcodec", "torchcodec")
    yield Case("spdl-f32", "jpeg", "f32", "competitor_spdl:loader", "files", "spdl", "spdl")
    yield Case("webdataset-f32", "jpeg", "f32", "competitors:webdataset", "tars", "webdataset", "webdataset")
    yield Case("litdata-f32", "jpeg", "f32", "competitor_litdata:loader", "files", "litdata", "litdata")
    yield Case("streaming-f32", "jpeg", "f32", "competitor_streaming:loader", "jpeg", "streaming", "mosaicml-streaming")
    yield Case("grain-f32", "jpeg", "f32", "competitor_grain:loader", "jpeg", "grain", "grain")
    yield Case("lance-f32", "jpeg", "f32", "competitor_lance:loader", "jpeg", "lance", "pylance")
    for output in ("f32", "u8"):
        for form in ("jpeg", "raw"):
            yield Case(f"ffcv-{form}-{output}", form, output, "competitor_ffcv:loader", form, "ffcv", "ffcv")
    yield Case("limit-decode", "jpeg", "", "cases:limit_decode")
    yield Case("ours-photos-f32", "photos", "f32", "cases:ours")
    yield Case("native-photos-f32", "photos", "f32", "photos:native")
    yield Case("torchvision-photos-f32", "photos", "f32", "photos:torchvision")
    yield Case("torchcodec-photos-f32", "photos", "f32", "photos:torchcodec", "", "torchcodec", "torchcodec")
    yield Case("spdl-photos-f32", "photos", "f32", "competitor_spdl:loader", "", "spdl", "spdl")


CASES = {case.name: case for case in _table()}


def ours(job: Job) -> Iterable[Any]:
    """Our training stream, without the lighting, which the other loaders lack."""
    from ....pipeline.plan.lighting import Lighting

    return _stream(job, Lighting("none"), "rgb")


def ours_light(job: Job) -> Iterable[Any]:
    """Our training stream with mean image and lighting, the defaults of training."""
    from ....pipeline.plan.lighting import Lighting

    return _stream(job, Lighting(), "image")


def _stream(job: Job, light: "Lighting", mean: str) -> Iterable[Any]:
    from ....pipeline.plan.plan import Plan
    from ....pipeline.shards import stats
    from ....pipeline.stream.streams import train_stream

    crops = job.crops()
    return train_stream(
        crops,
        stats.load_stats(crops),
        Plan(crops.split(SPLIT).records, job.batch_size, size=crops.size),
        light=light,
        mean=mean,
        dtype={"f32": "float32", "u8": "uint8"}[job.case.output],
        threads=job.workers,
        decode=job.decode,
    )


def native_caffe(job: Job) -> Iterator[Any]:
    """DALI's own Caffe reader over the same shards, then crop_mirror_normalize, as in its documentation.

    Our way, cropping bytes and normalising whole rows with `fn.normalize`, is not faster with this reader (measured).
    The shuffle is the default buffer of 1,024 records; shards are read in order.
    """
    dali: Any = importlib.import_module("nvidia.dali")  # mypy does not know its operators and constants
    shards = [str(path) for path, _ in job.crops().split(SPLIT).shards]

    def pictures() -> Any:
        data, label = dali.fn.readers.caffe(path=shards, random_shuffle=True, name="caffe")
        return dali.fn.decoders.image(data, device="cpu", output_type=dali.types.RGB, adjust_orientation=False), label

    return native_batches(job, pictures)


def native_batches(job: Job, pictures: Callable[[], Any]) -> Iterator[Any]:
    """Batches of DALI's own operators.

    Args:
        pictures: returns the graph's nodes of uint8 pictures (h, w, 3) and of labels.
    """
    import torch

    dali: Any = importlib.import_module("nvidia.dali")
    fn, types = dali.fn, dali.types

    @dali.pipeline_def(batch_size=job.batch_size, num_threads=job.workers, device_id=None, seed=1)
    def graph():
        whole, label = pictures()
        windows = fn.crop_mirror_normalize(
            whole,
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
    while True:  # without epochs
        windows, labels = pipeline.run()
        images = torch.from_dlpack(windows.as_tensor())  # no copy, as in ours
        yield images.permute(0, 3, 1, 2), torch.from_dlpack(labels.as_tensor())


def limit_decode(job: Job) -> Iterator[int]:
    """Only libjpeg-turbo, one process per worker, decoding into one buffer: an upper limit for all loaders."""
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

    reader, pixels = _opened(root)
    for payload in reader.read(records).data:
        simplejpeg.decode_jpeg(payload, colorspace="RGB", buffer=pixels)
    return len(records)


@lru_cache(maxsize=1)
def _opened(root: Path) -> tuple[RecordReader, np.ndarray]:
    """Open the set once per process, and allocate the buffer for a picture."""
    crops = open_shard_set(root)
    return RecordReader(crops, SPLIT), np.empty((crops.size, crops.size, 3), np.uint8)


def images_of(batch: Any) -> Any:
    """Return the images of one of our batches, or of a pair (images, labels)."""
    return batch.images if hasattr(batch, "images") else batch[0]
