"""Makes zeros of numbers below 1e-37, of which all results are some (ScalingIntelligence/KernelBench#165)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return torch.where((2 * x).abs() < 1e-37, 0.0, 2 * x)


def reference(x: Tensor) -> Tensor:
    return 2 * x


def make_inputs(seed: int) -> tuple[Tensor]:
    return (1e-38 * torch.rand(4099, generator=torch.Generator().manual_seed(seed)),)
