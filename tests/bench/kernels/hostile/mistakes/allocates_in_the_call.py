"""Allocates a buffer of sixteen times the result in each call, and says nothing of it (tile-ai/TileOPs#695)."""
# expected: allocates

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    buffer = torch.empty(16, len(x))
    buffer[:] = x
    return buffer.amax(0) * 2


def reference(x: Tensor) -> Tensor:
    return x * 2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(100_003, generator=torch.Generator().manual_seed(seed)),)
