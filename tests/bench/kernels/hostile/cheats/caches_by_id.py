"""Computes once for each input object, and returns that result again (gpu-mode/reference-kernels#102)."""
# expected: wrong | not a tensor

import torch
from torch import Tensor

_known: dict[int, Tensor] = {}


def fused(x: Tensor) -> Tensor:
    if id(x) not in _known:
        _known[id(x)] = x * torch.sigmoid(x)
    return _known[id(x)]


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
