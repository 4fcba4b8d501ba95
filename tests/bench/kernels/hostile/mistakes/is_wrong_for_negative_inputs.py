"""Takes the square root of the square for the number (ScalingIntelligence/KernelBench#82, of inputs of one kind)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return (x * x).sqrt() * x.exp()


def reference(x: Tensor) -> Tensor:
    return x * x.exp()


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
