"""The stream on a GPU that is not there (fake_cuda.py): pixels, waits, the life of buffers, errors."""

from itertools import islice

import pytest
import torch
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream.streams import train_stream
from fake_cuda import one_gpu  # noqa: F401


def stream_of(shard_set, decode, device="cuda", **options):
    plan = Plan(shard_set.split("train").records, 16, 3, shard_set.size, Augmentation(224))
    return train_stream(shard_set, stats.load_stats(shard_set), plan, decode=decode, device=device, **options)


@pytest.mark.parametrize("decode", ["threads", "dali"])
def test_windows(cuda, shards, decode):
    with stream_of(shards, decode) as found, stream_of(shards, decode, "cpu") as expected:
        for one, other in islice(zip(found, expected, strict=True), 6):
            assert one.images.device == one.labels.device == torch.device("cuda", 0)
            torch.testing.assert_close(one.images.cpu(), other.images, rtol=0, atol=1e-4)
            assert torch.equal(one.labels.cpu(), other.labels)
