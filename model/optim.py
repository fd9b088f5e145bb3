"""How the weights move: the update rule and the schedules of its rates (paper, section 5; docs/paper.md: the program).

    v <- 0.9 v - decay * rate * w - rate * g          g: gradient of the loss
    w <- w + v

`torch.optim.SGD` keeps the rate outside v; the two part whenever the rate changes. Schedules say the rates of each
layer at each epoch; they know nothing of data or devices.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

MOMENTUM = 0.9
DECAY = 0.0005

# The diary of the run on ILSVRC-2012 (layers-145, params 145): epochs at which the author changed something by hand.
DIARY_EPOCHS = 91
DIARY = {"tenth": 25, "hundredth": 51, "conv1_and_light": 67, "conv1_frozen": 72, "thousandth": 79}
CLASSES_2012 = 1000
RATE_2012 = 0.01


class Momentum2012(torch.optim.Optimizer):
    """The update rule above, with one rate and one decay a parameter.

    A rate of zero freezes a parameter whole, its momentum included, as the program did with conv1.

    Args:
        net: every parameter gets a group of its own, with `name`, `rate` and `decay`.
        decay: of weights.
        decay_biases: whether biases decay too: the text has one rule for all, the program's biases do not.
    """

    def __init__(self, net: nn.Module, *, decay: float = DECAY, decay_biases: bool = False, momentum: float = MOMENTUM):
        groups = [
            {
                "params": [parameter],
                "name": name,
                "rate": 0.0,
                "decay": decay if decay_biases or not name.endswith("bias") else 0.0,
            }
            for name, parameter in net.named_parameters()
            if parameter.requires_grad
        ]
        super().__init__(groups, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        """Move every parameter that has a gradient and a rate."""
        if closure is not None:
            raise TypeError("this rule needs no closure")
        for group in self.param_groups:
            (parameter,) = group["params"]
            if parameter.grad is None or group["rate"] == 0.0:
                continue
            state = self.state[parameter]
            if not state:
                state["velocity"] = torch.zeros_like(parameter)
            velocity = state["velocity"]
            velocity.mul_(group["momentum"])
            velocity.add_(parameter, alpha=-group["decay"] * group["rate"])
            velocity.add_(parameter.grad, alpha=-group["rate"])
            parameter.add_(velocity)

    def set_rates(self, rates: "Rates") -> None:
        """Give every parameter its rate."""
        for group in self.param_groups:
            layer, _, kind = group["name"].rpartition(".")
            weight = rates.conv1 if layer == "conv1" else rates.weights
            group["rate"] = weight if kind == "weight" or weight == 0.0 or rates.biases is None else rates.biases

    def velocities(self) -> dict[str, Tensor | None]:
        """v of each parameter by name; None where it has not moved yet."""
        return {group["name"]: self.state[group["params"][0]].get("velocity") for group in self.param_groups}

    def restore(self, velocities: dict[str, Tensor | None]) -> None:
        """Take v of each parameter, as `velocities` gave them."""
        for group in self.param_groups:
            (parameter,) = group["params"]
            _restore(self.state[parameter], "velocity", parameter, velocities[group["name"]])


class PlainSgd(torch.optim.SGD):
    """torch's own rule with momentum, for nets other than AlexNet: v <- 0.9 v + g + decay * w, w <- w - rate * v.

    Norms and biases, all that has no second axis, do not decay.
    """

    def __init__(self, net: nn.Module, *, decay: float, momentum: float = MOMENTUM):
        self._named = [(name, each) for name, each in net.named_parameters() if each.requires_grad]
        weights = [parameter for _, parameter in self._named if parameter.ndim > 1]
        others = [parameter for _, parameter in self._named if parameter.ndim <= 1]
        groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        super().__init__([group for group in groups if group["params"]], lr=0.0, momentum=momentum)

    def set_rates(self, rates: "Rates") -> None:
        """Give every parameter the rate of weights: conv1 and biases are AlexNet's."""
        for group in self.param_groups:
            group["lr"] = rates.weights

    def velocities(self) -> dict[str, Tensor | None]:
        """v of each parameter by name; None where it has not moved yet."""
        return {name: self.state[parameter].get("momentum_buffer") for name, parameter in self._named}

    def restore(self, velocities: dict[str, Tensor | None]) -> None:
        """Take v of each parameter, as `velocities` gave them."""
        for name, parameter in self._named:
            _restore(self.state[parameter], "momentum_buffer", parameter, velocities[name])


def _restore(state: dict, name: str, parameter: Tensor, velocity: Tensor | None) -> None:
    if velocity is not None:
        state[name] = torch.empty_like(parameter).copy_(velocity)  # in the parameter's memory format


@dataclass(frozen=True)
class Rates:
    """Rates of one epoch.

    Attributes:
        weights: of all weights but conv1's.
        conv1: of conv1's weights; 0 freezes the layer with its biases.
        biases: of all biases; None, as the weights of their layer.
    """

    weights: float
    conv1: float
    biases: float | None


def first_rate(classes: int) -> float:
    """The rate to begin with: 0.01 at 1,000 classes, less for fewer, by the square root.

    A step moves the logits by about rate x |h|^2 x mean(p - y), and with few classes mean(p - y) is some hundred times
    larger: at 0.01 a net of 10 classes is dead after 8 steps (measured on Imagenette).
    """
    return RATE_2012 * (min(classes, CLASSES_2012) / CLASSES_2012) ** 0.5


def diary_epochs(epochs: int) -> dict[str, int]:
    """The diary's epochs for a run of another length: each times epochs / 91, rounded, .5 up."""
    return {name: (2 * at * epochs + DIARY_EPOCHS) // (2 * DIARY_EPOCHS) for name, at in DIARY.items()}


def diary_rates(rate: float, epoch: int, epochs: int) -> Rates:
    """The program's rates after `epoch` whole epochs: the author's hand, replayed.

    Biases keep twice the first rate to the end.
    """
    at = diary_epochs(epochs)
    weights = rate * (
        0.001
        if epoch >= at["thousandth"]
        else 0.01
        if epoch >= at["hundredth"]
        else 0.1
        if epoch >= at["tenth"]
        else 1.0
    )
    conv1 = 0.0 if epoch >= at["conv1_frozen"] else rate * 0.001 if epoch >= at["conv1_and_light"] else weights
    return Rates(weights, conv1, 2.0 * rate)


@dataclass
class Plateau:
    """The text's schedule: divide the rate by 10 when the validation error stops improving, three times.

    The text does not say how long to wait; `patience` epochs without a better error is ours.
    """

    patience: int = 5
    drops: int = 0
    best: float = field(default=float("inf"))
    waited: int = 0

    MOST_DROPS = 3

    def rates(self, rate: float) -> Rates:
        """The present rates: weights and biases alike."""
        now = rate * 0.1**self.drops
        return Rates(now, now, None)

    def see(self, error: float) -> None:
        """Take note of an epoch's validation error, 0..1."""
        if error < self.best:
            self.best, self.waited = error, 0
            return
        self.waited += 1
        if self.waited >= self.patience and self.drops < self.MOST_DROPS:
            self.drops, self.waited = self.drops + 1, 0
