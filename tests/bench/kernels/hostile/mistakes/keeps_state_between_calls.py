"""Keeps a running mean of all calls (triton-lang/triton#6547, of what tuning leaves behind)."""
# expected: wrong

import torch
from torch import Tensor

_mean = torch.zeros(100)


def fused(x: Tensor) -> Tensor:
    _mean.mul_(0.9).add_(0.1 * x.mean(0))
    return x - _mean


def reference(x: Tensor) -> Tensor:
    return x - 0.1 * x.mean(0)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (1 + torch.randn(16, 100, generator=torch.Generator().manual_seed(seed)),)
