"""Returns zeros where results are below an absolute tolerance (ScalingIntelligence/KernelBench#165)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def reference(x: Tensor) -> Tensor:
    return torch.softmax(x, 0) / 10_000


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
