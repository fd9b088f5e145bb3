"""Checks of the stream on a GPU: its pixels, the life of its batches, where a JPEG is decoded, the stall meter."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle, islice, product
from unittest import mock

import numpy as np
import torch
from alexnet_dali.pipeline.plan.lighting import Lighting
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.plan.resized_crop import ResizedCrop
from alexnet_dali.pipeline.shards.manifest import ShardSet
from alexnet_dali.pipeline.shards.stats import Stats
from alexnet_dali.pipeline.stream.autotune import DALI, THREADS
from alexnet_dali.pipeline.stream.dali_graph import train_graph
from alexnet_dali.pipeline.stream.dali_ops import DTYPES, LAYOUTS, Pictures
from alexnet_dali.pipeline.stream.record_reader import RecordReader
from alexnet_dali.pipeline.stream.stall import StallMeter
from alexnet_dali.pipeline.stream.stream import Stream
from alexnet_dali.pipeline.stream.streams import train_stream, views_stream
from alexnet_dali.pipeline.workers import available_cores
from gpu_setting import Setting, agree, need_dali
from torch import Tensor

BATCH = 16  # of 60 records to train on and 20 to validate with, so that a pass ends with a short batch
KINDS = ("windows", "resized crops", "one view", "ten views")
EXACT = 1e-4  # grey levels: rounding of float32 on numbers of up to 255
POINTS = 2.0  # of the stall, in percent
MEAN, GREATEST = 1.0, 16.0  # grey levels between the decoders of GPU and CPU


def opened(kind: str, shard_set: ShardSet, stats: Stats, **options) -> tuple[Stream, int]:
    """Open a stream of one kind of graph; returns it, and its batches in an epoch or a pass."""
    if kind in ("windows", "resized crops"):
        resized = ResizedCrop() if kind == "resized crops" else None
        augmentation = Augmentation(shared=1, resized=resized)
        plan = Plan(shard_set.split("train").records, BATCH, 3, shard_set.size, augmentation)
        mean = "rgb" if resized else "image"
        return train_stream(shard_set, stats, plan, light=Lighting(), mean=mean, **options), plan.steps
    views = 10 if kind == "ten views" else 1
    return views_stream(shard_set, stats, "val", views=views, batch_size=BATCH, **options), 2


def taken(kind: str, shard_set: ShardSet, stats: Stats, **options) -> list[Tensor]:
    """Return the pictures of an epoch, or of a pass over `val`, on the CPU."""
    stream, count = opened(kind, shard_set, stats, **options)
    with stream:
        batches = [batch.images.cpu() for batch in islice(stream, count)]
    sizes = [len(batch) for batch in batches]
    assert sizes == ([16, 4] if "view" in kind else [16, 16, 16]), f"{kind}: batches of {sizes}"
    return batches


def pixels(setting: Setting) -> None:
    """1. Every kind of graph, decoder, dtype and layout gives the pictures of the CPU's stream."""
    need_dali()
    failures: list[str] = []
    worst = dict.fromkeys([*(f"threads {dtype}" for dtype in DTYPES), "dali mean", "dali greatest"], 0.0)
    streams = 0
    for name in ("jpeg",) if setting.reduced else ("jpeg", "raw", "whole"):
        shard_set, stats = setting.shards(f"correct/{name}")
        formats = list(product(DTYPES, LAYOUTS))  # not all of them with every set
        if setting.reduced or name != "jpeg":
            formats = [formats[0], formats[-1]]
        elif not setting.on_gpu:
            formats = formats[::2]
        for kind in KINDS:
            expected = {
                dtype: taken(kind, shard_set, stats, decode=THREADS, dtype=dtype) for dtype in ("float32", "uint8")
            }
            for decode, (dtype, layout) in product((THREADS, DALI), formats):
                options = {"decode": decode, "dtype": dtype, "layout": layout}
                found = taken(kind, shard_set, stats, device=setting.device, **options)
                streams += 1
                same_decoder = decode == THREADS or (name == "raw" and kind != "resized crops")
                wanted = expected["uint8" if dtype == "uint8" else "float32"]
                judge = exactly if same_decoder else nearly
                for reason in judge(found, wanted, dtype, worst):
                    failures.append(f"{name}, {kind}, {decode}, {dtype}, {layout}: {reason}")
        setting.record(streams=streams, **{key: round(value, 6) for key, value in worst.items()})
    agree(failures)


def exactly(found: list[Tensor], wanted: list[Tensor], dtype: str, worst: dict[str, float]) -> Iterator[str]:
    """Compare pictures of the same pixels: equal but for the rounding of the dtype; say what is not."""
    for one, other in zip(found, wanted, strict=True):
        if one.dtype != getattr(torch, dtype):
            yield f"pictures of {one.dtype}"
        away = (one.float() - other.float()).abs()
        if dtype == "float16":  # in rounding steps: the distance between neighbours of that size
            away = away / torch.exp2(torch.frexp(other.abs().clamp_min(2**-14))[1] - 11)
        limit = {"uint8": 0.0, "float16": 1.0}.get(dtype, EXACT)
        worst[f"threads {dtype}"] = max(worst[f"threads {dtype}"], float(away.max()))
        if not float(away.max()) <= limit:
            yield f"{int((away > limit).sum()):,} of {away.numel():,} values differ, by up to {float(away.max()):g}"


def nearly(found: list[Tensor], wanted: list[Tensor], dtype: str, worst: dict[str, float]) -> Iterator[str]:
    """Compare pictures of two decoders: a grey level on average, sixteen at most; say where it is more."""
    for one, other in zip(found, wanted, strict=True):
        away = (one.float() - other.float()).abs()
        mean, greatest = float(away.mean()), float(away.max())
        for name, value in (("dali mean", mean), ("dali greatest", greatest)):
            worst[name] = max(worst[name], value)
        if not (mean <= MEAN and greatest <= GREATEST):
            yield f"decoders differ by {mean:.2f} grey levels on average and {greatest:.0f} at most"


def lifetime(setting: Setting) -> None:
    """2. A batch keeps its pictures until the GPU has read them, however late, also after the stream is closed."""
    need_dali()
    shard_set, stats = setting.shards("correct/jpeg")
    count = setting.size(300, 12)
    failures = []
    for decode, dtype in ((THREADS, "uint8"), (THREADS, "float32"), (DALI, "uint8")):
        options = {"decode": decode, "dtype": dtype}
        # The GPU's own decoder has no twin on the CPU: there the reference is read batch by batch.
        device = setting.device if decode == DALI else torch.device("cpu")
        stream = endless(shard_set, stats, device=device, **options)
        weights = (torch.arange(3 * 224 * 224, device=device) % 251 + 1).to(torch.float64)
        with stream:
            expected = []
            for batch in islice(stream, count):
                expected.append(weighted(batch.images, weights).cpu())
        found, late = late_sums(setting, endless(shard_set, stats, device=setting.device, **options), count)
        tolerance = 0.0 if dtype == "uint8" else EXACT * float(weights.sum())
        wrong = [k for k in range(count) if not float((found[k].cpu() - expected[k]).abs().max()) <= tolerance]
        setting.record(**{f"{decode} {dtype}": {"batches": count, "read after close": late, "wrong": len(wrong)}})
        if wrong:
            failures.append(f"{decode}, {dtype}: other pictures in {len(wrong)} of {count} batches, first {wrong[0]}")
    agree(failures)


def endless(shard_set: ShardSet, stats: Stats, **options) -> Stream:
    """Open a stream of training windows."""
    plan = Plan(shard_set.split("train").records, BATCH, 3, shard_set.size, Augmentation(shared=1))
    return train_stream(shard_set, stats, plan, **options)


def weighted(images: Tensor, weights: Tensor) -> Tensor:
    """Return for each picture a sum in which every place has its own weight, float64 (n,); exact for uint8."""
    return images.flatten(1).to(torch.float64) @ weights


def late_sums(setting: Setting, stream: Stream, count: int) -> tuple[dict[int, Tensor], int]:
    """Sum batches behind a kernel that keeps the GPU busy, some on another CUDA stream, some after closing."""
    weights = (torch.arange(3 * 224 * 224, device=setting.device) % 251 + 1).to(torch.float64)
    found: dict[int, Tensor] = {}
    kept: dict[int, Tensor] = {}
    setting.synchronize()
    with stream:
        for k, batch in enumerate(islice(stream, count)):
            setting.busy(setting.size(2.0, 0.1))
            if k % 25 == 10:
                kept[k] = batch.images
            elif k == count // 2 and setting.on_gpu:
                found[k] = on_another_stream(setting, batch.images, weights)
            else:
                found[k] = weighted(batch.images, weights)
            del batch  # the host has forgotten it before the GPU has read it
    shard_set, stats = setting.shards("correct/jpeg")
    with endless(shard_set, stats, device=setting.device, decode=THREADS) as other:  # uses memory that is free by now
        for _ in islice(other, 8):
            pass
    for k, images in kept.items():
        found[k] = weighted(images, weights)
    setting.synchronize()
    return found, len(kept)


def on_another_stream(setting: Setting, images: Tensor, weights: Tensor) -> Tensor:
    """Sum a batch on a CUDA stream of its own, with which the current one waits before the batch is dropped."""
    current, other = torch.cuda.current_stream(setting.device), torch.cuda.Stream(setting.device)
    other.wait_stream(current)
    with torch.cuda.stream(other):
        setting.busy(5.0)
        total = weighted(images, weights)
    current.wait_stream(other)
    total.record_stream(current)
    return total


def decoder_place(setting: Setting) -> None:
    """3. A JPEG's pixels do not depend on its place in the batch; images a second by the share of the JPEG engine."""
    need_dali()
    shard_set, _ = setting.shards("speed/jpeg")
    batch, places = setting.size(256, 16), setting.size(16, 4)
    with closing(RecordReader(shard_set, "train")) as reader:
        records = [np.array(data) for data in reader.read(np.arange(batch)).data]
    shifts = [k * batch // places for k in range(places)]
    distinct: dict[float, int] = {}
    for load in (0.0, 0.65, 1.0):
        found = Decoded(setting, [records[batch - shift :] + records[: batch - shift] for shift in shifts], load)
        results = {pictures[shift].tobytes() for pictures, shift in zip(found.pictures, shifts, strict=True)}
        distinct[load] = len(results)
        setting.record(**{f"load {load:g}": {"results": len(results), "images_per_second": found.rate}})
    own = found.own_load
    setting.record(**{"the stream's load": own})
    assert own in distinct, f"the stream's hw_decoder_load is {own}: measure it here too"
    assert distinct[own] == 1, f"one JPEG has {distinct[own]} results by its place, with the stream's load of {own:g}"


class Decoded:
    """Batches of JPEG files, decoded by the stream's own graph with a load of the JPEG engine.

    Attributes:
        pictures: of each batch, uint8 (n, 256, 256, 3), on the CPU.
        rate: images a second over several rounds.
        own_load: what the stream itself asks for; DALI's default is 0.65.
    """

    def __init__(self, setting: Setting, batches: list[list[np.ndarray]], load: float):
        from nvidia.dali import fn

        decode, self.own_load = fn.decoders.image, 0.65

        def with_load(*inputs, **options):
            self.own_load = options.get("hw_decoder_load", self.own_load)
            if setting.on_gpu:
                options["hw_decoder_load"] = load
            return decode(*inputs, **options)

        count = len(batches[0])
        places = [np.zeros(count, np.float32), np.zeros(count, np.float32), np.zeros(count, np.int32)]
        feed = cycle(batches)
        whole = Pictures(True, 256, True, 256, np.zeros(3), None)
        device = (setting.device.index or 0) if setting.on_gpu else None
        with mock.patch.object(fn.decoders, "image", with_load):
            pipeline = train_graph(
                lambda: [next(feed), *places], whole, count, device, available_cores(), dtype="uint8"
            )
        self.pictures = [torch.from_dlpack(pipeline.run()[0].as_tensor()).cpu().numpy() for _ in batches]
        rounds, began = setting.size(4, 1), time.perf_counter()
        for _ in range(rounds * len(batches)):
            output = pipeline.run()
        torch.from_dlpack(output[0].as_tensor()).cpu()
        self.rate = round(rounds * len(batches) * count / (time.perf_counter() - began))


def meter(setting: Setting) -> None:
    """10. The stall meter shows the share that a sleeping loader costs, within two points."""
    steps, kernel = setting.size(60, 20), 10.0
    failures = []
    setting.busy(kernel)
    for milliseconds in (0.0, 5.0, 20.0):
        slept: list[float] = []
        busy: list[Callable[[], float]] = []
        measured = StallMeter(sleeping(milliseconds, steps + 1, slept), device=setting.device)
        for _ in measured:
            busy.append(setting.timed(lambda: setting.busy(kernel)))
        stall = measured.total().stall_percent
        steps_took = [each() for each in busy]
        hidden = float(np.mean(steps_took)) if setting.on_gpu else 0.0  # the host fetches while the GPU computes
        waits = sum(max(0.0, wait - hidden) for wait in slept[1:])  # the first fetch is start-up
        expected = 100 * waits / (waits + sum(steps_took))
        setting.record(**{f"{milliseconds:g} ms": {"stall": round(stall, 2), "expected": round(expected, 2)}})
        if not math.isclose(stall, expected, abs_tol=POINTS):
            failures.append(f"a loader of {milliseconds:g} ms: stall {stall:.1f}%, expected {expected:.1f}%")
    agree(failures)


def sleeping(milliseconds: float, count: int, slept: list[float]) -> Iterator[int]:
    """Yield numbers, each after a sleep whose true length is noted, in milliseconds."""
    for k in range(count):
        began = time.perf_counter()
        if milliseconds:
            time.sleep(milliseconds / 1000)
        slept.append(1000 * (time.perf_counter() - began))
        yield k
