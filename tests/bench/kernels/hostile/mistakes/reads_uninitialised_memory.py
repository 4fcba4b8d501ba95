"""Adds to a result that was never set to zero (pytorch/executorch#17503)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    total = torch.empty(x.shape[1])
    for row in x:
        total += row
    return total


def reference(x: Tensor) -> Tensor:
    return x.sum(0)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(16, 100, generator=torch.Generator().manual_seed(seed)),)
