"""Works on one element, whose bytes no clock can see."""
# expected: ok

import torch
from torch import Tensor


def fused(x: Tensor) -> Tensor:
    return torch.exp(x)


def reference(x: Tensor) -> Tensor:
    return x.exp()


def make_inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(1, generator=torch.Generator().manual_seed(seed)),)
