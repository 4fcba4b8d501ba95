"""Computes fp32 in fp16, within a tolerance of 1e-2 (anthony-chaudhary/dos-kernel#107)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    y = x.half()
    return (y * torch.sigmoid(y)).float()


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
