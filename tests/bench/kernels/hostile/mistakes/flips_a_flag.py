"""Is wrong in one boolean of four thousand (triton-lang/triton#9991)."""
# expected: wrong

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    y = x > 0
    y[2000] ^= True
    return y


def reference(x: Tensor) -> Tensor:
    return x > 0


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4099, generator=torch.Generator().manual_seed(seed)),)
