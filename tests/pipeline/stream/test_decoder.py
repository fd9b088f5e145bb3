"""Threads that decode and cut: every pixel as NumPy cuts what Pillow decodes; buffers of their own; faults."""

import gc
import io
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import simplejpeg
from alexnet_dali.pipeline.stream import decoder
from alexnet_dali.pipeline.stream.decoder import DecodeFault, Decoder, Windows
from alexnet_dali.pipeline.stream.record_reader import Buffers, Payloads
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


def payloads(data, sides=SIDES):
    for array in data:
        array.flags.writeable = False  # as in the memory map
    return Payloads(data, np.zeros(len(data), np.int64), np.array(sides, np.int64))


def pixels(sides=SIDES):
    return [np.array(Image.open(io.BytesIO(data.tobytes()))) for data in jpegs(sides)]


def windows(side, count=len(SIDES), flip=None, seed=0):
    random = np.random.default_rng(seed)
    left, top = (random.integers(0, 64 - side + 1, count) for _ in range(2))
    flip = random.integers(0, 2, count) if flip is None else np.full(count, flip)
    return Windows(left, top, np.full(count, side), np.full(count, side), flip, side)


def expected(pictures, wanted):
    cuts = []
    for k, picture in enumerate(pictures):
        part = picture[wanted.top[k] : wanted.top[k] + wanted.side, wanted.left[k] : wanted.left[k] + wanted.side]
        cuts.append(part[:, ::-1] if wanted.flip[k] else part)
    return np.array(cuts)


@pytest.fixture(params=[True, False], ids=["jpeg", "raw"])
def encoded(request):
    return request.param


@pytest.fixture
def pool(encoded):
    made = Decoder(encoded, 3)
    yield made
    made.close()


@pytest.mark.parametrize("side", [64, 48, 1])
@pytest.mark.parametrize("flip", [0, 1, None])
def test_every_pixel_of_every_window(pool, encoded, side, flip):
    wanted = windows(side, flip=flip)
    found = pool.begin(payloads(jpegs() if encoded else pixels()), wanted).wait()
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected(pixels(), wanted))


def test_windows_of_another_size_are_resized(pool, encoded):
    height, width = np.array(SIDES).T
    wanted = Windows(np.zeros(9, int), np.zeros(9, int), width, height, np.zeros(9, int), 32)
    found = pool.begin(payloads(jpegs() if encoded else pixels()), wanted).wait()
    for k, picture in enumerate(pixels()):
        other = np.array(Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR))
        assert np.abs(found[k].astype(int) - other).max() <= 1


@pytest.mark.parametrize("count", [1, 2, 7])
def test_batches_of_any_size_on_any_number_of_threads(encoded, count):
    sides, given = SIDES[:count], windows(48, count)
    for threads in (1, 2, 8):
        pool = Decoder(encoded, threads)
        data = jpegs(sides) if encoded else pixels(sides)
        found = pool.begin(payloads(data, sides), given).wait()
        np.testing.assert_array_equal(found, expected(pixels(sides), given))
        pool.close()


def test_batches_under_way_at_once_do_not_share_memory(pool, encoded):
    data = payloads(jpegs() if encoded else pixels())
    wanted = [windows(48, seed=seed) for seed in range(12)]
    begun = [pool.begin(data, w) for w in wanted]
    for job, w in zip(begun, wanted, strict=True):
        np.testing.assert_array_equal(job.wait(), expected(pixels(), w))
    assert pool.buffers.made == 12


def test_buffers_are_used_again_once_given_back(pool, encoded):
    data = payloads(jpegs() if encoded else pixels())
    for seed in range(20):
        job = pool.begin(data, windows(48, seed=seed))
        np.testing.assert_array_equal(job.wait(), expected(pixels(), windows(48, seed=seed)))
        job.release()
    assert pool.buffers.made == 1


def test_buffers_wait_for_their_last_reader_and_grow():
    buffers, waited = Buffers(), []
    first = buffers.take(10)
    second = buffers.take(10)
    assert not np.shares_memory(first, second)
    buffers.give(first, lambda: waited.append(1))
    buffers.give(second)
    assert waited == []
    assert buffers.take(10) is first and waited == [1]
    assert len(buffers.take(50)) >= 50  # the second was too small
    assert buffers.made == 2


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


@pytest.mark.parametrize("side", [64, 48])
@pytest.mark.parametrize("kind", ["noise", "half", "bomb", "other sides", "smaller"])
def test_what_does_not_decode_is_named_by_its_place(kind, side):
    data, pool = jpegs(), Decoder(True, 2)
    data[6] = broken(kind)
    job = pool.begin(payloads(data), windows(side, flip=0))
    with pytest.raises(DecodeFault) as caught:
        job.wait()
    assert caught.value.place == 6
    good = pool.begin(payloads(jpegs()), windows(side)).wait()  # the threads are still there
    np.testing.assert_array_equal(good, expected(pixels(), windows(side)))
    pool.close()


def test_the_first_of_several_faults_is_told():
    data, pool = jpegs(), Decoder(True, 1)
    for place in (7, 3, 5):
        data[place] = broken("noise")
    with pytest.raises(DecodeFault) as caught:
        pool.begin(payloads(data), windows(48)).wait()
    assert caught.value.place == 3
    pool.close()


def test_closing_waits_for_pictures_under_way_and_drops_the_rest(monkeypatch):
    done, slow = [], threading.Event()
    decode = simplejpeg.decode_jpeg

    def slowly(data, **options):
        slow.set()
        time.sleep(0.05)
        done.append(1)
        return decode(data, **options)

    monkeypatch.setattr(decoder.simplejpeg, "decode_jpeg", slowly)
    pool = Decoder(True, 2)
    jobs = [pool.begin(payloads(jpegs()), windows(48)) for _ in range(20)]
    slow.wait()
    pool.close()
    ended = len(done)
    assert ended < 40 < 20 * 9 and all(task.done() for job in jobs for task in job.tasks)
    time.sleep(0.12)
    assert len(done) == ended


def test_a_pool_may_be_closed_by_one_of_its_own_threads():
    """Python collects what is lost in a cycle in whichever thread it happens to be."""
    pool = Decoder(True, 2)
    pool._pool.submit(pool.close).result(timeout=5)
    with pytest.raises(RuntimeError):
        pool.begin(payloads(jpegs()), windows(48))


def test_a_fault_does_not_keep_the_payloads():
    pool, data = Decoder(True, 2), jpegs()
    data[1] = broken("noise")
    given = payloads(data)
    gone = threading.Event()

    class Kept:
        def __del__(self):
            gone.set()

    object.__setattr__(given, "shards", (Kept(),))
    gc.disable()
    try:
        job = pool.begin(given, windows(48))
        with suppress(DecodeFault):
            job.wait()
        pool.close()
        del job, given
        assert gone.is_set()
    finally:
        gc.enable()
