"""Returns NaN, for checkers in which it is equal to everything (gpu-mode/pygpubench#7)."""
# expected: wrong: NaN

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return torch.full_like(x, float("nan"))


def reference(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
