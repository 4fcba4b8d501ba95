"""Updates two of its three arguments, and returns nothing."""
# expected: ok

import torch
from torch import Tensor


def fused(parameter: Tensor, gradient: Tensor, momentum: Tensor) -> None:
    momentum.mul_(0.9).add_(gradient)
    parameter.add_(momentum, alpha=-0.1)


def reference(parameter: Tensor, gradient: Tensor, momentum: Tensor) -> None:
    momentum.copy_(0.9 * momentum + gradient)
    parameter.sub_(0.1 * momentum)


def make_inputs(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second, third = torch.randn(3, 4099, generator=generator).unbind()
    return first.clone(), second.clone(), third.clone()
