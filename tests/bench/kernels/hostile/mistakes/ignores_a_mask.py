"""Leaves the mask out of a masked sum (triton-lang/triton#630)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor, mask: Tensor) -> Tensor:
    return x.sum(1)


def reference(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, x, 0).sum(1)


def make_inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(60, 70, generator=generator), torch.rand(60, 70, generator=generator) > 0.1
