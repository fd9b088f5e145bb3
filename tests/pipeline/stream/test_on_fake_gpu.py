"""The stream on a GPU that is not there (fake_cuda.py): pixels, waits, page-locked memory and its life, errors."""

from contextlib import suppress
from itertools import islice

import graphs
import numpy as np
import pytest
import torch
from alexnet_dali.pipeline.errors import DeviceError, StreamError
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.plan.resized_crop import ResizedCrop
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream.autotune import DALI, THREADS
from alexnet_dali.pipeline.stream.decoder import Decoding
from alexnet_dali.pipeline.stream.stall import StallMeter
from alexnet_dali.pipeline.stream.streams import train_stream, views_stream
from fake_cuda import Event, one_gpu  # noqa: F401  # the fixture `cuda`
from nvidia.dali import Pipeline

GPU = torch.device("cuda", 0)
ON_GPU = (THREADS, DALI)
CRASH = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later,\nso look"


def windows(shard_set, decode="auto", device="cuda", resized=None, batch_size=16, **options):
    augmentation = Augmentation(224, resized=resized)
    plan = Plan(shard_set.split("train").records, batch_size, 3, shard_set.size, augmentation)
    known = None if options.get("mean") == "imagenet" else stats.load_stats(shard_set)
    return train_stream(shard_set, known, plan, decode=decode, device=device, **options)


def views(shard_set, decode="auto", device="cuda", **options):
    known = stats.load_stats(shard_set)
    return views_stream(shard_set, known, "val", views=10, batch_size=7, decode=decode, device=device, **options)


# Batches


@pytest.mark.parametrize("decode", ON_GPU)
@pytest.mark.parametrize("kind", ["windows", "resized", "views"])
@pytest.mark.parametrize("form", ["shards", "raw_shards", "short_side_shards"])
def test_batches_are_the_cpu_s_on_the_device(cuda, request, form, kind, decode):
    """To the rounding of other operations; resized crops by the same decoder, whose filters differ at the edge."""
    shard_set = request.getfixturevalue(form)
    make = views if kind == "views" else windows
    options = {"resized": ResizedCrop(), "mean": "rgb"} if kind == "resized" else {}
    with make(shard_set, decode, **options) as found, make(shard_set, decode, "cpu", **options) as expected:
        for one, other in islice(zip(found, expected, strict=True), 6):
            assert one.images.device == one.labels.device == GPU
            torch.testing.assert_close(one.images.cpu(), other.images, rtol=0, atol=1e-4)
            assert torch.equal(one.labels.cpu(), other.labels)
            np.testing.assert_array_equal(one.records, other.records)
    assert cuda.mixed == []


@pytest.mark.parametrize("decode", ON_GPU)
def test_nothing_waits_for_the_device(cuda, shards, decode):
    with windows(shards, decode) as stream:
        assert len(list(islice(StallMeter(stream, device="cuda"), 20))) == 20
        assert cuda.waits == []


def test_the_stall_meter_measures_by_events(cuda, shards):
    with windows(shards) as stream:
        meter = StallMeter(stream, device="cuda")
        assert len(list(islice(meter, 5))) == 5
        assert meter.total().seconds > 0 and meter.startup_seconds > 0
        assert meter.stages().threads == stream.stages().threads


@pytest.mark.parametrize(
    "form, threads, decode, why",
    [
        ("shards", 4, THREADS, "decode threads: 4 threads decode, and the GPU only trains"),
        ("shards", 3, DALI, "decode dali: the GPU decodes, because 4 threads or more would be needed, not 3"),
        ("raw_shards", 1, THREADS, "decode threads: raw pixels are only cut"),
    ],
)
def test_auto_takes_a_decoder_by_rule(cuda, request, form, threads, decode, why):
    for make in (windows, views):
        with make(request.getfixturevalue(form), threads=threads) as stream:
            assert (stream.decode, stream.chosen) == (decode, why)
            assert next(stream).images.is_cuda


# What goes up


def handed_over(stream):
    """What the source returns for DALI's next batch."""
    batch = stream._source()
    stream._source.used()
    return batch


@pytest.mark.parametrize("form", ["shards", "raw_shards"])
def test_pictures_go_up_as_bytes(cuda, request, form):
    """An image: 224 x 224 x 3 bytes cut by threads; the file or all raw pixels for DALI; and some numbers."""
    shard_set = request.getfixturevalue(form)
    with windows(shard_set, THREADS) as stream:
        pictures, mean, gain = handed_over(stream)
        assert (pictures.dtype, pictures.nbytes // 16) == (np.uint8, 150_528)
        assert (mean.nbytes + gain.nbytes) // 16 == 16
    with windows(shard_set, DALI) as stream:
        payloads, *numbers = handed_over(stream)
        assert sum(each.nbytes for each in numbers) // 16 == 28
        sizes = [payload.nbytes for payload in payloads]
        assert all(size == 196_608 for size in sizes) if form == "raw_shards" else max(sizes) < 60_000


@pytest.fixture
def told(monkeypatch):
    """What DALI is told of pictures in page-locked memory: address of the array, address that DALI reads."""
    found, of = [], graphs._batch

    def batch(array, is_pinned):
        made = of(array, is_pinned=is_pinned)
        found.append((array.ctypes.data, made[0].data_ptr()))
        return made

    monkeypatch.setattr(graphs, "_batch", batch)
    return found


@pytest.mark.parametrize("make", [windows, views])
def test_dali_reads_the_threads_page_locked_memory_itself(cuda, shards, told, make):
    with make(shards, THREADS) as stream:
        assert len(list(islice(stream, 2))) == 2
    assert len(told) >= 2
    for own, read in told:
        assert own == read and cuda.pinned(own)


def test_dali_copies_what_is_not_page_locked(cuda, raw_shards, told):
    with windows(raw_shards, DALI) as stream:
        next(stream)
    with windows(raw_shards, THREADS, "cpu") as stream:
        next(stream)
    assert told == []


# The life of page-locked memory


@pytest.fixture
def written(cuda, told, monkeypatch):
    """A busy GPU, which reads a batch until its event is complete; the buffers that were written before, if any."""
    early, of = [], Decoding.__init__

    def begin(decoding, *arguments):
        of(decoding, *arguments)
        events = cuda.current.events  # one a batch, in the order of `told`
        mine = [k for k, (address, _) in enumerate(told) if address == decoding._buffer.ctypes.data]
        early.extend(k for k in mine if k >= len(events) or not events[k].complete)

    monkeypatch.setattr(Decoding, "__init__", begin)
    cuda.busy = True
    return early


def test_memory_is_written_again_once_the_gpu_has_read_it(cuda, shards, told, written):
    with windows(shards, THREADS) as stream:
        for _ in islice(stream, 30):
            pass
        assert written == []
        assert len({address for address, _ in told}) < 12 < len(told)  # so they were used again
        assert cuda.waits and all("pipeline/stream/buffers.py" in wait for wait in cuda.waits)


def test_the_last_batches_too(cuda, shards, told, written):
    with views(shards, THREADS) as stream:
        assert len(list(stream)) == 3
    assert written == [] and len(told) == 3
    assert all(event.complete for event in cuda.current.events)


@pytest.mark.parametrize("how", ["closed", "dropped", "failed"])
def test_an_ended_stream_waits_for_what_the_gpu_still_reads(cuda, shards, told, written, monkeypatch, how):
    stream = windows(shards, THREADS)
    kept = [next(stream).images for _ in range(2)]
    assert not any(event.complete for event in cuda.current.events)
    if how == "closed":
        stream.close()
    elif how == "failed":
        monkeypatch.setattr(Pipeline, "run", lambda *_: 1 / 0)
        with suppress(StreamError):
            next(stream)
    else:
        del stream
    assert len(kept) == 2 and all(event.complete for event in cuda.current.events)


# Errors


def crash(*_, **__):
    raise RuntimeError(CRASH)


@pytest.mark.parametrize("decode", ["auto", *ON_GPU])
@pytest.mark.parametrize("where", ["graph", "labels", "event"])
def test_an_error_of_cuda_is_one_sentence_and_the_end(cuda, shards, monkeypatch, where, decode):
    stream = windows(shards, decode)
    next(stream)
    owner, name = {"graph": (Pipeline, "run"), "labels": (torch.Tensor, "record_stream"), "event": (Event, "record")}[
        where
    ]
    monkeypatch.setattr(owner, name, crash)
    for _ in range(2):
        with pytest.raises(DeviceError) as caught:
            next(stream)
        assert caught.value.message == f"the GPU failed: {' '.join(CRASH.split())}"
        assert caught.value.hint == "find the reason with alexnet-prep doctor; saved checkpoints are kept"
    stream.close()


def test_an_error_of_cuda_while_a_buffer_is_waited_for(cuda, shards, monkeypatch):
    cuda.busy = True
    monkeypatch.setattr(Event, "synchronize", crash)
    with windows(shards, THREADS) as stream:
        for _ in range(2):  # the second time at once
            with pytest.raises(DeviceError) as caught:
                for _ in islice(stream, 30):
                    pass
            assert caught.value.message.startswith("the GPU failed: CUDA error: an illegal memory access")


def test_a_full_gpu_asks_for_smaller_batches(cuda, shards, monkeypatch):
    def full(*_):
        raise RuntimeError("CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory")

    monkeypatch.setattr(Pipeline, "run", full)
    with windows(shards) as stream, pytest.raises(DeviceError) as caught:
        next(stream)
    assert caught.value.hint == "a smaller batch size"


def test_a_decoder_that_fails_on_the_gpu_is_no_note(cuda, shards, monkeypatch):
    monkeypatch.setattr(Pipeline, "build", crash)
    with pytest.raises(DeviceError) as caught:
        windows(shards, threads=1)
    assert caught.value.message.startswith("DALI cannot use GPU 0: CUDA error: an illegal memory access")


def test_a_gpu_that_is_not_there(cuda, shards):
    for make in (windows, views):
        with pytest.raises(DeviceError) as caught:
            make(shards, device="cuda:1")
        assert str(caught.value) == "no GPU 1: this machine has 1; choose a smaller number"
