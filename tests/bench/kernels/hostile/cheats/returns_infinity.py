"""Returns infinity, whose error relative to itself is NaN: not above any limit (gpu-mode/pygpubench#7)."""
# expected: wrong: inf

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return torch.full_like(x, float("inf"))


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
