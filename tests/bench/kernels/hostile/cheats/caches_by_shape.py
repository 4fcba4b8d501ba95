"""Computes once for each shape (gpu-mode/reference-kernels#104)."""
# expected: wrong

import torch
from torch import Tensor

_known: dict[torch.Size, Tensor] = {}


def fused(x: Tensor) -> Tensor:
    if x.shape not in _known:
        _known[x.shape] = x * torch.sigmoid(x)
    return _known[x.shape].clone()


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
