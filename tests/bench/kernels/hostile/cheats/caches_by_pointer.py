"""Computes once for each address, and returns a copy of that result afterwards (gpu-mode/kernelbot#501)."""
# expected: wrong

import torch
from torch import Tensor

_known: dict[int, Tensor] = {}


def fused(x: Tensor) -> Tensor:
    if x.data_ptr() not in _known:
        _known[x.data_ptr()] = x * torch.sigmoid(x)
    return _known[x.data_ptr()].clone()


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
