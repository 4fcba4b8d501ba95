"""Accumulates 16-bit products in 16 bits, step by step (pytorch/pytorch#40302, of sums)."""
# expected: wrong
# dtype: bfloat16

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    total = torch.zeros(x.shape[0], dtype=x.dtype)
    for column in x.unbind(1):
        total += column
    return total


def reference(x: Tensor) -> Tensor:
    return x.sum(1)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.rand(16, 500, generator=torch.Generator().manual_seed(seed)).bfloat16(),)
