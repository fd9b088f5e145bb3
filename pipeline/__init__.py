# ruff: noqa: F401
"""From photos to batches. Import the public names from here: `from alexnet_dali.pipeline import TrainLoader, ...`

The wings, in the order of the data; a wing imports only what stands in the second column before it:

    sources/    plan, shards             photos as people keep them: class folders, archives, tables, lists
    prepare/    plan, shards, sources    photos to shards: decode, resize, write            alexnet-prep build-lmdb
    shards/     plan                     the shard set on disk: read, measure, check, copy, export   alexnet-prep ...
    plan/                                the epoch as a pure function: order and augmentation draws
    stream/     all of them              shards to batches: read, decode, DALI graph, torch tensors, stall meter

Below all wings:

    errors.py      what can go wrong: a message and a hint
    csv_files.py   CSV files row by row
    files.py       atomic writes, locks, errors that name their file
    workers.py     a pool of worker processes
    versions.py    versions of installed packages
    compiled.py    the compiled parts, C called through ctypes
    front_door.py  the lazy names of this package

Nothing before stream/ imports DALI or torch, and nothing here imports model or tools. Copied into another project as
a package of any name, this folder works alone.
"""

from typing import TYPE_CHECKING

from .front_door import OldModule, offer

_NAMES = {
    "errors": (
        "AlexnetError DeviceError PlanError ShardError SourceError StatsError StreamError TrainingError UsageError"
    ),
    "files": "NotWrittenError",
    "workers": "worker_pool",
    "plan.lighting": "Lighting lighting_offsets",
    "plan.plan": "Augmentation BatchPlan Plan",
    "plan.resized_crop": "ResizedCrop",
    "plan.views": "views_of",
    "shards.manifest": "ShardSet Split open_shard_set",
    "shards.stats": "Stats load_stats measure_stats save_stats",
    "shards.verify": "verify_shards",
    "shards.stage": "stage_shards",
    "shards.export": "export_shards",
    "sources.find": "PhotoSource find_photos",
    "prepare.options": "BuildOptions",
    "prepare.build": "build_shards",
    "stream.stream": "Batch Stream",
    "stream.streams": "train_stream views_stream",
    "stream.loaders": "EpochSampler EvalLoader TrainLoader",
    "stream.dataset": "ShardDataset",
    "stream.stall": "StallMeter",
}
_OLD = {  # plan, now a wing, has its old names in its own __init__
    "batches": OldModule(("stream.loaders",), {"TestLoader": "EvalLoader"}),
    "dataset": OldModule(("stream.dataset",)),
    "loader": OldModule(("stream.streams", "plan.lighting", "stream.stream", "shards.stats"), {"Light": "Lighting"}),
    "resized": OldModule(("plan.resized_crop",)),
    "shardset": OldModule(("shards.manifest",), {"described": "read_manifest"}),
    "stall": OldModule(("stream.stall",), {"Lap": "Elapsed"}),
    "stats": OldModule(
        ("shards.stats", "plan.lighting", "shards.datum"),
        {"load": "load_stats", "measure": "measure_stats", "save": "save_stats"},
    ),
}
__getattr__, __dir__, __all__ = offer(__name__, _NAMES, _OLD)

if TYPE_CHECKING:  # the same names, for type checkers and editors; tests/test_house.py compares them
    from .errors import (
        AlexnetError,
        DeviceError,
        PlanError,
        ShardError,
        SourceError,
        StatsError,
        StreamError,
        TrainingError,
        UsageError,
    )
    from .files import NotWrittenError
    from .plan.lighting import Lighting, lighting_offsets
    from .plan.plan import Augmentation, BatchPlan, Plan
    from .plan.resized_crop import ResizedCrop
    from .plan.views import views_of
    from .prepare.build import build_shards
    from .prepare.options import BuildOptions
    from .shards.export import export_shards
    from .shards.manifest import ShardSet, Split, open_shard_set
    from .shards.stage import stage_shards
    from .shards.stats import Stats, load_stats, measure_stats, save_stats
    from .shards.verify import verify_shards
    from .sources.find import PhotoSource, find_photos
    from .stream.dataset import ShardDataset
    from .stream.loaders import EpochSampler, EvalLoader, TrainLoader
    from .stream.stall import StallMeter
    from .stream.stream import Batch, Stream
    from .stream.streams import train_stream, views_stream
    from .workers import worker_pool
