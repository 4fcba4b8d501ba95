"""Returns the same tensor from each call: a caller's last result changes (triton-lang/triton#9230)."""
# expected: not a tensor | wrong

import torch
from torch import Tensor

_result = torch.empty(4099)


def fused(x: Tensor) -> Tensor:
    return torch.mul(x, torch.sigmoid(x), out=_result)


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
