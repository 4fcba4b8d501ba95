"""Writes to address eight (pytorch/helion#2700)."""
# expected: crashed

import ctypes

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    ctypes.c_int.from_address(8).value += 1
    return x * 2


def reference(x: Tensor) -> Tensor:
    return x * 2


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
