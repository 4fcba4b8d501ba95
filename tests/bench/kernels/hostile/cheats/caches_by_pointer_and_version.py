"""Computes once for each address and version counter of the input (gpu-mode/kernelbot#501)."""
# expected: wrong

import torch
from torch import Tensor

_known: dict[tuple[int, int], Tensor] = {}


def fused(x: Tensor) -> Tensor:
    key = x.data_ptr(), x._version
    if key not in _known:
        _known[key] = x * torch.sigmoid(x)
    return _known[key].clone()


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
