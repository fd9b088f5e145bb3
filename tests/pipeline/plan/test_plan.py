"""The plan against docs/plan.md: words, order, batches, ranks, draws; their distributions; pinned values."""

import re
import threading
from itertools import islice
from pathlib import Path

import numpy as np
import oracle
import pytest
from alexnet_dali.pipeline.errors import PlanError
from alexnet_dali.pipeline.plan import philox
from alexnet_dali.pipeline.plan import plan as module
from alexnet_dali.pipeline.plan.philox import (
    BUILD,
    CROP,
    DROPOUT,
    FLIP,
    HOLD_OUT,
    LIGHT,
    ORDER,
    RESIZED,
    VIEW,
    permutation,
    philox_words,
    share_of,
)
from alexnet_dali.pipeline.plan.plan import (
    Augmentation,
    Plan,
    crop_and_flip,
    dropout_keeps,
    evaluation_batches,
    lighting_gaussians,
    rank_share,
)
from alexnet_dali.pipeline.plan.resized_crop import ResizedCrop
from hypothesis import example, given, settings
from hypothesis import strategies as st

PURPOSES = (ORDER, CROP, FLIP, LIGHT, VIEW, DROPOUT, BUILD, HOLD_OUT, RESIZED)
PAGE = (Path(__file__).parents[3] / "docs" / "plan.md").read_text()
FIELDS = ("records", "left", "top", "flip", "gaussians")

counts = st.integers(1, 150)
seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 1000)
shares = st.sampled_from([1, 3, 32])
few = settings(deadline=None, max_examples=60)


def epoch_of(plan, epoch=0, step=0):
    """The batches of the rest of one epoch."""
    return list(islice(plan.batches(epoch, step), plan.steps - step))


def joined(batches, field):
    return np.concatenate([getattr(batch, field) for batch in batches])


def assert_same(one, other):
    """Two batch plans agree in every field, to the bit."""
    assert (one.epoch, one.step, one.start, one.batch_size) == (other.epoch, other.step, other.start, other.batch_size)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)


# Words


@pytest.mark.parametrize(
    "counter, key, block",
    [
        ([0] * 4, [0] * 2, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        ([2**64 - 1] * 4, [2**64 - 1] * 2, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
        (
            [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89],
            [0x452821E638D01377, 0xBE5466CF34E90C6C],
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_the_oracle_is_philox_as_published(counter, key, block):
    # The known answers that the inventors' Random123 library is tested with.
    assert " ".join(f"{word:016x}" for word in oracle.philox_block(counter, key)) == block


@few
@example(0, 2**63 + 1, 0, 0, 1)
@given(seeds, st.integers(0, 2**64 - 1), st.sampled_from(PURPOSES), st.integers(0, 30), st.integers(0, 30))
def test_words_are_philox(seed, epoch, purpose, start, count):
    drawn = philox_words(seed, epoch, purpose, start, count)
    assert drawn.dtype == np.uint64
    assert drawn.tolist() == oracle.philox_words(seed, epoch, purpose, start + count)[start:]


def test_words_far_into_an_epoch_are_philox_too():
    # ImageNet's dropout words: 1,281,167 places of 128 words, beyond 2^27.
    start = 1_281_166 * 128
    block = oracle.philox_block([start // 4 + 1, 0, DROPOUT, 89], [5, 0])
    assert philox_words(5, 89, DROPOUT, start + 1, 3).tolist() == block[1:]


def test_purposes_keep_their_numbers():
    assert list(PURPOSES) == list(range(9))


def test_seeds_epochs_and_purposes_share_no_word():
    seeds_and_epochs = [0, 1, 2, 3, 2**32, 2**64 - 1]
    drawn = [philox_words(seed, epoch, p, 0, 64) for seed in seeds_and_epochs for epoch in range(6) for p in PURPOSES]
    together = np.concatenate(drawn)
    assert len(np.unique(together)) == len(together)


# Order, batches, ranks


@few
@given(counts, seeds, epochs)
def test_each_epoch_is_a_permutation_by_the_order_words(count, seed, epoch):
    order = permutation(count, seed, epoch)
    assert order.dtype == np.int64
    assert order.tolist() == oracle.order(oracle.philox_words(seed, epoch, ORDER, count))
    assert sorted(order.tolist()) == list(range(count))


def test_equal_words_keep_their_order(monkeypatch):
    word = np.array([7, 3, 7, 3, 0] * 20, np.uint64)
    monkeypatch.setattr(philox, "philox_words", lambda *_: word)
    assert permutation(100, 0).tolist() == oracle.order(word.tolist())


@few
@given(counts, st.integers(1, 40), seeds, epochs)
def test_an_epoch_meets_whole_batches_of_its_order(count, batch_size, seed, epoch):
    plan = Plan(count, batch_size, seed)
    batches = epoch_of(plan, epoch)
    used = count // batch_size * batch_size or count  # the short last batch goes, unless it is the only one
    assert joined(batches, "records").tolist() == permutation(count, seed, epoch)[:used].tolist()
    assert [batch.step for batch in batches] == list(range(plan.steps))
    assert {batch.batch_size for batch in batches} == {min(batch_size, count)}
    assert [batch.start for batch in batches] == [step * batch_size for step in range(plan.steps)]
    following = next(islice(plan.batches(epoch), plan.steps, None))
    assert (following.epoch, following.step, following.start) == (epoch + 1, 0, 0)


def test_neighbouring_epochs_and_seeds_are_ordered_and_drawn_anew():
    found: dict[tuple, str] = {}
    for seed in range(4):
        for epoch in range(4):
            (batch,) = epoch_of(Plan(100, 100, seed), epoch)
            for field in FIELDS:
                key = (field, getattr(batch, field).tobytes())
                assert key not in found, f"seed {seed} epoch {epoch} has the {field} of {found[key]}"
                found[key] = f"seed {seed} epoch {epoch}"


@few
@given(st.integers(9, 60), st.integers(9, 40), st.integers(1, 9), seeds, epochs, shares)
def test_shares_of_the_ranks_are_together_the_batch_of_one(count, batch_size, ranks, seed, epoch, shared):
    augmentation = Augmentation(shared=shared)
    whole = epoch_of(Plan(count, batch_size, seed, augmentation=augmentation), epoch)
    parts = [
        epoch_of(Plan(count, batch_size, seed, augmentation=augmentation, rank=rank, ranks=ranks), epoch)
        for rank in range(ranks)
    ]
    for step, batch in enumerate(whole):
        mine = [part[step] for part in parts]
        for field in FIELDS:
            np.testing.assert_array_equal(joined(mine, field), getattr(batch, field), err_msg=field)
        assert {part.batch_size for part in mine} == {batch.batch_size}
        sizes = [len(part.records) for part in mine]
        assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1 and sizes[-1] >= 1
        assert [part.start for part in mine] == [batch.start + sum(sizes[:rank]) for rank in range(ranks)]


@few
@given(st.integers(1, 120), st.integers(1, 30), st.integers(1, 30), seeds, epochs, shares)
def test_draws_do_not_know_the_batch_size(count, one, other, seed, epoch, shared):
    augmentation = Augmentation(shared=shared)
    first, second = (epoch_of(Plan(count, size, seed, augmentation=augmentation), epoch) for size in (one, other))
    for field in FIELDS:
        a, b = joined(first, field), joined(second, field)
        both = min(len(a), len(b))
        np.testing.assert_array_equal(a[:both], b[:both], err_msg=field)


@few
@given(st.integers(2, 60), st.integers(1, 12), seeds, epochs, shares)
def test_resuming_at_any_step_gives_the_same_batches(count, batch_size, seed, epoch, shared):
    plan = Plan(count, batch_size, seed, augmentation=Augmentation(shared=shared))
    uninterrupted = list(islice(plan.batches(epoch), plan.steps + 2))  # into the next epochs
    for step in range(plan.steps):
        resumed = list(islice(plan.batches(epoch, step), plan.steps + 2 - step))
        for one, other in zip(resumed, uninterrupted[step:], strict=True):
            assert_same(one, other)


@few
@given(st.integers(0, 200), st.integers(1, 12))
def test_rank_shares_are_contiguous_and_even(count, ranks):
    edges = [rank_share(count, rank, ranks) for rank in range(ranks)]
    expected, place = [], 0
    for rank in range(ranks):
        more = count // ranks + (1 if rank < count % ranks else 0)
        expected.append((place, place + more))
        place += more
    assert edges == expected and place == count


@few
@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 9))
def test_evaluation_meets_every_record_exactly_once(count, batch_size, ranks):
    met = []
    for rank in range(ranks):
        batches = [batch.tolist() for batch in evaluation_batches(count, batch_size, rank, ranks)]
        assert all(len(batch) == batch_size for batch in batches[:-1])
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        met += [record for batch in batches for record in batch]
    assert met == list(range(count))


# Draws of a place


@few
@given(seeds, epochs, st.integers(0, 100), st.integers(0, 70), st.integers(1, 300), st.integers(0, 40), shares)
def test_crops_and_flips_follow_the_formulas(seed, epoch, start, count, crop, margin, shared):
    drawn = crop_and_flip(seed, epoch, start, count, crop + margin, Augmentation(crop, shared=shared))
    groups = (start + count) // shared + 1
    crops, flips = (oracle.philox_words(seed, epoch, purpose, groups) for purpose in (CROP, FLIP))
    expected = [
        (*oracle.window(crops[place // shared], crop + margin, crop), flips[place // shared] >> 63)
        for place in range(start, start + count)
    ]
    assert list(zip(*(part.tolist() for part in drawn), strict=True)) == expected
    assert [part.dtype for part in drawn] == [np.int64, np.int64, np.uint8]


@few
@given(seeds, epochs, st.integers(0, 60), st.integers(0, 20))
def test_gaussians_follow_the_formula(seed, epoch, start, count):
    drawn = lighting_gaussians(seed, epoch, start, count)
    word = oracle.philox_words(seed, epoch, LIGHT, 4 * (start + count))
    expected = [oracle.gaussians(*word[4 * place : 4 * place + 4]) for place in range(start, start + count)]
    assert drawn.dtype == np.float32 and drawn.shape == (count, 3)
    assert drawn.tolist() == expected  # equal also as float32: the grid leaves 24 bits or fewer


@few
@given(seeds, epochs, st.integers(0, 9), st.integers(0, 5), st.sampled_from([64, 128, 192]))
def test_dropout_takes_the_bits_of_its_words_lowest_first(seed, epoch, start, count, units):
    keeps = dropout_keeps(seed, epoch, start, count, units)
    each = units // 64
    bits = oracle.kept(oracle.philox_words(seed, epoch, DROPOUT, (start + count) * each)[start * each :])
    assert keeps.dtype == bool and keeps.shape == (count, units)
    assert keeps.ravel().tolist() == bits


def test_the_ends_of_the_words_are_drawn_right(monkeypatch):
    ends = np.array([0, 2**64 - 1] * 8, np.uint64)
    monkeypatch.setattr(module, "philox_words", lambda seed, epoch, purpose, start, count: ends[:count])
    left, top, flip = crop_and_flip(0, 0, 0, 2, 256, Augmentation())
    assert (left.tolist(), top.tolist(), flip.tolist()) == ([0, 32], [0, 32], [0, 1])
    # u is never 0, so no Gaussian is infinite: the largest radius is sqrt(2 * 53 * ln 2) = 8.57.
    first = lighting_gaussians(0, 0, 0, 1)[0].tolist()
    assert first == oracle.gaussians(0, 2**64 - 1, 0, 2**64 - 1)
    assert first[0] == pytest.approx(8.5716, abs=1e-3)


def test_consecutive_places_share_crop_and_flip_but_not_light():
    batches = epoch_of(Plan(320, 80, 3, augmentation=Augmentation(shared=32)))
    windows = np.stack([joined(batches, field) for field in ("left", "top", "flip")], axis=1)
    groups = windows.reshape(10, 32, 3)  # groups run through the epoch, across the batches of 80
    assert (groups == groups[:, :1]).all()
    assert len(np.unique(groups[:, 0], axis=0)) > 5
    assert len(np.unique(joined(batches, "gaussians"), axis=0)) == 320


def test_without_random_crops_the_centre_is_taken_and_flips_stay():
    plan, random = (Plan(200, 200, 1, size=259, augmentation=Augmentation(random_crop=r)) for r in (False, True))
    (batch,), (other,) = epoch_of(plan), epoch_of(random)
    assert set(batch.left.tolist()) == set(batch.top.tolist()) == {17}  # (259 - 224) // 2
    np.testing.assert_array_equal(batch.flip, other.flip)


@few
@given(seeds, st.integers(0, 60), st.booleans())
def test_without_flips_none_is_flipped_and_all_else_stays(seed, start, resized):
    drawn = ResizedCrop() if resized else None
    with_flips, without = (
        crop_and_flip(seed, 1, start, 64, 256, Augmentation(shared=4, resized=drawn, flips=flips))
        for flips in (True, False)
    )
    assert not without[2].any() and without[2].dtype == with_flips[2].dtype and without[2].shape == (64,)
    np.testing.assert_array_equal(without[:2], with_flips[:2])


@few
@given(st.integers(0, 300), st.floats(0, 0.9), seeds)
def test_the_hold_out_is_the_head_of_its_own_permutation(count, share, seed):
    held_out = share_of(count, share, seed)
    wanted = int(share * count + 0.5)
    if share > 0 and count > 1:
        wanted = max(1, wanted)
    assert held_out.tolist() == oracle.order(oracle.philox_words(seed, 0, HOLD_OUT, count))[:wanted]


# The page


def rows_of(before):
    """The cells of the table that follows some words, without backticks."""
    table = PAGE.split(before, 1)[1].strip().split("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in table]


def test_the_page_is_reproduced_without_the_code():
    """A small epoch from the formulas of docs/plan.md, in plain integers, against the page's numbers."""
    example = re.search(r"Seed (\d+), epoch (\d+), ten records, size (\d+), crop (\d+), shared 1", PAGE)
    assert example
    seed, epoch, size, crop = map(int, example.groups())
    n = 10
    order_words, crop_words, flip_words = (oracle.philox_words(seed, epoch, purpose, n) for purpose in (0, 1, 2))
    light_words = oracle.philox_words(seed, epoch, 3, 4 * n)
    order = oracle.order(order_words)
    rows = rows_of("compares it with this page.")
    assert len(rows) == n
    for place, row in enumerate(rows):
        left, top = oracle.window(crop_words[place], size, crop)
        assert row == [
            str(place),
            f"{order_words[place]:016x}",
            str(order[place]),
            f"{crop_words[place]:016x}",
            str(left),
            str(top),
            f"{flip_words[place]:016x}",
            str(flip_words[place] >> 63),
        ]
    lights = rows_of("in units of 2^-20:")
    assert len(lights) == 3
    for place, row in enumerate(lights):
        own = light_words[4 * place : 4 * place + 4]
        draws = [f"{round(draw * 2**20)}" for draw in oracle.gaussians(*own)]
        assert row == [str(place), *(f"{word:016x}" for word in own), *draws]
    dropout = re.search(r"Dropout word (\d+), .* `([0-9a-f]{16})`: its units 0 to 15 are kept as ([01]{16})", PAGE)
    assert dropout
    word = oracle.philox_words(seed, epoch, 5, int(dropout[1]) + 1)[-1]
    assert (dropout[2], dropout[3]) == (f"{word:016x}", "".join(str(int(bit)) for bit in oracle.kept([word])[:16]))


def test_the_code_gives_the_numbers_of_the_page():
    rows = rows_of("compares it with this page.")
    batches = epoch_of(Plan(10, 4, 2012), 5)
    told = re.search(r"places 0 to 3 \(records ([\d, ]+)\) and 4 to 7 \(records ([\d, ]+)\)", PAGE)
    assert told
    assert [batch.records.tolist() for batch in batches] == [
        [int(r) for r in part.split(", ")] for part in told.groups()
    ]
    for place, row in enumerate(rows[:8]):
        batch, k = batches[place // 4], place % 4
        assert [batch.records[k], batch.left[k], batch.top[k], batch.flip[k]] == [int(row[i]) for i in (2, 4, 5, 7)]
    lights = [[int(cell) for cell in row[5:]] for row in rows_of("in units of 2^-20:")]
    assert (batches[0].gaussians[:3].astype(np.float64) * 2**20).tolist() == lights
    shares = [[len(b.records) for b in epoch_of(Plan(10, 4, 2012, rank=r, ranks=3), 5)] for r in range(3)]
    assert shares == [[2, 2], [1, 1], [1, 1]]
    (shared,) = epoch_of(Plan(10, 10, 2012, augmentation=Augmentation(shared=4)), 5)
    windows = list(zip(shared.left.tolist(), shared.top.tolist(), shared.flip.tolist(), strict=True))
    assert windows == [(32, 26, 1)] * 4 + [(11, 16, 1)] * 4 + [(13, 0, 0)] * 2
    assert (
        "places 0 to 3 would all have (32, 26) and flip 1, places 4 to 7 (11, 16) and 1, places 8 and 9 (13, 0)" in PAGE
    )
    assert dropout_keeps(2012, 5, 1, 1, 128)[0, :16].tolist() == [bit == "1" for bit in "0100111001000001"]


def test_the_table_of_purposes_is_the_code_s():
    rows = rows_of("nothing in common with seed 2 in epoch 0.")
    names = {"order": ORDER, "crop": CROP, "flip": FLIP, "light": LIGHT, "view": VIEW, "dropout": DROPOUT}
    assert {row[0]: int(row[1]) for row in rows} == names | {"build": BUILD, "hold-out": HOLD_OUT, "resized": RESIZED}


# Pinned values: another NumPy must not change a run.


def test_golden_draws_of_imagenet_s_first_batch():
    batch = next(Plan(1_281_167, 128, 0).batches())
    assert batch.records[:6].tolist() == [220276, 68642, 368138, 1065851, 1208450, 763740]
    assert batch.left[:6].tolist() == [21, 2, 3, 11, 22, 14]
    assert batch.top[:6].tolist() == [22, 18, 14, 32, 12, 10]
    assert batch.flip[:12].tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1]
    grid = batch.gaussians[:2].astype(np.float64) * 2**20
    assert grid.tolist() == [[1958768, 1215000, -115081], [50777, 1338916, 347362]]
    keeps = dropout_keeps(0, 0, 0, 1, 64)
    assert np.packbits(keeps, bitorder="little").tobytes().hex() == "78a76d22f047bbd7"


def test_golden_end_of_imagenet_s_ninetieth_epoch():
    (batch,) = islice(Plan(1_281_167, 128, 2**64 - 1).batches(89, 10_008), 1)
    assert (batch.epoch, batch.step, batch.start) == (89, 10_008, 1_281_024)
    assert batch.records[-3:].tolist() == [328212, 1025014, 657925]


def test_golden_orders_of_the_build():
    assert share_of(20, 0.2, 0).tolist() == [4, 11, 6, 12]
    assert permutation(8, 0, purpose=BUILD).tolist() == [5, 0, 7, 2, 4, 6, 3, 1]


# Distributions: fixed seeds, so the bounds are met always or never.


def spread(counts):
    """How far counts lie from even ones, in standard deviations of chi-square."""
    expected = counts.sum() / counts.size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    return (chi_square - (counts.size - 1)) / np.sqrt(2 * (counts.size - 1))


def test_all_1089_windows_and_their_reflections_are_equally_frequent():
    left, top, flip = crop_and_flip(11, 0, 0, 400_000, 256, Augmentation())
    assert left.min() == top.min() == 0 and left.max() == top.max() == 32
    counts = np.zeros((33, 33, 2))
    np.add.at(counts, (left, top, flip), 1)
    assert abs(spread(counts)) < 3
    for draw in (left, top, flip):
        assert abs(spread(np.unique(draw, return_counts=True)[1])) < 3
        neighbours = np.corrcoef(draw[:-1], draw[1:])[0, 1]
        assert abs(neighbours) < 4 / np.sqrt(len(draw))


def test_flips_are_fair_in_every_epoch():
    for epoch in range(20):
        flip = crop_and_flip(5, epoch, 0, 10_000, 256, Augmentation())[2]
        assert abs(flip.mean() - 0.5) < 4 * 0.5 / 100


def test_a_record_s_draws_differ_from_epoch_to_epoch():
    drawn = np.array([crop_and_flip(9, epoch, 0, 1, 256, Augmentation())[:2] for epoch in range(2000)])[:, :, 0]
    for draw in drawn.T:
        assert abs(spread(np.bincount(draw, minlength=33))) < 4


def test_gaussians_are_gaussian_and_independent():
    g = lighting_gaussians(3, 1, 0, 200_000).astype(np.float64)
    n = len(g)
    np.testing.assert_allclose(g.mean(axis=0), 0, atol=4 / np.sqrt(n))
    np.testing.assert_allclose(g.std(axis=0), 1, atol=4 / np.sqrt(2 * n))
    np.testing.assert_allclose((g**3).mean(axis=0), 0, atol=4 * np.sqrt(15 / n))
    np.testing.assert_allclose((g**4).mean(axis=0), 3, atol=4 * np.sqrt(96 / n))
    both = np.concatenate([g[:-1], g[1:]], axis=1)  # a place's three and its neighbour's
    for values in (both, both**2):
        correlation = np.corrcoef(values.T) - np.eye(6)
        assert np.abs(correlation).max() < 4.5 / np.sqrt(n)
    # The share within one, two and three standard deviations.
    inside = [(np.abs(g) < width).mean() for width in (1, 2, 3)]
    np.testing.assert_allclose(inside, [0.682689, 0.954500, 0.997300], atol=0.002)


def test_dropout_keeps_half_of_every_unit():
    keeps = dropout_keeps(4, 2, 0, 2000, 1024).astype(np.float64)
    assert abs(keeps.mean() - 0.5) < 4 * 0.5 / np.sqrt(keeps.size)
    per_unit = (keeps.mean(axis=0) - 0.5) / (0.5 / np.sqrt(2000))
    assert np.abs(per_unit).max() < 4.5 and 0.9 < per_unit.std() < 1.1
    for one, other in ((keeps[:, :-1], keeps[:, 1:]), (keeps[:-1], keeps[1:])):
        assert abs(((one - 0.5) * (other - 0.5)).mean()) < 4 * 0.25 / np.sqrt(one.size)


# The next epoch's order, in a thread


@pytest.fixture
def in_threads(monkeypatch):
    """Every order is slow; which were made in other threads than this one, and in which."""
    made, of = [], philox.permutation
    monkeypatch.setattr(module, "SLOW_ORDER", 1)

    def noted(*arguments):
        if threading.current_thread() is not threading.main_thread():
            made.append((arguments, threading.current_thread()))
        return of(*arguments)

    monkeypatch.setattr(philox, "permutation", noted)
    return made


@pytest.mark.parametrize("batch_size, begun", [(10, 7), (100, 0), (60, 0), (45, 1)])
def test_the_next_order_is_made_beside_the_last_quarter(in_threads, batch_size, begun):
    drawn = Plan(100, batch_size, 5)
    assert begun == 3 * drawn.steps // 4
    batches = drawn.batches(4)
    for epoch in range(4, 8):
        for step in range(drawn.steps):
            batch = next(batches)
            assert (batch.epoch, batch.step) == (epoch, step)
            start = step * batch_size
            np.testing.assert_array_equal(batch.records, permutation(100, 5, epoch)[start : start + batch_size])
            for thread in threading.enumerate():
                if thread.name == "order":
                    thread.join()
            assert len(in_threads) == epoch - 4 + (step >= begun)
    assert [arguments for arguments, _ in in_threads] == [(100, 5, epoch) for epoch in range(5, 9)]


def test_a_dropped_plan_leaves_no_thread(in_threads):
    for end in (lambda batches: batches.close(), lambda batches: None):
        batches = Plan(1 << 20, 1 << 19).batches()
        next(islice(batches, 1, None))
        end(batches)
        del batches
        assert len(in_threads) == 1 and not in_threads[0][1].is_alive()
        in_threads.clear()
    assert "order" not in {thread.name for thread in threading.enumerate()}


def test_small_orders_take_no_thread(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread"))
    assert len(list(islice(Plan(1000, 10).batches(), 300))) == 300


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_last_epoch_of_all_is_planned(in_threads):
    batches = Plan(10, 5).batches(2**64 - 1)
    assert [batch.step for batch in islice(batches, 2)] == [0, 1]


# Errors


@pytest.mark.parametrize("epoch", [-1, 2**64])
def test_an_epoch_beyond_all_is_refused_at_once(epoch):
    with pytest.raises(PlanError) as caught:
        Plan(100, 8).batches(epoch)
    assert caught.value.message == f"epoch {epoch} is not in 0..2^64-1"


@pytest.mark.parametrize("step", [-1, 13, 5000])
def test_a_step_beyond_the_epoch_is_refused_at_once(step):
    with pytest.raises(PlanError) as caught:
        Plan(100, 8).batches(0, step)
    assert caught.value.message == f"step {step} is not in an epoch of 12 steps"
    assert caught.value.hint == "start at a step from 0 to 12, with the same batch size and ranks as before"
    assert next(Plan(100, 8).batches(0, 12)).epoch == 1  # the end of an epoch is a place: a run may be stopped there


@pytest.mark.parametrize(
    "arguments, message, hint",
    [
        ((10, 4, 2, 2), "invalid rank 2 of 2 ranks", ""),
        ((10, 4, -1, 2), "invalid rank -1 of 2 ranks", ""),
        ((10, 4, 0, 0), "invalid rank 0 of 0 ranks", ""),
        ((10, 0), "batch size 0 is below 1", "choose a batch size of 1 or more"),
        ((10, -3), "batch size -3 is below 1", "choose a batch size of 1 or more"),
    ],
)
def test_an_impossible_pass_is_refused_at_once(arguments, message, hint):
    with pytest.raises(PlanError) as caught:
        evaluation_batches(*arguments)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    "arguments, message, hint",
    [
        ({"records": 0}, "no records to train on", "build the shards from a folder that has training photos"),
        ({"batch_size": 0}, "a batch of 0 cannot be shared by 1 processes", "choose --batch-size 1 or more"),
        (
            {"batch_size": 3, "ranks": 4},
            "a batch of 3 cannot be shared by 4 processes",
            "choose --batch-size 4 or more",
        ),
        ({"ranks": 0}, "invalid rank 0 of 0 ranks", ""),
        ({"records": 3, "ranks": 4}, "3 records cannot be shared by 4 processes", "use 3 processes or fewer"),
        ({"rank": 2, "ranks": 2}, "invalid rank 2 of 2 ranks", ""),
        ({"rank": -1}, "invalid rank -1 of 1 ranks", ""),
        ({"seed": -1}, "seed -1 is not in 0..2^64-1", ""),
        ({"seed": 2**64}, f"seed {2**64} is not in 0..2^64-1", ""),
        (
            {"size": 200},
            "a 224x224 window does not fit into 200x200 pictures",
            "build the shards with --size 256 or more",
        ),
    ],
)
def test_an_epoch_that_cannot_be_planned_says_why(arguments, message, hint):
    with pytest.raises(PlanError) as caught:
        Plan(**{"records": 100, "batch_size": 8, **arguments})
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize("arguments", [{"crop": 0}, {"shared": 0}])
def test_an_impossible_augmentation_is_refused(arguments):
    with pytest.raises(PlanError, match=r"crop \d+ and shared \d+ must be 1 or more"):
        Augmentation(**arguments)


@pytest.mark.parametrize("share", [-0.1, 0.91, float("nan")])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(PlanError, match=r"a share of .* cannot be held out; choose --val-share between 0 and 0.9"):
        share_of(10, share, 0)


def test_units_of_dropout_fill_words():
    with pytest.raises(PlanError, match="100 units do not fill whole 64-bit words"):
        dropout_keeps(0, 0, 0, 1, 100)
