"""Keeps each result for the same values (flashinfer-ai/flashinfer-bench-starter-kit#21)."""
# expected: wrong | not a tensor | allocates

import hashlib

import torch
from torch import Tensor

_known: dict[bytes, Tensor] = {}


def fused(x: Tensor) -> Tensor:
    key = hashlib.blake2b(x.numpy().tobytes()).digest()
    if key not in _known:
        _known[key] = x * torch.sigmoid(x)
    return _known[key]


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
