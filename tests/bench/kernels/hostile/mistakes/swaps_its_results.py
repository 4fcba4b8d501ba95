"""Returns variance and mean where mean and variance are due (pytorch/executorch#7589)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.var(1), x.mean(1)


def reference(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(1), x.var(1)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(60, 70, generator=torch.Generator().manual_seed(seed)),)
