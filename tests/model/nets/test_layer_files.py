"""Layer and parameter files of 2012: what is read, what is refused, and where; nets of every type of layer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from alexnet_dali.model.nets.layer_files.definition import Update, read_definition
from alexnet_dali.model.nets.layer_files.net import FileNet
from alexnet_dali.pipeline.errors import UsageError

TOP = "[data]\ntype=data\ndataIdx=0\n\n[labels]\ntype=data\ndataIdx=1\n"
END = "\n[probs]\ntype=softmax\ninputs=fc\n\n[cost]\ntype=cost.logreg\ninputs=labels,probs\n"
RATES = "epsW=0.001\nepsB=0.002\nmomW=0.9\nmomB=0.8\nwc=0.004\n"
PARAMS = f"[fc]\n{RATES}\n[cost]\ncoeff=1\ntopk=5\n"


def fc(below="data", outputs=3, inputs=1, **more):
    rows = "".join(f"{key}={value}\n" for key, value in more.items())
    stds = ",".join(["0.01"] * inputs)
    return f"\n[fc]\ntype=fc\ninputs={below}\noutputs={outputs}\ninitW={stds}\n{rows}"


def small(middle, below, params="", crop=9, inputs=1):
    """A net of a layer under test with a fully connected layer above it, in float64."""
    rates = PARAMS if inputs == 1 else PARAMS.replace("0.001", "0.001,0.001").replace("0.9", "0.9,0.9")
    rates = rates if inputs == 1 else rates.replace("wc=0.004", "wc=0.004,0.004")
    return FileNet(read_definition(TOP + middle + fc(below, inputs=inputs) + END, rates + params), 3, crop).double()


def pictures(crop=9, n=2):
    return torch.randn(n, 3, crop, crop, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def above(net, y):
    """The logits of what the layer under test gives."""
    arrays = dict(net.named_parameters())
    return y.flatten(1) @ arrays["fc.weight0"].T + arrays["fc.bias"]


CONV = (
    "\n[c]\ntype=conv\ninputs=data\nchannels=3\nfilters=4\nfilterSize={side}\npadding={padding}\nstride={stride}\n"
    "initW=0.1\ninitB=0.5\npartialSum=1\n{more}"
)


@pytest.mark.parametrize(("side", "padding", "stride"), [(3, 1, 1), (4, 0, 2), (5, 2, 3), (2, 0, 4)])
@pytest.mark.parametrize("shared", [True, False])
def test_a_convolution_written_out(side, padding, stride, shared):
    more = "" if shared else "sharedBiases=0\n"
    net = small(CONV.format(side=side, padding=padding, stride=stride, more=more), "c", f"[c]\n{RATES}")
    x, arrays = pictures(), dict(net.named_parameters())
    rows = 1 + -(-(2 * padding + 9 - side) // stride)
    padded = F.pad(x, (padding, padding + 9, padding, padding + 9))  # more than the last window needs
    weight, bias = arrays["c.weight0"], arrays["c.bias"]
    assert bias.shape == ((4,) if shared else (4, rows, rows)) and float(bias.detach().mean()) == pytest.approx(0.5)
    y = torch.empty(2, 4, rows, rows, dtype=torch.float64)
    for i, j in np.ndindex(rows, rows):
        window = padded[:, :, i * stride : i * stride + side, j * stride : j * stride + side]
        y[:, :, i, j] = torch.einsum("nckl,fckl->nf", window, weight) + (bias if shared else bias[:, i, j])
    torch.testing.assert_close(net(x), above(net, y))


def test_a_locally_connected_layer_written_out():
    middle = CONV.replace("type=conv", "type=local").replace("partialSum=1\n", "")
    net = small(middle.format(side=3, padding=1, stride=2, more="neuron=tanh[1.5,0.5]\n"), "c", f"[c]\n{RATES}")
    x, arrays = pictures(), dict(net.named_parameters())
    assert arrays["c.weight0"].shape == (25, 4, 3, 3, 3) and arrays["c.bias"].shape == (4, 5, 5)
    padded, y = F.pad(x, (1, 1, 1, 1)), torch.empty(2, 4, 5, 5, dtype=torch.float64)
    for i, j in np.ndindex(5, 5):
        window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        y[:, :, i, j] = (
            torch.einsum("nckl,fckl->nf", window, arrays["c.weight0"][5 * i + j]) + arrays["c.bias"][:, i, j]
        )
    torch.testing.assert_close(net(x), above(net, 1.5 * torch.tanh(0.5 * y)))


@pytest.mark.parametrize(("kind", "size", "stride"), [("max", 3, 2), ("max", 2, 2), ("avg", 3, 2), ("max", 4, 4)])
def test_pooling_over_the_edge(kind, size, stride):
    net = small(
        f"\n[p]\ntype=pool\npool={kind}\ninputs=data\nchannels=3\nsizeX={size}\nstride={stride}\n", "p", crop=10
    )
    x, rows = pictures(10), -(-(10 - size) // stride) + 1
    y = torch.empty(2, 3, rows, rows, dtype=torch.float64)
    for i, j in np.ndindex(rows, rows):
        window = x[:, :, i * stride : i * stride + size, j * stride : j * stride + size].flatten(2)
        y[:, :, i, j] = window.amax(2) if kind == "max" else window.mean(2)
    torch.testing.assert_close(net(x), above(net, y))


@pytest.mark.parametrize("old", [False, True], ids=["parameter file", "layer file"])
@pytest.mark.parametrize("kind", ["cmrnorm", "rnorm"])
def test_normalisation_written_out(kind, old):
    constants = "scale=0.01\npow=0.75\n"
    middle = f"\n[n]\ntype={kind}\ninputs=data\nchannels=3\n{'sizeX' if old else 'size'}=3\n{constants if old else ''}"
    net = small(middle, "n", "" if old else f"[n]\n{constants}{'minDiv=2' if kind == 'cmrnorm' else ''}\n")
    x = pictures()
    if kind == "cmrnorm":
        squares = [x[:, max(0, c - 1) : c + 2].square().sum(1) for c in range(3)]
        y = x / ((1 if old else 2) + 0.01 / 3 * torch.stack(squares, 1)) ** 0.75
    else:
        sums = F.avg_pool2d(x.square(), 3, 1, 1, count_include_pad=True) * 9
        y = x / (1 + 0.01 / 9 * sums) ** 0.75
    torch.testing.assert_close(net(x), above(net, y))


@pytest.mark.parametrize(
    ("neuron", "function"),
    [
        ("relu", lambda x: x.clamp_min(0)),
        ("logistic", lambda x: 1 / (1 + (-x).exp())),
        ("abs", torch.abs),
        ("softrelu", lambda x: (1 + x.exp()).log()),
        ("square", lambda x: x * x),
        ("tanh[1.7,0.6]", lambda x: 1.7 * torch.tanh(0.6 * x)),
        ("linear[2,-1]", lambda x: 2 * x - 1),
        ("brelu[0.5]", lambda x: x.clamp(0, 0.5)),
        ("drelu[2]", lambda x: x - 2 * torch.tanh(x / 2)),
        ("ident", lambda x: x),
    ],
)
def test_neurons(neuron, function):
    net = small(f"\n[n]\ntype=neuron\ninputs=data\nneuron={neuron}\n", "n")
    torch.testing.assert_close(net(pictures()), above(net, function(pictures())))


def test_inputs_are_concatenated_added_and_summed():
    x = pictures()
    pair = "\n[a]\ntype=neuron\ninputs=data\nneuron=relu\n\n[b]\ntype=neuron\ninputs=data\nneuron=square\n"
    joined = small(f"{pair}\n[j]\ntype=concat\ninputs=b,a\n", "j")
    torch.testing.assert_close(joined(x), above(joined, torch.cat([(x * x).flatten(1), x.relu().flatten(1)], 1)))
    added = small(f"{pair}\n[j]\ntype=eltsum\ninputs=a,b\ncoeffs=2,-1\n", "j")
    torch.testing.assert_close(added(x), above(added, 2 * x.relu() - x * x))
    two, arrays = (net := small(pair, "b,a", inputs=2)), dict(net.named_parameters())
    want = (x * x).flatten(1) @ arrays["fc.weight0"].T + x.relu().flatten(1) @ arrays["fc.weight1"].T
    torch.testing.assert_close(two(x), want + arrays["fc.bias"])


def test_dropout_keeps_the_plans_units_and_is_off_in_evaluation():
    middle, x = "\n[h]\ntype=hs\ninputs=data\nkeep=0.5\n", pictures()
    net = small(middle, "h", "[h]\nenable=true\n")
    assert net.dropout_shape == (243,)
    keep = torch.rand(2, 243) < 0.5
    torch.testing.assert_close(net(x, keep), above(net, x.flatten(1) * keep * 2))
    torch.testing.assert_close(net.eval()(x), above(net, x))
    assert small(middle, "h", "[h]\nenable=false\n").dropout_shape == ()
    assert small(middle.replace("0.5", "0.8"), "h", "[h]\nenable=true\n").dropout_shape == (), "torch draws"


def test_rates_and_schedules_are_read():
    schedules = "schedW=dexp[tgtFactor=250,noiseStdev=0,numSteps=4]\nschedB=exp[tgtFactor=10,noiseStdev=0]\n"
    read = read_definition(TOP + fc() + END, PARAMS.replace("wc=0.004\n", f"wc=0.004\n{schedules}"))
    (layer,) = (layer for layer in read.layers if layer.name == "fc")
    assert layer.weights == (Update(0.001, 0.9, 0.004, ("dexp", 250.0, 4)),)
    assert layer.biases == Update(0.002, 0.8, 0.0, ("exp", 10.0, 0))


@pytest.mark.parametrize(
    ("layers", "params", "words"),
    [
        (TOP + fc(epsw="1") + END, PARAMS, "L, line 14: [fc] epsw is not known or not supported here"),
        (TOP + fc(initw_="1") + END, PARAMS, "did you mean initw"),
        (TOP + fc("dta") + END, PARAMS, "L, line 11: [fc] its input dta is not defined above it"),
        (TOP + fc() + END.replace("labels,", ""), PARAMS, "[cost] has inputs other than the labels and one softmax"),
        (TOP + fc() + END, PARAMS.replace("[fc]", "[fd]"), "L, line 9: [fc] has weights, but P has no section [fc]"),
        (TOP + fc() + END, PARAMS.replace("momB=0.8\n", ""), "P, line 1: [fc] has no momb"),
        (TOP + fc() + END, PARAMS.replace("0.9", "0.9,0.9"), "momw=0.9,0.9 has 2 values, not 1"),
        (TOP + fc() + END, PARAMS.replace("0.9", "high"), "P, line 4: [fc] momw=high is not a number"),
        (TOP + fc() + END, PARAMS.replace("coeff=1", "coeff=2"), "coeff=2 is not supported"),
        (TOP + fc() + END, PARAMS + "[fc]\nwball=0.1\n", "P, line 12: [fc] wball=0.1 is not supported"),
        (TOP + fc() + END, PARAMS + "[fc]\nschedW=dexp[250,0,4]\n", "P, line 12: [fc] schedw=dexp[250,0,4] is not"),
        (TOP + fc() + END, PARAMS + "[fc]\nmomW=0.8\n", "P, line 12: momw has another value in line 4"),
        (TOP + fc(neuron="nrelu") + END, PARAMS, "L, line 14: [fc] neuron=nrelu is not supported"),
        (TOP + "[b]\ntype=blur\ninputs=data\n" + fc("b") + END, PARAMS, "L, line 9: [b] layers of type blur are not"),
        (TOP + "[b]\ntype=neuron\ninputs=data\nneuron=relu\n" + fc() + END, PARAMS, "[b] is not used by any layer"),
        (TOP + "what\n", PARAMS, "L, line 8: 'what' is neither [a section] nor key=value"),
        ("", PARAMS, "L: no [section] found"),
    ],
)
def test_what_is_refused(layers, params, words):
    with pytest.raises(UsageError) as error:
        read_definition(layers, params, "L", "P")
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("middle", "params", "words"),
    [
        (fc(outputs=4), PARAMS, "L, line 9: [fc] has 4 outputs, but the set has 3 classes; write outputs=3"),
        (
            CONV.format(side=3, padding=0, stride=1, more="").replace("Sum=1", "Sum=5") + fc("c"),
            PARAMS + f"[c]\n{RATES}",
            "[c] partialSum=5 does not divide its 7x7 windows, as the program required; the file is for pictures of",
        ),
        (
            CONV.format(side=3, padding=0, stride=1, more="").replace("channels=3", "channels=4") + fc("c"),
            PARAMS + f"[c]\n{RATES}",
            "[c] its input of 243 units is not square maps in 4 channels",
        ),
    ],
)
def test_what_does_not_fit(middle, params, words):
    with pytest.raises(UsageError) as error:
        FileNet(read_definition(TOP + middle + END, params, "L", "P"), 3, 9)
    assert words in str(error.value)
