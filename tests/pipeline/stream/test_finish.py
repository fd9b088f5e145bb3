"""Pictures finished by the threads: each value by the formula in float32; DALI's to rounding; buffers come back."""

import gc
import weakref
from itertools import islice

import numpy as np
import pytest
import torch
from alexnet_dali.pipeline.plan.lighting import Lighting
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream import finish
from alexnet_dali.pipeline.stream.batch_source import DECODED
from alexnet_dali.pipeline.stream.dali_ops import Pictures
from alexnet_dali.pipeline.stream.decoder import SPARE
from alexnet_dali.pipeline.stream.finish import Finishing
from alexnet_dali.pipeline.stream.streams import train_stream
from conftest import build_set

pytestmark = pytest.mark.skipif(not finish.COMPILED, reason="not compiled, so DALI computes")


@pytest.fixture(scope="module")
def small(photos, tmp_path_factory):
    """The photos as 64x64 JPEGs."""
    return build_set(photos, tmp_path_factory.mktemp("finish") / "small", size=64, shard_records=16)


@pytest.fixture(scope="module")
def oblong(odd_photos, tmp_path_factory):
    """Photos of odd shapes, whole, their short side 64."""
    return build_set(odd_photos, tmp_path_factory.mktemp("finish") / "oblong", size=64, fit="short-side")


@pytest.fixture(scope="module")
def bare(photos, tmp_path_factory):
    """The photos as 64x64 raw pixels."""
    return build_set(photos, tmp_path_factory.mktemp("finish") / "raw", size=64, encoding="raw")


def stream_of(shard_set, decode="fused", crop=48, batch_size=7, **options):
    plan = Plan(shard_set.split("train").records, batch_size, 3, shard_set.size, Augmentation(crop))
    return train_stream(shard_set, stats.load_stats(shard_set), plan, decode=decode, **options)


# Values


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("side", [1, 2, 5, 6, 7, 11, 16, 224, 255, 256, 257, 600])
@pytest.mark.parametrize("kind", ["uint8", "mean", "residual"])
def test_every_value_is_the_formula_s_in_float32(kind, side, flip):
    """Bit for bit, because NumPy and the compiled part do the same three operations of IEEE 754 in the same order."""
    random = np.random.default_rng(side)
    pixels = random.integers(0, 256, (side + 3, side + 5, 3), dtype=np.uint8)
    residual = random.normal(0, 20, (side, side, 3)).astype(np.float32) if kind == "residual" else None
    mean, gain = random.uniform(90, 130, (2, 3)).astype(np.float32), np.array([1, 1 / 1.1], np.float32)
    std = np.array([57.3, 58.1, 61.7])
    dtype = np.dtype(np.uint8 if kind == "uint8" else np.float32)
    memory = np.full(2 * side * side * 3 + 8, 77, dtype)
    for shift in (0, 1, 4):  # wherever rows begin
        out = memory[shift : shift + 2 * side * side * 3].reshape(2, side, side, 3)
        numbers = [] if kind == "uint8" else [mean, gain.reshape(2, 1, 1, 1)]
        finishing = Finishing(Pictures(False, side, False, side, mean[0], residual, std), numbers, out)
        for place in (0, 1):
            finishing(place, pixels, 5, 2 + place, flip)
            window = pixels[2 + place : 2 + place + side, 5 : 5 + side]
            expected = window[:, ::-1] if flip else window
            if kind != "uint8":
                expected = expected.astype(np.float32) - (0 if residual is None else residual)
                expected = (expected - mean[place]) * (np.float32(1) / (std.astype(np.float32) / gain[place]))
            np.testing.assert_array_equal(out[place], expected)
        assert (memory[:shift] == 77).all() and (memory[shift + out.size :] == 77).all()
        memory[:] = 77


@pytest.mark.parametrize("left, top", [(-1, 0), (0, -1), (4, 0), (0, 5)])
def test_a_window_outside_its_picture_is_refused(left, top):
    out = np.empty((1, 8, 8, 3), np.uint8)
    finishing = Finishing(Pictures(False, 8, True, 8, np.zeros(3), None), [], out)
    with pytest.raises(ValueError, match=f"a 8x8 window at {left},{top} is not inside 11x12 pixels"):
        finishing(0, np.zeros((12, 11, 3), np.uint8), left, top, 0)


LIGHTS = [Lighting("none"), Lighting("stddev", divide=False), Lighting()]


@pytest.mark.parametrize("light", LIGHTS, ids=["dark", "light", "gain"])
@pytest.mark.parametrize("mean", ["image", "rgb", "imagenet"])
@pytest.mark.parametrize("kind", ["small", "oblong", "bare"])
def test_finished_pictures_are_dali_s(request, kind, mean, light):
    """To rounding: DALI may be built for a processor whose operations are fused. Here they were equal bit for bit."""
    shard_set = request.getfixturevalue(kind)
    for crop in (64, 63, 41):
        options = {"crop": crop, "mean": mean, "light": light}
        with stream_of(shard_set, **options) as one, stream_of(shard_set, "threads", **options) as other:
            for first, second in islice(zip(one, other, strict=True), 3):
                torch.testing.assert_close(first.images, second.images, rtol=0, atol=1e-4)
                assert torch.equal(first.labels, second.labels)
                assert first.images.stride() == second.images.stride()


@pytest.mark.parametrize("crop", [64, 63, 41])
@pytest.mark.parametrize("kind", ["small", "oblong", "bare"])
def test_pixels_are_dali_s(request, kind, crop):
    """Bit for bit: nothing is computed."""
    shard_set, options = request.getfixturevalue(kind), {"crop": crop, "dtype": "uint8"}
    with stream_of(shard_set, **options) as one, stream_of(shard_set, "threads", **options) as other:
        for first, second in islice(zip(one, other, strict=True), 10):
            assert torch.equal(first.images, second.images)


# Buffers


def buffer_of(batch):
    return batch.images.untyped_storage().data_ptr()


def test_a_dropped_batch_s_buffer_is_used_again(small):
    with stream_of(small) as stream:
        for batch in islice(stream, 40):
            assert batch.images.shape == (7, 3, 48, 48)
        assert stream._source._decoder.buffers.made <= DECODED + 2  # under way, the next, the one in hand


PARTS = [lambda x: x[2:4], lambda x: x[0, 1], lambda x: x.permute(0, 2, 3, 1), lambda x: x.numpy()[1:], torch.detach]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_batch_keeps_its_buffer(small, part):
    with stream_of(small) as stream:
        batch = next(stream)
        kept = part(batch.images)
        copy = np.asarray(kept).copy()
        where = buffer_of(batch)
        del batch
        for batch in islice(stream, 20):
            assert buffer_of(batch) != where
        np.testing.assert_array_equal(np.asarray(kept), copy)
        del kept
        assert where in {buffer_of(batch) for batch in islice(stream, 10)}


def test_what_the_user_holds_and_lets_go_of_is_not_kept(small):
    """A stream whose user held thirty batches keeps as many buffers as any other."""
    with stream_of(small) as stream:
        held = list(islice(stream, 30))
        copies = [batch.images.clone() for batch in held]
        next(stream)
        assert all(torch.equal(batch.images, copy) for batch, copy in zip(held, copies, strict=True))
        assert len({buffer_of(batch) for batch in held}) == 30
        held.clear()
        assert len(stream._source._decoder.buffers._free) == SPARE


def test_batches_outlive_their_stream_and_leave_nothing(small):
    stream = stream_of(small)
    held = list(islice(stream, 3))
    copies = [batch.images.clone() for batch in held]
    pool = weakref.ref(stream._source._decoder.buffers)
    stream.close()
    gc.disable()
    try:
        del stream
        assert all(torch.equal(batch.images, copy) for batch, copy in zip(held, copies, strict=True))
        del held[0]
        assert not pool()._free  # what comes back now is nobody's
        held.clear()
        assert pool() is None
    finally:
        gc.enable()
