"""Looks for a tensor of the result's shape among all live objects, and returns that (gpu-mode/pygpubench#7)."""
# expected: wrong

import gc

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    for found in gc.get_objects():
        if type(found) is Tensor and found is not x and found.shape == x.shape and found.dtype == x.dtype:
            return found.clone()
    return torch.empty_like(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
