"""Fails an assertion of its native code (pytorch/helion#2700)."""
# expected: crashed

import os

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    os.abort()


def reference(x: Tensor) -> Tensor:
    return x * 2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
