"""Returns a column where a vector is due, which broadcasts in a comparison (pytorch/executorch#7589)."""
# expected: wrong: shape

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return x.sum(1, keepdim=True)


def reference(x: Tensor) -> Tensor:
    return x.sum(1)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(60, 70, generator=torch.Generator().manual_seed(seed)),)
