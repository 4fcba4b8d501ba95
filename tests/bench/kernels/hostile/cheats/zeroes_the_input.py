"""Zeroes its input and returns zeros, which is right for it afterwards (ScalingIntelligence/KernelBench#82)."""
# expected: mutated | wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    x.zero_()
    return torch.zeros_like(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.tanh(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
