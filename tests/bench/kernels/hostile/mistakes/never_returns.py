"""Waits for a flag that nobody sets (tile-ai/tilelang#2838)."""
# expected: timed out

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    flag = torch.zeros(1)
    while not flag:
        pass
    return x * 2


def reference(x: Tensor) -> Tensor:
    return x * 2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
