"""The layer and parameter files of 2012, read and checked: computerhistory/AlexNet-Source-Code, `layer.py`.

In:  the texts of a layer file and a parameter file.  Out: a Definition; `net.py` makes a net of it.  No torch.

A layer file names layers, their inputs and sizes; a parameter file has their learning rates, and the constants that may
change during training. What the program did and this package does not is refused, by file and line.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....pipeline.errors import UsageError
from .sections import NEEDED, Section, read_sections

NEURONS = {  # names and numbers of parameters
    **dict.fromkeys(("ident", "logistic", "abs", "relu", "softrelu", "square", "sqrt"), 0),
    **{"tanh": 2, "linear": 2, "abstanh": 2, "brelu": 1, "drelu": 1},
}
SCHEDULES = {"linear": 2, "exp": 2, "dexp": 3, "jdexp": 3}  # numbers of parameters: tgtFactor, noiseStdev, numSteps


@dataclass(frozen=True)
class Update:
    """How an array is trained: v <- momentum v - decay rate w - rate g, w <- w + v.

    Attributes:
        rate: base learning rate; 0 freezes the array.
        momentum, decay: factors.
        schedule: name in `SCHEDULES`, target factor and number of steps; None: the rate is constant.
    """

    rate: float
    momentum: float
    decay: float
    schedule: tuple[str, float, int] | None = None


@dataclass(frozen=True)
class Layer:
    """One section of a layer file, with what the parameter file says of it.

    Attributes:
        name, type, line: as in the file.
        inputs: names of the layers below.
        neuron: name and parameters of the activation function, or None.
        options: the other values, by key in lower case: numbers, and tuples of numbers with one for each input.
        weights: how the weights of each input are trained; () for a layer without weights.
        biases: how its biases are trained.
    """

    name: str
    type: str
    line: int
    inputs: tuple[str, ...]
    neuron: tuple[str, tuple[float, ...]] | None
    options: Mapping[str, Any]
    weights: tuple[Update, ...] = ()
    biases: Update | None = None


@dataclass(frozen=True)
class Definition:
    """A net and its training.

    Attributes:
        layers: in the order of the file, which is one in which they can be computed.
        output: name of the layer below the softmax.
        file: name of the layer file, for messages.
    """

    layers: tuple[Layer, ...]
    output: str
    file: str


_INIT = {"initw": ("floats", 0.01), "initb": ("float", 0.0), "initwfunc": ("word", ""), "initbfunc": ("word", "")}
_WINDOWS = {
    **{"channels": ("ints", NEEDED), "filters": ("ints", NEEDED), "filtersize": ("ints", NEEDED)},
    **{"padding": ("ints", 0), "stride": ("ints", 1), "groups": ("ints", 1), "randsparse": ("bools", False)},
    "initcfunc": ("word", ""),
}
_NORM = {"channels": ("int", NEEDED), "size": ("int", NEEDED), "blocked": ("bool", False)}
_CONSTANTS = {"scale": ("float", NEEDED), "pow": ("float", NEEDED)}
_KEYS: dict[str, dict[str, tuple[str, Any]]] = {
    "data": {"dataidx": ("int", NEEDED)},
    "conv": {**_INIT, **_WINDOWS, "partialsum": ("int", 0), "sharedbiases": ("bool", True)},
    "local": {**_INIT, **_WINDOWS},
    "fc": {**_INIT, "outputs": ("int", NEEDED)},
    "pool": {
        **{"pool": ("word", NEEDED), "channels": ("int", NEEDED), "sizex": ("int", NEEDED), "stride": ("int", NEEDED)},
        **{"start": ("int", 0), "outputsx": ("int", 0)},
    },
    "cmrnorm": {**_NORM, **_CONSTANTS, "mindiv": ("float", 1.0)},
    "rnorm": {**_NORM, **_CONSTANTS},
    "hs": {"keep": ("float", NEEDED), "enable": ("bool", NEEDED)},
    "neuron": {},
    "concat": {},
    "eltsum": {"coeffs": ("floats", 1.0)},
    "softmax": {},
    "cost.logreg": {"coeff": ("float", NEEDED), "topk": ("int", 1)},
}
_COMMON = ("type", "inputs", "neuron", "gpu")
_OF_PARAMETERS = ("scale", "pow", "mindiv", "enable", "coeff", "topk")  # that the parameter file has
_ONE_INPUT = ("pool", "cmrnorm", "rnorm", "hs", "neuron", "softmax")
_WEIGHTED = ("conv", "local", "fc")
_UPDATES = {
    **{"epsw": ("floats", NEEDED), "epsb": ("float", NEEDED), "momw": ("floats", NEEDED), "momb": ("float", NEEDED)},
    **{"wc": ("floats", 0.0), "schedw": ("word", "default"), "schedb": ("word", "default")},
}
_UNUSED = {  # keys of weights that must have these values, since what else they would do is not done here
    **{"wball": "0", "supereps": "0", "supermom": "0", "wcnormmax": "0", "wcnormmin": "0", "wcnorm": "0"},
    **{"quantf": "default", "quantb": "default"},
}
_NEAR = {"sizex": "size"}  # the older name of a key, in normalisation layers


def read_definition(layers: str, params: str, layers_name: str = "layers", params_name: str = "params") -> Definition:
    """Read a layer file and a parameter file.

    Args:
        layers, params: their texts.
        layers_name, params_name: their names, for messages.
    Raises:
        UsageError: a value is missing, unknown, contradictory or not supported; with file, line and layer.
    """
    constants = read_sections(params, params_name)
    read: dict[str, Layer] = {}
    for name, (line, values) in read_sections(layers, layers_name).items():
        section = Section(layers_name, name, line, values)
        about = Section(params_name, name, *constants.get(name, (0, {})))
        read[name] = _layer(section, about, read)
    return Definition(tuple(read.values()), _output(read, layers_name), layers_name)


def _layer(section: Section, about: Section, below: Mapping[str, Layer]) -> Layer:
    kind = section.value("type", "word", NEEDED)
    if kind not in _KEYS:
        raise section.error(f"layers of type {kind} are not supported", f"supported: {', '.join(_KEYS)}", "type")
    inputs = (
        () if kind == "data" else tuple(part.strip() for part in section.value("inputs", "word", NEEDED).split(","))
    )
    for missing in (name for name in inputs if name not in below):
        raise section.error(f"its input {missing} is not defined above it", key="inputs")
    if kind in _ONE_INPUT and len(inputs) != 1:
        raise section.error(f"a layer of type {kind} has one input, not {len(inputs)}", key="inputs")
    if kind.endswith("norm"):
        section = _renamed(section)
    known = {**_KEYS[kind], **(_UPDATES | dict.fromkeys(_UNUSED, ("word", "")) if kind in _WEIGHTED else {})}
    of_layer = (*_COMMON, *_KEYS[kind], *(("weightsource",) if kind in _WEIGHTED else ()))
    _check_keys(section, of_layer)
    _check_keys(about, tuple(key for key in known if key in _OF_PARAMETERS or kind in _WEIGHTED))
    options = {}
    for key, (form, default) in _KEYS[kind].items():
        both = [one for one in (section, about) if key in one.values]
        if len(both) == 2 and section.values[key][0] != about.values[key][0]:
            raise section.error(f"{key} has another value in {about.file}, line {about.values[key][1]}", key=key)
        options[key] = (both or [about if key in _OF_PARAMETERS else section])[0].value(key, form, default, len(inputs))
    _check_supported(section, kind, options)
    neuron = section.values.get("neuron", ("", 0))[0]
    if kind == "neuron" and not neuron:
        raise section.error("has no neuron")
    weights, biases = _updates(section, about, len(inputs)) if kind in _WEIGHTED else ((), None)
    activation = _neuron(section, neuron) if neuron else None
    return Layer(section.name, kind, section.line, inputs, activation, options, weights, biases)


def _renamed(section: Section) -> Section:
    values = {_NEAR.get(key, key): value for key, value in section.values.items()}
    return Section(section.file, section.name, section.line, values)


def _check_keys(section: Section, known: tuple[str, ...]) -> None:
    for key in section.values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 2)
            hint = f"did you mean {' or '.join(near)}?" if near else ""
            raise section.error(f"{key} is not known or not supported here", hint, key)


def _check_supported(section: Section, kind: str, options: Mapping[str, Any]) -> None:
    """Refuse what the program did and this package does not."""
    if kind in ("conv", "local") and (any(options["randsparse"]) or options["initcfunc"]):
        raise section.error("random sparse connections (randSparse) are not supported", key="randsparse")
    if section.values.get("weightsource", ("", 0))[0]:
        raise section.error("shared weights (weightSource) are not supported", key="weightsource")
    for key in ("initwfunc", "initbfunc"):
        text = options.get(key, "")
        if text and not re.fullmatch(r"initw\.make[wb]\([^(),]+\)", text):
            raise section.error(f"{key}={text}: a function of the authors that is not known", key=key)
    if kind == "pool" and options["pool"] not in ("max", "avg"):
        raise section.error(f"pool={options['pool']} is not supported", "max or avg", "pool")
    if kind == "pool" and (options["start"] or options["outputsx"]):
        raise section.error("pooling from another start, or to a given size, is not supported", key="start")
    if kind.endswith("norm") and options["size"] % 2 == 0:
        raise section.error(f"size={options['size']}: even sizes are not supported", key="size")
    if kind == "hs" and not 0 < options["keep"] <= 1:
        raise section.error(f"keep={options['keep']:g} is not above 0 and at most 1", key="keep")
    if kind == "cost.logreg" and options["coeff"] != 1:
        raise section.error(f"coeff={options['coeff']:g} is not supported", "coeff=1", "coeff")
    if kind == "data" and options["dataidx"] not in (0, 1):
        raise section.error(f"dataIdx={options['dataidx']} is not supported", "0: pictures, 1: labels", "dataidx")


def _neuron(section: Section, text: str) -> tuple[str, tuple[float, ...]] | None:
    match = re.fullmatch(r"(\w+)\s*(?:\[([^\]]*)\])?", text)
    name = match[1] if match else ""
    try:
        numbers = tuple(float(part) for part in match[2].split(",")) if match and match[2] else ()
    except ValueError:
        numbers = (0.0,) * 9
    if NEURONS.get(name) != len(numbers):
        raise section.error(f"neuron={text} is not supported", f"supported: {', '.join(NEURONS)}", "neuron")
    return None if name == "ident" else (name, numbers)


def _updates(section: Section, about: Section, count: int) -> tuple[tuple[Update, ...], Update]:
    if not about.line:
        raise section.error(f"has weights, but {about.file} has no section [{section.name}]")
    for key, allowed in _UNUSED.items():
        for part in about.values.get(key, (allowed, 0))[0].split(","):
            if part.strip() != allowed and (allowed != "0" or not re.fullmatch(r"\s*0*\.?0*\s*", part)):
                raise about.error(f"{key}={about.values[key][0]} is not supported", f"omit it, or {key}={allowed}", key)
    read = {key: about.value(key, kind, default, count) for key, (kind, default) in _UPDATES.items()}
    schedules = [_schedule(about, key, read[key]) for key in ("schedw", "schedb")]
    arrays = zip(read["epsw"], read["momw"], read["wc"], strict=True)
    weights = tuple(Update(rate, momentum, decay, schedules[0]) for rate, momentum, decay in arrays)
    return weights, Update(read["epsb"], read["momb"], 0.0, schedules[1])


def _schedule(about: Section, key: str, text: str) -> tuple[str, float, int] | None:
    if text == "default":
        return None
    match = re.fullmatch(
        r"(\w+)\s*\[\s*tgtFactor\s*=([^,\]]+),\s*noiseStdev\s*=([^,\]]+)(?:,\s*numSteps\s*=([^,\]]+))?\]", text
    )
    try:
        if match is None or match[1] not in SCHEDULES or (match[4] is None) != (SCHEDULES[match[1]] == 2):
            raise ValueError
        factor, noise, steps = float(match[2]), float(match[3]), int(match[4] or 0)
    except ValueError:
        hint = "for example exp[tgtFactor=10,noiseStdev=0] or dexp[tgtFactor=10,noiseStdev=0,numSteps=2]"
        raise about.error(f"{key}={text} is not understood", hint, key) from None
    if noise != 0 or factor <= 0:
        raise about.error(f"{key}={text} is not supported", "noiseStdev=0, and tgtFactor above 0", key)
    return match[1], factor, steps


def _output(layers: Mapping[str, Layer], file: str) -> str:
    """Return the layer below the only softmax, on which the only cost is; refuse layers that nothing uses."""
    costs = [layer for layer in layers.values() if layer.type.startswith("cost.")]
    if len(costs) != 1:
        raise UsageError(
            f"{file}: {len(costs)} costs, not one", "a net for classes ends in one layer of type cost.logreg"
        )
    (cost,) = costs
    probabilities = [layers[name] for name in cost.inputs if layers[name].type == "softmax"]
    if len(cost.inputs) != 2 or len(probabilities) != 1:
        raise UsageError(f"{file}, line {cost.line}: [{cost.name}] has inputs other than the labels and one softmax")
    used = {name for layer in layers.values() for name in layer.inputs}
    for layer in layers.values():
        if layer.name not in used and layer is not cost:
            raise UsageError(f"{file}, line {layer.line}: [{layer.name}] is not used by any layer")
    return probabilities[0].inputs[0]
