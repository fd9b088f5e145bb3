"""The net: sizes, edge, order of layers, columns, initial weights, dropout; against plain torch and NumPy."""

import math

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from alexnet_dali.model.alexnet import LAYERS, AlexNet, NetOptions
from alexnet_dali.model.recipes import paper, source2012
from alexnet_dali.pipeline.plan import dropout_keeps

PROGRAM, TEXT = source2012().net, paper().net


@pytest.fixture
def small(monkeypatch):
    tiny.shrink(monkeypatch)


@pytest.fixture(scope="module")
def whole():
    """The net of 1,000 classes, in full size."""
    return AlexNet(1000, seed=5)


def pictures(count, dtype=torch.float32, seed=0):
    """Pixels less a mean, as the stream gives them."""
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 60, (count, 3, 224, 224))).to(dtype)


def test_60965224_parameters(whole):
    assert sum(parameter.numel() for parameter in whole.parameters()) == 60_965_224


def test_the_output_of_each_layer_has_the_papers_shape(whole):
    shapes = {}
    for name in LAYERS:
        getattr(whole, name).register_forward_hook(
            lambda module, inputs, output, name=name: shapes.update({name: (*inputs[0].shape[1:], *output.shape[1:])})
        )
    with torch.no_grad():
        assert whole.eval()(pictures(1)).shape == (1, 1000)
    assert shapes == {  # inputs, then outputs, without the batch
        "conv1": (3, 227, 227, 96, 55, 55),
        "conv2": (96, 27, 27, 256, 27, 27),
        "conv3": (256, 13, 13, 384, 13, 13),
        "conv4": (384, 13, 13, 384, 13, 13),
        "conv5": (384, 13, 13, 256, 13, 13),
        "fc6": (9216, 4096),
        "fc7": (4096, 4096),
        "fc8": (4096, 1000),
    }


def test_conv1_hangs_over_the_right_and_lower_edge_by_three(small):
    net = AlexNet(4).double()
    x = pictures(1, torch.float64)
    seen = []
    net.conv1.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().numpy()[0]))
    net(x)
    padded = np.zeros((3, 227, 227))
    padded[:, :224, :224] = x.numpy()[0]
    weight, bias = net.conv1.weight.detach().numpy(), net.conv1.bias.detach().numpy()
    for row in (0, 1, 53, 54):
        for column in (0, 1, 53, 54):
            window = padded[:, 4 * row : 4 * row + 11, 4 * column : 4 * column + 11]
            expected = (weight * window).sum(axis=(1, 2, 3)) + bias
            np.testing.assert_allclose(seen[0][:, row, column], expected, rtol=1e-9, atol=1e-9)


def written_out(net, x, keep, *, program):
    """The net in plain torch: no module of ours, torch's response norm in each column, average pools for squares."""
    weights = dict(net.named_parameters())

    def conv(x, name, **options):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)

    def across(x):
        half = x.shape[1] // 2
        alpha = 1e-4 if program else 5e-4
        return torch.cat([F.local_response_norm(each, 5, alpha, 0.75, 2.0) for each in x.split(half, dim=1)], dim=1)

    def within(x):
        squares = 25 * F.avg_pool2d(x**2, 5, stride=1, padding=2)  # zeros beyond the edge count in the mean of 25
        return x / (1 + 0.001 / 25 * squares) ** 0.75

    x = conv(F.pad(x, (0, 3, 0, 3)), "conv1", stride=4)
    if program:
        x = F.relu(F.max_pool2d(across(x), 3, 2))
    else:
        x = F.max_pool2d(across(F.relu(x)), 3, 2)
    x = across(F.relu(conv(x, "conv2", padding=2, groups=2)))
    x = F.max_pool2d(within(x) if program else x, 3, 2)
    x = F.relu(conv(x, "conv3", padding=1))
    x = F.relu(conv(x, "conv4", padding=1, groups=2))
    x = F.max_pool2d(F.relu(conv(x, "conv5", padding=1, groups=2)), 3, 2).flatten(1)
    for number, name in enumerate(("fc6", "fc7")):
        x = F.relu(F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"]))
        if keep is not None:
            x = torch.where(keep[:, number], 2 * x, 0)
    return F.linear(x, weights["fc8.weight"], weights["fc8.bias"])


@pytest.mark.parametrize("options, program", [(PROGRAM, True), (TEXT, False)], ids=["source2012", "paper"])
def test_equals_the_net_written_out(small, options, program):
    """Outputs and every gradient, in training with given masks and in evaluation without."""
    net = AlexNet(7, options, seed=1).double()
    with torch.no_grad():  # strong enough for the norms to bend the responses and the last layer to tell them apart
        for name in LAYERS:
            getattr(net, name).weight.mul_(3)
    x, labels = pictures(2, torch.float64), torch.tensor([1, 6])
    keep = torch.from_numpy(np.random.default_rng(0).random((2, 2, tiny.HIDDEN)) < 0.5)
    for training in (True, False):
        net.train(training)
        logits = net(x, keep)
        ours = torch.autograd.grad(F.cross_entropy(logits, labels), list(net.parameters()))
        expected = written_out(net, x, keep if training else None, program=program)
        theirs = torch.autograd.grad(F.cross_entropy(expected, labels), list(net.parameters()))
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
        assert expected.std() > 0.1
        for (name, _), one, two in zip(net.named_parameters(), ours, theirs, strict=True):
            assert two.abs().max() > 0, name
            torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10 * float(two.abs().max()), msg=name)


def test_program_and_text_are_different_functions(small):
    """Each of the four options changes the outcome, so the test above tells them apart."""
    x = pictures(1)
    with torch.no_grad():
        logits = [
            AlexNet(7, options, seed=1).eval()(x)
            for options in (
                PROGRAM,
                NetOptions(pool_before_relu=False),
                NetOptions(lrn_scale=1e-4),
                NetOptions(within_map=False),
                NetOptions(deep_std=0.01),
            )
        ]
    for i, one in enumerate(logits):
        assert all(not torch.allclose(one, other, rtol=1e-4) for other in logits[:i])


def test_columns_meet_in_conv3_and_not_before(small):
    net = AlexNet(4, seed=2).eval()
    x = pictures(1)
    seen: dict[str, list] = {}
    for name in ("conv1", "norm", "norm_within", "conv2", "conv3", "conv4", "conv5"):
        getattr(net, name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.setdefault(name, []).append(output[0])
        )
    columns: dict[str, list] = {}
    with torch.no_grad():
        net(x)
        for changed in (net.conv1.weight, net.conv2.weight):
            before = {name: list(outputs) for name, outputs in seen.items()}
            seen.clear()
            changed[len(changed) // 2 :] += 0.05 * torch.randn(changed[len(changed) // 2 :].shape)
            net(x)
            for name, outputs in seen.items():
                for one, two in zip(before[name], outputs, strict=True):
                    half = len(one) // 2
                    halves = (not torch.equal(one[:half], two[:half]), not torch.equal(one[half:], two[half:]))
                    columns.setdefault(name, []).append(halves)
    untouched, second, both = (False, False), (False, True), (True, True)
    # `norm` runs after conv1 and after conv2; each pair of columns is from a change of conv1, then of conv2.
    assert columns == {
        "conv1": [second, untouched],
        "norm": [second, second, untouched, second],
        "norm_within": [second, second],
        "conv2": [second, second],
        "conv3": [both, both],
        "conv4": [both, both],
        "conv5": [both, both],
    }


@pytest.mark.parametrize("options, deep", [(PROGRAM, 0.03), (TEXT, 0.01)], ids=["source2012", "paper"])
def test_initial_weights_and_biases(small, options, deep):
    net = AlexNet(50, options, seed=3)
    std = dict.fromkeys(LAYERS, 0.01) | dict.fromkeys(("conv3", "conv4", "conv5"), deep)
    bias = dict.fromkeys(LAYERS, 0.0) | dict.fromkeys(("conv2", "conv4", "conv5", "fc6", "fc7"), 1.0)
    for name in LAYERS:
        layer = getattr(net, name)
        weight = layer.weight.detach().double()
        count = weight.numel()
        assert abs(weight.std() / std[name] - 1) < 5 / math.sqrt(2 * count), name  # five standard deviations
        assert abs(weight.mean()) < 5 * std[name] / math.sqrt(count), name
        kurtosis = ((weight / std[name]) ** 4).mean()  # 3 of a Gaussian, 1.8 of a uniform draw
        assert abs(kurtosis - 3) < 5 * math.sqrt(96 / count), name
        assert (layer.bias == bias[name]).all(), name


def test_initial_weights_are_the_seeds(small):
    torch.manual_seed(1)
    first = AlexNet(4, seed=7).state_dict()
    torch.manual_seed(2)
    again, other = AlexNet(4, seed=7).state_dict(), AlexNet(4, seed=8).state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        assert name.endswith("bias") or not torch.equal(tensor, other[name]), name
    assert not torch.equal(first["fc6.weight"].flatten()[:1000], first["conv4.weight"].flatten()[:1000])


@torch.no_grad()
def test_dropout_keeps_the_plans_units_and_doubles_them(small):
    net = AlexNet(4, seed=4).train()
    x = pictures(3)
    keep = torch.from_numpy(dropout_keeps(9, 0, 5, 3, 2 * tiny.HIDDEN)).view(3, 2, tiny.HIDDEN)
    six = F.relu(net.fc6(net.convolutions(x).flatten(1))) * keep[:, 0] * 2
    seven = F.relu(net.fc7(six)) * keep[:, 1] * 2
    hidden = net.hidden(x, keep)
    torch.testing.assert_close(hidden, seven)
    assert hidden[~keep[:, 1]].eq(0).all() and hidden[keep[:, 1]].ne(0).any()
    torch.testing.assert_close(net(x, keep), net.fc8(seven))


@torch.no_grad()
def test_evaluation_ignores_masks(small):
    net = AlexNet(4, seed=4).eval()
    x = pictures(2)
    nothing = torch.zeros(2, 2, tiny.HIDDEN, dtype=torch.bool)
    assert torch.equal(net(x, nothing), net(x))
    assert net(x).ne(net.fc8.bias).any()


@torch.no_grad()
def test_training_with_dropout_is_evaluation_in_expectation(small):
    """Of the mean over masks of a layer that dropout feeds: fc7's sums, and the logits."""
    net = AlexNet(4, seed=4).train()
    count = 4000
    keep = torch.from_numpy(dropout_keeps(1, 2, 0, count, 2 * tiny.HIDDEN)).view(count, 2, tiny.HIDDEN)
    activity = F.relu(torch.from_numpy(np.random.default_rng(1).normal(1, 1, tiny.HIDDEN)).float())
    for layer, after in ((0, net.fc7), (1, net.fc8)):
        sums = after(net._drop(activity.expand(count, -1), keep, layer))
        spread = sums.std(dim=0) / math.sqrt(count)
        assert ((sums.mean(dim=0) - after(activity)).abs() < 5 * spread).all()


@torch.no_grad()
def test_without_a_plan_torch_draws_the_masks(small):
    net = AlexNet(4, seed=4).train()
    x = pictures(2)
    torch.manual_seed(0)
    one = net.hidden(x)
    assert not torch.equal(one, net.hidden(x))
    assert 0.2 < (one > 0).float().mean() < 0.8 and net.eval().hidden(x).gt(0).all()
