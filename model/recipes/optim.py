"""How the weights move: the update rule (paper, section 5; docs/paper.md: the program). Its rates: schedules.py.

    v <- 0.9 v - decay * rate * w - rate * g          g: gradient of the loss
    w <- w + v

`torch.optim.SGD` keeps the rate outside v; the two part whenever the rate changes.
"""

import torch
from torch import Tensor, nn

from .recipe import DECAY
from .schedules import Rates

MOMENTUM = 0.9


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

    def set_rates(self, rates: Rates) -> None:
        """Give every parameter its rate."""
        for group in self.param_groups:
            layer, _, kind = group["name"].rpartition(".")
            group["rate"] = rates.of(layer, kind)

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

    def set_rates(self, rates: Rates) -> None:
        """Give every parameter the rate of weights: rates by layer are AlexNet's."""
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
