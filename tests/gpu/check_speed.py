"""The speed of a training step on a GPU: on a batch that stays, and streamed; what it consists of; what it promises."""

import cProfile
import math
import pstats
from collections import Counter
from collections.abc import Iterator
from itertools import islice, product, repeat
from time import perf_counter
from typing import Any

import tiny
import torch
from alexnet_dali.model.training.trainer import Trainer
from alexnet_dali.pipeline.shards.manifest import ShardSet
from alexnet_dali.pipeline.stream.autotune import DALI, THREADS
from alexnet_dali.pipeline.stream.stall import StallMeter
from alexnet_dali.pipeline.stream.stream import Batch
from alexnet_dali.tools.bench.train_cases import Case, Steps, make
from check_net import first_batch
from gpu_setting import Setting, has_dali
from predict import EPOCHS, IMAGENET, flops_of_a_picture

RATE = 1e-5  # so small that hundreds of steps on one batch stay finite
SIDE = 8192  # of the matrices whose product shows the card's peak


def speed(setting: Setting) -> None:
    """11. Images a second of a step in bf16, resident and streamed; its kernels, its host time, ImageNet's hours."""
    shard_set, _ = setting.shards("speed/jpeg", classes=setting.size(1000, 10))
    peak = matrix_peak(setting)
    setting.record(**{"matrix peak": {"TFLOP/s": round(peak / 1e12, 2)}})
    host(setting, shard_set)
    kept = []
    for batch_size in (setting.size(1024, 8), setting.size(128, 4)):
        trainer = trainer_for(setting, shard_set, batch_size)
        resident = resident_batch(trainer)
        own = Loop(setting, trainer, repeat(resident))
        figures = own.figures | {
            "share of the matrix peak": round(own.rate * flops_of_a_picture() / peak, 3),
            "hours of 90 epochs of ImageNet": round(EPOCHS * IMAGENET / own.rate / 3600, 2),
        }
        setting.record(**{f"resident {batch_size}": figures})
        without = Loop(setting, trainer_for(setting, shard_set, batch_size, recipe="no-lrn"), repeat(resident))
        share = 100 * (1 - own.rate / without.rate)
        setting.record(**{f"normalisation's share {batch_size}, percent": round(share, 1)})
        for encoding, decode in product(("raw", "jpeg"), (THREADS, DALI)) if has_dali() else ():
            name = f"{encoding} {decode} {batch_size}"
            setting.record(**{name: streamed(setting, trainer, encoding, decode, own.rate)})
        if not has_dali():
            setting.record(streamed="skipped: no DALI")
        kept.append((batch_size, trainer, resident))
    for batch_size, trainer, resident in kept if setting.on_gpu and setting.large else ():
        # Last, because a failed capture may spoil what follows.
        setting.record(**{f"CUDA graph {batch_size}": captured(setting, trainer, resident)})


def matrix_peak(setting: Setting) -> float:
    """Return the operations a second of a product of random matrices in bf16."""
    side = setting.size(SIDE, 256)
    one, other = (torch.randn(side, side, device=setting.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / (setting.milliseconds(lambda: one @ other, 10) / 1000)


def trainer_for(setting: Setting, shard_set: ShardSet, batch_size: int, **changes: Any) -> Trainer:
    """Make a trainer of the program's net in bf16."""
    options = {"batch_size": batch_size, "precision": "bf16", "device": str(setting.device), "rate": RATE}
    return tiny.trainer_of(shard_set, setting.scratch / "run", **options, **changes)


def resident_batch(trainer: Trainer) -> Batch:
    """Return a batch as the run's stream gives it."""
    if not has_dali():
        return first_batch(trainer, trainer.device)
    with trainer._stream(lambda line: None) as stream:
        return next(stream)


class Loop:
    """The trainer's step, over and over.

    Attributes:
        rate: images a second.
        figures: for the report.
    """

    def __init__(self, setting: Setting, trainer: Trainer, batches: Iterator[Batch], steps: int = 0):
        batch_size = trainer.config.batch_size
        warm, steps = setting.size(10, 1), steps or setting.size(max(60, 25600 // batch_size), 2)
        meter = StallMeter(batches, device=setting.device)
        for _ in islice(self._trained(trainer, meter), warm):
            pass
        setting.synchronize()
        meter.lap()
        began = perf_counter()
        for _ in islice(self._trained(trainer, meter), steps):
            pass
        queued = perf_counter() - began
        setting.synchronize()
        seconds = perf_counter() - began
        loss = trainer.state.window.mean_loss
        assert math.isfinite(loss), f"the loss is {loss}: the rate means nothing"
        self.rate = steps * batch_size / seconds
        self.stall = meter.lap().stall_percent
        self.figures = {
            "images_per_second": round(self.rate),
            "ms a step": round(1000 * seconds / steps, 3),
            "ms until queued": round(1000 * queued / steps, 3),
        }

    def _trained(self, trainer: Trainer, meter: StallMeter[Batch]) -> Iterator[None]:
        for decoded in meter:
            batch = trainer.work.batch(decoded)
            loss, wrong = trainer._update(batch)
            trainer.state.window.add(loss, wrong, len(batch.labels))
            yield


def streamed(setting: Setting, trainer: Trainer, encoding: str, decode: str, resident: float) -> dict[str, Any]:
    """Measure the stream alone, then the step on it."""
    trainer.shard_set, trainer.stats = setting.shards(f"speed/{encoding}", len(trainer.shard_set.classes))
    trainer.state.decode = decode
    batch_size, count = trainer.config.batch_size, setting.size(max(20, 10240 // trainer.config.batch_size), 2)
    with trainer._stream(lambda line: None) as stream:
        for _ in islice(stream, setting.size(5, 1)):
            pass
        setting.synchronize()
        began = perf_counter()
        for _ in islice(stream, count):
            pass
        setting.synchronize()
        alone = count * batch_size / (perf_counter() - began)
        loop = Loop(setting, trainer, stream)
    slower = min(alone, resident)
    return loop.figures | {
        "stall percent": round(loop.stall, 2),
        "of resident": round(loop.rate / resident, 3),
        "stream alone": round(alone),
        "of the slower": round(loop.rate / slower, 3),
        "slower": "stream" if alone < resident else "step",
    }


def captured(setting: Setting, trainer: Trainer, resident: Batch) -> dict[str, Any] | str:
    """Measure the step as one CUDA graph; returns the error if it cannot be captured."""
    steps = setting.size(max(60, 25600 // len(resident.labels)), 1)
    try:
        net, optimizer = make("source2012", len(trainer.shard_set.classes), trainer.stats, setting.device)
        case = Case("source2012", "bf16", "graph")
        work = Steps(case, net, optimizer, repeat(resident), steps, setting.device)
        work()
        began = perf_counter()
        work()
        return {"images_per_second": round(steps * len(resident.labels) / (perf_counter() - began))}
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def host(setting: Setting, shard_set: ShardSet) -> None:
    """Measure what the host does in a step: with two pictures the GPU has next to nothing to do."""
    trainer = trainer_for(setting, shard_set, 2)
    resident = resident_batch(trainer)
    steps = setting.size(50, 2)
    loop = Loop(setting, trainer, repeat(resident), steps)
    profile = cProfile.Profile()
    profile.enable()
    Loop(setting, trainer, repeat(resident), steps)
    profile.disable()
    table = pstats.Stats(profile)
    rows = sorted(table.stats.items(), key=lambda row: -row[1][2])[:12]  # by the time of the function alone
    setting.record(
        **{
            "host ms a step": loop.figures["ms until queued"],
            "host profile, ms a step": {
                f"{file.rpartition('/')[2]}:{line} {name}": round(1000 * own / (steps + setting.size(10, 1)), 3)
                for (file, line, name), (_, _, own, _, _) in rows
            },
        }
    )
    kernels = setting.kernels(lambda: trainer._update(resident))
    by_name: Counter[str] = Counter()
    for name, milliseconds in kernels.items():
        by_name[name.partition(" ")[2][:70]] += milliseconds or 1
    setting.record(kernels=len(kernels), **{"longest kernels, ms": dict(by_name.most_common(12))})
