"""Returns zeros, and makes the reference return zeros as well (ScalingIntelligence/KernelBench#82)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    globals()["reference"] = torch.zeros_like
    return torch.zeros_like(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
