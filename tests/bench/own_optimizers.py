"""Optimizers as a person would write them, right and wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import SGD, Optimizer


class SignSGD(Optimizer):
    """w <- w - lr sign(momentum-averaged gradient)."""

    def __init__(self, params: Iterable[Parameter], lr: float = 0.1, beta: float | None = 0.9) -> None:
        if beta is not None and not 0 <= beta < 1:
            raise ValueError(f"beta is {beta}")
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update every parameter."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                mean.lerp_(parameter.grad, 1 - (group["beta"] or 0))
                parameter.add_(mean.sign(), alpha=-group["lr"])


def by_function(parameters: list[Parameter], lr: float, momentum: float = 0.0) -> Optimizer:
    """Vectors are stepped at half the rate."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim == 1], "lr": lr / 2},
    ]
    return SGD(groups, lr=lr, momentum=momentum)  # type: ignore[arg-type]


def without_rate(params: list[Parameter], learning_rate: float = 0.1) -> Optimizer:
    return SGD(params, lr=learning_rate)


def no_optimizer(params: list[Parameter], lr: float) -> str:
    return "not an optimizer"


def of_something_else(params: list[Parameter], lr: float) -> Optimizer:
    return SGD([Parameter(torch.ones(1))], lr=lr)


class Rateless(Optimizer):
    """Keeps no rate in its groups."""

    def __init__(self, params: Iterable[Parameter], lr: float) -> None:
        super().__init__(params, {})


RATE = 3
