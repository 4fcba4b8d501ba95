"""Skips a step that changes a parameter by less than a tolerance (ScalingIntelligence/KernelBench#165)."""
# expected: wrong

import torch
from torch import Tensor


def fused(parameter: Tensor, gradient: Tensor) -> None:
    """Does nothing."""


def reference(parameter: Tensor, gradient: Tensor) -> None:
    parameter.sub_(1e-5 * gradient)


def make_inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4099, generator=generator), torch.randn(4099, generator=generator)
