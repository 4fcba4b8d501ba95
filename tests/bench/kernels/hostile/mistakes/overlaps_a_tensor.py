"""Reads an input after it has written over it, where both are given in place (triton-lang/triton#9230)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> None:
    for i in range(1, 50):
        x[i] += x[i - 1]


def reference(x: Tensor) -> None:
    x[1:50] += x[:49].clone()


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(60, 10, generator=torch.Generator().manual_seed(seed)),)
