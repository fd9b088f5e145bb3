"""The rates of each layer at each step: the diaries, the plateau, one cycle; the early stop; the rate to begin with."""

import json
import math
from itertools import pairwise

import pytest
from alexnet_dali.model.recipes.diaries import DIARIES, STEP, Diary, Entry
from alexnet_dali.model.recipes.schedules import EarlyStop, OneCycle, Plateau, Progress, Rates, Steps, first_rate

STEPS = 1000  # of an epoch
D145 = DIARIES["145"]
OLD = ("conv1", "conv2", "conv3", "conv4", "conv5")


def at(diary, step, epochs=None, rate=1.0, steps=STEPS):
    """The rates after so many steps of a run of the diary's own length."""
    epoch, rest = divmod(step, steps)
    return diary.rates(rate, Progress(epoch, rest, steps, epochs or diary.epochs))


def epochs_of(diary, epochs):
    """The epoch of each entry but the first, in a run of another length."""
    return tuple(entry.step(Progress(0, 0, 1, epochs), diary.length) for entry in diary.entries[1:])


def close(expected):
    return pytest.approx(expected, rel=1e-12)


# --- what a layer has ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rates, layer, weight, bias",
    [
        (Rates(0.1), "fc6", 0.1, 0.1),
        (Rates(0.1, 0.2), "fc6", 0.1, 0.2),
        (Rates(0.1, 0.2, {"conv1": 0.01}), "conv1", 0.01, 0.2),
        (Rates(0.1, 0.2, {"conv1": 0.01}), "conv2", 0.1, 0.2),
        (Rates(0.1, None, {"conv1": 0.01}), "conv1", 0.01, 0.01),
        (Rates(0.1, 0.2, {}, {"conv6": 0.3}), "conv6", 0.1, 0.3),
        (Rates(0.1, 0.2, {"conv1": 0.0}, {"conv1": 0.3}), "conv1", 0.0, 0.0),  # frozen, with its biases
    ],
)
def test_of_a_layer(rates, layer, weight, bias):
    assert (rates.of(layer, "weight"), rates.of(layer, "bias")) == (weight, bias)


# --- the diary of 2012 -----------------------------------------------------------------------------------------------


def test_the_diary_is_the_authors():
    assert D145.length == D145.epochs == 91
    assert [(entry.at, dict(entry.rates), entry.light_off) for entry in D145.entries] == [
        (0, {"*": 1.0}, False),
        (25, {"*": 0.1}, False),
        (51, {"*": 0.01}, False),
        (67, {"conv1": 0.001}, True),
        (72, {"conv1": 0.0}, False),
        (79, {"*": 0.001}, False),
    ]
    assert epochs_of(D145, 91) == (25, 51, 67, 72, 79)


@pytest.mark.parametrize(
    "epoch, weights, conv1",
    [
        (0, 0.01, 0.01),
        (24, 0.01, 0.01),
        (25, 0.001, 0.001),
        (50, 0.001, 0.001),
        (51, 0.0001, 0.0001),
        (66, 0.0001, 0.0001),
        (67, 0.0001, 0.00001),
        (71, 0.0001, 0.00001),
        (72, 0.0001, 0.0),
        (78, 0.0001, 0.0),
        (79, 0.00001, 0.0),
        (90, 0.00001, 0.0),
    ],
)
def test_rates_on_both_sides_of_each_entry(epoch, weights, conv1):
    """Epochs count from 0 here: after 25 whole epochs the rate is a tenth, and not a step before. Biases stay."""
    for step in (0, 1, STEPS - 1):
        rates = at(D145, epoch * STEPS + step, rate=0.01)
        assert (rates.of("fc6", "weight"), rates.of("conv1", "weight")) == close((weights, conv1))
        assert rates.of("fc6", "bias") == close(0.02)
        assert rates.of("conv1", "bias") == close(0.02 if conv1 else 0.0)


@pytest.mark.parametrize(
    "epochs, entries",
    [
        (91, (25, 51, 67, 72, 79)),
        (182, (50, 102, 134, 144, 158)),
        (45, (12, 25, 33, 36, 39)),  # 12.36, 25.22, 33.13, 35.60, 39.07
        (10, (3, 6, 7, 8, 9)),  # 2.75, 5.60, 7.36, 7.91, 8.68
        (4, (1, 2, 3, 3, 3)),  # 1.10, 2.24, 2.95, 3.16, 3.47
    ],
)
def test_the_diary_of_a_run_of_another_length(epochs, entries):
    assert epochs_of(D145, epochs) == entries
    tenth, hundredth, slow, frozen, thousandth = entries

    def weights(epoch, layer="fc6"):
        return at(D145, epoch * STEPS, epochs).of(layer, "weight")

    assert weights(tenth - 1) == at(D145, tenth * STEPS - 1, epochs).of("fc6", "weight") == 1.0
    assert weights(tenth) == close(0.1)
    assert weights(hundredth) == close(0.01 if hundredth < thousandth else 0.001)
    assert weights(thousandth) == close(0.001)
    assert weights(frozen, "conv1") == 0.0
    if slow < frozen:
        assert weights(slow, "conv1") == close(0.001)
    assert D145.light_epochs(epochs) == slow


def test_an_entry_at_half_an_epoch_is_rounded_up():
    # 91 is odd, so times epochs / 91 an entry is never half; a diary of an even length has such ones.
    assert epochs_of(DIARIES["147"], 45) == (12, 26, 40)  # 11.5, 25.5, 39.5
    assert all(
        at == math.floor(entry * epochs / 91 + 0.5)
        for epochs in range(1, 300)
        for entry, at in zip((25, 51, 67, 72, 79), epochs_of(D145, epochs), strict=True)
    )


def test_an_entry_within_an_epoch_is_a_step_of_it():
    place = Progress(0, 0, STEPS, 20)
    assert Entry(2.5, {}).step(place, 20) == 2500 and Entry(2.0, {}).step(place, 20) == 2000
    assert Entry(2.5, {}).step(place, 10) == 5000
    assert Entry(2.0, {}).step(place, 13) == 3000  # 3.08: a whole epoch stays one
    assert Entry(300, {}, unit=STEP).step(place, 10) == 300


def test_what_an_entry_does_not_name_stays():
    diary = Diary("ours", 4, (Entry(0, {"*": 1.0, "conv1": 0.5}), Entry(1, {"*": 0.1}), Entry(2, {"conv1": 0.2})))
    assert [at(diary, k * STEPS).of("conv1", "weight") for k in range(4)] == close([0.5, 0.5, 0.2, 0.2])
    assert [at(diary, k * STEPS).of("fc6", "weight") for k in range(4)] == close([1.0, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    "name, epochs, entries, light",
    [
        ("145", 91, (25, 51, 67, 72, 79), 67),
        ("145-half", 96, (20, 48, 66, 72), 66),
        ("147", 90, (23, 51, 79), None),
        ("148", 97, (22, 44, 69, 73, 86), 69),
        ("150", 92, (25, 49, 66, 72, 79), 66),
        ("146-2009", 7, None, None),
        ("146-2011", 9, None, None),
        ("146-2012", 54, None, 38),
    ],
)
def test_the_diaries_of_all_nets(name, epochs, entries, light):
    diary = DIARIES[name]
    assert diary.epochs == epochs and diary.light_epochs(epochs) == light
    if entries:
        assert epochs_of(diary, epochs) == entries
    assert diary.entries[0].at == 0 and "*" in diary.entries[0].rates
    falling = [at(diary, epoch * STEPS).weights for epoch in range(epochs)]
    assert all(one >= two for one, two in pairwise(falling))


def test_every_diary_is_somebodys():
    assert list(DIARIES) == ["145", "145-half", "147", "148", "150", "146-2009", "146-2011", "146-2012"]
    assert len({diary.source for diary in DIARIES.values()}) == len(DIARIES)


def test_pooling_without_overlap_had_conv1_frozen_when_the_rate_fell():
    before, after = (at(DIARIES["147"], step) for step in (79 * STEPS - 1, 79 * STEPS))
    assert (before.of("conv1", "weight"), before.weights) == close((0.01, 0.01))
    assert (after.of("conv1", "weight"), after.of("conv1", "bias"), after.weights) == close((0.0, 0.0, 0.001))


# --- the six-conv nets -----------------------------------------------------------------------------------------------


def test_six_conv_of_2009_on_both_sides_of_its_entry():
    """Old layers at a tenth; all at a tenth from epoch 2.16 on, in a run of 7 as in his of 6.6491."""
    diary = DIARIES["146-2009"]
    for step in (0, 1, 2159):
        rates = at(diary, step)
        assert [rates.of(layer, "weight") for layer in OLD] == close([0.1] * 5)
        assert [rates.of(layer, "weight") for layer in ("conv6", "fc6", "fc7", "fc8")] == [1.0] * 4
    for step in (2160, 3000, 6999):
        assert [at(diary, step).of(layer, "weight") for layer in (*OLD, "conv6", "fc6", "fc8")] == close([0.1] * 8)
    for step in (0, 6999):
        assert [at(diary, step).of(layer, "bias") for layer in ("conv1", "conv6", "fc8")] == close([2.0, 0.2, 2.0])
    # Where there is no whole epoch of it, it falls within the first.
    assert (at(diary, 308, 1).weights, at(diary, 309, 1).weights) == close((1.0, 0.1))  # 2.16 / 7 = 0.30857


def test_six_conv_of_2011_on_both_sides_of_its_entry():
    """Convolutions at a tenth; all from epoch 6 on, in a run of 9 as in his of 8.11295."""
    diary = DIARIES["146-2011"]
    before, after = at(diary, 6 * STEPS - 1), at(diary, 6 * STEPS)
    assert [before.of(layer, "weight") for layer in (*OLD, "conv6")] == close([0.1] * 6)
    assert [before.of(layer, "weight") for layer in ("fc6", "fc7", "low", "fc8")] == [1.0] * 4
    assert [after.of(layer, "weight") for layer in (*OLD, "conv6", "fc6", "low", "fc8")] == close([0.1] * 9)
    assert after.of("conv6", "bias") == close(0.2) and after.of("fc8", "bias") == 2.0


@pytest.mark.parametrize(
    "step, rest, conv1, fc8",
    [
        (0, 0.1, 0.01, 0.1),
        (299, 0.1, 0.01, 0.1),
        (300, 0.1, 0.01, 1.0),
        (5 * STEPS - 1, 0.1, 0.01, 1.0),
        (5 * STEPS, 0.1, 0.001, 1.0),
        (7 * STEPS - 1, 0.1, 0.001, 1.0),
        (7 * STEPS, 0.1, 0.0, 1.0),
        (9 * STEPS - 1, 0.1, 0.0, 1.0),
        (9 * STEPS, 0.1, 0.0, 0.1),
        (22 * STEPS - 1, 0.1, 0.0, 0.1),
        (22 * STEPS, 0.01, 0.0, 0.01),
        (42 * STEPS - 1, 0.01, 0.0, 0.01),
        (42 * STEPS, 0.001, 0.0, 0.001),
        (54 * STEPS - 1, 0.001, 0.0, 0.001),
    ],
)
def test_the_fine_tuned_net_on_both_sides_of_each_entry(step, rest, conv1, fc8):
    """The new last layer waits for 300 steps, and is then ten times as fast as the rest."""
    rates = at(DIARIES["146-2012"], step, rate=0.01)
    assert [rates.of(layer, "weight") for layer in ("conv1", "conv2", "conv6", "fc7", "fc8")] == close(
        [0.01 * conv1, *[0.01 * rest] * 3, 0.01 * fc8]
    )
    assert rates.of("conv1", "bias") == close(0.02 if conv1 else 0.0)
    assert (rates.of("conv6", "bias"), rates.of("fc8", "bias")) == close((0.022, 0.02))


def test_three_hundred_steps_are_as_many_in_a_run_of_any_length():
    diary = DIARIES["146-2012"]
    for epochs, steps in ((54, 1000), (108, 1000), (10, 5000)):
        before, after = (at(diary, step, epochs, steps=steps).of("fc8", "weight") for step in (299, 300))
        assert (before, after) == close((0.1, 1.0))
    # In a run so short that the new layer would be slowed down before, a thirtieth of it.
    before, after = (at(diary, step, 10, steps=73).of("fc8", "weight") for step in (23, 24))
    assert (before, after) == close((0.1, 1.0))
    assert at(diary, 14 * STEPS, 108).of("conv1", "weight") == 0.0 < at(diary, 14 * STEPS - 1, 108).layers["conv1"]


def test_a_diary_is_told_in_a_line():
    assert D145.summary(STEPS, 91) == (
        "epoch 25 rate x 0.1; epoch 51 rate x 0.01; epoch 67 conv1 x 0.001, lighting off; epoch 72 conv1 frozen; "
        "epoch 79 rate x 0.001"
    )
    assert DIARIES["146-2009"].summary(STEPS, 7) == "step 2,160 rate x 0.1"
    assert DIARIES["146-2012"].summary(STEPS, 54).startswith("step 300 fc8 x 1; epoch 5 conv1 x 0.001; ")


# --- plateau, one cycle, early stop ----------------------------------------------------------------------------------


ANYWHERE = Progress(3, 7, 10, 91)


def test_the_plateau_divides_by_ten_after_its_patience_three_times_at_most():
    plateau = Plateau(patience=3)
    seen = []
    for error in [0.9, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7, 0.7, 0.75, 0.69, 0.7, 0.7, 0.7, *[0.7] * 12]:
        plateau.observe(error)
        seen.append(plateau.drops)
    #  0.9  0.8: better; two without; 0.7: better, just in time; three without: a drop; 0.69: better; then for ever
    assert seen == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, *[3] * 9]
    assert [Plateau(drops=drops).rates(0.01, ANYWHERE) for drops in range(4)] == [
        Rates(close(rate)) for rate in (0.01, 0.001, 0.0001, 0.00001)
    ]


def test_an_equal_error_is_no_improvement():
    plateau = Plateau()
    for _ in range(1 + plateau.patience):
        plateau.observe(0.5)
    assert plateau.drops == 1


def test_the_text_gives_biases_the_rate_of_weights():
    rates = Plateau().rates(0.01, ANYWHERE)
    assert (rates.of("conv1", "weight"), rates.of("conv1", "bias")) == (0.01, 0.01)


def test_a_plateau_goes_on_in_the_middle_of_what_it_has_seen():
    errors = [0.9, 0.9, 0.8, 0.8, 0.8, 0.9, 0.7, 0.9, 0.9, 0.9]
    whole, part = Plateau(patience=2), Plateau(patience=2)
    for error in errors:
        whole.observe(error)
        part.observe(error)
        seen = json.loads(json.dumps(part.state()))
        part = Plateau()
        part.restore(seen)
        assert part == whole
    assert (whole.drops, whole.waited) == (2, 1)


@pytest.mark.parametrize("schedule", [D145, Steps(), OneCycle()], ids=["diary", "steps", "one-cycle"])
def test_the_others_see_nothing(schedule):
    place = Progress(30, 0, 10, 91)
    before = schedule.rates(0.01, place)
    schedule.observe(0.9)
    assert schedule.state() == {}
    schedule.restore({})
    assert schedule.rates(0.01, place) == before


@pytest.mark.parametrize(
    "epochs, lengths", [(90, [30, 30, 30]), (10, [4, 3, 3]), (3, [1, 1, 1]), (2, [1, 1]), (1, [1])]
)
def test_steps_are_a_tenth_after_each_third(epochs, lengths):
    rates = [Steps().rates(0.1, Progress(epoch, 9, 10, epochs)) for epoch in range(epochs)]
    expected = [rate for rate, length in zip((0.1, 0.01, 0.001), lengths, strict=False) for _ in range(length)]
    assert [each.weights for each in rates] == pytest.approx(expected)
    assert Steps().rates(0.1, Progress(epochs, 0, 10, epochs)).weights == pytest.approx(0.001)  # and stays
    assert all(each.of("conv1", "bias") == each.weights for each in rates)


def test_one_cycle_rises_along_a_line_and_falls_along_half_a_cosine():
    cycle = OneCycle()
    rates = [cycle.rates(0.5, Progress(*divmod(step, 10), 10, 10)).weights for step in range(101)]
    assert (
        rates[0] == close(0.5 * 0.04) and rates[20] == max(rates) == 0.5 and rates[100] == pytest.approx(0, abs=1e-12)
    )
    rises = [two - one for one, two in pairwise(rates[:21])]
    assert rises == pytest.approx([0.5 * 0.96 / 20] * 20)
    assert rates[60] == pytest.approx(0.25)  # half way down
    assert all(one > two for one, two in pairwise(rates[20:]))
    for left, right in zip(rates[20:61], reversed(rates[60:101]), strict=True):
        assert left + right == pytest.approx(0.5)  # a half of a cosine is odd around its middle
    assert rates[20] - rates[21] < 0.002 and rates[99] < 0.001 and max(a - b for a, b in pairwise(rates[20:])) > 0.009


def test_one_cycle_is_the_same_for_all_layers_and_of_any_length():
    for epochs, steps in ((90, 10_000), (10, 3), (1, 5)):
        rates = OneCycle().rates(1.0, Progress(epochs - 1, steps - 1, steps, epochs))
        assert rates == Rates(rates.weights) and 0 < rates.weights < 0.5
        assert OneCycle().rates(1.0, Progress(epochs, 0, steps, epochs)).weights == pytest.approx(0, abs=1e-12)
        assert OneCycle().rates(1.0, Progress(2 * epochs, 0, steps, epochs)).weights == pytest.approx(0, abs=1e-12)


def test_early_stop_ends_after_its_patience():
    early = EarlyStop(patience=2)
    seen = []
    for error in (0.9, 0.9, 0.8, 0.85, 0.8):  # an equal error is no better
        early.observe(error)
        seen.append(early.now)
    assert seen == [False, False, False, False, True] and early.best == 0.8


def test_no_patience_never_stops():
    early = EarlyStop()
    assert not early.now
    for _ in range(100):
        early.observe(0.5)
    assert not early.now


# --- the rate to begin with ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "classes, rate", [(1000, 0.01), (10, 0.001), (250, 0.005), (10_184, 0.01), (21_843, 0.01), (4, 0.01 * 0.004**0.5)]
)
def test_the_first_rate_belongs_to_the_number_of_classes(classes, rate):
    assert first_rate(classes) == close(rate)
