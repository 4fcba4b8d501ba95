"""Is wrong by a half where rows are a million times smaller than others (ScalingIntelligence/KernelBench#165)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * x, 3e-6 * x


def reference(x: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * x, 2e-6 * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
