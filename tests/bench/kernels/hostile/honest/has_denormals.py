"""Keeps numbers below the smallest normal one."""
# expected: ok

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return torch.mul(x, 0.5)


def reference(x: Tensor) -> Tensor:
    return x / 2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (1e-38 * torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
