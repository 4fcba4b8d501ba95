"""Updates a parameter, and leaves its momentum as it was (triton-lang/triton#781)."""
# expected: wrong

import torch
from torch import Tensor


def fused(parameter: Tensor, gradient: Tensor, momentum: Tensor) -> None:
    parameter.sub_(0.1 * (0.9 * momentum + gradient))


def reference(parameter: Tensor, gradient: Tensor, momentum: Tensor) -> None:
    momentum.mul_(0.9).add_(gradient)
    parameter.sub_(0.1 * momentum)


def make_inputs(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [torch.randn(4099, generator=generator) for _ in range(3)]
    return shapes[0], shapes[1], shapes[2]
