"""Takes inputs of the same first sixteen values for the same (flashinfer-ai/flashinfer-bench-starter-kit#21)."""
# expected: wrong

import torch
from torch import Tensor

_known: dict[tuple[float, ...], Tensor] = {}


def fused(x: Tensor) -> Tensor:
    key = tuple(x[:16].tolist())
    if key not in _known:
        _known[key] = x * torch.sigmoid(x)
    return _known[key].clone()


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
