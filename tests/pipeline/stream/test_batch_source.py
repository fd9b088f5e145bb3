"""How far ahead of DALI a source works: records wanted, and batches that threads decode, however large batches are."""

from collections.abc import Iterator

import numpy as np
import pytest
from alexnet_dali.pipeline.stream.batch_source import AHEAD, DECODED, BatchSource
from alexnet_dali.pipeline.stream.decoder import Decoder, Windows
from alexnet_dali.pipeline.stream.record_reader import RecordReader
from conftest import build_set


@pytest.fixture(scope="module")
def shard_set(photos, tmp_path_factory):
    """The photos as 32x32 pictures."""
    return build_set(photos, tmp_path_factory.mktemp("ahead") / "set", size=32, shard_records=16)


def plans(records: int) -> Iterator[np.ndarray]:
    """Batches of so many records, the same ones again and again, without end."""
    while True:
        yield np.arange(records) % 60


def whole(plan, sides):
    """Windows of whole pictures."""
    zeros, sides = np.zeros(len(plan), np.int64), np.full(len(plan), 32)
    return Windows(zeros, zeros, sides, sides, zeros)


def after_some_batches(source):
    """The jobs that lie ahead once a batch has been handed over and the disk has had its time."""
    for _ in range(2):
        source()
        source.used()
        for job in source._ahead:
            job.reading.result()
    source()
    return list(source._ahead)


@pytest.mark.parametrize("records, ahead", [(1, AHEAD), (128, AHEAD), (256, AHEAD), (512, 4), (1100, 3), (3000, 3)])
def test_batches_are_wanted_and_decoded_ahead_whatever_their_size(shard_set, records, ahead):
    feed = RecordReader(shard_set, "train")
    source = BatchSource(feed, plans(records), lambda *_: [], Decoder(feed, whole, 32, 2))
    try:
        jobs = after_some_batches(source)
        assert len(jobs) == ahead
        for job in jobs[:DECODED]:  # the pictures are there without anybody waiting for the batch
            assert len(job.decoding.tasks) > 0
            for task in job.decoding.tasks:
                task.result(timeout=60)
            assert job.decoding._pictures.any(axis=(1, 2, 3)).all()
        assert all(job.decoding is None for job in jobs[DECODED:])
    finally:
        source.close()


def test_what_dali_decodes_is_wanted_ahead_alone(shard_set):
    source = BatchSource(RecordReader(shard_set, "train"), plans(20), lambda *_: [])
    try:
        jobs = after_some_batches(source)
        assert len(jobs) == AHEAD and not any(job.payloads or job.decoding for job in jobs)
    finally:
        source.close()
