"""Reads from address zero (pytorch/helion#2700)."""
# expected: crashed

import ctypes

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    ctypes.string_at(0, 16)
    return x * 2


def reference(x: Tensor) -> Tensor:
    return x * 2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
