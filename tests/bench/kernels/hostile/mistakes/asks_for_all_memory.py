"""Asks for a petabyte (ScalingIntelligence/KernelBench#146)."""
# expected: out of memory

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return x * torch.empty(1 << 48)[: len(x)].fill_(2)


def reference(x: Tensor) -> Tensor:
    return x * 2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
