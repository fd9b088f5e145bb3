"""The update rule against a written-out loop, with a rate for each layer's weights and biases."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from alexnet_dali.model.nets.alexnet import AlexNet
from alexnet_dali.model.recipes import optim
from alexnet_dali.model.recipes.diaries import DIARIES
from alexnet_dali.model.recipes.optim import Momentum2012
from alexnet_dali.model.recipes.schedules import Plateau, Progress, Rates
from torch import nn


class Net(nn.Module):
    """Two layers with names that the rates know."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Linear(3, 2).double()
        self.fc8 = nn.Linear(2, 4).double()


# A rate that rises, falls to a tenth, freezes conv1, and lets it go on; fc8 has its own for a while.
COURSE = [
    Rates(0.1, 0.2),
    Rates(0.1, 0.2, {"fc8": 0.05}, {"fc8": 0.02}),
    Rates(0.01, 0.2, {"conv1": 0.001, "fc8": 0.05}, {"fc8": 0.02}),
    Rates(0.01, 0.2, {"conv1": 0.0}, {"conv1": 0.02}),
    Rates(0.01, 0.2, {"conv1": 0.0}),
    Rates(0.3, 0.2, {"conv1": 0.3}),
]
COURSE_OF_TEXT = [Rates(rates.weights) for rates in COURSE]


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
            layer = name.partition(".")[0]
            e = rates.layers.get(layer, rates.weights)
            wd = decay
            if name.endswith("bias"):
                wd = decay if decay_biases else 0.0
                if e != 0 and rates.biases is not None:
                    e = rates.layer_biases.get(layer, rates.biases)
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
    course = [Rates(0.1)] * 3 + [Rates(0.01)] * 2
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
    walk(net, optimizer, [Rates(0.1, 0.2, {"conv1": 0.0})] * 2)
    assert all(map(torch.equal, frozen, before))
    assert all(torch.equal(optimizer.state[each]["velocity"], v) for each, v in zip(frozen, velocity, strict=True))
    assert not torch.equal(net.fc8.weight, fc8)


def test_parameters_without_gradient_stay():
    net = Net()
    optimizer = Momentum2012(net)
    optimizer.set_rates(Rates(0.1))
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    net.fc8.bias.grad = torch.ones(4, dtype=torch.float64)
    optimizer.step()
    moved = [name for name, parameter in net.named_parameters() if not torch.equal(parameter, before[name])]
    assert moved == ["fc8.bias"]


def test_a_closure_is_refused():
    with pytest.raises(TypeError, match="closures are not supported"):
        Momentum2012(Net()).step(lambda: 0.0)


def test_biases_run_twice_as_fast_and_freeze_with_their_layer():
    net = Net()
    optimizer = Momentum2012(net)

    def rates_after(epoch):
        optimizer.set_rates(DIARIES["145"].rates(0.01, Progress(epoch, 0, 10, 91)))
        return [group["rate"] for group in optimizer.param_groups]  # conv1's weight and bias, fc8's weight and bias

    assert rates_after(0) == pytest.approx([0.01, 0.02, 0.01, 0.02])
    assert rates_after(70) == pytest.approx([0.00001, 0.02, 0.0001, 0.02])
    assert rates_after(75) == pytest.approx([0.0, 0.0, 0.0001, 0.02])
    optimizer.set_rates(Plateau(drops=1).rates(0.01, Progress(0, 0, 10, 91)))
    assert [group["rate"] for group in optimizer.param_groups] == pytest.approx([0.001] * 4)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_pieces_are_the_update_of_the_whole(monkeypatch, form):
    """Each element has the same four operations; rounding may differ only where a vector ends."""
    ends = []
    for piece in (optim.PIECE, 64):
        monkeypatch.setattr(optim, "PIECE", piece)
        torch.manual_seed(0)
        net = nn.Module()
        net.conv1 = nn.Conv2d(5, 7, 3).to(memory_format=form)
        optimizer = Momentum2012(net)
        for rates in COURSE:
            optimizer.set_rates(rates)
            for parameter in net.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        ends.append({**dict(net.named_parameters()), "v": optimizer.velocities()["conv1.weight"]})
        assert ends[-1]["v"].is_contiguous(memory_format=form)
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)


def test_a_gradient_in_another_memory_format_counts_as_it_should():
    one, other = nn.Module(), nn.Module()
    for net, form in ((one, torch.contiguous_format), (other, torch.channels_last)):
        torch.manual_seed(0)
        net.conv1 = nn.Conv2d(5, 7, 3).to(memory_format=form)
        optimizer = Momentum2012(net)
        optimizer.set_rates(Rates(0.1))
        torch.manual_seed(1)
        for parameter in net.parameters():
            parameter.grad = torch.randn(parameter.shape)  # contiguous in both
        optimizer.step()
    torch.testing.assert_close(dict(one.named_parameters()), dict(other.named_parameters()))


def test_the_optimizer_does_not_import_the_compiler():
    program = (
        "import sys, torch; from alexnet_dali.model.recipes.optim import Momentum2012; "
        "net = torch.nn.Linear(3, 2); optimizer = Momentum2012(net); net(torch.ones(1, 3)).sum().backward(); "
        "optimizer.step(); optimizer.zero_grad(); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_fused_update_is_the_rule_written_out(dtype):
    """torch's fused kernel has a CPU form; to rounding: it adds the decay to the gradient first, and rounds less."""
    torch.manual_seed(0)
    shapes = [(7, 5, 3, 3), (64,), (33, 17), (1,)]
    start = [[torch.randn(shape, dtype=dtype) * spread for spread in (0.01, 0.1, 1.0)] for shape in shapes]
    start[0] = [each.to(memory_format=torch.channels_last) for each in start[0]]
    start[2][2] = start[2][2].t().contiguous().t()  # a gradient that lies otherwise
    rounding = torch.finfo(dtype).eps
    for rate, decay in ((0.01, 0.0005), (1e-5, 0.4), (0.3, 0.0)):
        one, other = ([tuple(each.clone() for each in three) for three in start] for _ in range(2))
        for three in one:
            optim._written_out(*three, 0.9, rate, decay)
        optim._fused(other, 0.9, rate, decay)
        for (v, w, g), (fused_v, fused_w, fused_g) in zip(one, other, strict=True):
            largest = (0.9 * v.abs() + rate * (g.abs() + decay * w.abs())).max().item()
            of_rate = 2e-16 * g.abs().max().item()  # 1 - (1 + rate) in float64
            torch.testing.assert_close(fused_v, v, rtol=0, atol=4 * rounding * largest + of_rate)
            largest += w.abs().max().item()
            torch.testing.assert_close(fused_w, w, rtol=0, atol=4 * rounding * largest + of_rate)
            assert torch.equal(fused_g, g) and fused_w.stride() == w.stride()


@pytest.mark.parametrize("rates, together", [(COURSE[0], [8, 8]), (COURSE[1], [7, 7, 1, 1])], ids=["usual", "fc8"])
def test_off_the_cpu_parameters_of_one_rate_and_decay_are_updated_together(rates, together, monkeypatch):
    """On the meta device, which computes nothing: a GPU gets one call for each rate and decay, in place of 64."""
    calls = []
    monkeypatch.setattr(torch, "_fused_sgd_", lambda weights, *_, **options: calls.append(len(weights)))
    with torch.device("meta"):
        net = AlexNet(1000)
    optimizer = Momentum2012(net)
    optimizer.set_rates(rates)
    for parameter in net.parameters():
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    assert calls == together
    net.conv1.weight.grad = None
    fresh = Momentum2012(net)
    fresh.set_rates(Rates(0.01, layers={"fc6": 0.0}))
    fresh.step()
    without = {name for name, v in fresh.velocities().items() if v is None}
    assert without == {"conv1.weight", "fc6.weight", "fc6.bias"}


def test_a_fused_run_is_the_run_on_the_cpu(monkeypatch):
    """All of a course of rates, one frozen for a while, by the path of a GPU."""
    net, other = Net(), Net()
    other.load_state_dict(net.state_dict())
    expected = walk(net, Momentum2012(net, decay=0.4), COURSE)

    def one(*arguments):
        optim._fused([arguments[:3]], *arguments[3:])

    monkeypatch.setattr(optim, "_written_out", one)
    for ours, theirs in zip(walk(other, Momentum2012(other, decay=0.4), COURSE), expected, strict=True):
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12, atol=1e-14)
