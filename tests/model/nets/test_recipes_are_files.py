"""The recipes' nets are those of the authors' layer files: the same arrays, outputs and gradients.

The files here are written by the test in the authors' form. Against the authors' own, of the repository
computerhistory/AlexNet-Source-Code:
    python tests/model/nets/test_recipes_are_files.py FOLDER
"""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from alexnet_dali.model.nets.alexnet import AlexNet
from alexnet_dali.model.nets.layer_files.definition import Definition, read_definition
from alexnet_dali.model.nets.layer_files.net import FileNet
from alexnet_dali.model.recipes.recipe import recipe

MUSEUM = (  # layer file, parameter file, recipe, classes
    ("145", "145", "source2012", 1000),
    ("145-half", "145-half", "one-gpu", 1000),
    ("146-2009", "146-2009", "six-conv-2009", 10184),
    ("146-2012-2009", "146-2012-2009", "six-conv", 1000),
    ("146-2012-2011", "146-2012-2011", "six-conv", 1000),
    ("146-2011", "146-2011", "six-conv-2011", 21843),
    ("147", "147", "pool-2x2", 1000),
    ("148", "148", "no-lrn", 1000),
    ("150", "150", "no-talk", 1000),
)
NAMES = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "fc6", "fc7", "low", "fc8")


def compare(definition: Definition, name: str, classes: int) -> dict[str, float]:
    """Compare a file's net with a recipe's; return the largest relative differences of outputs and gradients."""
    options = recipe(name).net
    ours, theirs = AlexNet(classes, options, seed=1).double(), FileNet(definition, classes, 224, seed=2).double()
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())
    assert theirs.dropout_shape == ours.dropout_shape
    layers = [layer for layer in NAMES if hasattr(ours, layer)]
    own = dict(theirs.named_parameters())
    groups = grouped(definition, len(layers), options.columns)
    with torch.no_grad():
        for layer, group in zip(layers, groups, strict=True):
            target = getattr(ours, layer)
            for array in ("weight", "bias"):
                mapped, first = whole(own, definition, group, array), getattr(target, array)
                assert mapped.shape == first.shape, (layer, array)
                # drawn from the same normal distribution by other seeds: within six standard errors of both
                deviations = [float(drawn.std(correction=0)) for drawn in (mapped, first)]
                assert deviations[0] == pytest.approx(deviations[1], rel=6 / mapped.numel() ** 0.5)
                near = 6 * deviations[0] * (2 / mapped.numel()) ** 0.5
                assert float(mapped.mean()) == pytest.approx(float(first.mean()), abs=near)
                first.copy_(mapped)
    generator = torch.Generator().manual_seed(3)
    x = 60 * torch.randn(2, 3, 224, 224, generator=generator, dtype=torch.float64)
    keep = torch.rand(2, *ours.dropout_shape, generator=generator) < 0.5
    labels = torch.tensor([0, classes - 1])
    logits = [net(x, keep) for net in (ours, theirs)]
    worst = {"outputs": difference(*logits)}
    for one in logits:
        F.cross_entropy(one, labels).backward()
    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    for layer, group in zip(layers, groups, strict=True):
        for array in ("weight", "bias"):
            mapped = whole(gradients, definition, group, array)
            worst[f"{layer}.{array}"] = difference(getattr(getattr(ours, layer), array).grad, mapped)
    return worst


def grouped(definition: Definition, count: int, columns: int) -> list[list]:
    """Group the layers with weights: those of one layer of AlexNet, one for each column, stand together."""
    weighted = [layer for layer in definition.layers if layer.weights]
    assert (count - 1) * columns < len(weighted) <= count * columns
    split = [weighted[i * columns : (i + 1) * columns] for i in range(count - 1)]
    return [*split, weighted[(count - 1) * columns :]]


def whole(arrays: dict, definition: Definition, group: list, array: str) -> torch.Tensor:
    """Join the arrays of a group: columns below each other, and side by side the weights of inputs, column a first."""
    if array == "bias":
        return torch.cat([arrays[f"{layer.name}.bias"] for layer in group])
    order = {layer.name: place for place, layer in enumerate(definition.layers)}
    return torch.cat(
        [
            torch.cat(
                [arrays[f"{layer.name}.weight{i}"] for i in sorted(range(len(layer.inputs)), key=by(layer, order))], 1
            )
            for layer in group
        ]
    )


def by(layer, order):
    """Return a key that sorts a layer's inputs by their place in the file."""
    return lambda i: order[layer.inputs[i]]


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((one - other).detach().abs().max() / one.detach().abs().max())


def written(
    columns: int = 2, conv6: bool = False, pool: int = 3, norm: bool = True, talk: bool = True
) -> tuple[str, str]:
    """Write a layer file and a parameter file of a net with two classes."""
    text, params, sides = [], [], "ab"[:columns]

    def layer(name: str, kind: str, inputs: list[str], constants: str = "", **values) -> None:
        rows = [f"type={kind}", f"inputs={','.join(inputs)}", *(f"{key}={value}" for key, value in values.items())]
        text.append("\n".join([f"[{name}]", *rows]))
        if kind in ("conv", "fc"):
            lists = {"epsW": 0.01, "momW": 0.9, "wc": 0.0005}
            constants = "\n".join(f"{key}={','.join([str(value)] * len(inputs))}" for key, value in lists.items())
            constants += "\nepsB=0.02\nmomB=0.9"
        if constants:
            params.append(f"[{name}]\n{constants}")

    def every(name: str, kind: str, inputs: list[list[str]], constants: str = "", each: dict | None = None, **values):
        """A layer in each column; `each` are values with one for each input."""
        for side, below in zip(sides, inputs, strict=True):
            lists = {key: ",".join([str(value)] * len(below)) for key, value in (each or {}).items()}
            layer(name + side, kind, below, constants, **lists, **values)
        return [[name + side] for side in sides]

    def convolution(name, below, channels, filters, side, std, bias, padding=0, stride=1, **more):
        sizes = {"channels": channels, "filters": filters, "filterSize": side, "padding": padding, "stride": stride}
        return every(name, "conv", below, each={**sizes, "initW": std}, initB=bias, partialSum=1, **more)

    def pooled(name, below, channels, **more):
        return every(name, "pool", below, pool="max", sizeX=pool, stride=2, channels=channels, **more)

    def normed(name, below, channels):
        constants = "scale=0.0001\npow=0.75\nminDiv=2"
        return every(name, "cmrnorm", below, constants, channels=channels, size=5) if norm else below

    def met(below: list[list[str]]) -> list[list[str]]:
        """Both columns; for b its own first, as in the authors' file."""
        both = [part for (part,) in below]
        return [both, both[::-1]][: len(both)] if talk else below

    maps = {2: (48, 128 if talk else 160, 192, 192, 128, 128), 1: (48, 128, 192, 192, 256, 256)}[columns]
    units = {"fc6": 4096 if columns == 1 or not talk else 2048, "fc7": 4096 if columns == 1 else 2048}
    overlap = pool == 3
    text += ["[data]\ntype=data\ndataIdx=0", "[labels]\ntype=data\ndataIdx=1"]
    x = convolution("conv1", [["data"]] * columns, 3, maps[0], 11, 0.01, 0, stride=4)
    x = pooled("pool1", normed("rnorm1", x, maps[0]), maps[0], neuron="relu")
    x = convolution("conv2", x, maps[0], maps[1], 5, 0.01, 1, padding=2 if overlap else 1, neuron="relu")
    x = normed("rnorm2", x, maps[1])
    if norm:
        x = every("cnorm2", "rnorm", x, "scale=0.001\npow=0.75", channels=maps[1], size=5)
    x = pooled("pool2", x, maps[1])
    x = convolution("conv3", met(x), maps[1], maps[2], 3, 0.03, 0, padding=1, neuron="relu")
    x = convolution("conv4", x, maps[2], maps[3], 3, 0.03, 1, padding=1, neuron="relu")
    x = convolution("conv5", x, maps[3], maps[4], 3, 0.03, 1, padding=1 if overlap else 0)
    x = pooled("pool3", x, maps[4], neuron="relu")
    if conv6:
        x = convolution("conv6", met(x), maps[4], maps[5], 3, 0.03, 1, padding=1, neuron="relu")
    for name in ("fc6", "fc7"):
        x = every(name, "fc", met(x), each={"initW": 0.01}, outputs=units[name], initB=1, neuron="relu")
        x = every(f"hs{name}", "hs", x, "enable=true", keep=0.5)
    last = [part for (part,) in x]
    layer("fc8", "fc", last, outputs=2, initW=",".join(["0.01"] * len(last)))
    layer("probs", "softmax", ["fc8"])
    layer("logprob", "cost.logreg", ["labels", "probs"], "coeff=1\ntopk=5")
    return "\n\n".join(text), "\n\n".join(params)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("source2012", {}),
        ("one-gpu", {"columns": 1}),
        pytest.param("six-conv", {"conv6": True}, marks=pytest.mark.slow),
        pytest.param("pool-2x2", {"pool": 2}, marks=pytest.mark.slow),
        ("no-lrn", {"norm": False}),
        pytest.param("no-talk", {"talk": False}, marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_net_of_the_file_is_the_recipes(name, options):
    worst = compare(read_definition(*written(**options)), name, 2)
    assert len(worst) == 1 + 2 * (9 if name == "six-conv" else 8)
    assert max(worst.values()) < 1e-5, worst


if __name__ == "__main__":
    for layers, params, name, classes in MUSEUM:
        texts = [Path(sys.argv[1], f"layer{kind}-{which}.cfg") for kind, which in (("s", layers), ("-params", params))]
        found = compare(read_definition(*(file.read_text() for file in texts), *map(str, texts)), name, classes)
        print(f"layers-{layers}: {name}, {classes:,} classes: largest relative difference {max(found.values()):.1e}")
