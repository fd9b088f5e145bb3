"""The promise of docs/plan.md: an epoch from the page alone; the same records, draws and pixels however it is run."""

import ast
import hashlib
import random
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import reproduce
from alexnet_dali.pipeline.plan.plan import (
    Augmentation,
    Plan,
    dropout_keeps,
    evaluation_batches,
    permutation,
    resized_draws,
)
from alexnet_dali.pipeline.plan.resized_crop import ResizedCrop, resized_windows
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream.streams import train_stream
from hypothesis import example, given, settings
from hypothesis import strategies as st

SHARES = st.sampled_from([1, 3, 32])
RANKS = st.sampled_from([1, 2, 3, 8])
CROPS = st.sampled_from([None, ResizedCrop()])
SEEDS, EPOCHS = st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)
FIELDS = ("records", "left", "top", "flip", "gaussians", "resized")


def batches_of(plan, epoch=0, step=0):
    return list(islice(plan.batches(epoch, step), plan.steps - step))


def joined(batches, field):
    """A field of several batches, one after the other; None where it is none."""
    values = [getattr(batch, field) for batch in batches]
    return None if values[0] is None else np.concatenate(values)


# From the page alone


def test_the_reproduction_knows_nothing_but_the_page():
    tree = ast.parse(Path(reproduce.__file__).read_text())
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert imported == ["math"] and not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


@settings(max_examples=12)
@example(20, 9, 3, 2**64 - 1, 2**64 - 1, 3, ResizedCrop(), 32)
@given(st.integers(8, 40), st.integers(8, 40), RANKS, SEEDS, EPOCHS, SHARES, CROPS, st.integers(0, 40))
def test_every_batch_of_an_epoch_is_reproduced(count, batch, ranks, seed, epoch, shared, resized, margin):
    crop = Augmentation(224, shared=shared, resized=resized)
    for rank in range(ranks):
        plan = Plan(count, batch, seed, 224 + margin, crop, rank, ranks)
        options = {"size": 224 + margin, "shared": shared, "rank": rank, "ranks": ranks, "resized": bool(resized)}
        told = list(reproduce.epoch_of(count, batch, seed, epoch, **options))
        found = batches_of(plan, epoch)
        assert len(found) == len(told)
        for step, (one, (places, rows)) in enumerate(zip(found, told, strict=True)):
            assert (one.epoch, one.step, one.start) == (epoch, step, places.start)
            assert len(one.records) == len(rows)
            for k, (record, left, top, flip, light, words) in enumerate(rows):
                assert (one.records[k], one.left[k], one.top[k], one.flip[k]) == (record, left, top, flip)
                assert (one.gaussians[k].astype(np.float64) * 2**20).tolist() == light
                assert words is None if one.resized is None else one.resized[k].tolist() == words


@settings(max_examples=10)
@given(SEEDS, EPOCHS, st.integers(0, 5000), st.sampled_from([64, 192]))
def test_dropout_is_reproduced(seed, epoch, place, units):
    kept = [int(bit) for bit in dropout_keeps(seed, epoch, place, 1, units)[0]]
    assert kept == reproduce.kept(seed, epoch, place, units)


@pytest.mark.parametrize("purpose", [reproduce.BUILD, reproduce.HOLD_OUT])
def test_the_orders_of_the_build_are_reproduced(purpose):
    assert permutation(40, 7, purpose=purpose).tolist() == reproduce.order(40, 7, 0, purpose)


# However it is shared out


@settings(max_examples=40)
@given(st.integers(8, 80), st.integers(8, 40), RANKS, SEEDS, EPOCHS, SHARES, CROPS)
def test_shares_are_together_the_whole(count, batch, ranks, seed, epoch, shared, resized):
    crop = Augmentation(shared=shared, resized=resized)
    whole = batches_of(Plan(count, batch, seed, augmentation=crop), epoch)
    parts = [
        batches_of(Plan(count, batch, seed, augmentation=crop, rank=rank, ranks=ranks), epoch) for rank in range(ranks)
    ]
    for step, one in enumerate(whole):
        for field in FIELDS:
            together = joined([part[step] for part in parts], field)
            np.testing.assert_array_equal(together, getattr(one, field), err_msg=field)


@settings(max_examples=40)
@given(st.integers(1, 120), st.integers(1, 30), st.integers(1, 30), SEEDS, EPOCHS, SHARES, CROPS)
def test_the_batch_size_only_says_where_a_batch_ends(count, one, other, seed, epoch, shared, resized):
    crop = Augmentation(shared=shared, resized=resized)
    first, second = (batches_of(Plan(count, size, seed, augmentation=crop), epoch) for size in (one, other))
    for field in FIELDS:
        a, b = joined(first, field), joined(second, field)
        if a is None or b is None:
            assert a is b
        else:
            both = min(len(a), len(b))
            np.testing.assert_array_equal(a[:both], b[:both], err_msg=field)


@settings(max_examples=30)
@given(st.integers(2, 60), st.integers(1, 12), SEEDS, st.integers(0, 2**63), SHARES, CROPS, st.data())
def test_resuming_twice_gives_the_rest(count, batch, seed, epoch, shared, resized, data):
    plan = Plan(count, batch, seed, augmentation=Augmentation(shared=shared, resized=resized))
    uninterrupted = list(islice(plan.batches(epoch), plan.steps + 3))
    first = data.draw(st.integers(0, len(uninterrupted) - 1))
    second = data.draw(st.integers(first, len(uninterrupted) - 1))
    pieces = uninterrupted[:first]
    for begin, end in ((first, second), (second, len(uninterrupted))):
        more, step = divmod(begin, plan.steps)
        pieces += islice(plan.batches(epoch + more, step), end - begin)
    assert [(b.epoch, b.step, b.start) for b in pieces] == [(b.epoch, b.step, b.start) for b in uninterrupted]
    for one, other in zip(pieces, uninterrupted, strict=True):
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)


@settings(max_examples=30)
@given(st.integers(1, 200), st.integers(1, 40), RANKS)
def test_a_test_pass_meets_every_record_once(count, batch, ranks):
    met = [part.tolist() for rank in range(ranks) for part in evaluation_batches(count, batch, rank, ranks)]
    assert [record for part in met for record in part] == list(range(count))


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=11, max_size=11),
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
    st.floats(0.01, 50),
    st.floats(0.01, 50),
)
def test_resized_windows_are_reproduced_for_any_words_and_sides(words, height, width, a, b, narrow, wide):
    crop = ResizedCrop((min(a, b), max(a, b)), (min(narrow, wide), max(narrow, wide)))
    for chosen in (crop, ResizedCrop()):
        found = resized_windows(np.array([words], np.uint64), np.array([height]), np.array([width]), chosen)
        told = reproduce.resized_window(words, height, width, chosen.area, chosen.aspect)
        assert tuple(int(part[0]) for part in found) == told


def test_resized_windows_are_reproduced_to_the_last_bit_of_a_word():
    """In pictures so large that even the smallest step of a draw moves the window."""
    side = 2**30
    drawn = resized_draws(3, 4, 0, 300)
    found = np.stack(resized_windows(drawn, np.full(300, side), np.full(300, side), ResizedCrop()), axis=1)
    assert found.tolist() == [list(reproduce.resized_window(words, side, side)) for words in drawn.tolist()]


# Order and pixels of a small epoch, as a hash


def hashed(batches):
    """SHA-256 over epoch, step, records, labels and pixels of batches, shares of one batch one after the other."""
    digest = hashlib.sha256()
    for shares in batches:
        digest.update(repr((shares[0].plan.epoch, shares[0].plan.step)).encode())
        for field in ("records", "labels", "images"):
            for batch in shares:
                value = getattr(batch, field)
                value = value.movedim(-3, -1).contiguous().numpy() if field == "images" else np.asarray(value)
                digest.update(value.tobytes())
    return digest.hexdigest()


PLAIN, SQUEEZED = Augmentation(200), Augmentation(96, resized=ResizedCrop())


def epoch_hash(shard_set, decode, crop=PLAIN, *, ranks=1, threads=1, stops=()):
    """The hash of an epoch and a batch of the next, of some ranks, stopped and resumed at some steps."""
    numbers, records = stats.load_stats(shard_set), shard_set.split("train").records
    plans = [Plan(records, 13, 2012, shard_set.size, crop, rank, ranks) for rank in range(ranks)]
    options = {"decode": decode, "threads": threads, "mean": "rgb" if crop.resized else "image"}
    edges = [0, *stops, plans[0].steps + 1]
    found = []
    for begin, end in pairwise(edges):
        epoch, step = divmod(begin, plans[0].steps)
        pieces = []
        for plan in plans:
            with train_stream(shard_set, numbers, plan, epoch=epoch, step=step, **options) as stream:
                pieces.append(list(islice(stream, end - begin)))
        found += list(zip(*pieces, strict=True))
    assert len(found) == plans[0].steps + 1
    return hashed(found)


@pytest.fixture(scope="module", params=["shards", "raw_shards"])
def small_set(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    ("small_set", "decode"),
    [
        ("shards", "dali"),
        ("raw_shards", "threads"),
        ("shards", "fused"),
        pytest.param("raw_shards", "fused", marks=pytest.mark.slow),
        pytest.param("shards", "threads", marks=pytest.mark.slow),
        pytest.param("raw_shards", "dali", marks=pytest.mark.slow),
    ],
    indirect=["small_set"],
)
def test_order_and_pixels_are_the_same_however_they_are_made(small_set, decode):
    alone = epoch_hash(small_set, "fused" if decode == "fused" else "threads")  # DALI may round otherwise than C does
    stops = sorted(random.Random(4).sample(range(1, 5), 2))
    ways = [
        {"threads": 3},
        {"ranks": 2},
        {"ranks": 3, "threads": 3},
        {"ranks": 8},
        {"stops": stops},
        {"stops": [1, 4], "ranks": 2, "threads": 3},
    ]
    assert {str(way): epoch_hash(small_set, decode, **way) for way in ways} == {str(way): alone for way in ways}


@pytest.mark.parametrize("decode", ["threads", "dali"])
def test_resized_crops_are_the_same_however_they_are_made(short_side_shards, decode):
    """Each way has a filter of its own (docs/plan.md), which knows neither ranks nor threads."""
    alone = epoch_hash(short_side_shards, decode, SQUEEZED)
    ways = [{"ranks": 8, "threads": 3}, {"ranks": 3, "stops": [1]}]
    found = {str(way): epoch_hash(short_side_shards, decode, SQUEEZED, **way) for way in ways}
    assert found == {str(way): alone for way in ways}


def test_the_hash_tells_a_pixel_a_record_and_an_order_apart(shards):
    numbers = stats.load_stats(shards)
    plan = Plan(shards.split("train").records, 13, 2012, shards.size, Augmentation(200))
    with train_stream(shards, numbers, plan, threads=1) as stream:
        one, two = islice(stream, 2)
    first = hashed([(one,), (two,)])
    assert first == hashed([(one,), (two,)]) != hashed([(two,), (one,)])
    one.images[3, 1, 50, 60] += 1
    assert hashed([(one,), (two,)]) != first
    one.images[3, 1, 50, 60] -= 1
    one.labels[0] += 1
    assert hashed([(one,), (two,)]) != first
