"""Interrupted within a batch, a stream ends: it never goes on with the labels of other pictures."""

import signal
from itertools import islice

import nvidia.dali.external_source
import pytest
import torch
from alexnet_dali.pipeline.errors import StreamError
from alexnet_dali.pipeline.plan.lighting import Lighting
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream.autotune import DECODERS
from alexnet_dali.pipeline.stream.batch_source import BatchSource
from alexnet_dali.pipeline.stream.decoder import Decoding
from alexnet_dali.pipeline.stream.record_reader import RecordReader
from alexnet_dali.pipeline.stream.streams import train_stream, views_stream
from conftest import build_set

PLACES = {  # where the signal comes
    "tensor": (torch, "from_dlpack"),
    "finished": (torch, "from_numpy"),
    "feed": (nvidia.dali.external_source._ExternalDataBatch, "feed"),
    "decoding": (Decoding, "wait"),
    "reading": (RecordReader, "read"),
    "used": (BatchSource, "used"),
}


NOT_MET = {"fused": {"tensor", "feed"}, "threads": {"finished"}, "dali": {"finished", "decoding"}}


class AlarmError(Exception):
    """What a program's own signal handler raises."""


@pytest.fixture(scope="module")
def shard_set(photos, tmp_path_factory):
    """The photos as 64x64 pictures."""
    return build_set(photos, tmp_path_factory.mktemp("interrupted") / "set", size=64, shard_records=16)


def streamed(shard_set, decode, **options):
    plan = Plan(shard_set.split("train").records, 8, 0, shard_set.size, Augmentation(48))
    return train_stream(shard_set, stats.load_stats(shard_set), plan, decode=decode, light=Lighting("none"), **options)


@pytest.fixture
def interrupt(monkeypatch):
    """Have SIGINT come the next time that the program is at a place; before what is done there, or after it."""

    def at(place, raised, after):
        owner, name = PLACES[place]
        original = getattr(owner, name)

        def once(*given):
            monkeypatch.setattr(owner, name, original)
            result = original(*given) if after else None
            signal.raise_signal(signal.SIGINT)
            return result

        def handler(*_):
            raise raised

        before.append(signal.signal(signal.SIGINT, handler))
        monkeypatch.setattr(owner, name, once)

    before = []
    yield at
    for handler in before[:1]:
        signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("raised", [KeyboardInterrupt, AlarmError])
@pytest.mark.parametrize(
    "decode, place",
    [(decode, place) for decode in DECODERS for place in PLACES if place not in NOT_MET[decode]],
)
def test_an_interrupted_stream_ends(shard_set, interrupt, decode, place, raised, after):
    with streamed(shard_set, decode) as stream:
        expected = list(islice(stream, 12))
    with streamed(shard_set, decode) as stream:
        got = list(islice(stream, 3))
        interrupt(place, raised, after)
        told = []
        for _ in range(6):  # the user catches it, and goes on
            try:
                got.append(next(stream))
            except (KeyboardInterrupt, AlarmError, StreamError) as error:
                told.append(error)
        assert told and isinstance(told[-1], Exception)
        with pytest.raises(type(told[-1])):  # nor is it an end that could be taken for the pass's own
            next(stream)
    for batch in got:  # those of before, and none that is not what it should be
        same = expected[batch.plan.step + 7 * batch.plan.epoch]
        assert torch.equal(batch.images, same.images) and torch.equal(batch.labels, same.labels)
    if raised is KeyboardInterrupt:
        assert isinstance(told[0], KeyboardInterrupt) and len(got) + len(told) == 9
        assert str(told[1]) == "the stream was interrupted within a batch; create it again from its (epoch, step)"
    last = got[-1].plan
    with streamed(shard_set, decode, epoch=last.epoch, step=last.step + 1) as stream:  # as the hint says
        assert torch.equal(next(stream).images, expected[len(got)].images)


@pytest.mark.parametrize("decode", ["threads", "dali"])
def test_an_interrupted_pass_over_views_ends(shard_set, interrupt, decode):
    with views_stream(shard_set, stats.load_stats(shard_set), "val", crop=48, batch_size=4, decode=decode) as stream:
        next(stream)
        interrupt("tensor", KeyboardInterrupt, False)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
        with pytest.raises(StreamError, match="interrupted within a batch"):
            next(stream)
