"""A function of autograd, whose backward is not asked for."""
# expected: ok

from typing import Any

import torch
from torch import Tensor


class Square(torch.autograd.Function):
    """A square with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x * grads[0]


def fused(x: Tensor) -> Tensor:
    return Square.apply(x)


def reference(x: Tensor) -> Tensor:
    return x**2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
