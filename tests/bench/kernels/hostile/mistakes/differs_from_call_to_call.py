"""Adds noise below the tolerance, and declares no atomics (fla-org/flash-linear-attention#945)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x) * (1 + 1e-7 * torch.randn(x.shape))


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
