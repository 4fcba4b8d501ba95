"""Returns the maximum without its index (pytorch/executorch#7589, of checks that count nothing)."""
# expected: wrong | not a tensor

import torch
from torch import Tensor


def fused(x: Tensor) -> tuple[Tensor]:
    return (x.amax(1),)


def reference(x: Tensor) -> tuple[Tensor, Tensor]:
    values, indices = x.max(1)
    return values, indices


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(60, 70, generator=torch.Generator().manual_seed(seed)),)
