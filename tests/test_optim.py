"""The update rule against a written-out loop, the diary's and the plateau's rates, the rate to begin with."""

import math

import numpy as np
import pytest
import torch
from alexnet_dali.model.optim import (
    DIARY,
    Momentum2012,
    Plateau,
    Rates,
    diary_epochs,
    diary_rates,
    first_rate,
)
from torch import nn


class Net(nn.Module):
    """Two layers with names that the rates know."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Linear(3, 2).double()
        self.fc8 = nn.Linear(2, 4).double()


# A rate that rises, falls to a tenth, freezes conv1, and lets it go on.
COURSE = [
    Rates(0.1, 0.1, 0.2),
    Rates(0.1, 0.1, 0.2),
    Rates(0.01, 0.001, 0.2),
    Rates(0.01, 0.0, 0.2),
    Rates(0.01, 0.0, 0.2),
    Rates(0.3, 0.3, 0.2),
]
COURSE_OF_TEXT = [Rates(rates.weights, rates.weights, None) for rates in COURSE]


def gradients(step, shapes):
    random = np.random.default_rng(step)
    return {name: random.normal(size=shape) for name, shape in shapes.items()}


def walk(net, optimizer, course):
    """Take a step for each of the course's rates with given gradients; return all weights after each."""
    shapes = {name: tuple(parameter.shape) for name, parameter in net.named_parameters()}
    path = []
    for step, rates in enumerate(course):
        optimizer.set_rates(rates)
        for name, gradient in gradients(step, shapes).items():
            net.get_parameter(name).grad = torch.from_numpy(gradient)
        optimizer.step()
        path.append({name: parameter.detach().numpy().copy() for name, parameter in net.named_parameters()})
    return path


def written_out(net, course, decay, decay_biases):
    """v <- 0.9 v - decay e w - e g; w <- w + v, for each parameter with its own e; e = 0 leaves both alone."""
    w = {name: parameter.detach().numpy().copy() for name, parameter in net.named_parameters()}
    v = {name: np.zeros_like(weight) for name, weight in w.items()}
    path = []
    for step, rates in enumerate(course):
        for name, g in gradients(step, {name: weight.shape for name, weight in w.items()}).items():
            e = rates.conv1 if name.startswith("conv1") else rates.weights
            wd = decay
            if name.endswith("bias"):
                wd = decay if decay_biases else 0.0
                if e != 0 and rates.biases is not None:
                    e = rates.biases
            if e == 0:
                continue
            v[name] = 0.9 * v[name] - wd * e * w[name] - e * g
            w[name] = w[name] + v[name]
        path.append({name: weight.copy() for name, weight in w.items()})
    return path


@pytest.mark.parametrize("decay", [0.0005, 0.4])
@pytest.mark.parametrize("course, decay_biases", [(COURSE, False), (COURSE_OF_TEXT, True)], ids=["source2012", "paper"])
def test_equals_the_loop_written_out_across_changes_of_rate(decay, course, decay_biases):
    net = Net()
    expected = written_out(net, course, decay, decay_biases)
    path = walk(net, Momentum2012(net, decay=decay, decay_biases=decay_biases), course)
    for step, (ours, theirs) in enumerate(zip(path, expected, strict=True)):
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12, atol=1e-14, err_msg=f"{name}, step {step}")


def test_torchs_sgd_is_the_same_until_the_rate_changes():
    course = [Rates(0.1, 0.1, None)] * 3 + [Rates(0.01, 0.01, None)] * 2
    net = Net()
    expected = written_out(net, course, 0.0005, True)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0005)
    shapes = {name: tuple(parameter.shape) for name, parameter in net.named_parameters()}
    apart = []
    for step, rates in enumerate(course):
        sgd.param_groups[0]["lr"] = rates.weights
        for name, gradient in gradients(step, shapes).items():
            net.get_parameter(name).grad = torch.from_numpy(gradient)
        sgd.step()
        apart.append(max(abs(net.get_parameter(name).detach().numpy() - w).max() for name, w in expected[step].items()))
    assert max(apart[:3]) < 1e-12 and min(apart[3:]) > 0.05


def test_the_defaults_are_the_papers():
    groups = {group["name"]: group for group in Momentum2012(Net()).param_groups}
    assert {name: (group["momentum"], group["decay"]) for name, group in groups.items()} == {
        "conv1.weight": (0.9, 0.0005),
        "conv1.bias": (0.9, 0.0),
        "fc8.weight": (0.9, 0.0005),
        "fc8.bias": (0.9, 0.0),
    }


def test_a_rate_of_zero_freezes_weight_bias_and_momentum():
    net = Net()
    optimizer = Momentum2012(net)
    walk(net, optimizer, COURSE[:2])
    frozen = [net.conv1.weight, net.conv1.bias]
    before = [each.detach().clone() for each in frozen]
    velocity = [optimizer.state[each]["velocity"].clone() for each in frozen]
    assert all(each.abs().min() > 0 for each in velocity)
    fc8 = net.fc8.weight.detach().clone()
    walk(net, optimizer, [Rates(0.1, 0.0, 0.2)] * 2)
    assert all(map(torch.equal, frozen, before))
    assert all(torch.equal(optimizer.state[each]["velocity"], v) for each, v in zip(frozen, velocity, strict=True))
    assert not torch.equal(net.fc8.weight, fc8)


def test_parameters_without_gradient_stay():
    net = Net()
    optimizer = Momentum2012(net)
    optimizer.set_rates(Rates(0.1, 0.1, None))
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    net.fc8.bias.grad = torch.ones(4, dtype=torch.float64)
    optimizer.step()
    moved = [name for name, parameter in net.named_parameters() if not torch.equal(parameter, before[name])]
    assert moved == ["fc8.bias"]


def test_a_closure_is_refused():
    with pytest.raises(TypeError, match="no closure"):
        Momentum2012(Net()).step(lambda: 0.0)


def test_the_diary_is_the_authors():
    assert DIARY == {"tenth": 25, "hundredth": 51, "conv1_and_light": 67, "conv1_frozen": 72, "thousandth": 79}
    assert diary_epochs(91) == DIARY


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
    """Epochs count from 0 here: after 25 whole epochs the rate is a tenth. Biases stay at 0.02."""
    rates = diary_rates(0.01, epoch, 91)
    assert (rates.weights, rates.conv1) == pytest.approx((weights, conv1), rel=1e-12)
    assert rates.biases == pytest.approx(0.02, rel=1e-12)


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
    assert tuple(diary_epochs(epochs).values()) == entries
    tenth, hundredth, slow, frozen, thousandth = entries
    assert diary_rates(1.0, tenth - 1, epochs).weights == 1.0
    assert diary_rates(1.0, tenth, epochs).weights == pytest.approx(0.1)
    assert diary_rates(1.0, hundredth, epochs).weights == pytest.approx(0.01 if hundredth < thousandth else 0.001)
    assert diary_rates(1.0, thousandth, epochs).weights == pytest.approx(0.001)
    assert diary_rates(1.0, frozen, epochs).conv1 == 0.0
    if slow < frozen:
        assert diary_rates(1.0, slow, epochs).conv1 == pytest.approx(0.001)


def test_an_entry_at_half_an_epoch_is_rounded_up():
    # 91 is odd, so times epochs / 91 an entry is never half; a diary of its half length shows the rule.
    assert all(
        at == math.floor(entry * epochs / 91 + 0.5)
        for epochs in range(1, 300)
        for entry, at in zip(DIARY.values(), diary_epochs(epochs).values(), strict=True)
    )


def test_biases_run_twice_as_fast_and_freeze_with_their_layer():
    net = Net()
    optimizer = Momentum2012(net)

    def rates_after(epoch):
        optimizer.set_rates(diary_rates(0.01, epoch, 91))
        return [group["rate"] for group in optimizer.param_groups]  # conv1's weight and bias, fc8's weight and bias

    assert rates_after(0) == pytest.approx([0.01, 0.02, 0.01, 0.02])
    assert rates_after(70) == pytest.approx([0.00001, 0.02, 0.0001, 0.02])
    assert rates_after(75) == pytest.approx([0.0, 0.0, 0.0001, 0.02])
    optimizer.set_rates(Plateau(drops=1).rates(0.01))
    assert [group["rate"] for group in optimizer.param_groups] == pytest.approx([0.001] * 4)


def test_the_plateau_divides_by_ten_after_its_patience_three_times_at_most():
    plateau = Plateau(patience=3)
    seen = []
    for error in [0.9, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7, 0.7, 0.75, 0.69, 0.7, 0.7, 0.7, *[0.7] * 12]:
        plateau.see(error)
        seen.append(plateau.drops)
    #  0.9  0.8: better; two without; 0.7: better, just in time; three without: a drop; 0.69: better; then for ever
    assert seen == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, *[3] * 9]
    assert [Plateau(drops=drops).rates(0.01) for drops in range(4)] == [
        Rates(pytest.approx(rate), pytest.approx(rate), None) for rate in (0.01, 0.001, 0.0001, 0.00001)
    ]


def test_an_equal_error_is_no_improvement():
    plateau = Plateau()
    for _ in range(1 + plateau.patience):
        plateau.see(0.5)
    assert plateau.drops == 1


@pytest.mark.parametrize(
    "classes, rate", [(1000, 0.01), (10, 0.001), (250, 0.005), (10_184, 0.01), (21_843, 0.01), (4, 0.01 * 0.004**0.5)]
)
def test_the_first_rate_belongs_to_the_number_of_classes(classes, rate):
    assert first_rate(classes) == pytest.approx(rate, rel=1e-12)
