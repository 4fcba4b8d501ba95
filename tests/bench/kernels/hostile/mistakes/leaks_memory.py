"""Keeps a tensor of each call for good (tile-ai/TileOPs#695, of memory that nobody counts)."""
# expected: allocates | not a tensor | out of memory

import torch
from torch import Tensor

_kept: list[Tensor] = []


def fused(x: Tensor) -> Tensor:
    _kept.append(x.sigmoid().repeat(8))
    return x * 2


def reference(x: Tensor) -> Tensor:
    return x * 2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(100_003, generator=torch.Generator().manual_seed(seed)),)
