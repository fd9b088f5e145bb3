"""The four-layer net: its shapes, its parameters and its layers against the layer file's numbers."""

import numpy as np
import pytest
import torch
from alexnet_dali.model.nets.small_net import SmallNet, pooled


def test_parameters_are_those_of_the_layer_file():
    shapes = {name: tuple(parameter.shape) for name, parameter in SmallNet().named_parameters()}
    assert shapes == {
        "conv1.weight": (32, 3, 5, 5),
        "conv1.bias": (32,),
        "conv2.weight": (32, 32, 5, 5),
        "conv2.bias": (32,),
        "conv3.weight": (64, 32, 5, 5),
        "conv3.bias": (64,),
        "fc10.weight": (10, 64 * 4 * 4),
        "fc10.bias": (10,),
    }
    assert sum(parameter.numel() for parameter in SmallNet().parameters()) == 89_578
    assert SmallNet(norm=True).state_dict().keys() == SmallNet().state_dict().keys()


def test_initial_weights_are_drawn_as_the_file_says_and_the_same_for_all_kinds():
    net = SmallNet(seed=3)
    for layer, std in (("conv1", 0.0001), ("conv2", 0.01), ("conv3", 0.01), ("fc10", 0.01)):
        weight = net.get_submodule(layer).weight.detach()
        assert float(weight.std()) == pytest.approx(std, rel=0.06), layer
        assert abs(float(weight.mean())) < std / 10
        assert not net.get_submodule(layer).bias.any()
    for other in (SmallNet(seed=3, activation="tanh"), SmallNet(seed=3, norm=True)):
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert not torch.equal(net.conv2.weight, SmallNet(seed=4).conv2.weight)


@pytest.mark.parametrize(("side", "last"), [(32, 4), (16, 2), (33, 4), (64, 8), (24, 3)])
def test_the_net_adapts_to_the_side(side, last):
    net = SmallNet(classes=3, side=side)
    assert net.fc10.in_features == 64 * last * last
    assert net(torch.zeros(2, 3, side, side)).shape == (2, 3)


def windows(x, reduce):
    """3x3 windows by twos that hang over the right and lower edge, the pixels that are there alone."""
    count = pooled(x.shape[-1])
    rows = [
        [reduce(x[..., 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].reshape(*x.shape[:2], -1), axis=-1) for j in range(count)]
        for i in range(count)
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def normalised(x):
    """a / (1 + 0.00005 / 9 * sum of a^2 over 3x3) ^ 0.75."""
    padded = np.pad(x * x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    side = x.shape[-1]
    total = sum(padded[..., i : i + side, j : j + side] for i in range(3) for j in range(3))
    return x / (1 + 0.00005 / 9 * total) ** 0.75


def convolved(x, layer):
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    side = x.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    parts = [
        np.einsum("ncyx,oc->noyx", padded[..., i : i + side, j : j + side], weight[..., i, j])
        for i in range(5)
        for j in range(5)
    ]
    return sum(parts) + bias[:, None, None]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("activation", "function"), [("relu", lambda x: np.maximum(x, 0)), ("tanh", np.tanh)], ids=["relu", "tanh"]
)
def test_logits_are_the_layer_files_in_numpy(norm, activation, function):
    net = SmallNet(activation=activation, norm=norm).double()
    with torch.no_grad():
        net.conv1.weight.mul_(300)  # or the norms would have nothing to do
        net.conv2.weight.mul_(30)
    x = np.random.default_rng(1).uniform(-128, 127, (2, 3, 32, 32))
    norms = normalised if norm else (lambda y: y)
    y = norms(windows(function(convolved(x, net.conv1)), np.max))
    assert y.shape == (2, 32, 16, 16)
    y = norms(windows(function(convolved(y, net.conv2)), np.mean))
    y = windows(function(convolved(y, net.conv3)), np.mean)
    want = y.reshape(2, -1) @ net.fc10.weight.detach().numpy().T + net.fc10.bias.detach().numpy()
    np.testing.assert_allclose(net(torch.from_numpy(x)).detach().numpy(), want, rtol=1e-9, atol=1e-9)


def test_the_norms_change_the_logits():
    x = torch.randn(2, 3, 32, 32) * 60
    nets = [SmallNet(norm=norm) for norm in (False, True)]
    with torch.no_grad():
        for net in nets:
            net.conv1.weight.mul_(300)
    assert not torch.allclose(nets[0](x), nets[1](x), rtol=1e-3)
