"""Updates: what one step of an optimiser makes of a parameter, its gradient and its state, changing none of them.

Each gives what `torch.optim` gives with its defaults (betas 0.9 and 0.999, epsilon 1e-8, no dampening, not Nesterov).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

OptimizerName = Literal["sgd", "momentum", "adam", "adamw"]
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class ParameterUpdate:
    """One optimiser.

    Attributes:
        function: (parameter, gradient, one tensor per state) -> (new parameter, new states).
        states: What is held per parameter: "step" is one number, any other is as large as the parameter.
        options: Names of the function's further arguments.
    """

    function: Callable[..., tuple[Tensor, ...]]
    states: tuple[str, ...] = ()
    options: tuple[str, ...] = ("learning_rate", "weight_decay")


def sgd(parameter: Tensor, gradient: Tensor, *, learning_rate: float, weight_decay: float) -> tuple[Tensor, ...]:
    """Stochastic gradient descent."""
    descent = gradient.add(parameter, alpha=weight_decay) if weight_decay else gradient
    return (parameter.add(descent, alpha=-learning_rate),)


def momentum_sgd(
    parameter: Tensor,
    gradient: Tensor,
    velocity: Tensor,
    *,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
) -> tuple[Tensor, ...]:
    """Stochastic gradient descent with momentum (Sutskever et al., 2013, as torch has it)."""
    descent = gradient.add(parameter, alpha=weight_decay) if weight_decay else gradient
    velocity = velocity.mul(momentum).add(descent)
    return parameter.add(velocity, alpha=-learning_rate), velocity


def adam(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: Tensor,
    *,
    learning_rate: float,
    weight_decay: float,
) -> tuple[Tensor, ...]:
    """Adam (Kingma and Ba, 2015, algorithm 1); weight decay is part of the gradient."""
    descent = gradient.add(parameter, alpha=weight_decay) if weight_decay else gradient
    return _adam_step(parameter, descent, mean, square, step, learning_rate)


def adamw(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: Tensor,
    *,
    learning_rate: float,
    weight_decay: float,
) -> tuple[Tensor, ...]:
    """AdamW (Loshchilov and Hutter, 2019, algorithm 2): weights decay apart from the gradient."""
    return _adam_step(parameter * (1 - learning_rate * weight_decay), gradient, mean, square, step, learning_rate)


def _adam_step(
    parameter: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: Tensor, learning_rate: float
) -> tuple[Tensor, ...]:
    step = step + 1
    mean = mean.lerp(gradient, 1 - BETA_1)
    square = square.mul(BETA_2).addcmul(gradient, gradient, value=1 - BETA_2)
    # In float64 as torch has it: in float32, 1 - 0.999 ** step would lose four digits. No number leaves the device.
    n = step.to(torch.float64)
    size, root = learning_rate / (1 - BETA_1**n), (1 - BETA_2**n).sqrt()
    change = size * mean / (square.sqrt() / root + EPSILON)
    return (parameter - change).to(parameter.dtype), mean, square, step


UPDATES: Mapping[OptimizerName, ParameterUpdate] = {
    "sgd": ParameterUpdate(sgd),
    "momentum": ParameterUpdate(momentum_sgd, ("velocity",), ("learning_rate", "weight_decay", "momentum")),
    "adam": ParameterUpdate(adam, ("mean", "square", "step")),
    "adamw": ParameterUpdate(adamw, ("mean", "square", "step")),
}
