"""Forgets to return its result (ScalingIntelligence/KernelBench#82)."""
# expected: not a tensor | wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> None:
    torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
