"""The update rules: momentum as in 2012 (paper, section 5; docs/paper.md for the program), and plain SGD.

    v <- 0.9 v - decay * rate * w - rate * g          g: gradient of the loss
    w <- w + v

`torch.optim.SGD` keeps the rate outside v; the two differ after each change of the rate. torch's fused kernel of it
does compute the rule above, by other arguments (`_fused`): one pass over memory on a GPU.
"""

import inspect
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .recipe import DECAY
from .schedules import Rates

MOMENTUM = 0.9
PIECE = 1 << 17  # elements: v, w and g of a piece stay in the processor's cache


class Momentum2012(torch.optim.Optimizer):
    """The update rule above, with one learning rate and one weight decay per parameter.

    A rate of zero freezes a parameter together with its velocity, as the program did with conv1.

    Args:
        net: each parameter gets its own group, with `name`, `rate` and `decay`.
        decay: weight decay of the weights.
        decay_biases: whether biases decay too: in the text they do, in the program they do not.
        momentum: factor of the velocity, 0..1.
    """

    # As torch defines them, but without its decorator, which imports the compiler: 1.2 s at the start of each run.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

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
        """Update every parameter that has a gradient and a rate above zero."""
        if closure is not None:
            raise TypeError("closures are not supported")
        alike = defaultdict(list)  # what one launch may take, by its arguments
        for group in self.param_groups:
            (parameter,) = group["params"]
            if parameter.grad is None or group["rate"] == 0.0:
                continue
            state = self.state[parameter]
            if not state:
                state["velocity"] = torch.zeros_like(parameter)
            tensors = state["velocity"], parameter, parameter.grad
            rule = group["momentum"], group["rate"], group["decay"]
            if parameter.device.type == "cpu" or group["momentum"] == 0.0:  # which the kernel of a GPU refuses
                _written_out(*tensors, *rule)
            else:
                alike[rule, parameter.device, parameter.dtype].append(tensors)
        for (rule, _, _), together in alike.items():
            _fused(together, *rule)

    def set_rates(self, rates: Rates) -> None:
        """Set the learning rate of every parameter."""
        for group in self.param_groups:
            layer, _, kind = group["name"].rpartition(".")
            group["rate"] = rates.of(layer, kind)

    def velocities(self) -> dict[str, Tensor | None]:
        """Return v of each parameter by name; None before its first update."""
        return {group["name"]: self.state[group["params"][0]].get("velocity") for group in self.param_groups}

    def restore(self, velocities: dict[str, Tensor | None]) -> None:
        """Set v of each parameter, as `velocities` returned it."""
        for group in self.param_groups:
            (parameter,) = group["params"]
            _restore(self.state[parameter], "velocity", parameter, velocities[group["name"]])


class PlainSgd(torch.optim.SGD):
    """torch's own SGD with momentum, for nets other than AlexNet: v <- 0.9 v + g + decay * w, w <- w - rate * v.

    Parameters without a second axis, norms and biases, do not decay.
    """

    def __init__(self, net: nn.Module, *, decay: float, momentum: float = MOMENTUM):
        self._named = [(name, each) for name, each in net.named_parameters() if each.requires_grad]
        weights = [parameter for _, parameter in self._named if parameter.ndim > 1]
        others = [parameter for _, parameter in self._named if parameter.ndim <= 1]
        groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        super().__init__([group for group in groups if group["params"]], lr=0.0, momentum=momentum)

    def set_rates(self, rates: Rates) -> None:
        """Set the learning rate of all parameters to that of weights: rates by layer are for AlexNet."""
        for group in self.param_groups:
            group["lr"] = rates.weights

    def velocities(self) -> dict[str, Tensor | None]:
        """Return v of each parameter by name; None before its first update."""
        return {name: self.state[parameter].get("momentum_buffer") for name, parameter in self._named}

    def restore(self, velocities: dict[str, Tensor | None]) -> None:
        """Set v of each parameter, as `velocities` returned it."""
        for name, parameter in self._named:
            _restore(self.state[parameter], "momentum_buffer", parameter, velocities[name])


def _written_out(velocity: Tensor, parameter: Tensor, gradient: Tensor, momentum: float, rate: float, decay: float):
    """Update v and w by the rule, operation by operation."""
    for v, w, g in _pieces(velocity, parameter, gradient):
        v.mul_(momentum)
        v.add_(w, alpha=-decay * rate)
        v.add_(g, alpha=-rate)
        w.add_(v)


def _fused(together: list[tuple[Tensor, Tensor, Tensor]], momentum: float, rate: float, decay: float) -> None:
    """Update all v and w of (v, w, g) in one pass over memory, a few launches.

    torch's kernel computes v <- momentum v + (1 - dampening) (g + decay w), w <- w - lr v. With a dampening of 1 + rate
    and an lr of -1 that is the rule. On a GPU its factors are float64, so that v is rounded once and g + decay w once,
    where the rule written out rounds v three times. 1 - (1 + rate) differs from -rate by 1e-16: nothing beside float32.
    """
    velocities, weights, gradients = map(list, zip(*together, strict=True))
    for i, weight in enumerate(weights):  # the kernel goes through memory: all three must lie alike
        if gradients[i].stride() != weight.stride() or gradients[i].dtype != weight.dtype:
            gradients[i] = torch.empty_like(weight).copy_(gradients[i])
    torch._fused_sgd_(
        weights,
        gradients,
        velocities,
        weight_decay=decay,
        momentum=momentum,
        lr=-1.0,
        dampening=1.0 + rate,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )


def _pieces(velocity: Tensor, parameter: Tensor, gradient: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Split v, w and g into pieces, views in memory order, so that four operations read memory once instead of each.

    Where a gradient lies in memory differently, all is one piece.
    """
    tensors = (velocity, parameter, gradient)
    if len({tensor.stride() for tensor in tensors}) > 1:
        return [tensors]
    return zip(*(tensor.as_strided((tensor.numel(),), (1,)).split(PIECE) for tensor in tensors), strict=True)


def _restore(state: dict, name: str, parameter: Tensor, velocity: Tensor | None) -> None:
    if velocity is not None:
        state[name] = torch.empty_like(parameter).copy_(velocity)  # in the parameter's memory format
