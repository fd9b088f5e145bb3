"""Threads that read, decode and cut: every pixel as NumPy cuts what Pillow decodes; buffers of their own; faults."""

import gc
import io
import threading
import time
import weakref
from contextlib import suppress

import numpy as np
import pytest
import simplejpeg
from alexnet_dali.pipeline.errors import ShardError, StreamError
from alexnet_dali.pipeline.plan.plan import BatchPlan
from alexnet_dali.pipeline.stream import decoder
from alexnet_dali.pipeline.stream.decoder import Decoder, Windows, part_of
from alexnet_dali.pipeline.stream.record_reader import Payloads
from PIL import Image

SIDES = [(64, 64), (64, 91), (70, 64), (64, 64), (64, 128), (65, 64), (64, 64), (99, 64), (64, 64)]


def photo(height, width, seed):
    """Smooth noise: JPEG has something to round, and no two places are alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpegs(sides=SIDES):
    found = []
    for seed, (height, width) in enumerate(sides):
        file = io.BytesIO()
        photo(height, width, seed).save(file, "jpeg", quality=95)
        found.append(np.frombuffer(file.getvalue(), np.uint8))
    return found


class Feed:
    """A reader of pictures that no shard set could hold beside each other; record k has label 10 k."""

    def __init__(self, data, sides=SIDES):
        self.data, self.sides, self.encoded = data, np.array(sides, np.int64), data[0].ndim == 1
        for array in data:
            array.flags.writeable = False  # as a reader's

    def read(self, records):
        for k in records.tolist():
            if self.data[k].size == 0:
                raise ShardError(f"record {k}: empty")
        return Payloads([self.data[k] for k in records], 10 * records, self.sides[records])

    def release(self, payloads):
        pass

    def name(self, record):
        return f"record {record}"

    def hint(self, record):
        return "repair it"


def as_planned(side):
    """The function from plans to windows of a side."""

    def windows(plan, sides):
        full = np.full(len(sides), side)
        return Windows(plan.left, plan.top, full, full, plan.flip)

    return windows


def decoder_of(data, side, threads=3, sides=SIDES):
    return Decoder(Feed(data, sides), as_planned(side), side, threads)


def pixels(sides=SIDES):
    return [np.array(Image.open(io.BytesIO(data.tobytes()))) for data in jpegs(sides)]


def planned(side, count=len(SIDES), flip=None, seed=0):
    """A batch of the first pictures, with windows inside them."""
    random = np.random.default_rng(seed)
    left, top = (random.integers(0, 64 - side + 1, count) for _ in range(2))
    flip = random.integers(0, 2, count) if flip is None else np.full(count, flip)
    return BatchPlan(0, 0, 0, count, np.arange(count), left, top, flip, np.zeros((count, 3), np.float32))


def expected(pictures, wanted, side):
    cuts = []
    for k, picture in enumerate(pictures):
        part = picture[wanted.top[k] : wanted.top[k] + side, wanted.left[k] : wanted.left[k] + side]
        cuts.append(part[:, ::-1] if wanted.flip[k] else part)
    return np.array(cuts)


@pytest.fixture(params=[True, False], ids=["jpeg", "raw"])
def encoded(request):
    return request.param


@pytest.fixture
def data(encoded):
    return jpegs() if encoded else pixels()


@pytest.fixture
def pool():
    """Makes decoders, closed at the end."""
    made = []

    def make(*given, **options):
        made.append(decoder_of(*given, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("side", [64, 48, 1])
@pytest.mark.parametrize("flip", [0, 1, None])
def test_every_pixel_of_every_window(pool, data, side, flip):
    wanted = planned(side, flip=flip)
    job = pool(data, side).begin(wanted)
    found = job.wait()
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected(pixels(), wanted, side))
    assert job.labels.tolist() == list(range(0, 90, 10)) and job.sides.tolist() == [list(side) for side in SIDES]


def test_windows_of_another_size_are_resized(data):
    def whole(plan, sides):
        zeros, (height, width) = np.zeros(len(sides), int), sides.T
        return Windows(zeros, zeros, width, height, zeros)

    pool = Decoder(Feed(data), whole, 32, 3)
    found = pool.begin(np.arange(9)).wait()
    pool.close()
    for k, picture in enumerate(pixels()):
        other = np.array(Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR))
        assert np.abs(found[k].astype(int) - other).max() <= 1


@pytest.mark.parametrize("count", [1, 2, 7])
def test_batches_of_any_size_on_any_number_of_threads(pool, encoded, count):
    sides, given = SIDES[:count], planned(48, count)
    for threads in (1, 2, 8):
        data = jpegs(sides) if encoded else pixels(sides)
        found = pool(data, 48, threads, sides).begin(given).wait()
        np.testing.assert_array_equal(found, expected(pixels(sides), given, 48))


def test_batches_under_way_at_once_do_not_share_memory(pool, data):
    made, wanted = pool(data, 48), [planned(48, seed=seed) for seed in range(12)]
    begun = [made.begin(w) for w in wanted]
    for job, w in zip(begun, wanted, strict=True):
        np.testing.assert_array_equal(job.wait(), expected(pixels(), w, 48))
    assert made.buffers.made == 12


def test_buffers_are_used_again_once_given_back(pool, data):
    made = pool(data, 48)
    for seed in range(20):
        job = made.begin(planned(48, seed=seed))
        np.testing.assert_array_equal(job.wait(), expected(pixels(), planned(48, seed=seed), 48))
        job.release()
    assert made.buffers.made == 1


def broken(kind):
    data = jpegs()[0].copy()
    if kind == "noise":
        data[2:] = np.random.default_rng(0).integers(0, 255, len(data) - 2)
    elif kind == "half":
        data = data[: len(data) // 2].copy()
    elif kind == "bomb":  # its header says 65,500 x 65,500
        place = data.tobytes().index(b"\xff\xc0")
        data[place + 5 : place + 9] = (0xFF, 0xDC, 0xFF, 0xDC)
    elif kind == "other sides":
        data = jpegs([(64, 72)])[0]
    elif kind == "smaller":
        data = jpegs([(64, 40)])[0]
    return data


WRONG = {
    "noise": "its JPEG does not decode",
    "half": "its JPEG does not decode",
    "bomb": "its JPEG is 65500x65500, but its record says 64x64",
    "other sides": "its JPEG is 72x64, but its record says 64x64",
    "smaller": "its JPEG is 40x64, but its record says 64x64",
}


@pytest.mark.parametrize("side", [64, 48])
@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_decode_is_named(pool, kind, side):
    data = jpegs()
    data[6] = broken(kind)
    made = pool(data, side)
    with pytest.raises(StreamError) as caught:
        made.begin(planned(side, flip=0)).wait()
    assert (caught.value.message, caught.value.hint) == (f"record 6: {WRONG[kind]}", "repair it")
    good = made.begin(planned(side, 6)).wait()  # the threads are still there
    np.testing.assert_array_equal(good, expected(pixels(SIDES[:6]), planned(side, 6), side))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_of_several_faults_is_told(pool, threads):
    """Though the records of a task are all read before the first is decoded."""
    data = jpegs()
    for place in (7, 3, 5):
        data[place] = broken("noise")
    data[4] = data[1] = np.zeros(0, np.uint8)
    for first, message in ((1, "record 1: empty"), (3, "record 3: its JPEG does not decode"), (4, "record 4: empty")):
        with pytest.raises((StreamError, ShardError)) as caught:
            pool(data, 48, threads).begin(part_of(planned(48), slice(first, 9))).wait()
        assert caught.value.message == message


def test_closing_waits_for_pictures_under_way_and_drops_the_rest(monkeypatch):
    done, slow = [], threading.Event()
    decode = simplejpeg.decode_jpeg

    def slowly(data, **options):
        slow.set()
        time.sleep(0.05)
        done.append(1)
        return decode(data, **options)

    monkeypatch.setattr(decoder.simplejpeg, "decode_jpeg", slowly)
    pool = decoder_of(jpegs(), 48, 2)
    jobs = [pool.begin(planned(48)) for _ in range(20)]
    slow.wait()
    pool.close()
    ended = len(done)
    assert ended < 40 < 20 * 9 and all(task.done() for job in jobs for task in job.tasks)
    time.sleep(0.12)
    assert len(done) == ended


def test_a_pool_may_be_closed_by_one_of_its_own_threads():
    """Python collects what is lost in a cycle in whichever thread it happens to be."""
    pool = decoder_of(jpegs(), 48, 2)
    pool._pool.submit(pool.close).result(timeout=5)
    with pytest.raises(RuntimeError):
        pool.begin(planned(48))


def test_a_fault_does_not_keep_the_batch():
    data = jpegs()
    data[1] = broken("noise")
    pool = decoder_of(data, 48, 2)
    gc.disable()
    try:
        job = pool.begin(planned(48))
        with suppress(StreamError):
            job.wait()
        pool.close()
        gone = weakref.ref(job)
        del job
        assert gone() is None
    finally:
        gc.enable()
