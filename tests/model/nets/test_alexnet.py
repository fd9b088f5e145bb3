"""The net: sizes, edge, order of layers, columns, initial weights, dropout; against plain torch and NumPy."""

import math

import numpy as np
import pytest
import tiny
import torch
import torch.fx.experimental.proxy_tensor
import torch.nn.functional as F
from alexnet_dali.model.nets import alexnet
from alexnet_dali.model.nets.alexnet import AlexNet, NetOptions
from alexnet_dali.model.recipes.recipe import RECIPES, paper, recipe, source2012
from alexnet_dali.pipeline.plan.plan import dropout_keeps
from tiny import LAYERS

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
    for name in LAYERS[:-1]:  # the last one's weights and bias are used apart
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
            x = torch.where(keep.chunk(2, dim=1)[number], 2 * x, 0)
    return F.linear(x, weights["fc8.weight"], weights["fc8.bias"])


@pytest.mark.parametrize("options, program", [(PROGRAM, True), (TEXT, False)], ids=["source2012", "paper"])
def test_equals_the_net_written_out(small, options, program):
    """Outputs and every gradient, in training with given masks and in evaluation without."""
    net = AlexNet(7, options, seed=1).double()
    with torch.no_grad():  # strong enough for the norms to bend the responses and the last layer to tell them apart
        for name in LAYERS:
            getattr(net, name).weight.mul_(3)
    x, labels = pictures(2, torch.float64), torch.tensor([1, 6])
    keep = torch.from_numpy(np.random.default_rng(0).random((2, 2 * tiny.HIDDEN)) < 0.5)
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
                    half = len(one) // 2  # bit for bit: a column's sums have the same inputs, shapes, threads
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
    keep = torch.from_numpy(dropout_keeps(9, 0, 5, 3, 2 * tiny.HIDDEN))
    six = F.relu(net.fc6(net.convolutions(x).flatten(1))) * keep[:, : tiny.HIDDEN] * 2
    seven = F.relu(net.fc7(six)) * keep[:, tiny.HIDDEN :] * 2
    hidden = net.hidden(x, keep)
    torch.testing.assert_close(hidden, seven)
    assert hidden[~keep[:, tiny.HIDDEN :]].eq(0).all() and hidden[keep[:, tiny.HIDDEN :]].ne(0).any()
    torch.testing.assert_close(net(x, keep), net.fc8(seven))


@torch.no_grad()
def test_evaluation_ignores_masks(small):
    net = AlexNet(4, seed=4).eval()
    x = pictures(2)
    nothing = torch.zeros(2, 2 * tiny.HIDDEN, dtype=torch.bool)
    assert torch.equal(net(x, nothing), net(x))  # bit for bit: the same operations on the same batch in one process
    assert net(x).ne(net.fc8.bias).any()


@torch.no_grad()
def test_training_with_dropout_is_evaluation_in_expectation(small):
    """Of the mean over masks of a layer that dropout feeds: fc7's sums, and the logits."""
    net = AlexNet(4, seed=4).train()
    count = 4000
    keep = torch.from_numpy(dropout_keeps(1, 2, 0, count, 2 * tiny.HIDDEN))
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


# --- the nets of the other rows --------------------------------------------------------------------------------------


def in_full(name, classes=1000):
    """A recipe's net in full size, without memory."""
    with torch.device("meta"):
        return AlexNet(classes, recipe(name).net)


def weights(net):
    return {name.removesuffix(".weight"): tuple(p.shape) for name, p in net.named_parameters() if p.ndim > 1}


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


WHOLE_145 = {
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3),
    "fc6": (4096, 9216),
    "fc7": (4096, 4096),
    "fc8": (1000, 4096),
}
CONV6 = {"conv6": (256, 256, 3, 3)}
CONVOLUTIONS = [name for name in WHOLE_145 if name.startswith("conv")]


@pytest.mark.parametrize(
    "name, classes, changes, parameters",
    [
        ("source2012", 1000, {}, 60_965_224),
        (
            "one-gpu",
            1000,
            {
                "conv1": (48, 3, 11, 11),
                "conv2": (128, 48, 5, 5),
                "conv3": (192, 128, 3, 3),
                "conv4": (192, 192, 3, 3),
                "conv5": (256, 192, 3, 3),
            },
            59_798_312,
        ),
        ("six-conv", 1000, CONV6, 60_965_224 + 256 * 2304 + 256),
        ("six-conv-2009", 10_184, {**CONV6, "fc8": (10_184, 4096)}, 60_965_224 + 256 * 2304 + 256 + 9184 * 4097),
        (
            "six-conv-2011",
            21_843,
            {**CONV6, "low": (2048, 4096), "fc8": (21_843, 2048)},
            60_965_224 - 1000 * 4097 + 256 * 2304 + 256 + 2048 * 4097 + 21_843 * 2049,
        ),
        (
            "no-talk",
            1000,
            {
                "conv2": (320, 48, 5, 5),
                "conv3": (384, 160, 3, 3),
                "fc6": (8192, 4608),
            },
            None,
        ),
        *((name, 1000, {}, 60_965_224) for name in ("no-lrn", "pool-2x2", "no-dropout", "tanh", "no-crops")),
        ("modern", 1000, {}, 60_965_224 + 2 * (96 + 256 + 384 + 384 + 256)),
    ],
)
def test_each_recipe_has_its_layers(name, classes, changes, parameters):
    net = in_full(name, classes)
    expected = {**WHOLE_145, **changes}
    assert weights(net) == expected
    if parameters is None:
        parameters = sum(math.prod(shape) + shape[0] for shape in expected.values())
    assert count(net) == parameters


def sides(net):
    """Of the maps, as each convolution and each pooling layer gives them."""
    seen: list[int] = []
    pool = net._pool
    for layer in CONVOLUTIONS:
        getattr(net, layer).register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-1]))

    def pooled(x):
        seen.append(pool(x).shape[-1])
        return pool(x)

    net._pool = pooled
    with torch.no_grad():
        assert net.eval()(pictures(1)).shape == (1, 4)
    return seen


@pytest.mark.parametrize(
    "name, expected",
    [("source2012", [55, 27, 27, 13, 13, 13, 13, 6]), ("pool-2x2", [55, 28, 26, 13, 13, 13, 11, 6])],
)
def test_the_maps_shrink(small, name, expected):
    assert sides(AlexNet(4, recipe(name).net)) == expected


def test_pooling_without_overlap_sees_each_response_once(small):
    net = AlexNet(4, recipe("pool-2x2").net)
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert net._pool(x).tolist() == [[[[4, 5], [7, 8]]]]  # the last window hangs over the edge


@torch.no_grad()
def test_the_sixth_convolution_lies_over_the_last_pooling_layer_and_sees_both_columns(small):
    net = AlexNet(4, recipe("six-conv").net, seed=1).eval()
    seen = []
    net.conv6.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    maps = net.convolutions(pictures(1))
    (before, after), five = seen[0], AlexNet(4, recipe("source2012").net)
    assert before.shape == after.shape == maps.shape == (1, 256, 6, 6)
    assert torch.equal(maps, F.relu(after)) and before.ge(0).all() and net.conv6.groups == 1
    five.load_state_dict({name: t for name, t in net.state_dict().items() if not name.startswith("conv6")})
    # Bit for bit: the same weights, operations and batch in one process.
    assert torch.equal(before, five.eval().convolutions(pictures(1)))
    assert net.conv6.bias.eq(1).all() and net.conv6.weight.std() == pytest.approx(0.03, rel=0.01)


@torch.no_grad()
def test_the_low_layer_is_linear(small):
    net = AlexNet(9, recipe("six-conv-2011").net, seed=1).eval()
    x = pictures(2)
    hidden = net.hidden(x)
    assert hidden.shape == (2, tiny.HIDDEN) and net.low.out_features == net.fc8.in_features == 2048
    low = net.low(hidden)
    assert (low < 0).any()
    torch.testing.assert_close(net(x), net.fc8(low))
    assert net.low.bias.eq(0).all() and net.low.weight.std() == pytest.approx(0.01, rel=0.02)


def halves(name, seed=3):
    """What a change of the second column's conv1 changes: of fc6, of fc7, and of the first half of each."""
    net = AlexNet(4, recipe(name).net, seed=seed).eval()
    seen: dict[str, list] = {}
    for layer in (*CONVOLUTIONS, "fc6", "fc7", "fc8"):
        getattr(net, layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: seen.setdefault(layer, []).append(output[0])
        )
    x = pictures(1)
    with torch.no_grad():
        one = net(x)
        net.conv1.weight[48:] += 0.05
        two = net(x)
    changed = {}
    for layer, (before, after) in seen.items():
        if layer != "fc8":  # bit for bit: a column's sums have the same inputs, shapes, threads and kernels both times
            changed[layer] = tuple(not torch.equal(a, b) for a, b in zip(before.chunk(2), after.chunk(2), strict=True))
    return changed, one, two


def test_columns_that_do_not_talk_meet_in_the_softmax_alone(small):
    changed, one, two = halves("no-talk")
    assert changed == dict.fromkeys((*CONVOLUTIONS, "fc6", "fc7"), (False, True))
    assert not torch.equal(one, two)
    talking, _, _ = halves("source2012")
    assert talking["conv2"] == (False, True) and talking["conv3"] == talking["fc7"] == (True, True)


@torch.no_grad()
def test_columns_that_do_not_talk_are_two_nets_whose_logits_are_added(small):
    net = AlexNet(4, recipe("no-talk").net, seed=3).eval()
    x = pictures(2)
    maps, total = net.convolutions(x), net.fc8.bias.clone()
    for column in (0, 1):

        def part(tensor, dim=0, column=column):
            return tensor.chunk(2, dim)[column]

        y = part(maps, 1).flatten(1)
        for layer in (net.fc6, net.fc7):
            y = F.relu(F.linear(y, part(layer.weight), part(layer.bias)))
        assert y.shape == (2, tiny.HIDDEN // 2)
        total = total + F.linear(y, part(net.fc8.weight, 1))
    torch.testing.assert_close(net(x), total)


@torch.no_grad()
def test_dropout_of_columns_that_do_not_talk(small):
    net = AlexNet(4, recipe("no-talk").net, seed=3).train()
    x, six = pictures(2), 2 * tiny.HIDDEN
    assert net.dropout_shape == (six + tiny.HIDDEN,)
    keep = torch.from_numpy(dropout_keeps(1, 0, 0, 2, six + tiny.HIDDEN))
    y = F.relu(net.fc6(net.convolutions(x).flatten(1))) * keep[:, :six] * 2
    torch.testing.assert_close(net.hidden(x, keep), F.relu(net.fc7(y)) * keep[:, six:] * 2)


def test_one_column_sees_all_maps_in_every_layer(small):
    net = AlexNet(4, recipe("one-gpu").net)
    assert [getattr(net, name).groups for name in CONVOLUTIONS] == [1] * 5
    assert net.norm.columns == 1 and net.dropout_shape == (2 * tiny.HIDDEN,)


@torch.no_grad()
def test_without_response_normalisation(small):
    net = AlexNet(4, recipe("no-lrn").net, seed=1).eval()
    x = pictures(1)
    y = F.relu(F.max_pool2d(net.conv1(F.pad(x, (0, 3, 0, 3))), 3, 2))
    y = F.max_pool2d(F.relu(net.conv2(y)), 3, 2)
    y = F.relu(net.conv4(F.relu(net.conv3(y))))
    torch.testing.assert_close(net.convolutions(x), F.relu(F.max_pool2d(net.conv5(y), 3, 2)))


@torch.no_grad()
def test_tanh_is_in_every_layer(small):
    net, relu = AlexNet(4, recipe("tanh").net, seed=1).eval(), AlexNet(4, seed=1).eval()
    x = pictures(2)
    inputs: dict[str, torch.Tensor] = {}
    for layer in ("conv3", "conv4", "conv5", "fc6", "fc7"):
        getattr(net, layer).register_forward_pre_hook(lambda module, seen, layer=layer: inputs.update({layer: seen[0]}))
    hidden = net.hidden(x)
    assert hidden.abs().max() <= 1 and inputs["conv4"].min() < 0
    torch.testing.assert_close(inputs["conv4"], torch.tanh(net.conv3(inputs["conv3"])))
    torch.testing.assert_close(inputs["conv5"], torch.tanh(net.conv4(inputs["conv4"])))
    pooled = F.max_pool2d(net.conv5(inputs["conv5"]), 3, 2)
    torch.testing.assert_close(inputs["fc6"], torch.tanh(pooled).flatten(1))
    torch.testing.assert_close(inputs["fc7"], torch.tanh(net.fc6(inputs["fc6"])))
    torch.testing.assert_close(hidden, torch.tanh(net.fc7(inputs["fc7"])))
    assert torch.equal(net.fc6.weight, relu.fc6.weight) and relu.hidden(x).max() > 1


@torch.no_grad()
def test_without_dropout_training_is_evaluation(small):
    net = AlexNet(4, recipe("no-dropout").net, seed=1)
    x = pictures(2)
    assert net.dropout_shape == ()
    assert torch.equal(net.train()(x), net.eval()(x))  # bit for bit: the same operations on one batch in one process


def test_batch_norm_is_behind_every_convolution(small):
    net = AlexNet(4, recipe("modern").net, seed=1).train()
    x = pictures(4)
    inputs: dict[str, torch.Tensor] = {}
    for layer in ("conv3", "conv4", "conv5"):
        getattr(net, layer).register_forward_pre_hook(lambda module, seen, layer=layer: inputs.update({layer: seen[0]}))
    outputs = []
    for norm in net.batch_norms:
        norm.register_forward_hook(lambda module, seen, output: outputs.append(output.detach()))
    net(x).sum().backward()
    assert [output.shape[1] for output in outputs] == [96, 256, 384, 384, 256]
    for output in outputs:
        assert output.mean(dim=(0, 2, 3)).abs().max() < 1e-4
        assert output.var(dim=(0, 2, 3), unbiased=False).sub(1).abs().max() < 1e-3
    # Bit for bit: no arithmetic but a maximum.
    assert torch.equal(inputs["conv4"], F.relu(outputs[2])) and torch.equal(inputs["conv5"], F.relu(outputs[3]))
    assert isinstance(net.norm, torch.nn.Identity) and isinstance(net.norm_within, torch.nn.Identity)
    assert all(norm.num_batches_tracked == 1 and norm.weight.grad.abs().max() > 0 for norm in net.batch_norms)
    net.eval()
    torch.testing.assert_close(net(x)[:1], net(x[:1]), rtol=1e-4, atol=1e-3)  # of running means, not the batch's


def test_kaimings_weights(small):
    net = AlexNet(50, recipe("modern").net, seed=3)
    for name in LAYERS:
        layer = getattr(net, name)
        shape = layer.weight.shape
        expected = math.sqrt(2 / shape[1:].numel())
        assert abs(layer.weight.std() / expected - 1) < 5 / math.sqrt(2 * layer.weight.numel()), name
        assert layer.bias.eq(0).all(), name


@pytest.mark.parametrize("name", RECIPES)
def test_every_net_learns_something_in_every_layer(small, name):
    net = AlexNet(4, recipe(name).net, seed=1).train()
    F.cross_entropy(net(pictures(2)), torch.tensor([0, 3])).backward()
    for full, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, full


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_padding_in_one_copy_is_padding_and_casting(layout, bf16):
    """Bit for bit: each value is rounded once, by the same rule."""
    x = torch.randn(3, 3, 9, 7, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    expected = F.pad(x, (0, 3, 0, 3)).to(torch.bfloat16 if bf16 else torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        padded = alexnet._padded(x)
        assert torch.equal(padded, expected) and padded.dtype == expected.dtype
        assert padded.is_contiguous(memory_format=layout)
        assert alexnet._padded(x.double()).dtype == torch.float64  # autocast leaves it alone


def test_pictures_have_gradients(small):
    """As demos and users ask for them; equal to those of pictures that were padded before."""
    net = AlexNet(4).eval()
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 30
    leaf = x.clone().requires_grad_()
    net(leaf).sum().backward()
    padded = F.pad(x, (0, 3, 0, 3)).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alexnet, "_padded", lambda x: padded)
        net(x).sum().backward()
    assert leaf.grad.abs().sum() > 0
    torch.testing.assert_close(leaf.grad, padded.grad[:, :, :224, :224])


@pytest.mark.parametrize("recipe_", [source2012, paper], ids=lambda f: f.__name__)
def test_a_trace_by_dispatch_sees_every_operation(small, recipe_):
    """`make_fx`, FlopCounterMode and the like see torch's operations only: the compiled parts give way to them."""
    net, x, other = AlexNet(4, recipe_().net).eval(), pictures(2, seed=1), pictures(2, seed=2)
    traced = torch.fx.experimental.proxy_tensor.make_fx(net)(x)
    with torch.no_grad():
        torch.testing.assert_close(traced(other), net(other))
