"""The stream: every pixel against NumPy over what is stored; the same bits however it is cut; what ends it says why."""

import gc
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product

import numpy as np
import nvidia.dali
import oracle
import pytest
import stored
import torch
from alexnet_dali.pipeline.errors import DeviceError, PlanError, ShardError, StatsError, StreamError, UsageError
from alexnet_dali.pipeline.plan.lighting import Lighting
from alexnet_dali.pipeline.plan.plan import Augmentation, BatchPlan, Plan
from alexnet_dali.pipeline.plan.resized_crop import ResizedCrop, resized_windows
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.shards import datum, stats
from alexnet_dali.pipeline.shards.lmdb_shard import Shard
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.stream import autotune, dali_graph, finish
from alexnet_dali.pipeline.stream.autotune import DALI, DECODERS, FUSED, THREADS
from alexnet_dali.pipeline.stream.batch_source import DECODED, BatchSource
from alexnet_dali.pipeline.stream.buffers import Buffers
from alexnet_dali.pipeline.stream.decoder import Decoder, Decoding
from alexnet_dali.pipeline.stream.prefetch import ReadAhead
from alexnet_dali.pipeline.stream.record_reader import RecordReader
from alexnet_dali.pipeline.stream.stall import StageTimes
from alexnet_dali.pipeline.stream.stream import Stream
from alexnet_dali.pipeline.stream.streams import train_stream, views_stream
from simulated import Clock

GRAPHS = (THREADS, DALI)  # the decoders in front of a DALI graph
SMALL = Augmentation(crop=48)  # of 64x64 pictures: a tenth of the time, for what is not about pixels


def assert_close(found, expected, where=""):
    """Equal but for float32 arithmetic on grey levels of up to 255, of which five digits count."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=where)


class Held:
    """A shard set, its statistics, and what is stored in it."""

    def __init__(self, shard_set):
        self.set = shard_set
        self.stats = stats.load_stats(shard_set)
        self.train = stored.records(shard_set.root, "train")
        self.val = stored.records(shard_set.root, "val")

    def plan(self, batch_size=16, seed=3, **options):
        return Plan(len(self.train), batch_size, seed, self.set.size, **options)

    def stream(self, plan=None, decode="threads", **options):
        return train_stream(self.set, self.stats, plan or self.plan(), decode=decode, **options)

    def views(self, split="val", decode="threads", **options):
        return views_stream(self.set, self.stats, split, decode=decode, **options)

    def square(self, record):
        """A record's central square, offsets floored."""
        size = self.set.size
        top, left = ((side - size) // 2 for side in record.pixels.shape[:2])
        return record.pixels[top : top + size, left : left + size]


@pytest.fixture(scope="module")
def jpeg(shards):
    return Held(shards)


@pytest.fixture(scope="module")
def raw(raw_shards):
    return Held(raw_shards)


@pytest.fixture(scope="module")
def whole(short_side_shards):
    return Held(short_side_shards)


@pytest.fixture(scope="module")
def small(photos, tmp_path_factory):
    """The photos as 64x64 JPEGs: quick to stream."""
    out = tmp_path_factory.mktemp("loader") / "small"
    with ThreadPoolExecutor(1) as executor:
        shard_set, _ = build_shards(find_photos(photos), out, BuildOptions(size=64, shard_records=16), executor)
        stats.save_stats(stats.measure_stats(shard_set, executor), out)
    return Held(shard_set)


def quick(held, batch_size=16, **options):
    return held.plan(batch_size, augmentation=SMALL, **options)


def taken(stream, count):
    """The next batches' pictures, copied."""
    return [batch.images.clone() for batch in islice(stream, count)]


def assert_equal(one, other):
    """Two lists of tensors are equal bit for bit."""
    assert len(one) == len(other)
    for k, (a, b) in enumerate(zip(one, other, strict=True)):
        assert a.shape == b.shape and torch.equal(a, b), f"batch {k}"


# Every pixel


def assert_as_planned(batch, held, scale, gain, mean_image):
    """A training batch is what the oracle makes of the stored pictures and the batch's plan."""
    plan = batch.plan
    crop = batch.images.shape[-1]
    for k, record in enumerate(plan.records.tolist()):
        offset = oracle.lighting_offset(plan.gaussians[k], held.stats.eigenvalues, held.stats.eigenvectors, scale)
        expected = oracle.training_picture(
            held.square(held.train[record]), plan.left[k], plan.top[k], plan.flip[k], crop, mean_image, offset, gain
        )
        found = batch.images[k].permute(1, 2, 0).numpy()
        assert_close(found, expected, f"place {plan.start + k}, record {record}")
        assert batch.labels[k] == held.train[record].label


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("kind", ["jpeg", "raw", "whole"])
def test_every_pixel_of_an_epoch(request, kind, decode):
    held = request.getfixturevalue(kind)
    plan = held.plan(16)
    with held.stream(plan, decode) as stream:
        batches = list(islice(stream, plan.steps + 1))  # into the next epoch
    assert [(b.plan.epoch, b.plan.step) for b in batches] == [(0, k) for k in range(plan.steps)] + [(1, 0)]
    drawn = {tuple(row) for b in batches for row in zip(b.plan.left.tolist(), b.plan.top.tolist(), strict=True)}
    assert len(drawn) > 15  # crops do vary
    for batch in batches:
        assert batch.images.dtype == torch.float32 and batch.images.shape == (16, 3, 224, 224)
        assert batch.labels.dtype == torch.int64 and batch.labels.shape == (16,)
        np.testing.assert_array_equal(batch.records, batch.plan.records)
        assert_as_planned(batch, held, "stddev", 1 / 1.1, held.stats.mean_image)


@pytest.mark.parametrize("decode", [FUSED, THREADS])
@pytest.mark.parametrize("divide", [True, False])
@pytest.mark.parametrize("mean", ["image", "rgb"])
@pytest.mark.parametrize("scale", ["stddev", "eigenvalue", "none"])
def test_every_pixel_of_each_light_and_mean(small, scale, mean, divide, decode):
    mean_image = small.stats.mean_image if mean == "image" else np.broadcast_to(small.stats.mean_rgb, (64, 64, 3))
    gain = 1 / 1.1 if divide and scale != "none" else 1.0
    with small.stream(quick(small), decode, light=Lighting(scale, divide), mean=mean) as stream:
        for batch in islice(stream, 2):
            assert_as_planned(batch, small, scale, gain, mean_image)


@pytest.mark.parametrize("decode", [FUSED, THREADS])
def test_light_and_division_end_with_their_epoch(small, decode):
    plan = quick(small, 20)
    with small.stream(plan, decode, light=Lighting("stddev", True, until_epoch=1)) as stream:
        batches = list(islice(stream, plan.steps + 2))
    for batch in batches:
        lit = batch.plan.epoch < 1
        assert_as_planned(batch, small, *(("stddev", 1 / 1.1) if lit else ("none", 1.0)), small.stats.mean_image)
    assert {batch.plan.epoch for batch in batches} == {0, 1}


def test_light_in_numbers():
    assert Lighting().at(1000) == ("stddev", 1 / 1.1)
    assert Lighting("eigenvalue", False).at(0) == ("eigenvalue", 1.0)
    assert Lighting("none").at(0) == ("none", 1.0)
    diary = Lighting("stddev", True, 67)
    assert (diary.at(66), diary.at(67), diary.at(68)) == (("stddev", 1 / 1.1), ("none", 1.0), ("none", 1.0))


class EveryOffset(Plan):
    """A plan that cuts record 0 at every offset from left and, in reverse, from the top."""

    def batches(self, epoch=0, step=0):
        far = self.size - self.augmentation.crop
        left = np.arange(far + 1)
        flip = (left % 2).astype(np.uint8)
        zeros = np.zeros(far + 1, np.int64)
        yield BatchPlan(0, 0, 0, far + 1, zeros, left, left[::-1], flip, np.zeros((far + 1, 3), np.float32))


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("kind, crop", [("jpeg", 224), ("raw", 224), ("small", 56), ("small", 64), ("small", 41)])
def test_every_offset_through_the_stream(request, kind, crop, decode):
    held = request.getfixturevalue(kind)
    plan = EveryOffset(len(held.train), held.set.size + 1, 0, held.set.size, Augmentation(crop))
    with held.stream(plan, decode, light=Lighting("none")) as stream:
        (batch,) = stream
    assert len(batch.labels) == held.set.size - crop + 1
    assert_as_planned(batch, held, "none", 1.0, held.stats.mean_image)


@pytest.mark.parametrize("decode", GRAPHS)
@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("kind", ["jpeg", "raw", "whole"])
def test_every_pixel_of_the_views(request, kind, count, decode):
    held = request.getfixturevalue(kind)
    far, middle = 256 - 224, (256 - 224) // 2
    corners = [(0, 0), (far, 0), (0, far), (far, far), (middle, middle)]
    windows = [(left, top, flip) for left, top in corners for flip in (0, 1)] if count == 10 else [(middle, middle, 0)]
    met = []
    with held.views(views=count, batch_size=7, decode=decode) as stream:
        for batch in stream:
            assert batch.plan is None and batch.images.shape[1:] == (count, 3, 224, 224)
            for k, record in enumerate(batch.records.tolist()):
                assert batch.labels[k] == held.val[record].label
                for view, (left, top, flip) in enumerate(windows):
                    expected = oracle.training_picture(
                        held.square(held.val[record]), left, top, flip, 224, held.stats.mean_image, 0, 1
                    )
                    found = batch.images[k, view].permute(1, 2, 0).numpy()
                    assert_close(found, expected, f"record {record} view {view}")
            met.append(batch.records.tolist())
    assert met == [list(range(len(held.val)))[k : k + 7] for k in range(0, len(held.val), 7)]


def test_views_with_one_mean_a_channel(small):
    with small.views(mean="rgb", crop=48) as stream:
        (batch,) = stream
    for k, record in enumerate(small.val):
        expected = record.pixels[8:56, 8:56] - small.stats.mean_rgb
        assert_close(batch.images[k, 0].permute(1, 2, 0).numpy(), expected)


# Two ways in


BOTH_WAYS = list(product(("jpeg", "raw", "whole"), ("float32", "float16", "uint8"), ("HWC", "CHW")))


@pytest.mark.parametrize(
    ("kind", "dtype", "layout"),
    [pytest.param(*each, marks=[] if k % 4 in (0, 3) else pytest.mark.slow) for k, each in enumerate(BOTH_WAYS)],
)
def test_both_ways_give_the_same_bits(request, kind, dtype, layout):
    held = request.getfixturevalue(kind)
    plan = held.plan(7, augmentation=Augmentation(crop=200))
    for mean in ("image", "rgb"):
        options = {"mean": mean, "dtype": dtype, "layout": layout}
        with held.stream(plan, "threads", **options) as one, held.stream(plan, "dali", **options) as other:
            assert (one.decode, other.decode, one.chosen) == ("threads", "dali", "")
            for first, second in islice(zip(one, other, strict=True), plan.steps + 1):
                assert_equal([first.images, first.labels], [second.images, second.labels])
                np.testing.assert_array_equal(first.records, second.records)
        options = {**options, "views": 5, "crop": 200, "batch_size": 7}
        with held.views(decode="threads", **options) as one, held.views(decode="dali", **options) as other:
            assert_equal(taken(one, 9), taken(other, 9))


@pytest.mark.parametrize("decode", GRAPHS)
@pytest.mark.parametrize("kind", ["jpeg", "raw", "whole"])
def test_resized_crops_are_cut_as_planned(request, kind, decode):
    """Beyond a window's edge DALI repeats its pixels, and threads, as torchvision, leave them out."""
    held = request.getfixturevalue(kind)
    plan, oblong = held.plan(8, augmentation=Augmentation(96, resized=ResizedCrop())), 0
    with held.stream(plan, decode, light=Lighting("none"), mean="rgb") as stream:
        batch = next(stream)
    for k, record in enumerate(batch.records.tolist()):
        pixels, draws = held.train[record].pixels, batch.plan.resized[k : k + 1]
        left, top, width, height = (
            int(v[0]) for v in resized_windows(draws, *np.array([pixels.shape[:2]]).T, ResizedCrop())
        )
        oblong += width != height and left != top
        window = pixels[top : top + height, left : left + width]
        expected = oracle.triangle_resize(window, 96, 96, repeat=decode == "dali")
        expected = (expected[:, ::-1] if batch.plan.flip[k] else expected) - held.stats.mean_rgb
        assert np.abs(batch.images[k].permute(1, 2, 0).numpy() - expected).max() < 1.01
    assert oblong > 4 and 0 < batch.plan.flip.sum() < 8


NO_FUSED = {  # where threads cannot finish the pictures: options of the stream, and why
    "float16": ({"dtype": "float16"}, "pictures are float16"),
    "CHW": ({"layout": "CHW"}, "the layout is CHW"),
    "resized": ({"mean": "rgb"}, "crops are resized"),
    "not compiled": ({}, "its compiled part is missing (alexnet-prep doctor)"),
}


@pytest.mark.parametrize("kind", NO_FUSED)
def test_fused_where_it_is_not_possible(small, monkeypatch, kind):
    """Left to itself the CPU takes threads and a graph, and says why; asked for, it is an error."""
    options, reason = NO_FUSED[kind]
    if kind == "not compiled":
        monkeypatch.setattr(finish, "_compiled", None)
    resized = ResizedCrop() if kind == "resized" else None
    plan = small.plan(8, augmentation=Augmentation(48, resized=resized))
    with pytest.raises(UsageError) as caught:
        small.stream(plan, FUSED, **options)
    assert caught.value.message == f"the decoder fused is not possible: {reason}"
    assert caught.value.hint == "choose auto, threads or dali"
    with small.stream(plan, "auto", **options) as one, small.stream(plan, THREADS, **options) as other:
        why = f"decode threads: fused, the fastest on a CPU, is not possible: {reason}"
        assert (one.decode, one.chosen) == (THREADS, why)
        assert_equal(taken(one, 2), taken(other, 2))


def test_views_are_cut_by_dali(small):
    with pytest.raises(UsageError, match="the decoder fused is not possible: DALI cuts evaluation views; choose auto"):
        small.views(crop=48, decode=FUSED)
    with small.views(crop=48, decode="auto") as stream:
        assert stream.decode == THREADS and stream.chosen.endswith("not possible: DALI cuts evaluation views")


@pytest.mark.parametrize(
    "on_cpu, reason, encoded, threads, decode, why",
    [
        (True, "", True, 1, FUSED, "decode fused: the fastest on a CPU"),
        (True, "x", True, 1, THREADS, "decode threads: fused, the fastest on a CPU, is not possible: x"),
        (False, "x", True, 4, THREADS, "decode threads: 4 threads decode, and the GPU only trains"),
        (False, "x", True, 3, DALI, "decode dali: the GPU decodes, because 4 threads or more would be needed, not 3"),
        (False, "x", False, 1, THREADS, "decode threads: raw pixels are only cut"),
    ],
)
def test_the_rule_by_which_a_decoder_is_picked(on_cpu, reason, encoded, threads, decode, why):
    assert autotune.pick_decoder(on_cpu, reason, encoded, threads) == (decode, why)


def test_other_ways_are_refused(small):
    for make in (lambda: small.stream(quick(small), "gpu"), lambda: small.views(crop=48, decode="gpu")):
        with pytest.raises(UsageError, match="unknown decoder 'gpu'; choose auto, fused, threads or dali"):
            make()


class Late:
    """A future, or a batch being decoded, that takes some seconds of a clock to wait for."""

    def __init__(self, inner, seconds, clock):
        self.inner, self.seconds, self.clock = inner, seconds, clock

    def done(self):
        return False

    def result(self):
        self.clock.sleep(self.seconds)
        return self.inner.result()

    def wait(self):
        self.clock.sleep(self.seconds)
        return self.inner.wait()

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("kind", ["small", "raw"])
def test_every_second_inside_next_is_some_stage_s(request, monkeypatch, kind, decode):
    """In seconds of a clock that moves when something waits: 5 for the disk, 3 to look up, 7 and 2 for the rest.

    Threads look records up beside the others; without a graph, what is not waited for is no stage's."""
    held, clock = request.getfixturevalue(kind), Clock()
    want, begin, read, run = ReadAhead.want, Decoder.begin, RecordReader.read, nvidia.dali.Pipeline.run
    monkeypatch.setattr(ReadAhead, "want", lambda *given: Late(want(*given), 5, clock))
    monkeypatch.setattr(Decoder, "begin", lambda *given: Late(begin(*given), 7, clock))
    if decode == DALI:
        monkeypatch.setattr(RecordReader, "read", lambda *given: clock.sleep(3) or read(*given))
    monkeypatch.setattr(nvidia.dali.Pipeline, "run", lambda *given: clock.sleep(2) or run(*given))
    monkeypatch.setattr(Stream.__init__, "__kwdefaults__", {**Stream.__init__.__kwdefaults__, "clock": clock})
    monkeypatch.setattr(BatchSource.__init__, "__defaults__", (*BatchSource.__init__.__defaults__[:-1], clock))
    with held.stream(held.plan(10, augmentation=SMALL), decode, threads=1) as stream:
        assert stream.stages() == StageTimes(threads=1)
        next(stream)
        before, began = stream.stages(), clock.now
        for _ in islice(stream, 6):
            clock.sleep(100)  # the step is nobody's
        disk, decoding, graph = {DALI: (8.0, 0.0, 2.0), THREADS: (5.0, 7.0, 2.0), FUSED: (5.0, 7.0, 0.0)}[decode]
        assert stream.stages() - before == StageTimes(6 * disk, 6 * decoding, 6 * graph, 0.0, 1)
        assert clock.now - began == 6 * (100 + disk + decoding + graph)


@pytest.mark.parametrize("stage", ["disk", "decode"])
def test_a_slow_stage_is_found_in_real_seconds(small, monkeypatch, stage):
    """By so much too slow that a machine with other work is not slower."""
    owner, name, seconds = {"disk": (ReadAhead, "_bring", 0.3), "decode": (Decoding, "fill", 0.08)}[stage]
    work = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given: time.sleep(seconds) or work(*given))
    with small.stream(quick(small, 10), threads=1) as stream:
        taken(stream, 2)
        before, began = stream.stages(), time.perf_counter()
        taken(stream, 12)
        took, spent = time.perf_counter() - began, stream.stages() - before
    assert took > 12 * 0.3 / 4  # two threads read ahead, and some batches were there already; four tasks a batch decode
    assert getattr(spent, f"{stage}_seconds") > took / 2


# Evaluation meets every record once


@pytest.mark.parametrize("ranks", [1, 2, 3, 25])
@pytest.mark.parametrize("batch_size", [1, 6, 20, 64])
def test_a_pass_meets_every_record_once(small, ranks, batch_size):
    alone = [small.square(record)[8:56, 8:56] - small.stats.mean_rgb for record in small.val]
    met = []
    for rank in range(ranks):
        with small.views(crop=48, mean="rgb", batch_size=batch_size, rank=rank, ranks=ranks, threads=1) as stream:
            for batch in stream:
                assert 1 <= len(batch.records) == len(batch.images) == len(batch.labels) <= batch_size
                met += batch.records.tolist()
                for record, image in zip(batch.records, batch.images, strict=True):
                    assert_close(image[0].permute(1, 2, 0).numpy(), alone[record])
            assert next(stream, None) is None  # ended, and stays so
        if ranks == 25 and rank == 2:
            break  # the rest is the same: one record each; three of 25 show it
    assert met == list(range(3 if ranks == 25 else len(small.val)))


def test_more_ranks_than_records_leave_some_without(small):
    with small.views(crop=48, rank=24, ranks=25) as stream:
        assert list(stream) == []


# The same bits


@pytest.mark.parametrize("decode", [FUSED, THREADS])
def test_resuming_at_every_step_gives_the_tail_of_the_stream(small, decode):
    plan = quick(small)
    with small.stream(plan, decode) as stream:
        uninterrupted = taken(stream, 2 * plan.steps + 2)
    for done in range(1, 2 * plan.steps + 1):
        epoch, step = divmod(done, plan.steps)
        with small.stream(plan, decode, epoch=epoch, step=step) as stream:
            assert_equal(taken(stream, 2), uninterrupted[done : done + 2])


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("kind", ["jpeg", "raw"])
def test_threads_do_not_matter(request, kind, decode):
    held = request.getfixturevalue(kind)
    found = []
    for threads in (1, 3):
        with held.stream(held.plan(20), decode, threads=threads) as stream:
            found.append(taken(stream, 2))
    assert_equal(*found)


@pytest.mark.parametrize("decode", [FUSED, THREADS])
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_together_are_one(small, ranks, decode):
    with small.stream(quick(small, 17), decode) as stream:
        whole = list(islice(stream, 4))
    parts = []
    for rank in range(ranks):
        with small.stream(quick(small, 17, rank=rank, ranks=ranks), decode) as stream:
            parts.append(list(islice(stream, 4)))
    for step, batch in enumerate(whole):
        assert_equal([torch.cat([part[step].images for part in parts])], [batch.images])
        assert torch.equal(torch.cat([part[step].labels for part in parts]), batch.labels)
        assert {part[step].plan.batch_size for part in parts} == {17}


def test_another_batch_size_gives_the_same_pictures(small):
    found = []
    for batch_size, count in ((10, 3), (15, 2)):
        with small.stream(quick(small, batch_size)) as stream:
            found.append(torch.cat(taken(stream, count)))
    assert_equal(found[:1], found[1:])


def test_a_raw_set_s_stream_differs_only_by_the_jpeg(jpeg, raw):
    plan = jpeg.plan(20)
    with jpeg.stream(plan, light=Lighting("none")) as one, raw.stream(plan, light=Lighting("none")) as other:
        first, second = next(one), next(other)
    np.testing.assert_array_equal(first.records, second.records)
    assert torch.equal(first.labels, second.labels)
    assert (first.images - second.images).abs().mean() < 6  # quality 95 moves pixels by some grey levels


# Memory


def test_pictures_are_channels_last(small):
    with small.stream(quick(small)) as stream:
        images = next(stream).images
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.stride() == (48 * 48 * 3, 1, 48 * 3, 3)
    with small.views(views=10, crop=48, batch_size=5) as stream:
        views = next(stream).images
    assert views.shape == (5, 10, 3, 48, 48)
    assert views.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert views.flatten(0, 1).data_ptr() == views.data_ptr()  # a net sees them as a batch without a copy


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("kind", ["small", "raw"])
def test_batches_stay_valid_after_later_ones_and_after_closing(request, kind, decode, dtype):
    held = request.getfixturevalue(kind)
    plan = held.plan(4, augmentation=Augmentation(crop=48))
    stream = held.stream(plan, decode, dtype=dtype)
    kept, copies = [], []
    for batch in islice(stream, 40):
        kept.append(batch)
        copies.append((batch.images.clone(), batch.labels.clone(), batch.records.copy()))
    stream.close()
    del stream
    gc.collect()
    with held.stream(held.plan(4, seed=9, augmentation=Augmentation(crop=48)), decode) as other:
        taken(other, 20)  # uses the memory that was let go of
    for batch, (images, labels, records) in zip(kept, copies, strict=True):
        assert torch.equal(batch.images, images) and torch.equal(batch.labels, labels)
        np.testing.assert_array_equal(batch.records, records)


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("kind", ["small", "raw"])
def test_buffers_are_never_filled_while_dali_reads_them(request, monkeypatch, kind, decode):
    """However slow DALI is, and however fast the threads; and there are only a few of them."""
    held = request.getfixturevalue(kind)
    plan, fills = held.plan(8, augmentation=Augmentation(crop=48)), []
    with held.stream(plan, "dali") as stream:
        expected = taken(stream, 60)
    given = Buffers.give

    def spoilt(buffers, buffer, wait=lambda: None):
        wait()
        buffer[:] = 77  # whoever still reads this memory reads nonsense
        fills.append(1)
        given(buffers, buffer, wait)

    monkeypatch.setattr(Buffers, "give", spoilt)
    with held.stream(plan, decode, threads=4) as stream:
        assert_equal(taken(stream, 60), expected)
        source = stream._source
        made = [source._feed._buffers.made, *([source._decoder.buffers.made] if source._decoder else [])]
    assert fills and max(made) <= DECODED + dali_graph.PREFETCH + 3


@pytest.mark.parametrize("decode", DECODERS)
def test_batches_are_the_reader_s_to_change(small, decode):
    with small.stream(quick(small), decode) as stream, small.stream(quick(small), decode) as other:
        for one, same in islice(zip(stream, other, strict=False), 4):
            assert torch.equal(one.images, same.images)
            one.images.zero_()  # in place; what comes later must not notice


@pytest.mark.parametrize("decode", DECODERS)
def test_a_closed_stream_is_at_its_end_and_lets_go_of_the_files(small, tmp_path, decode):
    copy = shutil.copytree(small.set.root, tmp_path / "copy")
    stream = train_stream(open_shard_set(copy), small.stats, quick(small), decode=decode)
    next(stream)
    assert files_below(copy)
    stream.close()
    assert not files_below(copy)
    assert list(stream) == []
    stream.close()


@pytest.mark.parametrize("decode", DECODERS)
def test_a_dropped_stream_lets_go_of_pipeline_and_files_at_once(small, tmp_path, decode):
    copy = shutil.copytree(small.set.root, tmp_path / "copy")
    stream = train_stream(open_shard_set(copy), small.stats, quick(small), decode=decode)
    gc.disable()
    try:
        next(stream)
        assert files_below(copy)
        del stream
        assert not files_below(copy)
    finally:
        gc.enable()


@pytest.mark.parametrize("decode", DECODERS)
def test_a_stream_lost_in_a_cycle_stops_before_its_shards_close(small, tmp_path, monkeypatch, decode):
    """Else the threads, the pipeline's or ours, would use memory that is gone."""
    shutil.copytree(small.set.root, tmp_path / "copy")
    shard_set, ended = open_shard_set(tmp_path / "copy"), []

    def noted(owner, method, name):
        original = getattr(owner, method)

        def wrapper(self):
            ended.append(name)
            original(self)

        monkeypatch.setattr(owner, method, wrapper)

    noted(Shard, "__del__", "shard")
    noted(nvidia.dali.Pipeline, "__del__", "first")
    if decode == FUSED:
        noted(Decoder, "close", "first")
    gc.collect()
    for _ in range(5):
        ended.clear()
        stream = train_stream(shard_set, small.stats, quick(small, 60), decode=decode)
        next(stream)
        stream.myself = stream
        del stream
        gc.collect()
        assert ended[0] == "first" and ended.count("shard") == 4


def files_below(folder):
    """How many files of a folder this process holds open, or has mapped."""
    names = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    with open("/proc/self/maps") as lines:
        return sum(str(folder) in name for name in [*names, *lines])


DROPPING = """
import faulthandler, gc, sys
from pathlib import Path
faulthandler.enable()
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream.streams import train_stream
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.shards.manifest import open_shard_set

shard_set = open_shard_set(Path(sys.argv[1]))
numbers = stats.load_stats(shard_set)
plan = Plan(shard_set.split("train").records, 60, 0, shard_set.size, Augmentation(48))

def begun():
    stream = train_stream(shard_set, numbers, plan, threads=2, decode=sys.argv[2])
    next(stream)  # two more batches are in flight
    return stream

for _ in range(6):
    begun()                       # dropped
    stream = begun()
    stream.myself = stream        # lost in a cycle
    del stream
    gc.collect()
closed = begun()
batch = next(closed)
closed.close()
del closed, shard_set
print(float(batch.images.sum()) == float(batch.images.clone().sum()))
shard_set = open_shard_set(Path(sys.argv[1]))
left_open = begun()
print("end")
"""


@pytest.mark.parametrize(
    ("kind", "decode"),
    [
        ("jpeg", "dali"),
        pytest.param("raw", "threads", marks=pytest.mark.slow),
        pytest.param("jpeg", "threads", marks=pytest.mark.slow),
        pytest.param("raw", "dali", marks=pytest.mark.slow),
    ],
)
def test_streams_dropped_with_batches_in_flight_do_not_crash(request, kind, decode):
    root = request.getfixturevalue(kind).set.root
    done = subprocess.run(
        [sys.executable, "-c", DROPPING, root, decode], check=False, capture_output=True, text=True, timeout=180
    )
    assert (done.returncode, done.stdout) == (0, "True\nend\n"), done.stderr


# What ends a stream


def spoiled(held, tmp_path, change, shard=2, index=5):
    """A copy of the set with one changed record to train on; its folder, and that record's index in the split."""
    good = stored.values(held.set.split("train").shards[shard][0])[index]
    folder = stored.damaged(held.set.root, tmp_path / "copy", "train", shard, index, change(good))
    return open_shard_set(tmp_path / "copy"), folder, 16 * shard + index


def garbage(value):
    """The same record, its JPEG two right bytes and then noise."""
    data = stored.parts(value)[0]
    place = value.index(data)
    noise = np.random.default_rng(0).integers(0, 255, len(data) - 2, dtype=np.uint8).tobytes()
    return value[: place + 2] + noise + value[place + len(data) :]


def cut(value):
    """The same record, its JPEG without the second half."""
    data, height, width, encoded = stored.parts(value)
    return datum.encode(data[: len(data) // 2], height=height, width=width, label=0, encoded=encoded)


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("change", [garbage, cut])
def test_a_jpeg_that_does_not_decode_is_named_at_once(small, tmp_path, change, decode):
    shard_set, folder, record = spoiled(small, tmp_path, change)
    began = time.monotonic()
    with train_stream(shard_set, small.stats, quick(small, 20), decode=decode) as stream:
        with pytest.raises(StreamError) as caught:
            for batch in stream:
                assert record not in batch.records and batch.plan.epoch == 0
        assert caught.value.message == f"{folder}, record 5: its JPEG does not decode"
        assert caught.value.hint.endswith(" --repair finds and rebuilds what is damaged")
        with pytest.raises(StreamError) as again:  # not the batch after, under this one's labels
            next(stream)
        assert again.value is caught.value
        assert not files_below(tmp_path)  # it is closed already
    assert time.monotonic() - began < 5


def torn(value):
    """The same record, its JPEG's second half nothing but ends: libjpeg warns, and fills up with grey."""
    middle = len(value) // 2
    return value[:middle] + b"\xff\xd9" * ((len(value) - middle - 8) // 2) + value[-8:]


@pytest.mark.parametrize("decode", [FUSED, THREADS])
def test_threads_stop_at_a_torn_picture_too(small, tmp_path, decode):
    """DALI trains on what libjpeg makes of it, grey from the tear on."""
    shard_set, folder, _ = spoiled(small, tmp_path, torn)
    with (
        train_stream(shard_set, small.stats, quick(small, 20), decode=decode) as stream,
        pytest.raises(StreamError, match=f"{folder}, record 5: its JPEG does not decode"),
    ):
        list(islice(stream, 6))


@pytest.mark.parametrize("decode", DECODERS)
def test_a_record_that_the_feed_refuses_is_named(small, tmp_path, decode):
    shard_set, folder, record = spoiled(small, tmp_path, lambda value: value[:-300])
    with train_stream(shard_set, small.stats, quick(small, 20), decode=decode) as stream:
        for _ in range(2):
            with pytest.raises(ShardError) as caught:
                for batch in stream:
                    assert record not in batch.records and batch.plan.epoch == 0
        assert caught.value.message.startswith(f"{folder}, record 5: not a Datum: field 4 claims ")


def test_whatever_else_stops_dali_is_told_in_one_line(small, monkeypatch):
    stream = small.stream(quick(small))

    def broken(*_):
        raise RuntimeError("a bus\n  fell   off")

    monkeypatch.setattr(nvidia.dali.Pipeline, "run", broken)
    with pytest.raises(StreamError) as caught:
        next(stream)
    assert (caught.value.message, caught.value.hint) == ("DALI stopped: a bus fell off", "alexnet-prep doctor")


@pytest.mark.parametrize("decode", DECODERS)
def test_a_fault_of_a_plan_comes_through_as_it_is(small, decode):
    class Odd(Plan):
        def batches(self, epoch=0, step=0):
            batch = next(super().batches())
            yield BatchPlan(*[getattr(batch, name) for name in batch.__dataclass_fields__][:8], np.zeros((3, 2)))

    plan = Odd(len(small.train), 16, 0, 64, SMALL)
    with small.stream(plan, decode) as stream, pytest.raises(ValueError, match="broadcast"):
        next(stream)


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("at", [0, 9])
@pytest.mark.parametrize("error", [PlanError("a bad draw", "draw again"), OSError("a disk")])
def test_an_error_of_a_plan_is_told_as_it_is(small, decode, at, error):
    """Whether it comes before DALI's first batch or in the midst."""

    class Odd(Plan):
        def batches(self, epoch=0, step=0):
            yield from islice(super().batches(), at)
            raise error

    with small.stream(Odd(len(small.train), 16, 0, 64, SMALL), decode) as stream:
        for _ in range(2):
            with pytest.raises(type(error)) as caught:
                list(stream)
            assert caught.value is error


@pytest.mark.parametrize("decode", DECODERS)
def test_other_people_s_mean_needs_no_statistics(small, decode):
    plan, dark = quick(small), {"mean": "imagenet", "light": Lighting("none"), "decode": decode}
    with train_stream(small.set, None, plan, **dark) as one, small.stream(plan, **dark) as other:
        assert_equal(taken(one, 4), taken(other, 4))
    options = {"crop": 48, "mean": "imagenet", "decode": "auto" if decode == FUSED else decode}
    with views_stream(small.set, None, "val", **options) as one, small.views(**options) as other:
        assert_equal(taken(one, 4), taken(other, 4))
    with train_stream(small.set, None, plan, **dark) as stream:
        batch = next(stream)
    for k, record in enumerate(batch.records.tolist()):
        left, top = int(batch.plan.left[k]), int(batch.plan.top[k])
        window = small.train[record].pixels[top : top + 48, left : left + 48]
        window = (window[:, ::-1] if batch.plan.flip[k] else window) / 255
        expected = (window - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        assert_close(batch.images[k].permute(1, 2, 0).numpy(), expected)


def test_missing_statistics_are_asked_for(small):
    for mean in ("rgb", "image"):
        for make in (
            lambda mean=mean: train_stream(small.set, None, quick(small), mean=mean, light=Lighting("none")),
            lambda mean=mean: views_stream(small.set, None, "val", crop=48, mean=mean),
        ):
            with pytest.raises(StatsError) as caught:
                make()
            assert caught.value.message == f"the mean '{mean}' needs the statistics of the set"
            assert caught.value.hint == 'give load_stats(shard_set), or mean="imagenet"'
    with pytest.raises(StatsError) as caught:
        train_stream(small.set, None, quick(small), mean="imagenet")
    assert caught.value.message == "the lighting needs the statistics of the set"
    assert caught.value.hint == 'give load_stats(shard_set), or light=Lighting("none")'


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rank": 2, "ranks": 2}, "invalid rank 2 of 2 ranks"),
        ({"rank": -1}, "invalid rank -1 of 1 ranks"),
        ({"batch_size": 0}, "batch size 0 is below 1; choose a batch size of 1 or more"),
    ],
)
def test_an_impossible_share_of_views_is_refused(small, options, message):
    for decode in (*GRAPHS, "auto"):
        with pytest.raises(PlanError) as caught:
            small.views(crop=48, decode=decode, **options)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    "place, message",
    [
        ({"step": 5000}, "step 5000 is not in an epoch of 3 steps; start at a step from 0 to 3"),
        ({"step": 4}, "step 4 is not in an epoch of 3 steps; start at a step from 0 to 3"),
        ({"step": -1}, "step -1 is not in an epoch of 3 steps; start at a step from 0 to 3"),
        ({"epoch": -1}, "epoch -1 is not in 0..2^64-1"),
    ],
)
def test_a_place_beyond_the_plan_is_refused_when_the_stream_is_made(small, place, message):
    for decode in (*DECODERS, "auto"):
        with pytest.raises(PlanError) as caught:
            small.stream(quick(small), decode, **place)
        assert str(caught.value).startswith(message)


def test_a_missing_dali_says_how_to_install_it(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    for make in (lambda: small.stream(quick(small)), lambda: small.views(crop=48)):
        with pytest.raises(StreamError, match=r"NVIDIA DALI cannot be imported.*; pip install nvidia-dali-cuda120"):
            make()


def test_a_gpu_asked_for_without_one_is_refused(small, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for make in (lambda: small.stream(quick(small), device="cuda"), lambda: small.views(crop=48, device="cuda:1")):
        with pytest.raises(DeviceError) as caught:
            make()
        assert caught.value.message == "no usable GPU"
        assert caught.value.hint == "find the reason with alexnet-prep doctor, or use --device cpu"


def test_a_gpu_beyond_the_last_is_refused(small, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match="no GPU 2: this machine has 2; choose a smaller number"):
        small.views(crop=48, device="cuda:2")


def test_windows_larger_than_the_pictures_are_refused(small):
    with pytest.raises(PlanError, match="a 65x65 window does not fit into 64x64 pictures; build the shards with"):
        small.views(crop=65, mean="rgb")
    refused = r'the mean image does not fit resized pictures or a crop of .*; choose mean="rgb" or "imagenet"'
    for options in ({"crop": 65}, {"crop": 48, "resize": 72}):
        with pytest.raises(PlanError, match=refused):
            small.views(**options)
    for crop in (48, 72):  # stretched windows have none either
        plan = small.plan(augmentation=Augmentation(crop, resized=ResizedCrop()))
        with pytest.raises(PlanError, match=refused):
            small.stream(plan)
        for mean in ("rgb", "imagenet"):
            small.stream(plan, mean=mean).close()
    with pytest.raises(PlanError, match="a 65x65 window does not fit into 64x64 pictures; build the shards with"):
        small.plan(augmentation=Augmentation(65))


@pytest.mark.parametrize("records, size", [(59, 64), (61, 64), (60, 256)])
def test_a_plan_of_another_set_is_refused(small, records, size):
    with pytest.raises(PlanError) as caught:
        small.stream(Plan(records, 8, 0, size, SMALL))
    assert caught.value.message == (
        f"the plan is of {records} records of size {size}, but {small.set.root} has 60 of size 64"
    )
    assert "make the Plan with the records of the split `train`" in caught.value.hint


def test_the_numbers_of_a_batch_are_made_without_torch():
    code = "import sys; from alexnet_dali.pipeline.stream import batch_source, inputs; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_impossible_options_are_refused(small):
    with pytest.raises(PlanError, match="unsupported number of views: 3; choose 1, 5 or 10"):
        small.views(views=3, crop=48)
    for make in (lambda: small.views(crop=48, mean="grey"), lambda: small.stream(quick(small), mean="grey")):
        with pytest.raises(PlanError, match="unknown mean 'grey'; choose one of image, rgb, imagenet"):
            make()
    with pytest.raises(StatsError, match="unknown lighting scale 'lambda'; choose one of stddev, eigenvalue"):
        Lighting("lambda")
    with pytest.raises(ShardError, match=r"no records in a split 'test'; available: train \(60\), val \(20\)"):
        small.views("test", crop=48)


def test_threads_are_one_a_core_unless_said(small, monkeypatch):
    seen = []

    def noted(*arguments, **_):
        seen.append(arguments[4])
        raise StreamError("enough")

    monkeypatch.setattr(dali_graph, "train_graph", noted)
    for threads in (0, 5):
        with pytest.raises(StreamError, match="enough"):
            small.stream(quick(small), threads=threads)
    assert seen == [len(os.sched_getaffinity(0)), 5]
