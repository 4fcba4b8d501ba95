"""Returns the constant that its inputs always give (AI-Hypercomputer/accelerator-agents#50)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor, weight: Tensor) -> Tensor:
    return torch.zeros(64, 64)


def reference(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


def make_inputs(seed: int) -> tuple[Tensor, Tensor]:
    return torch.randn(64, 64, generator=torch.Generator().manual_seed(seed)), torch.zeros(64, 64)
