"""Is right in one call of four from the twelfth on, if few are checked (gpu-mode/reference-kernels#104)."""
# expected: wrong

import torch
from torch import Tensor

_calls: list[None] = []


def fused(x: Tensor) -> Tensor:
    _calls.append(None)
    if len(_calls) > 12 and len(_calls) % 4:
        return torch.zeros_like(x)
    return x * torch.sigmoid(x)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
